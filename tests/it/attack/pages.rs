use std::io::{Read, Write};
use std::net::TcpStream;

use super::done;
use crate::routes::{NO_STREAMS, Route, own_status, routes};
use crate::server::{PATIENCE, Server, metrics};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// Sends a request with this first line and these headers; a POST has an event. Returns the status and the head of the
/// answer.
fn exchange(server: &Server, line: &str, headers: &[&str]) -> (u16, String) {
    let body = if line.starts_with('P') { done("c", "t") } else { String::new() };
    let typed = headers.iter().any(|header| header.starts_with("content-type"));
    let content_type = if typed { "" } else { "content-type: application/x-ndjson\r\n" };
    let fields: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
    let length = body.len();
    let request =
        format!("{line}\r\n{fields}connection: close\r\n{content_type}content-length: {length}\r\n\r\n{body}");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, _) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase())
}

fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[NO_STREAMS]);
    (directory, server)
}

fn assert_nothing_was_taken_in(server: &Server) {
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
}

#[test]
fn no_route_answers_requests_for_a_host_name_of_an_attacker() {
    let (_directory, server) = server();
    let hosts = [
        "evil.example",
        "localhost.",
        "localhost.evil.example",
        "127.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "0",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::1].evil.example",
        "::1",
        "localhost@evil.example",
        "evil.example@localhost",
    ];
    for Route { path, .. } in routes() {
        for host in hosts {
            for method in METHODS {
                for version in ["1.0", "1.1"] {
                    let line = format!("{method} {path} HTTP/{version}");
                    let (status, _) = exchange(&server, &line, &[&format!("host: {host}")]);
                    assert_eq!(status, 421, "{line} of {host}");
                }
            }
        }
        // The host of an absolute target outranks the `Host` header.
        for host in ["evil.example", "localhost.", "127.evil.example", "[::ffff:127.0.0.1]"] {
            for version in ["1.0", "1.1"] {
                let line = format!("GET http://{host}{path} HTTP/{version}");
                assert_eq!(exchange(&server, &line, &["host: localhost"]).0, 421, "{line}");
            }
        }
    }
    assert_nothing_was_taken_in(&server);

    // Control: if `Host` has a name of this machine, every route answers as usual.
    for Route { path, methods, .. } in routes() {
        for host in ["localhost", "127.0.0.1:1", "[::1]"] {
            let line = format!("{} {path} HTTP/1.1", methods[0]);
            let (status, _) = exchange(&server, &line, &[&format!("host: {host}")]);
            // An earlier request of this loop may have sealed a turn, or erased it.
            let done = if methods[0] == "DELETE" { 204 } else { 200 };
            assert!([done, own_status(&path)].contains(&status), "{line} of {host}: {status}");
        }
    }
}

/// What browsers send for the things that a page of another origin can do.
const PAGES: [(&str, &[&str]); 9] = [
    ("fetch", &["origin: https://evil.example", "sec-fetch-site: cross-site", "sec-fetch-mode: cors"]),
    ("fetch without Sec-Fetch", &["origin: https://evil.example"]),
    ("sandboxed frame", &["origin: null", "sec-fetch-site: cross-site", "sec-fetch-mode: cors"]),
    ("another port", &["origin: http://localhost:1", "sec-fetch-site: same-site", "sec-fetch-mode: cors"]),
    ("image", &["sec-fetch-site: cross-site", "sec-fetch-mode: no-cors", "sec-fetch-dest: image"]),
    (
        "form",
        &[
            "origin: https://evil.example",
            "sec-fetch-site: cross-site",
            "sec-fetch-mode: navigate",
            "content-type: text/plain",
        ],
    ),
    ("link", &["sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "sec-fetch-dest: document"]),
    ("EventSource", &["origin: https://evil.example", "sec-fetch-site: cross-site", "accept: text/event-stream"]),
    (
        "WebSocket",
        &[
            "origin: https://evil.example",
            "sec-fetch-site: cross-site",
            "upgrade: websocket",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version: 13",
        ],
    ),
];

#[test]
fn a_page_gets_from_each_route_what_the_route_allows_and_changes_nothing() {
    let (_directory, server) = server();
    for Route { path, pages, .. } in routes() {
        for (what, headers) in PAGES {
            let headers: Vec<_> = [&["host: localhost"], headers].concat();
            let has_origin = headers.iter().any(|header| header.starts_with("origin"));
            for method in METHODS {
                let line = format!("{method} {path} HTTP/1.1");
                let (status, head) = exchange(&server, &line, &headers);
                let is_read = matches!(method, "GET" | "HEAD");
                let allowed = match pages.as_str() {
                    "OfAllowedOrigins" => is_read && what != "image",
                    "Unread" => is_read,
                    "OfOwnOrigin" | "Programs" => false,
                    other => panic!("no expectation of {other}"),
                };
                if is_read {
                    assert_eq!(status, if allowed { own_status(&path) } else { 403 }, "{what}: {line}");
                } else {
                    assert!((400..500).contains(&status), "{what}: {line}: {status}");
                }
                // An `OPTIONS` only lists the allowed methods. For a page, a browser sends it only as a preflight.
                let may_read = pages == "OfAllowedOrigins" && has_origin && (is_read || method == "OPTIONS");
                let is_granted = head.contains("access-control-allow-origin");
                assert!(may_read || !is_granted, "{what}: {line}: {head}");
                assert!(is_granted || !may_read || method != "GET", "{what}: {line}: {head}");
                assert!(!head.contains("access-control-allow-credentials"), "{what}: {line}: {head}");
            }
        }
        // No preflight allows a page to change anything.
        let headers = ["host: localhost", "origin: https://evil.example", "access-control-request-method: POST"];
        let (_, head) = exchange(&server, &format!("OPTIONS {path} HTTP/1.1"), &headers);
        let granted = head.lines().find(|line| line.starts_with("access-control-allow-methods"));
        assert!(!granted.is_some_and(|methods| methods.contains("post")), "{path}: {head}");
    }
    assert_nothing_was_taken_in(&server);

    // Control: requests of a program, without these headers, and requests of a page of this server are answered.
    for headers in
        [&["host: localhost"][..], &["host: localhost", "origin: http://localhost", "sec-fetch-site: same-origin"]]
    {
        assert_eq!(exchange(&server, "POST /events HTTP/1.1", headers).0, 200);
    }
}

#[test]
fn no_browser_gets_a_backup_whatever_led_it_there() {
    let (_directory, server) = server();
    let navigation = ["sec-fetch-mode: navigate", "sec-fetch-dest: document"];
    let own_page = ["sec-fetch-mode: cors", "sec-fetch-dest: empty"];
    // After a redirect, a browser sends what it sends for an address that a person typed.
    for (site, others) in [("none", navigation), ("same-origin", navigation), ("same-origin", own_page)] {
        let site = format!("sec-fetch-site: {site}");
        let headers = [&["host: localhost", &site][..], &others].concat();
        for line in ["GET /backup HTTP/1.1", "GET /%62ackup HTTP/1.1", "HEAD /backup HTTP/1.1", "GET /backup HTTP/1.0"]
        {
            assert_eq!(exchange(&server, line, &headers).0, 403, "{line} with {headers:?}");
        }
        for path in ["/", "/ready", "/export", "/ui/service"] {
            assert_eq!(exchange(&server, &format!("GET {path} HTTP/1.1"), &headers).0, 200, "{path} with {headers:?}");
        }
    }
    // Control: a program gets one.
    assert_eq!(exchange(&server, "GET /backup HTTP/1.1", &["host: localhost"]).0, 200);
}

#[test]
fn pages_of_origins_that_are_not_named_may_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[NO_STREAMS, ("HTTP__ALLOWED_ORIGINS", "https://app.example")]);
    for Route { path, pages, .. } in routes() {
        for (origin, is_named) in [
            ("https://app.example", true),
            ("https://evil.example", false),
            ("https://app.example.evil.example", false),
            ("http://app.example", false),
            ("null", false),
        ] {
            let origin_header = format!("origin: {origin}");
            let (_, head) = exchange(&server, &format!("GET {path} HTTP/1.1"), &["host: localhost", &origin_header]);
            let may_read = is_named && pages == "OfAllowedOrigins";
            assert_eq!(
                head.contains(&format!("access-control-allow-origin: {origin}")),
                may_read,
                "{path} {origin}: {head}"
            );
        }
    }
}

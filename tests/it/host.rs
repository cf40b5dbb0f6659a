//! The server answers requests that name this machine. It answers programs, but not pages of other origins.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::routes::{NO_STREAMS, Route, own_status, routes};
use crate::server::{PATIENCE, Server, metrics};

const DONE: &str = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;

/// A request of each route, and of a path that is none, with the statuses of its answer: there may be no turn yet.
fn requests() -> impl Iterator<Item = (String, String, [u16; 2])> {
    let request = |route: Route| {
        let done = if route.methods[0] == "DELETE" { 204 } else { 200 };
        let statuses = [done, own_status(&route.path)];
        (route.methods[0].clone(), route.path, statuses)
    };
    routes().into_iter().map(request).chain([("GET".to_owned(), "/nowhere".to_owned(), [404; 2])])
}

/// Sends these bytes. Returns the status and the body of the only answer, after which the connection ends.
fn exchange(server: &Server, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Builds a request with this first line; a POST gets an event.
fn request(line: &str, headers: &[&str]) -> String {
    let body = if line.starts_with("POST") { DONE } else { "" };
    let length = format!("content-length: {}", body.len());
    let fields = headers.iter().copied().chain(["connection: close", "content-type: application/json", &length]);
    let fields: Vec<_> = fields.collect();
    format!("{line}\r\n{}\r\n\r\n{body}", fields.join("\r\n"))
}

#[track_caller]
fn assert_refused((status, body): (u16, String), expected: u16, what: &str) {
    assert_eq!(status, expected, "{what}: {body}");
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{what}: {error} in {body:?}"));
    assert!(body["error"].is_string(), "{what}: {body}");
}

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

#[test]
fn every_route_refuses_a_request_for_another_host_however_the_host_is_named() {
    let (_directory, server) = server(&[NO_STREAMS]);
    let port = server.address.port();
    for (method, path, _) in requests() {
        for (line, headers) in [
            (format!("{method} {path} HTTP/1.1"), vec!["host: attacker.example"]),
            (format!("{method} {path} HTTP/1.1"), vec!["host: localhost.attacker.example"]),
            (format!("{method} {path} HTTP/1.1"), vec!["host: 127.0.0.1.attacker.example"]),
            (format!("{method} {path} HTTP/1.1"), vec!["host: localhost@attacker.example"]),
            (format!("{method} {path} HTTP/1.1"), vec!["host:"]),
            (format!("{method} {path} HTTP/1.0"), vec!["host: attacker.example"]),
            (format!("{method} http://attacker.example{path} HTTP/1.1"), vec!["host: localhost"]),
            (format!("{method} http://attacker.example:{port}{path} HTTP/1.1"), vec!["host: attacker.example"]),
            (format!("{method} http://localhost{path} HTTP/1.1"), vec!["host: attacker.example"]),
            (format!("{method} http://localhost@attacker.example{path} HTTP/1.1"), vec!["host: localhost"]),
            (format!("{method} http://attacker.example{path} HTTP/1.0"), vec![]),
        ] {
            assert_refused(exchange(&server, &request(&line, &headers)), 421, &format!("{line} {headers:?}"));
        }
    }
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#, "nothing that was refused was taken in");
}

#[test]
fn every_route_answers_requests_for_this_machine() {
    let (_directory, server) = server(&[NO_STREAMS]);
    let port = server.address.port();
    for (method, path, statuses) in requests() {
        for (line, headers) in [
            (format!("{method} {path} HTTP/1.1"), vec!["host: localhost".to_owned()]),
            (format!("{method} {path} HTTP/1.1"), vec![format!("host: LOCALHOST:{port}")]),
            (format!("{method} {path} HTTP/1.1"), vec![format!("host: 127.0.0.1:{port}")]),
            (format!("{method} {path} HTTP/1.1"), vec!["host: [::1]:1".to_owned()]),
            (format!("{method} http://localhost:{port}{path} HTTP/1.1"), vec!["host: localhost".to_owned()]),
            (format!("{method} {path} HTTP/1.0"), vec!["host: localhost".to_owned()]),
            // The health check of an HTTP/1.0 client. No browser sends such a request.
            (format!("{method} {path} HTTP/1.0"), vec![]),
        ] {
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            let (status, _) = exchange(&server, &request(&line, &headers));
            assert!(statuses.contains(&status), "{line} {headers:?}: {status}");
        }
    }
}

#[test]
fn a_request_of_http_1_1_names_exactly_one_host() {
    let (_directory, server) = server(&[]);
    for headers in
        [vec![], vec!["host: localhost", "host: localhost"], vec!["host: localhost", "host: attacker.example"]]
    {
        let refused = exchange(&server, &request("GET /health HTTP/1.1", &headers));
        assert_refused(refused, 400, &format!("{headers:?}"));
    }
}

#[test]
fn a_host_of_the_settings_is_answered() {
    let (_directory, server) = server(&[("HTTP__HOST_NAMES", "metrics.example, [fd00::5]")]);
    for (host, status) in [
        ("metrics.example", 200),
        ("Metrics.Example:443", 200),
        ("[fd00::5]", 200),
        ("localhost", 200),
        ("a.metrics.example", 421),
        ("other.example", 421),
    ] {
        let answer = exchange(&server, &request("GET /health HTTP/1.1", &[&format!("host: {host}")]));
        assert_eq!(answer.0, status, "{host}");
    }
}

#[test]
fn a_page_of_another_origin_can_neither_post_nor_get_resources_for_programs() {
    let (_directory, server) = server(&[]);
    let own = format!("origin: http://{}", server.address);
    let host = format!("host: {}", server.address);
    let foreign = [
        "origin: https://page.example",
        "origin: null",
        "origin: http://localhost:1",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ];
    for header in foreign {
        for (line, expected) in [
            ("POST /events HTTP/1.1", 403),
            ("POST /events HTTP/1.0", 403),
            ("DELETE /conversations/c/metrics HTTP/1.1", 403),
            ("GET /backup HTTP/1.1", 403),
            ("GET /ready HTTP/1.1", 403),
        ] {
            assert_refused(exchange(&server, &request(line, &[&host, header])), expected, &format!("{line} {header}"));
        }
        for line in ["GET /conversations/c/metrics HTTP/1.1", "GET /conversations/c/turns HTTP/1.1"] {
            assert_eq!(exchange(&server, &request(line, &[&host, header])).0, 200, "{line} {header}");
        }
    }
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#, "nothing that was refused was taken in");
    let same_origin = [&*host, &*own, "sec-fetch-site: same-origin"];
    assert_eq!(exchange(&server, &request("POST /events HTTP/1.1", &same_origin)).0, 200);
}

//! Clients of HTTP/1.0, which do not support chunks.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::routes::{NO_STREAMS, routes};
use crate::server::{PATIENCE, Server, turn_metrics};

/// Sends a request and reads until the connection ends. Returns the head and the body.
fn exchange(server: &Server, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

/// Returns a body without its chunk framing.
fn unchunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|bytes| bytes == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        chunks = &chunks[end + 2..];
        body.extend_from_slice(&chunks[..size]);
        assert_eq!(&chunks[size..size + 2], b"\r\n");
        chunks = &chunks[size + 2..];
        if size == 0 {
            assert_eq!(chunks, b"");
            return body;
        }
    }
}

/// A server with a conversation whose metrics exceed a megabyte, which is more than the server caches.
fn server(directory: &std::path::Path) -> Server {
    let server = Server::start_with(directory, &[NO_STREAMS, ("HTTP__CACHE_BYTES", "16384")]);
    let mut events = String::new();
    for turn in 0..3000 {
        for event in [
            r#""type":"usage","stepId":"a step of a turn with a long name","usage":{"inputTokens":1234,"outputTokens":5}"#,
            r#""type":"done","reason":"stop""#,
        ] {
            writeln!(events, "{{\"conversationId\":\"c\",\"turnId\":\"t{turn}\",{event}}}").unwrap();
        }
    }
    assert_eq!(server.client().post_events(&events).status, 200);
    server
}

#[test]
fn a_long_answer_is_the_same_for_a_client_of_http_1_0_and_has_no_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    for keep_alive in ["", "connection: keep-alive\r\n"] {
        let old = exchange(&server, &format!("GET /conversations/c/metrics HTTP/1.0\r\n{keep_alive}\r\n"));
        let request = "GET /conversations/c/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let new = exchange(&server, request);
        assert!(new.0.contains("transfer-encoding: chunked"), "{}", new.0);
        let new = unchunked(&new.1);
        assert!(new.len() > 300_000, "{} bytes are not streamed", new.len());
        assert!(old.0.starts_with("http/1.0 200 "), "{}", old.0);
        assert!(!old.0.contains("transfer-encoding") && !old.0.contains("keep-alive"), "{}", old.0);
        assert!(old.1 == new, "{} bytes are not those of the other client", old.1.len());
    }
}

#[test]
fn a_backup_by_http_1_0_is_a_database() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server(directory.path());
    for version in ["1.0\r\n", "1.0\r\nconnection: keep-alive\r\n", "1.1\r\nhost: localhost\r\nconnection: close\r\n"] {
        let request = format!("GET /backup HTTP/{version}\r\n");
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let (head, body) = read_sized(&mut stream);
        assert!(!head.contains("transfer-encoding"), "{head}");
        std::fs::write(copy.path().join("turn-metrics.redb"), body).unwrap();
        let check = turn_metrics().args(["check", "--data-dir"]).arg(copy.path()).output().unwrap();
        let told = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(check.status.code() == Some(0) && told.contains("3000 sealed turns"), "{version:?}: {check:?}");
    }
}

/// Reads an answer by its content length, whether or not the connection ends after it.
fn read_sized(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = if head.lines().next().is_some_and(|line| line.contains(" 204 ")) {
        "0"
    } else {
        length.unwrap_or_else(|| panic!("{head}"))
    };
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn every_route_answers_a_client_of_http_1_0_without_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let none = ["/nowhere", "/ui/nowhere"].map(str::to_owned);
    for path in routes().into_iter().map(|route| route.path).chain(none) {
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            let (head, _) = exchange(&server, &format!("{method} {path} HTTP/1.0\r\n\r\n"));
            assert!(!head.contains("transfer-encoding"), "{method} {path}: {head}");
        }
    }
}

#[test]
fn the_connection_ends_after_the_body_even_if_more_requests_were_sent_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let get = "GET /conversations/c/metrics HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let (_, alone) = exchange(&server, get);
    for more in [get, "GET /health HTTP/1.0\r\n\r\n", "GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"] {
        let (_, body) = exchange(&server, &format!("{get}{more}"));
        assert!(body == alone, "{} bytes where there should be {}", body.len(), alone.len());
    }
}

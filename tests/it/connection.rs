//! The time limits and errors of a connection, for clients that send too little, too slowly or nothing valid.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::{Answer, PATIENCE, Server, metrics};

const GET: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
const HALF_A_HEAD: &[u8] = b"GET /health HTTP/1.1\r\nx-endless: ";

/// The limit is short, because tests wait for it. It is long enough for a busy machine to read the first bytes of a
/// connection.
const HEADER_TIMEOUT: (&str, &str) = ("HTTP__HEADER_TIMEOUT", "500ms");

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

/// Sends a byte now and then until the server answers. Returns the answer, up to the end of the connection.
fn drip(stream: &mut TcpStream) -> String {
    // The timeout of the read is the pause between two bytes.
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    loop {
        assert!(started.elapsed() < PATIENCE, "the connection is held for ever");
        // Writing to a closed connection fails; the read below notices the end.
        let _ = stream.write_all(b"x");
        match stream.read_to_end(&mut answer) {
            Ok(_) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(answer).unwrap()
}

fn assert_failure(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(!answer.error().is_empty());
}

#[test]
fn the_time_limit_of_each_head_holds_even_if_bytes_drip_in() {
    let (_directory, server) = server(&[HEADER_TIMEOUT]);
    for answered_before in [0, 1, 3] {
        let mut client = server.client();
        for _ in 0..answered_before {
            assert_eq!(client.get("/health").status, 200);
        }
        let stream = client.stream().unwrap().get_mut();
        stream.write_all(HALF_A_HEAD).unwrap();
        let answer = drip(stream);
        // Bytes that were sent after the server closed may cause a reset, which can discard the answer.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn a_head_that_stops_halfway_gets_408_on_any_request() {
    let (_directory, server) = server(&[HEADER_TIMEOUT]);
    for answered_before in [0, 1] {
        let mut client = server.client();
        for _ in 0..answered_before {
            assert_eq!(client.get("/health").status, 200);
        }
        let answer = client.send_raw(HALF_A_HEAD, false).unwrap();
        assert_failure(&answer, 408);
        assert!(answer.error().contains("500 ms"), "{answer:?}");
        assert_eq!(client.stream().unwrap().read(&mut [0]).unwrap(), 0, "it is closed");
    }
}

#[test]
fn the_time_limit_holds_for_a_head_that_arrives_with_the_request_before_it() {
    let (_directory, server) = server(&[HEADER_TIMEOUT, ("HTTP__KEEP_ALIVE", "500ms")]);
    let mut client = server.client();
    assert_eq!(client.send_raw(&[GET, HALF_A_HEAD].concat(), false).unwrap().status, 200);
    let answer = drip(client.stream().unwrap().get_mut());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn the_time_limit_of_the_head_applies_neither_to_the_body_nor_to_the_pause_between_requests() {
    let (_directory, server) = server(&[HEADER_TIMEOUT]);
    let mut client = server.client();
    let event = "{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t\",\"reason\":\"stop\"}";
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        event.len()
    );
    for _ in 0..2 {
        let stream = client.stream().unwrap().get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        for byte in event.as_bytes() {
            // No answer is expected yet. The timeout of the read is the pause between two bytes.
            assert!(stream.read(&mut [0]).is_err());
            stream.write_all(&[*byte]).unwrap();
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.send_raw(b"", false).unwrap().status, 200);
        let stream = client.stream().unwrap().get_mut();
        stream.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "an idle connection stays open");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    assert!(metrics(&mut client, "c").contains(r#""turnId":"t""#), "the same connection");
}

#[test]
fn invalid_http_is_refused_with_json_on_any_request() {
    let (_directory, server) = server(&[]);
    let post = "POST /events HTTP/1.1\r\nhost: localhost\r\n";
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        (format!("{post}content-length: x\r\n\r\n"), 400),
        (format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n"), 400),
        (format!("{post}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"), 400),
        (format!("{post}{}\r\n", "x: y\r\n".repeat(100)), 431),
        // This head is exactly as long as the server's buffer. If bytes were left unread, closing the connection would
        // reset it.
        (format!("GET /health HTTP/1.1\r\nx: {}", "y".repeat(131_072 - 25)), 431),
    ];
    for (request, status) in &cases {
        for before in [&b""[..], GET] {
            let mut client = server.client();
            let mut answer = client.send_raw(&[before, request.as_bytes()].concat(), false).unwrap();
            if !before.is_empty() {
                assert_eq!((answer.status, &*answer.body), (200, r#"{"ok":true}"#));
                answer = client.send_raw(b"", false).unwrap();
            }
            assert_failure(&answer, *status);
        }
    }
    assert_eq!(server.client().get("/ready").status, 200);
}

//! What a connection is held to, whatever its client sends or does not.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::{Answer, PATIENCE, Server, metrics};

const GET: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
const HALF_A_HEAD: &[u8] = b"GET /health HTTP/1.1\r\nx-endless: ";

/// Short for a test that waits for its end, long for a busy machine between a connection and its first bytes.
const HEADER_TIMEOUT: (&str, &str) = ("HTTP__HEADER_TIMEOUT", "500ms");

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

/// Sends a byte now and then until something comes back; gives it, up to the end of the connection.
fn drip(stream: &mut TcpStream) -> String {
    // The wait for an answer is the pause between two bytes.
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    loop {
        assert!(started.elapsed() < PATIENCE, "the connection is held for ever");
        // A server that has closed it cannot be written to any more, which is for the read to find.
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
fn the_head_of_each_request_has_its_time_however_it_drips() {
    let (_directory, server) = server(&[HEADER_TIMEOUT]);
    for answered_before in [0, 1, 3] {
        let mut client = server.client();
        for _ in 0..answered_before {
            assert_eq!(client.get("/health").status, 200);
        }
        let stream = client.stream().unwrap().get_mut();
        stream.write_all(HALF_A_HEAD).unwrap();
        let answer = drip(stream);
        // The answer to bytes that were sent after the end may be a reset, which can take the text with it.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn a_head_that_stops_half_way_is_answered_on_any_request() {
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
fn a_head_that_begins_with_the_request_before_it_has_its_time_too() {
    let (_directory, server) = server(&[HEADER_TIMEOUT, ("HTTP__KEEP_ALIVE", "500ms")]);
    let mut client = server.client();
    assert_eq!(client.send_raw(&[GET, HALF_A_HEAD].concat(), false).unwrap().status, 200);
    let answer = drip(client.stream().unwrap().get_mut());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn the_time_of_the_head_is_none_of_the_body_and_none_of_the_pause_between_requests() {
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
            // Nothing comes back yet: this is the pause between two bytes.
            assert!(stream.read(&mut [0]).is_err());
            stream.write_all(&[*byte]).unwrap();
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.send_raw(b"", false).unwrap().status, 200);
        let stream = client.stream().unwrap().get_mut();
        stream.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "an idle connection stays");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    assert!(metrics(&mut client, "c").contains(r#""turnId":"t""#), "the same connection");
}

#[test]
fn what_is_no_http_is_refused_as_json_on_any_request() {
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
        // As long as what is taken in at once, so that nothing unread makes the end a reset.
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

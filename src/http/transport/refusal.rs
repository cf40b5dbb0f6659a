use std::time::Duration;

use actix_web::http::StatusCode;
use memchr::memmem;

use crate::http::error::ErrorBody;

/// The maximum size of the framework's own refusals: a status line and three header fields.
const MAX_HEAD_BYTES: usize = 512;

/// Finds the framework's own refusal at the end of the bytes that it writes. Such a refusal is the head of a failure
/// without a body. It is always the last answer of a connection, and every failure of the application has a body.
///
/// Call this only while no answer is being written, because a body may contain anything. The rest of a body that has
/// ended is not mistaken for a refusal: JSON ends in a brace and has no line break within a text, and the last line of
/// a chunked body is no header field.
pub(crate) fn find_bare(written: &[u8]) -> Option<usize> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = written.len().saturating_sub(MAX_HEAD_BYTES);
    let start = tail + memmem::rfind(&written[tail..], b"HTTP/1.")?;
    let head = std::str::from_utf8(&written[start..]).ok()?;
    // Fast path: the framework rarely writes a failure.
    let status = status_of(head)?;
    if !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let mut fields = head.strip_suffix("\r\n\r\n")?.split("\r\n").skip(1);
    if !fields.all(|field| field.contains(": ")) {
        return None;
    }
    head.contains("\r\ncontent-length: 0\r\n").then_some(start)
}

/// Returns the complete refusal for this head, as the contract asks for it: its text as JSON, and `connection: close`,
/// because the server reads nothing more.
pub(crate) fn with_body(bare: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(bare);
    let status = status_of(&head).unwrap_or(StatusCode::BAD_REQUEST);
    let date = head.lines().find(|line| line.starts_with("date: "));
    let text = match status {
        StatusCode::BAD_REQUEST => "this is no valid HTTP/1.1 request",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the head of the request has more than 131072 bytes or 96 header fields"
        }
        status => status.canonical_reason().unwrap_or("the request failed"),
    };
    answer(status, date, text)
}

/// Returns the answer to a client whose request head takes longer than this.
pub(crate) fn slow_head(limit: Duration) -> Vec<u8> {
    let text = format!("the head of the request took longer than {} ms to arrive", limit.as_millis());
    answer(StatusCode::REQUEST_TIMEOUT, None, &text)
}

fn answer(status: StatusCode, date: Option<&str>, text: &str) -> Vec<u8> {
    let body = serde_json::to_string(&ErrorBody::new(text)).unwrap_or_default();
    let date = date.map_or_else(String::new, |date| format!("{date}\r\n"));
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\n{date}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn status_of(head: &str) -> Option<StatusCode> {
    StatusCode::from_bytes(head.split(' ').nth(1)?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";

    #[test]
    fn a_refusal_without_a_body_is_found_at_the_end_of_what_is_written() {
        assert_eq!(find_bare(BARE.as_bytes()), Some(0));
        let before = format!("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{{\"ok\":true}}{BARE}");
        assert_eq!(find_bare(before.as_bytes()), Some(before.len() - BARE.len()));
    }

    #[test]
    fn no_other_bytes_are_taken_for_a_refusal() {
        for other in [
            "",
            "\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx: \r\n0\r\n\r\n",
            "6f\r\n{\"error\":\"HTTP/1.1 400 Bad Request\\r\\ncontent-length: 0\\r\\n\"}\r\n0\r\n\r\n",
        ] {
            assert_eq!(find_bare(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn a_refusal_becomes_json_and_ends_the_connection() {
        assert_eq!(
            String::from_utf8(with_body(BARE.as_bytes())).unwrap(),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 45\r\nconnection: close\r\ncontent-type: application/json\r\n\
             date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n{\"error\":\"this is no valid HTTP/1.1 request\"}"
        );
        let slow = String::from_utf8(slow_head(Duration::from_secs(5))).unwrap();
        assert!(slow.starts_with("HTTP/1.1 408 Request Timeout\r\n") && slow.contains("5000 ms"), "{slow}");
    }
}

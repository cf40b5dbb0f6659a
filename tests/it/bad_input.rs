//! Mistakes that a client may make. Each gets one clear answer, and changes nothing.

use std::io::{Read, Write};

use crate::server::{Answer, Client, Server, metrics, until};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const DONE: &str = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

fn post(client: &mut Client, body: &[u8]) -> Answer {
    client.send("POST", "/events", &[NDJSON], body).unwrap()
}

fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(!answer.error().is_empty());
    assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{answer:?}");
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
}

#[test]
fn an_empty_body_is_accepted_with_no_events() {
    let (_directory, server) = server(&[]);
    for body in ["", "\n", "  \r\n\n\t\n"] {
        let answer = post(&mut server.client(), body.as_bytes());
        assert_eq!((answer.status, &*answer.body), (200, r#"{"accepted":0,"ignored":0,"sealed":[]}"#), "{body:?}");
    }
}

#[test]
fn lines_may_end_in_crlf_or_lack_the_last_break_and_blank_lines_are_numbered() {
    let (_directory, server) = server(&[]);
    let answer = post(&mut server.client(), format!("\r\n{DONE}\r\n\n{{\"type\":\"status\"}}").as_bytes());
    assert_eq!(
        answer.body,
        r#"{"accepted":1,"ignored":1,"sealed":[{"conversationId":"c","turnId":"t","ordinal":1,"duplicate":false}]}"#
    );
    let answer = post(&mut server.client(), format!("\n\n{DONE}\n{{").as_bytes());
    assert_eq!(answer.json()["line"], 4);
}

#[test]
fn invalid_utf8_and_deeply_nested_json_are_bad_lines() {
    let (_directory, server) = server(&[]);
    let mut utf8 = DONE.as_bytes().to_vec();
    let at = DONE.find("stop").unwrap();
    utf8[at] = 0xff;
    let deep = "[".repeat(100_000).into_bytes();
    for bad in [utf8, deep, b"\x00\x01".to_vec()] {
        let answer = post(&mut server.client(), &[DONE.as_bytes(), b"\n", &bad].concat());
        assert_refused(&answer, 400);
        assert_eq!(answer.json()["line"], 2);
        assert!(answer.body.len() < 1000, "{answer:?}");
    }
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
}

fn skip(server: &Server, body: &[u8]) -> serde_json::Value {
    let answer = server.client().send("POST", "/events?bad=skip", &[NDJSON], body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn an_error_of_the_whole_body_is_reported_once() {
    let (_directory, server) = server(&[]);
    let utf_16: Vec<u8> = format!("{DONE}\r\n").repeat(5).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let array = format!("[\n{}{DONE}\n]\n", format!("{DONE},\n").repeat(2));
    for (body, count, what) in [(utf_16, 6, "UTF-16"), (array.clone().into_bytes(), 5, "is a JSON array")] {
        let skipped = skip(&server, &body);
        assert_eq!((&skipped["accepted"], &skipped["refusedCount"]), (&0.into(), &count.into()), "{skipped}");
        let [first] = skipped["refused"].as_array().unwrap().as_slice() else { panic!("{skipped}") };
        assert!(first["line"] == 1 && first["error"].as_str().unwrap().contains(what), "{skipped}");
        let refused = post(&mut server.client(), &body);
        assert_refused(&refused, 400);
        assert!(refused.json()["line"] == 1 && refused.error().contains(what), "{refused:?}");
    }
    let json = [("content-type", "application/json")];
    let refused = server.client().send("POST", "/events", &json, array.as_bytes()).unwrap();
    assert_refused(&refused, 400);
    assert!(refused.error().contains("must be one event, not an array"), "{refused:?}");
}

#[test]
fn a_torn_line_is_recognized_and_the_other_lines_can_be_taken() {
    let (_directory, server) = server(&[]);
    let torn = format!("{DONE}\n{{\"type\":\"text-delta\",\"delta\":\"hal{}\n{}\n", DONE.replace('t', "u"), DONE);
    let refused = post(&mut server.client(), torn.as_bytes());
    assert_refused(&refused, 400);
    for part in ["another object begins here", "a crash of its writer", "`?bad=skip`"] {
        assert!(refused.error().contains(part), "{refused:?}");
    }
    let skipped = skip(&server, torn.as_bytes());
    let error = skipped["refused"][0]["error"].as_str().unwrap();
    assert!(error.contains("a crash of its writer") && !error.contains("bad=skip"), "{skipped}");
    assert_eq!((&skipped["accepted"], &skipped["refusedCount"]), (&2.into(), &1.into()));
    assert!(!post(&mut server.client(), b"{\"type\":7}").error().contains("bad=skip"));
}

#[test]
fn a_body_over_a_limit_is_413_with_and_without_a_length() {
    let limits =
        [("HTTP__MAX_BODY_BYTES", "2000"), ("HTTP__MAX_LINE_BYTES", "2000"), ("HTTP__MAX_TRANSFER_BYTES", "9000")];
    let (_directory, server) = server(&limits);
    let counting = format!("{DONE}\n").repeat(2000 / DONE.len() + 1);
    let long = format!("{DONE}\n{}", "\n".repeat(9000));
    let head =
        b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [counting, long] {
        assert_refused(&post(&mut server.client(), body.as_bytes()), 413);
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let answer = server.client().send_raw(&[head, chunked.as_bytes()].concat(), false).unwrap();
        assert_refused(&answer, 413);
    }
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
}

#[test]
fn a_line_over_the_limit_is_refused_with_its_number() {
    let (_directory, server) = server(&[("HTTP__MAX_LINE_BYTES", "1024")]);
    let long = DONE.replace("stop", &"s".repeat(1024));
    let answer = post(&mut server.client(), format!("{DONE}\n{long}\n").as_bytes());
    assert_refused(&answer, 400);
    assert_eq!(answer.json()["line"], 2);
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
}

#[test]
fn a_truncated_body_changes_nothing() {
    let (_directory, server) = server(&[]);
    let mut client = server.client();
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{DONE}\n",
        DONE.len() + 50
    );
    let stream = client.stream().unwrap().get_mut();
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // The server may answer anything but an acknowledgement.
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
}

#[test]
fn a_stalled_body_is_ended() {
    let (_directory, server) = server(&[("HTTP__BODY_TIMEOUT", "50ms")]);
    let head = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: 99\r\n\r\n{";
    let answer = server.client().send_raw(head, false).unwrap();
    assert_refused(&answer, 408);
}

#[test]
fn each_wrong_request_has_its_status_as_json() {
    let (_directory, server) = server(&[]);
    let mut client = server.client();
    for (method, path, status) in [
        ("GET", "/nowhere", 404),
        ("GET", "/conversations/c", 405),
        ("GET", "/conversations//metrics", 404),
        ("GET", "/events", 405),
        ("POST", "/health", 405),
        ("DELETE", "/conversations/c/metrics", 405),
        ("POST", "/events", 415),
        ("GET", "/conversations/a%0Ab/metrics", 400),
        ("GET", "/conversations/%FF/metrics", 400),
        ("GET", "/conversations/c/turns?limit=0", 400),
        ("GET", "/conversations/c/turns?limit=1001", 400),
        ("GET", "/conversations/c/turns?after=-1", 400),
        ("GET", "/conversations/c/turns?after=x", 400),
    ] {
        let answer = client.send(method, path, &[], b"").unwrap();
        assert_refused(&answer, status);
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{method} {path}: {answer:?}");
        }
    }
    let long = format!("/conversations/{}/metrics", "x".repeat(257));
    assert_refused(&client.get(&long), 400);
    let text = client.send("POST", "/events", &[("content-type", "text/plain")], DONE.as_bytes()).unwrap();
    assert_refused(&text, 415);
}

#[test]
fn a_limit_of_turns_is_reported_and_does_not_affect_other_conversations() {
    let (_directory, server) = server(&[("TURNS__MAX_STEPS", "2"), ("TURNS__MAX_OPEN_TURNS", "2")]);
    let mut client = server.client();
    let step = |n: u32| {
        format!(
            "{{\"type\":\"usage\",\"conversationId\":\"steps\",\"turnId\":\"t\",\"stepId\":\"{n}\",\"usage\":{{\"inputTokens\":1,\"outputTokens\":1}}}}\n"
        )
    };
    let answer = post(&mut client, [step(0), step(1), step(2)].concat().as_bytes());
    assert_refused(&answer, 422);
    assert!(answer.error().contains("2 steps"), "{answer:?}");
    let start = |n: u32| format!("{{\"type\":\"turn-start\",\"conversationId\":\"turns\",\"turnId\":\"{n}\"}}\n");
    let answer = post(&mut client, [start(0), start(1), start(2)].concat().as_bytes());
    assert_refused(&answer, 422);
    assert!(answer.error().contains("2 open turns"), "{answer:?}");
    // The receipts of the accepted events are in the answer nevertheless.
    let answer = post(&mut client, [start(0), start(1), start(2), DONE.to_owned()].concat().as_bytes());
    assert_refused(&answer, 422);
    let receipt = serde_json::json!([{"conversationId": "c", "turnId": "t", "ordinal": 1, "duplicate": false}]);
    assert_eq!(answer.json()["sealed"], receipt);
}

const SMALL_BUDGET: &[(&str, &str)] =
    &[("HTTP__MAX_BUFFERED_BYTES", "100000"), ("HTTP__MAX_BODY_BYTES", "100000"), ("HTTP__MAX_LINE_BYTES", "100000")];

#[test]
fn a_body_over_the_buffer_budget_is_503_as_it_arrives() {
    let (_directory, server) = server(SMALL_BUDGET);
    let many = format!("{DONE}\n").repeat(100);
    assert_eq!(post(&mut server.client(), many.as_bytes()).status, 200);
    // Events that count are held until the body ends, and these bodies do not end. Together they use up the budget.
    let mut holders: Vec<_> = (0..12).map(|_| server.client()).collect();
    for holder in &mut holders {
        let _ = holder.begin_post(100_000).write_all(many.as_bytes());
    }
    let refused = until("the budget is used up", || {
        let answer = post(&mut server.client(), many.as_bytes());
        (answer.status != 200).then_some(answer)
    });
    assert_refused(&refused, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let head = "POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n";
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{many}\r\n0\r\n\r\n", many.len());
    let refused = server.client().send_raw(chunked.as_bytes(), false).unwrap();
    assert_refused(&refused, 503);
    drop(holders);
    until("the budget is free again", || (post(&mut server.client(), many.as_bytes()).status == 200).then_some(()));
}

#[test]
fn announced_bodies_that_never_arrive_take_no_budget() {
    let (_directory, server) = server(SMALL_BUDGET);
    let mut idle: Vec<_> = (0..16).map(|_| server.client()).collect();
    for client in &mut idle {
        client.begin_post(100_000).write_all(b"\n").unwrap();
    }
    for _ in 0..3 {
        assert_eq!(post(&mut server.client(), DONE.as_bytes()).status, 200);
    }
}

#[test]
fn a_body_of_more_turns_than_the_store_takes_at_once_is_taken_in() {
    let (_directory, server) = server(&[]);
    let line = |n| DONE.replace(r#""c""#, &format!("\"c{}\"", n % 50)).replace(r#""t""#, &format!("\"t{n}\"")) + "\n";
    let body: String = (0..20_000).map(line).collect();
    let answer = post(&mut server.client(), body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), 20_000);
}

#[test]
fn a_body_of_more_conversations_than_the_lowest_limits_is_taken_in() {
    let (_directory, server) = server(&[
        ("TURNS__MAX_IN_FLIGHT", "128"),
        ("TURNS__MAX_ACTIVE_CONVERSATIONS", "128"),
        ("STORE__QUEUE_COMMITS", "128"),
    ]);
    let body: String = (0..2000).map(|n| DONE.replace(r#""c""#, &format!("\"c{n}\"")) + "\n").collect();
    let answer = post(&mut server.client(), body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["sealed"].as_array().unwrap().len(), 2000);
}

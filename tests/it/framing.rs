//! The lines of a body: complete, torn, long and compressed, and how the answer reports refused lines.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::server::{Answer, Client, Server};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn done(turn: &str) -> String {
    format!(r#"{{"type":"done","conversationId":"c","turnId":"{turn}","reason":"stop"}}"#)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn turns(client: &mut Client, conversation: &str) -> Vec<Value> {
    let answer = client.get(&format!("/conversations/{conversation}/metrics"));
    answer.json()["turns"].as_array().unwrap().iter().map(|turn| turn["turnId"].clone()).collect()
}

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

#[test]
fn each_case_of_framing_has_its_status_and_its_turns() {
    let file: Value = serde_json::from_str(include_str!("../vectors/framing.json")).unwrap();
    let (_directory, server) = server(&[]);
    for (nth, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let own = format!("c{nth}");
        let body = case["body"].as_str().unwrap();
        // Each case has its own conversation, so one server serves all.
        let of_its_own = body
            .replace(r#""conversationId":"c""#, &format!(r#""conversationId":"{own}""#))
            .replace(r#""conversationId": "c""#, &format!(r#""conversationId": "{own}""#))
            .replace(r#""conversationId" : "c""#, &format!(r#""conversationId" : "{own}""#));
        let media_type = ("content-type", case["contentType"].as_str().unwrap());
        let mut client = server.client();
        let answer = client.send("POST", "/events", &[media_type], of_its_own.as_bytes()).unwrap();
        assert_eq!(u64::from(answer.status), case["status"].as_u64().unwrap(), "{}: {answer:?}", case["name"]);
        assert_eq!(json!(turns(&mut client, &own)), case["turns"], "{}", case["name"]);
    }
}

/// Posts a body in chunks of this length, without a content length.
fn post_in_chunks(client: &mut Client, body: &[u8], chunk_bytes: usize) -> Answer {
    let head =
        b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.to_vec();
    for chunk in body.chunks(chunk_bytes) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    client.send_raw(&bytes, false).unwrap()
}

#[test]
fn long_tool_results_do_not_cause_a_refusal_of_the_body() {
    let (_directory, server) = server(&[]);
    let text = "x".repeat(20_000_000);
    let results = [
        format!(r#"{{"type":"tool-result","conversationId":"c","turnId":"t","result":"{text}"}}"#),
        format!(r#"{{"result":["{text}"],"conversationId":"c","turnId":"t","type":"tool-result"}}"#),
    ];
    for (nth, result) in results.iter().enumerate() {
        let body = format!("{result}\n{}\n{result}", done(&format!("t{nth}")));
        let answer = server.client().post_events(&body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((&answer.json()["accepted"], &answer.json()["ignored"]), (&json!(1), &json!(2)));
        let answer = post_in_chunks(&mut server.client(), body.as_bytes(), 100_000);
        assert_eq!(answer.status, 200, "{answer:?}");
        // The same line is refused if an event is torn into it.
        let torn = format!("{}{}\n", &result[..result.len() - 2], done("lost"));
        let answer = post_in_chunks(&mut server.client(), torn.as_bytes(), 100_000);
        assert_eq!((answer.status, &answer.json()["line"]), (400, &json!(1)), "{answer:?}");
    }
    let json = ("content-type", "application/json");
    assert_eq!(server.client().send("POST", "/events", &[json], results[0].as_bytes()).unwrap().status, 200);
    let long = done("long").replacen(',', &format!(r#","x":"{text}","#), 1);
    let answer = server.client().post_events(&format!("{}\n{long}\n", done("t9")));
    assert_eq!((answer.status, &answer.json()["line"]), (400, &json!(2)), "{answer:?}");
    assert_eq!(turns(&mut server.client(), "c"), ["t0", "t1"]);
}

#[test]
fn a_gzip_body_is_taken_and_a_gzip_bomb_is_refused() {
    let (_directory, server) = server(&[("HTTP__MAX_TRANSFER_BYTES", "17000000")]);
    let gzip_header = ("content-encoding", "gzip");
    let members = [gzip(format!("{}\n", done("t")).as_bytes()), gzip(done("u").as_bytes())].concat();
    let post = |body: &[u8]| server.client().send("POST", "/events", &[NDJSON, gzip_header], body).unwrap();
    assert_eq!(post(&members).status, 200);
    assert_eq!(post(&members[..members.len() - 1]).status, 400);
    assert_eq!(post(&gzip(&vec![b'\n'; 17_000_000])).status, 200);
    assert_eq!(post(&gzip(&vec![b'\n'; 100_000_000])).status, 413);
    assert_eq!(turns(&mut server.client(), "c"), ["t", "u"]);
    let answer = server.client().send("POST", "/events", &[NDJSON], &members).unwrap();
    assert!(answer.status == 400 && answer.error().contains("gzip"), "{answer:?}");
}

#[test]
fn with_bad_lines_skipped_the_good_ones_are_taken_and_an_unfinished_turn_is_reported() {
    let (_directory, server) = server(&[("TURNS__MAX_STEPS", "1")]);
    let mut client = server.client();
    let step = |n: u32| {
        format!(
            r#"{{"type":"usage","conversationId":"steps","turnId":"t","stepId":"{n}","usage":{{"inputTokens":1,"outputTokens":1}}}}"#
        )
    };
    let bad = r#"{"type":"usage","conversationId":"c","turnId":"t","usage":{"inputTokens":-1,"outputTokens":0}}"#;
    let torn = format!("{}{}", r#"{"type":"text-delta","conversationId":"c","turnId":"x","delta":"a"#, done("u"));
    let steps_done = done("t").replace(r#""c""#, r#""steps""#);
    let body = [bad, &step(0), &done("t"), &torn, &step(1), &steps_done].join("\n");
    let answer = client.send("POST", "/events?bad=skip", &[NDJSON], body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["refusedCount"]), (&json!(1), &json!(3)), "{answer}");
    let refused = answer["refused"].as_array().unwrap();
    assert_eq!(refused.iter().map(|refused| refused["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(refused[1]["conversationId"], "steps");
    assert!(refused[1]["error"].as_str().unwrap().contains("turn `t`, which it would have ended, stays open"));
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("turn `t` was sealed without line 1"), "{warnings}");
    assert!(warnings.contains("line 4, which was refused, would have ended turn `u`"), "{warnings}");
    assert_eq!(turns(&mut client, "c"), ["t"]);
    assert_eq!(turns(&mut client, "steps"), [""; 0]);
    let answer = client.send("POST", "/events?bad=keep", &[NDJSON], body.as_bytes()).unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[test]
fn the_encoding_of_a_file_that_an_editor_changed_is_named() {
    let (_directory, server) = server(&[]);
    let text = format!("{}\r\n{}\r\n", done("t"), done("u"));
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked: Vec<u8> = [b"\xfe\xff".to_vec(), text.encode_utf16().flat_map(u16::to_be_bytes).collect()].concat();
    for body in [little, marked] {
        let answer = server.client().send("POST", "/events", &[NDJSON], &body).unwrap();
        assert!(answer.status == 400 && answer.error().contains("UTF-16"), "{answer:?}");
    }
    let answer = server.client().post_events(&text.replace("\r\n", "\r"));
    assert!(answer.status == 400 && answer.error().contains("carriage return alone"), "{answer:?}");
    assert_eq!(server.client().post_events(&format!("\u{feff}{text}")).status, 200);
}

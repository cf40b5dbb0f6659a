//! `POST /import` and `turn-metrics import` on real servers.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::server::{Answer, Client, Server, turn_metrics, until};

const CONVERSATIONS: u64 = 7;

/// A turn with all that an export has of a turn.
fn events(turn: u64) -> String {
    let c = turn % CONVERSATIONS;
    let ids = format!(r#""conversationId":"c{c}","turnId":"t{turn}""#);
    let ended_at = 1_770_000_000_000 + turn;
    [
        format!(r#"{{"type":"turn-start",{ids},"model":"m","provider":"p","project":"j{c}"}}"#),
        format!(
            r#"{{"type":"usage",{ids},"stepId":"t{turn}#0","usage":{{"inputTokens":{turn},"outputTokens":1,"cacheReadTokens":0,"cacheWriteTokens":5,"cacheWrite1hTokens":3}}}}"#
        ),
        format!(r#"{{"type":"step-complete",{ids},"stepId":"t{turn}#0","ttftMs":1.5,"genTotalMs":{turn}.25,"model":"n"}}"#),
        format!(r#"{{"type":"done",{ids},"reason":"stop","durationMs":{turn}.5,"endedAt":{ended_at}}}"#),
    ]
    .join("\n")
}

/// Returns the lines of an export in their order, without their positions. The last line, the end, is left out.
fn turns_of(export: &str) -> Vec<Value> {
    let mut lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.pop().unwrap()["end"].is_string(), "the export has no end");
    for line in &mut lines {
        assert!(line.as_object_mut().unwrap().remove("position").is_some());
    }
    lines
}

/// Returns the export of a server with this many turns.
fn export_of(turns: u64) -> String {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let body: Vec<_> = (0..turns).map(events).collect();
    assert_eq!(server.client().post_events(&body.join("\n")).status, 200);
    server.client().get("/export").body
}

fn import(server: &Server, files: &[&Path]) -> Output {
    turn_metrics().args(["import", "--server", &server.url()]).args(files).output().unwrap()
}

fn post(client: &mut Client, body: &str) -> Answer {
    client.send("POST", "/import", &[("content-type", "application/x-ndjson")], body.as_bytes()).unwrap()
}

fn code_and_texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn stored(server: &Server) -> usize {
    turns_of(&server.client().get("/export").body).len()
}

#[test]
fn an_export_is_the_same_after_an_import_into_an_empty_server_and_a_restart() {
    let export = export_of(3000);
    let expected = turns_of(&export);
    let directory = tempfile::tempdir().unwrap();
    let (plain, compressed) = (directory.path().join("turns.ndjson"), directory.path().join("turns.ndjson.gz"));
    std::fs::write(&plain, &export).unwrap();
    let mut encoder = GzEncoder::new(std::fs::File::create(&compressed).unwrap(), Compression::fast());
    encoder.write_all(export.as_bytes()).unwrap();
    encoder.finish().unwrap();

    let data = directory.path().join("data");
    let settings = [("STORE__REDB__JOURNAL_BYTES", "65536")];
    let server = Server::start_with(&data, &settings);
    let (code, out, err) = code_and_texts(&import(&server, &[&compressed]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.ends_with("turns.ndjson.gz: 3000 turns imported, 0 were there already\n"), "{out}");
    assert_eq!(turns_of(&server.client().get("/export").body), expected);
    let stats = |server: &Server| server.client().get("/stats?from=2026-01-01&to=2026-03-01&by=model,project").json();
    let before = stats(&server);
    assert_eq!(before["rows"].as_array().unwrap().iter().filter_map(|row| row["turns"].as_u64()).sum::<u64>(), 3000);

    server.kill();
    let server = Server::start_with(&data, &settings);
    assert_eq!(turns_of(&server.client().get("/export").body), expected);
    let (code, out, _) = code_and_texts(&import(&server, &[&plain, &compressed]));
    assert_eq!((code, out.matches("0 turns imported, 3000 were there already").count()), (Some(0), 2), "{out}");
    assert_eq!(turns_of(&server.client().get("/export").body), expected);
    assert_eq!(stats(&server)["rows"], before["rows"]);
}

#[test]
fn stored_metrics_of_dispatch_are_imported_from_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let line = |turn: u64| {
        format!(
            r#"{{"conversationId":"c","turnId":"t{turn}","usage":{{"inputTokens":5,"outputTokens":6}},"steps":[{{"stepId":"t{turn}#0","usage":{{"inputTokens":5,"outputTokens":6}},"genTotalMs":9}}],"durationMs":7,"contextSize":0}}"#
        ) + "\r\n"
    };
    let mut command = turn_metrics();
    command.args(["import", "--server", &server.url()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all((1..=3).map(line).collect::<String>().as_bytes()).unwrap();
    let (code, out, err) = code_and_texts(&child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""), "no end is needed");
    assert_eq!(out, "standard input: 3 turns imported, 0 were there already\n");
    let turns = server.client().get("/conversations/c/turns").json()["turns"].clone();
    assert_eq!((&turns[2]["ordinal"], &turns[2]["reason"]), (&3.into(), &"imported".into()));
    assert!(turns[0]["metrics"]["contextSize"].is_null() && turns[0]["sealedAt"].is_u64());
}

#[test]
fn a_bad_line_or_a_missing_end_is_told_and_a_repetition_brings_the_rest() {
    let export = export_of(30);
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let file = directory.path().join("turns.ndjson");
    let mut lines: Vec<&str> = export.lines().collect();
    lines.insert(9, "garbage");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (code, out, err) = code_and_texts(&import(&server, &[&file, &file]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("turns.ndjson:10: a turn must be a JSON object"), "{err}");
    assert!(err.contains("; 9 turns imported, 0 were there already, and it is safe"), "{err}");
    assert_eq!(stored(&server), 9);

    lines.remove(9);
    lines.pop();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (code, out, err) = code_and_texts(&import(&server, &[&file]));
    assert_eq!(code, Some(1), "{err}");
    assert!(out.ends_with("21 turns imported, 9 were there already\n"), "{out}");
    assert!(err.contains("turns.ndjson: the export is incomplete"), "{err}");

    std::fs::write(&file, &export).unwrap();
    assert_eq!(import(&server, &[&file]).status.code(), Some(0));
    assert_eq!(turns_of(&server.client().get("/export").body), turns_of(&export));
}

#[test]
fn what_cannot_be_imported_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let utf_16: Vec<u8> = "{}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (path, message) in [
        (directory.path().join("none.ndjson"), "none.ndjson: cannot be opened: "),
        (directory.path().to_owned(), "cannot be opened: "),
        (file("events.ndjson", events(1).as_bytes()), "events.ndjson:1: this is an event of the type `turn-start`"),
        (file("wide.ndjson", &utf_16), "wide.ndjson:1: the text is UTF-16"),
        (file("cut.gz", b"\x1f\x8b\x08\0\0\0\0\0"), "cut.gz:1: the gzip body is cut off"),
        (file("bad.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff\xff"), "bad.gz:1: the body is not valid gzip"),
    ] {
        let (code, out, err) = code_and_texts(&import(&server, &[&path]));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(message) && err.lines().count() == 1, "{err}");
    }
    assert_eq!(stored(&server), 0);
    let url = server.url();
    server.kill();
    let path = file("turns.ndjson", b"{}\n");
    let unreachable = turn_metrics().args(["import", "--server", &url]).arg(&path).output().unwrap();
    assert!(code_and_texts(&unreachable).2.contains("turns.ndjson: cannot reach"), "{unreachable:?}");
}

#[test]
fn after_a_client_that_is_gone_midway_a_repetition_brings_the_rest() {
    let export = export_of(3000);
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let mut client = server.client();
    let half = &export.as_bytes()[..export.len() / 2];
    let head = format!(
        "POST /import HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        export.len()
    );
    let stream = client.stream().unwrap().get_mut();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(half).unwrap();
    // The server imports while the body arrives.
    until("turns are imported", || (stored(&server) > 0).then_some(()));
    drop(client);
    let answer = post(&mut server.client(), &export).json();
    let (imported, duplicates) = (answer["imported"].as_u64().unwrap(), answer["duplicates"].as_u64().unwrap());
    assert!(imported + duplicates == 3000 && duplicates > 0, "{answer}");
    assert_eq!(turns_of(&server.client().get("/export").body), turns_of(&export));
}

#[test]
fn after_a_server_that_is_gone_midway_the_command_says_so_and_a_repetition_brings_the_rest() {
    let export = export_of(3000);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let mut command = turn_metrics();
    command.args(["import", "-", "--server", &server.url()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let half = export.len() / 2;
    pipe.write_all(&export.as_bytes()[..half]).unwrap();
    until("turns are imported", || (stored(&server) > 0).then_some(()));
    server.kill();
    // The command may end before it has read everything.
    let _ = pipe.write_all(&export.as_bytes()[half..]);
    drop(pipe);
    let (code, out, err) = code_and_texts(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("standard input: the connection was lost after about ") && err.contains("safe"), "{err}");

    let server = Server::start(&data);
    assert!(stored(&server) > 0);
    let answer = post(&mut server.client(), &export).json();
    assert_eq!((answer["end"].is_string(), &answer["incomplete"]), (true, &Value::Null));
    assert_eq!(turns_of(&server.client().get("/export").body), turns_of(&export));
}

#[test]
fn a_page_of_another_origin_may_not_import() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let line = r#"{"conversationId":"c","turnId":"t","usage":{},"steps":[]}"#;
    let typed = ("content-type", "application/x-ndjson");
    let from = |origin: &str| {
        let headers = [typed, ("origin", origin)];
        server.client().send("POST", "/import", &headers, line.as_bytes()).unwrap().status
    };
    assert_eq!([from("https://evil.example"), from("null")], [403, 403]);
    assert_eq!(stored(&server), 0);
    assert_eq!(from("http://localhost"), 200);
    assert_eq!(stored(&server), 1);
    assert_eq!(server.client().get("/import").header("allow"), Some("POST"));
}

#[test]
fn reports_of_the_other_server_count_what_was_erased_once_however_often_the_export_is_imported() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("first"));
    let body: Vec<_> = (0..200).map(events).collect();
    assert_eq!(server.client().post_events(&body.join("\n")).status, 200);
    for id in ["c1", "c2"] {
        assert_eq!(server.client().send("DELETE", &format!("/conversations/{id}"), &[], b"").unwrap().status, 204);
    }
    let stats = |server: &Server| {
        let report =
            server.client().get("/stats?from=2026-01-01&to=2026-03-01&by=model,provider,project,reason").json();
        report["rows"].clone()
    };
    let expected = stats(&server);
    assert_eq!(expected.as_array().unwrap().iter().filter_map(|row| row["turns"].as_u64()).sum::<u64>(), 200);
    let export = server.client().get("/export").body;
    let sums = export.lines().filter(|line| line.starts_with(r#"{"erased":"#)).count() as u64;
    assert!(sums > 0 && !export.contains("\"c1\""), "{export}");

    let other = Server::start(&directory.path().join("second"));
    for taken in [sums, 0] {
        let answer = post(&mut other.client(), &export).json();
        assert_eq!((answer["erasedSums"].as_u64(), answer["end"].is_string()), (Some(taken), true), "{answer}");
        assert_eq!(stats(&other), expected);
    }
    let without_end = &export[..export.trim_end().rfind('\n').unwrap()];
    assert_eq!(post(&mut other.client(), without_end).json()["incomplete"], true);
    let third = Server::start(&directory.path().join("third"));
    assert_eq!(post(&mut third.client(), &other.client().get("/export").body).status, 200);
    assert_eq!(stats(&third), expected, "the sums of the first server are handed on");
    let damaged = export.replacen(r#""sums":"0"#, r#""sums":"f"#, 1);
    let refused = post(&mut third.client(), &damaged);
    assert_eq!((refused.status, refused.json()["line"].as_u64()), (400, Some(1)), "{refused:?}");
}

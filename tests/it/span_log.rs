//! The span log of a server.

use serde_json::Value;

use crate::server::Server;

#[test]
fn a_server_writes_its_spans_to_the_configured_file_whatever_its_log_level() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("made/spans.ndjson");
    let settings = [("SPAN_LOG__FILE", file.to_str().unwrap()), ("LOG__LEVEL", "off")];
    let server = Server::start_with(&directory.path().join("data"), &settings);
    assert_eq!(server.client().get("/conversations/c/metrics").status, 200);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!((status.code(), log), (Some(0), vec![]));

    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = lines.iter().find(|line| line["name"] == "request").unwrap();
    assert_eq!(request["attributes"]["path"], "/conversations/{id}/metrics");
    assert!(request["startMs"].is_u64() && request["durationMs"].is_number(), "{request}");
}

#[test]
fn a_span_log_that_cannot_be_written_delays_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spans.ndjson");
    // The server that opens this named pipe to write also holds its read end, and never reads.
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let server = Server::start_with(&directory.path().join("data"), &[("SPAN_LOG__FILE", file.to_str().unwrap())]);
    let mut client = server.client();
    for _ in 0..1_000 {
        assert_eq!(client.get("/conversations/c/metrics").status, 200);
    }
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("the span log was not written in time")), "{log:#?}");
}

#[test]
fn a_server_does_not_start_if_its_span_log_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = crate::server::turn_metrics();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path().join("data"));
    let output = command.env("TURN_METRICS__SPAN_LOG__FILE", directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&format!("the span log {} cannot be opened", directory.path().display())), "{message}");
}

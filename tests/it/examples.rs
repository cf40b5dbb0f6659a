//! Runs the built examples and checks their output.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns what an example writes to standard output.
fn run(name: &str, arguments: &[&Path]) -> String {
    // Cargo builds the examples beside the program, before it runs the tests.
    let directory = Path::new(env!("CARGO_BIN_EXE_turn-metrics")).parent().unwrap();
    let path: PathBuf = directory.join("examples").join(name);
    assert!(path.exists(), "{name} is not built; `cargo test` without `--test` builds it");
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed: {err}");
    out
}

#[test]
fn embed_in_actix_app() {
    assert_eq!(
        run("embed_in_actix_app", &[]),
        "answer: look. think. answer.\n\
         turn: \"t-1\" with 3 steps\n\
         usage: {\"inputTokens\":3300,\"outputTokens\":60}\n"
    );
}

#[test]
fn record_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    let span_log = directory.path().join("spans.ndjson");
    let events = [
        r#"{"type":"turn-start","conversationId":"c","turnId":"t-1","model":"some-model"}"#,
        r#"{"type":"usage","conversationId":"c","turnId":"t-1","stepId":"t-1#0","usage":{"inputTokens":1200,"outputTokens":45,"cacheWriteTokens":900}}"#,
        r#"{"type":"step-complete","conversationId":"c","turnId":"t-1","stepId":"t-1#0","ttftMs":310,"decodeMs":150,"genTotalMs":460}"#,
        r#"{"type":"usage","conversationId":"c","turnId":"t-1","stepId":"t-1#1","usage":{"inputTokens":1400,"outputTokens":180,"cacheReadTokens":900}}"#,
        r#"{"type":"step-complete","conversationId":"c","turnId":"t-1","stepId":"t-1#1","ttftMs":280,"decodeMs":900,"genTotalMs":1180}"#,
        r#"{"type":"done","conversationId":"c","turnId":"t-1","reason":"stop","durationMs":3705,"usage":{"inputTokens":2600,"outputTokens":225,"cacheReadTokens":900,"cacheWriteTokens":900},"contextSize":1580}"#,
    ];
    assert_eq!(run("record_a_stream", &[&span_log]).lines().collect::<Vec<_>>(), events);

    // The same sums as the query in the README: spans, input tokens and milliseconds by name.
    let text = std::fs::read_to_string(span_log).unwrap();
    let spans: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |name: &str| {
        let of_name = || spans.iter().filter(|span| span["name"] == name);
        let input = of_name().filter_map(|span| span["attributes"]["usage.inputTokens"].as_u64()).sum::<u64>();
        let millis = of_name().filter_map(|span| span["durationMs"].as_u64()).sum::<u64>();
        (of_name().count(), input, millis)
    };
    assert_eq!(row("turn"), (1, 2600, 3705));
    assert_eq!(row("step"), (2, 2600, 3705));
    assert_eq!(row("provider.request"), (3, 2600, 1680));
    assert_eq!(row("tool-call"), (1, 0, 25));
}

#[test]
fn actor_test() {
    assert_eq!(
        run("actor_test", &[]),
        "the probe saw 4 events in 1 message\n\
         4 events were lost, the answer was not\n\
         turn 1 is sealed with a TTFT of Some(120.0) ms\n"
    );
}

#[test]
fn subscribe() {
    assert_eq!(run("subscribe", &[]), "c 1 first\nc 2 second\nc 3 third\nthe actor counted 3 turns and missed 0\n");
}

#[test]
fn follow() {
    let printed = run("follow", &[]);
    let (copied, taken): (Vec<_>, Vec<_>) = printed.lines().partition(|line| line.starts_with("copied"));
    assert_eq!(taken, ["1 first", "2 second", "3 third", "4 fourth", "1 first", "2 second", "3 third", "4 fourth"]);
    assert_eq!(copied, ["first", "second", "third", "fourth"].map(|turn| format!("copied {turn} of c")));
}

#[test]
fn ask() {
    let answers = [
        "one 1 t1: 0.003150000000 USD",
        "one is open: t3 with 1200 input tokens so far",
        "one has 1 sealed turn",
        "in order: t1, t2",
        "two: 1 turn, 0.009100000000 USD",
        "one: 1 turn, 0.003150000000 USD",
        "large: 1000 input tokens, 0.003150000000 USD",
        "small: 9000 input tokens, 0.009100000000 USD",
    ];
    assert_eq!(run("ask", &[]).lines().collect::<Vec<_>>(), answers);
}

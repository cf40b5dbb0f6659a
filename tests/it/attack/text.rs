use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{Server, turn_metrics};

/// A name that a terminal would show as `admin-txt.exe`. It also contains a Unicode line end and a control character.
const DECEPTIVE: &str = "admin-\u{202e}exe.txt\u{2028}\u{2066}";

fn event(duration: &str) -> String {
    let (conversation, turn) = (DECEPTIVE, format!("{DECEPTIVE}-turn"));
    format!(
        r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"{DECEPTIVE}","model":"{DECEPTIVE}","durationMs":{duration}}}"#
    ) + "\n"
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fn show(server: &Server, more: &[&str]) -> String {
    let output = turn_metrics().args(["show", DECEPTIVE, "--server", &server.url()]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn characters_that_reverse_the_direction_of_text_are_escaped_in_logs_and_on_terminals() {
    for format in ["json", "text"] {
        let directory = tempfile::tempdir().unwrap();
        let spans = directory.path().join("spans.ndjson");
        let settings = [("LOG__FORMAT", format), ("LOG__LEVEL", "trace"), ("SPAN_LOG__FILE", spans.to_str().unwrap())];
        let server = Server::start_with(&directory.path().join("data"), &settings);
        let mut client = server.client();
        assert_eq!(client.post_events(&event("1")).status, 200);
        assert_eq!(client.post_events(&event("1").replace("1}", "\"x\"}")).status, 400);
        assert!(is_plain(&show(&server, &[])));
        let json = show(&server, &["--json"]);
        assert!(is_plain(&json) && json.contains("\\u202e"), "{json}");
        // Control: over HTTP, the id is unchanged.
        let turns = client.get("/conversations/admin-%E2%80%AEexe.txt%E2%80%A8%E2%81%A6/turns");
        assert!(turns.body.contains(&format!("{DECEPTIVE}-turn")), "{turns:?}");

        let file = directory.path().join("events.ndjson");
        std::fs::write(&file, event("\"x\"")).unwrap();
        let ingest = turn_metrics().arg("ingest").arg(&file).args(["--server", &server.url()]).output().unwrap();
        assert!(is_plain(&String::from_utf8_lossy(&ingest.stderr)));

        server.signal("TERM");
        let (_, log) = server.wait();
        assert!(log.iter().any(|line| line.contains("\\u202e")), "the log names the turn: {log:#?}");
        assert!(log.iter().all(|line| is_plain(line)), "{log:#?}");
        assert!(is_plain(&std::fs::read_to_string(spans).unwrap()));
    }
}

/// Returns whether a text has no character on which a terminal would act, or that changes the direction of text.
fn has_no_control(text: &str) -> bool {
    is_plain(text)
        && !text.contains(|c: char| (c.is_control() && c != '\n') || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}'))
}

#[test]
fn exports_and_json_have_no_control_characters_even_in_a_pipe_and_csv_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let url = server.url();
    let label = format!("m\u{1b}]0;x\u{7}\u{7f}\u{85}\u{9b}2J\u{200f}\u{61c}{DECEPTIVE}");
    let event = serde_json::json!({
        "type": "done", "conversationId": DECEPTIVE, "turnId": "t", "reason": label, "model": label, "provider": label,
        "project": format!("\0{label}"), "usage": {"inputTokens": 1, "outputTokens": 1},
    });
    assert_eq!(server.client().post_events(&format!("{event}\n")).status, 200);

    let run = |args: &[&str]| {
        let output = turn_metrics().args(args).args(["--server", &url]).output().unwrap();
        // `prices check` ends with 3, because the model has no price.
        let expected = if args.contains(&"check") { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let file = directory.path().join("turns.ndjson");
    run(&["export", file.to_str().unwrap()]);
    let exported = run(&["export"]);
    assert_eq!(exported, std::fs::read_to_string(file).unwrap());
    assert!(has_no_control(&exported), "{exported}");
    // As JSON, the lines are those of the server.
    let values = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let sent = server.client().get("/export").body;
    assert!(!has_no_control(&sent), "the server sends the texts as they are: {sent}");
    assert_eq!(values(&exported), values(&sent));

    let mut questions = vec![vec!["list"], vec!["report", "--by", "model,provider,project,reason"]];
    if cfg!(feature = "prices") {
        questions.extend([vec!["prices", &label], vec!["prices", "check"]]);
    }
    for question in questions {
        let csv = run(&[&question[..], &["--csv"]].concat());
        assert!(csv.contains('\u{202e}') && csv.contains("\u{1b}]0;x"), "{question:?}: {csv:?}");
        let json = run(&[&question[..], &["--json"]].concat());
        assert!(has_no_control(&json) && json.contains("\\u202e"), "{question:?}: {json:?}");
    }
}

#[test]
fn errors_and_pages_repeat_no_control_characters_of_a_request() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    let text = "%E2%80%AE%1B%5B2J%07%00%7F%C2%9B%E2%81%A6%E2%80%8F";
    for (path, status) in [
        (format!("/turns?a{text}=1"), 400),
        (format!("/conversations?a{text}=1"), 400),
        (format!("/?a{text}=1"), 400),
        (format!("/ui/models?a{text}=1"), 400),
        (format!("/ui/conversations?prefix=a{text}&model=b{text}"), 200),
        (format!("/ui/conversations?tz={text}"), 400),
        (format!("/ui/conversations?first={text}"), 400),
        (format!("/ui/conversations/{text}/turns"), 400),
    ] {
        let answer = client.get(&path);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(has_no_control(&answer.body), "{path}: {answer:?}");
    }
    let bad = event("\"x\"");
    for (path, status) in [("/events", 400), ("/events?bad=skip", 200)] {
        let headers = [("content-type", "application/x-ndjson")];
        let answer = client.send("POST", path, &headers, bad.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(has_no_control(&answer.body), "{path}: {answer:?}");
    }
    let headers = [("content-type", "text/\u{202e}\u{9b}")];
    let answer = client.send("POST", "/events", &headers, b"").unwrap();
    assert!(answer.status == 415 && has_no_control(&answer.body), "{answer:?}");
}

#[test]
fn an_absurd_time_does_not_widen_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    assert_eq!(server.client().post_events(&event("1e308")).status, 200);
    let table = show(&server, &[]);
    assert!(table.contains("1.0e308"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() < 300), "{table}");
    // Control: the server keeps the time as it was sent.
    let turns = server.client().get("/conversations/admin-%E2%80%AEexe.txt%E2%80%A8%E2%81%A6/metrics");
    assert!(turns.body.contains("\"durationMs\":1e+308"), "{turns:?}");
}

#[test]
fn an_expectation_that_cannot_be_met_is_refused_with_417() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    for (expected, status) in [("100-continue", 200), ("200-ok", 417), ("100-continue, tea", 417)] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let head =
            format!("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nexpect: {expected}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert!(answers.contains(&format!("HTTP/1.1 {status} ")), "{expected}: {answers}");
    }
}

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

//! Runs the contract's cases on a real server, and compares the answers byte for byte.

use serde_json::{Value, json};

use crate::server::{Client, Server, metrics};

struct Case {
    name: String,
    events: Vec<Value>,
    /// For each conversation, its id and the expected body of `GET /conversations/{id}/metrics`.
    expected: Vec<(String, String)>,
}

/// Returns the cases. Each has conversations of its own, whose ids need escapes in a path.
fn cases() -> Vec<Case> {
    let file: Value = serde_json::from_str(include_str!("../vectors/fold.json")).unwrap();
    let cases: Vec<Case> = file["cases"].as_array().unwrap().iter().map(case).collect();
    assert_eq!(cases.len(), 39);
    cases
}

fn case(case: &Value) -> Case {
    let name = case["name"].as_str().unwrap().to_owned();
    let own = |conversation: &str| format!("{name}/{conversation} 100%?é");
    let mut events = case["events"].as_array().unwrap().clone();
    for event in &mut events {
        event["conversationId"] = own(event["conversationId"].as_str().unwrap()).into();
    }
    let metrics = case["metrics"].as_object().unwrap();
    let expected =
        metrics.iter().map(|(conversation, turns)| (own(conversation), json!({ "turns": turns }).to_string()));
    Case { expected: expected.collect(), events, name }
}

fn ndjson<'a>(events: impl IntoIterator<Item = &'a Value>) -> String {
    events.into_iter().flat_map(|event| [event.to_string(), "\n".into()]).collect()
}

fn assert_metrics(client: &mut Client, case: &Case) {
    for (conversation, body) in &case.expected {
        assert_eq!(&metrics(client, conversation), body, "case {}", case.name);
    }
}

#[test]
fn events_in_one_body() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    for case in cases() {
        let body = ndjson(&case.events);
        let answer = client.post_events(&body);
        assert_eq!(answer.status, 200, "case {}: {answer:?}", case.name);
        assert_metrics(&mut client, &case);
        client.post_events(&body);
        assert_metrics(&mut client, &case);
    }
}

#[test]
fn events_one_by_one_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    for case in cases() {
        for event in &case.events {
            let pretty = serde_json::to_string_pretty(event).unwrap();
            let json = [("content-type", "application/json; charset=utf-8")];
            let answer = client.send("POST", "/events", &json, pretty.as_bytes()).unwrap();
            assert_eq!(answer.status, 200, "case {}: {answer:?}", case.name);
        }
        assert_metrics(&mut client, &case);
    }
}

#[test]
fn all_cases_side_by_side_with_a_kill_between_any_two_events() {
    let directory = tempfile::tempdir().unwrap();
    let cases = cases();
    let longest = cases.iter().map(|case| case.events.len()).max().unwrap();
    for n in 0..longest {
        let server = Server::start(directory.path());
        let nth = ndjson(cases.iter().filter_map(|case| case.events.get(n)));
        assert_eq!(server.client().post_events(&nth).status, 200);
        server.kill();
    }
    let server = Server::start(directory.path());
    for case in &cases {
        assert_metrics(&mut server.client(), case);
    }
}

#[test]
fn a_bad_line_refuses_all_of_the_body_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    let file: Value = serde_json::from_str(include_str!("../vectors/bad-events.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 37);
    for case in cases {
        let (name, line) = (case["name"].as_str().unwrap(), case["line"].as_str().unwrap());
        let good = |turn| format!(r#"{{"type":"done","conversationId":"{name}","turnId":"{turn}","reason":"stop"}}"#);
        let answer = client.post_events(&format!("{}\n{}\n{line}\n", good(1), good(2)));
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert_eq!(answer.json()["line"], 3, "{name}: {answer:?}");
        assert!(!answer.error().is_empty(), "{name}");
        assert_eq!(metrics(&mut client, name), r#"{"turns":[]}"#, "{name}");
        assert_eq!(metrics(&mut client, "c"), r#"{"turns":[]}"#, "{name}");
    }
}

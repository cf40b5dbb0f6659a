//! `[retention] turns` on real servers.

use std::path::Path;

use serde_json::Value;
use turn_metrics::store;

use crate::server::{Client, Server, metrics, turn_metrics, until};

/// A time to keep turns that has passed for all turns when the server has started.
const SHORT: [(&str, &str); 1] = [("RETENTION__TURNS", "1ms")];

fn done(conversation: &str, turn: &str) -> String {
    format!(
        r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"stop","model":"m","usage":{{"inputTokens":900,"outputTokens":20}}}}
"#
    )
}

/// Posts a turn and returns its ordinal.
fn seal(client: &mut Client, conversation: &str, turn: &str) -> u64 {
    let answer = client.post_events(&done(conversation, turn));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sealed"][0]["ordinal"].as_u64().unwrap()
}

fn rows(client: &mut Client) -> Value {
    client.get("/stats?by=model,reason").json()["rows"].clone()
}

fn listed(client: &mut Client) -> Vec<(String, u64)> {
    let list = client.get("/conversations").json();
    let of =
        |listed: &Value| (listed["conversationId"].as_str().unwrap().to_owned(), listed["turns"].as_u64().unwrap());
    list["conversations"].as_array().unwrap().iter().map(of).collect()
}

/// Returns the conversations and the ids of all turns that the store lists in its order of all turns.
fn order(client: &mut Client) -> Vec<(String, String)> {
    let page = client.get("/turns?limit=1000").json();
    let text = |turn: &Value, key: &str| turn[key].as_str().unwrap().to_owned();
    let of = |turn: &Value| (text(turn, "conversationId"), text(&turn["metrics"], "turnId"));
    page["turns"].as_array().unwrap().iter().map(of).collect()
}

fn tag(client: &mut Client, conversation: &str) -> String {
    let answer = client.get(&format!("/conversations/{conversation}/metrics"));
    answer.header("etag").unwrap().to_owned()
}

fn has(directory: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(directory).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

fn assert_is_sound(directory: &Path) {
    assert_eq!(store::check(directory).unwrap().violations, []);
}

#[test]
fn old_turns_vanish_from_the_server_and_after_a_compaction_from_the_files_and_reports_stay() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    for (ordinal, turn) in [(1, "first-secret"), (2, "second-secret")] {
        assert_eq!(seal(&mut client, "c", turn), ordinal);
    }
    assert_eq!(seal(&mut client, "d", "third-secret"), 1);
    let open = r#"{"type":"turn-start","conversationId":"c","turnId":"open","model":"m"}"#;
    assert_eq!(client.post_events(open).status, 200);
    let (before, first_tag) = (rows(&mut client), tag(&mut client, "c"));
    assert_eq!((order(&mut client).len(), listed(&mut client).len()), (3, 2));
    server.kill();

    let server = Server::start_with(directory.path(), &SHORT);
    let mut client = server.client();
    until("all turns are dropped", || order(&mut client).is_empty().then_some(()));
    assert_eq!(metrics(&mut client, "c"), r#"{"turns":[]}"#);
    let of_c = client.get("/conversations/c/turns?open=true").json();
    assert_eq!(of_c["turns"], Value::Array(vec![]));
    assert_eq!(of_c["open"].as_array().unwrap().len(), 1, "open turns stay");
    assert_eq!(listed(&mut client), []);
    assert_eq!(rows(&mut client), before, "money that was spent was spent");
    let second_tag = tag(&mut client, "c");
    assert_ne!(second_tag, first_tag);
    server.await_log("turns were dropped because of their age");
    server.kill();
    assert_is_sound(directory.path());

    // Without retention, the next turn stays. A turn whose id was dropped is sealed anew.
    let server = Server::start(directory.path());
    let mut client = server.client();
    assert_eq!(tag(&mut client, "c"), second_tag);
    assert_eq!(seal(&mut client, "c", "young"), 3);
    assert_eq!(listed(&mut client), [("c".to_owned(), 3)]);
    assert_eq!(order(&mut client), [("c".to_owned(), "young".to_owned())]);
    assert_eq!(seal(&mut client, "d", "young"), 2);
    let before = rows(&mut client);
    server.kill();

    let compacted = turn_metrics().args(["compact", "--data-dir"]).arg(directory.path()).output().unwrap();
    assert!(compacted.status.success(), "{compacted:?}");
    assert!(has(directory.path(), "young"), "control");
    for secret in ["first-secret", "second-secret", "third-secret"] {
        assert!(!has(directory.path(), secret), "{secret}");
    }
    assert_is_sound(directory.path());
    let server = Server::start(directory.path());
    let mut client = server.client();
    assert_eq!(rows(&mut client), before);
    assert_eq!(listed(&mut client).into_iter().map(|(_, turns)| turns).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(seal(&mut client, "d", "last"), 3);
}

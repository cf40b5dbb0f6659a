//! `DELETE /conversations/{id}` and `turn-metrics erase` on real servers.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::server::{Client, Server, metrics, turn_metrics};

const EVENTS: &str = r#"{"type":"turn-start","conversationId":"a-secret","turnId":"t1","model":"m"}
{"type":"usage","conversationId":"a-secret","turnId":"t1","stepId":"a-step","usage":{"inputTokens":900,"outputTokens":20}}
{"type":"done","conversationId":"a-secret","turnId":"t1","reason":"stop","durationMs":9}
{"type":"turn-start","conversationId":"a-secret","turnId":"open","model":"m"}
{"type":"done","conversationId":"other","turnId":"t1","reason":"stop","usage":{"inputTokens":7,"outputTokens":1}}"#;

fn erase(server: &Server, id: &str, more: &[&str]) -> Output {
    turn_metrics().args(["erase", id, "--server", &server.url()]).args(more).output().unwrap()
}

fn delete(client: &mut Client, id: &str) -> u16 {
    client.send("DELETE", &format!("/conversations/{id}"), &[], b"").unwrap().status
}

fn rows(client: &mut Client) -> Value {
    client.get("/stats?by=model,reason").json()["rows"].clone()
}

fn listed(client: &mut Client) -> Vec<String> {
    let list = client.get("/conversations").json();
    let conversations = list["conversations"].as_array().unwrap();
    conversations.iter().map(|listed| listed["conversationId"].as_str().unwrap().to_owned()).collect()
}

fn has(directory: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(directory).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[test]
fn an_erased_conversation_is_gone_from_the_server_and_after_a_compaction_from_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut client = server.client();
    assert_eq!(client.post_events(EVENTS).status, 200);
    let tag = |client: &mut Client| client.get("/conversations/a-secret/metrics").header("etag").unwrap().to_owned();
    let (before, first_tag) = (rows(&mut client), tag(&mut client));
    assert_eq!(listed(&mut client).len(), 2);
    assert_eq!([delete(&mut client, "a-secret"), delete(&mut client, "a-secret")], [204, 404]);

    assert_eq!(metrics(&mut client, "a-secret"), r#"{"turns":[]}"#);
    assert_eq!(client.get("/conversations/a-secret/summary").status, 404);
    let open = client.get("/conversations/a-secret/turns?open=true").json();
    assert_eq!((&open["turns"], &open["open"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!(listed(&mut client), ["other"]);
    assert_eq!(rows(&mut client), before, "money that was spent was spent");

    // The rest of the open turn seals as a new turn, and the conversation begins anew.
    let rest = r#"{"type":"done","conversationId":"a-secret","turnId":"open","reason":"stop"}"#;
    let receipt = client.post_events(rest).json();
    assert_eq!((&receipt["sealed"][0]["ordinal"], &receipt["sealed"][0]["duplicate"]), (&1.into(), &false.into()));
    assert_ne!(tag(&mut client), first_tag);
    assert_eq!(delete(&mut client, "a-secret"), 204);
    let before = rows(&mut client);
    server.kill();

    let compacted = turn_metrics().args(["compact", "--data-dir"]).arg(directory.path()).output().unwrap();
    assert!(compacted.status.success(), "{compacted:?}");
    assert!(has(directory.path(), "other"), "control");
    assert!(!has(directory.path(), "a-secret") && !has(directory.path(), "a-step"));
    let server = Server::start(directory.path());
    assert_eq!(rows(&mut server.client()), before);
    assert_eq!(listed(&mut server.client()), ["other"]);
}

#[test]
fn the_command_erases_only_if_it_is_told_to_and_its_exit_code_says_what_became_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    assert_eq!(server.client().post_events(EVENTS).status, 200);
    let code = |output: &Output| (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    let (unasked, told) = code(&erase(&server, "a-secret", &[]));
    assert_eq!(unasked, Some(1));
    assert!(told.contains("--yes"), "{told}");
    assert_eq!(listed(&mut server.client()).len(), 2, "nothing was erased");
    let erased = code(&erase(&server, "a-secret", &["--yes"]));
    assert_eq!(erased, (Some(0), "conversation a-secret is erased\n".to_owned()));
    let again = code(&erase(&server, "a-secret", &["--yes"]));
    assert_eq!(again, (Some(1), "there is no conversation a-secret\n".to_owned()));
    assert_eq!(erase(&server, ".", &["--yes"]).status.code(), Some(2));
}

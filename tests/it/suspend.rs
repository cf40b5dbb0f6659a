//! A turn does not age while the server is suspended.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::server::{Client, Server, until};

const ABANDON_AFTER: Duration = Duration::from_secs(3);
/// How long the server is suspended: longer than the age at which a turn is abandoned.
const SUSPENDED_SECONDS: &str = "4";
/// This time is longer than one tick, and longer than a signal takes to arrive.
const SLACK: Duration = Duration::from_millis(300);
/// How often the test is repeated if the machine is too busy for a result.
const MAX_ATTEMPTS: u64 = 5;

fn line(conversation: &str, turn: u64, event: &str) -> String {
    event.replacen('{', &format!(r#"{{"conversationId":"{conversation}","turnId":"t{turn}","#), 1) + "\n"
}

fn latest_ordinal(client: &mut Client, conversation: &str) -> u64 {
    client.get(&format!("/conversations/{conversation}/turns")).json()["latestOrdinal"].as_u64().unwrap()
}

const USAGE: &str = r#"{"type":"usage","stepId":"s","usage":{"inputTokens":10,"outputTokens":5}}"#;

#[test]
fn a_server_that_is_suspended_for_longer_than_abandon_after_abandons_no_turn() {
    let directory = tempfile::tempdir().unwrap();
    let abandon_after = format!("{}s", ABANDON_AFTER.as_secs());
    let settings =
        [("TURNS__ABANDON_AFTER", &*abandon_after), ("TURNS__FAIL_AFTER", "200ms"), ("TURNS__SWEEP_EVERY", "10ms")];
    let server = Server::start_with(directory.path(), &settings);
    let mut client = server.client();
    for attempt in 1..=MAX_ATTEMPTS {
        let opened = Instant::now();
        assert_eq!(client.post_events(&line("c", attempt, USAGE)).status, 200);
        server.signal("STOP");
        let awake_before = opened.elapsed();
        assert!(Command::new("sleep").arg(SUSPENDED_SECONDS).status().unwrap().success());
        let resumed = Instant::now();
        server.signal("CONT");
        // The server may have closed the old connection as idle.
        client = server.client();

        // Another turn fails and is sealed. So sweeps have taken place, and they would have sealed the open turn as
        // abandoned.
        let failing = line("failing", attempt, USAGE) + &line("failing", attempt, r#"{"type":"error"}"#);
        assert_eq!(client.post_events(&failing).status, 200);
        until("the failed turn is sealed", || (latest_ordinal(&mut client, "failing") == attempt).then_some(()));

        let answer = client.post_events(&line("c", attempt, r#"{"type":"done","reason":"stop"}"#)).json();
        if awake_before + resumed.elapsed() + SLACK >= ABANDON_AFTER {
            // The server may have run for so long that it was right to abandon the turn.
            continue;
        }
        let sealed = serde_json::json!({
            "conversationId": "c", "turnId": format!("t{attempt}"), "ordinal": attempt, "duplicate": false
        });
        assert_eq!(answer["sealed"], serde_json::json!([sealed]));
        let turns = client.get(&format!("/conversations/c/turns?after={}", attempt - 1)).json();
        assert_eq!(turns["turns"][0]["reason"], "stop");
        let usage = serde_json::json!({"inputTokens": 10, "outputTokens": 5});
        assert_eq!(turns["turns"][0]["metrics"]["usage"], usage);
        return;
    }
    panic!("the machine was too busy for a result {MAX_ATTEMPTS} times");
}

//! What was acknowledged is there after a crash.

use crate::server::{Server, metrics, until};

fn line(json: &str) -> String {
    json.replacen('{', r#"{"conversationId":"c","turnId":"t","#, 1) + "\n"
}

#[test]
fn a_kill_between_two_events_of_a_turn_loses_neither() {
    let directory = tempfile::tempdir().unwrap();
    let events = [
        r#"{"type":"turn-start","model":"m"}"#,
        r#"{"type":"usage","stepId":"t#0","usage":{"inputTokens":10,"outputTokens":5,"cacheReadTokens":7}}"#,
        r#"{"type":"step-complete","stepId":"t#0","ttftMs":1.5,"decodeMs":2,"genTotalMs":3.5}"#,
        r#"{"type":"done","reason":"stop","durationMs":9}"#,
    ];
    for event in events {
        let server = Server::start(directory.path());
        assert_eq!(server.client().post_events(&line(event)).status, 200);
        server.kill();
    }
    let server = Server::start(directory.path());
    let mut client = server.client();
    let turn = r#"{"turnId":"t","usage":{"inputTokens":10,"outputTokens":5,"cacheReadTokens":7},"steps":[{"stepId":"t#0","usage":{"inputTokens":10,"outputTokens":5,"cacheReadTokens":7},"ttftMs":1.5,"decodeMs":2,"genTotalMs":3.5}],"durationMs":9,"contextSize":15}"#;
    assert_eq!(metrics(&mut client, "c"), format!(r#"{{"turns":[{turn}]}}"#));

    let again = client.post_events(&line(events[3])).json();
    assert_eq!(again["sealed"][0]["duplicate"], true);
    assert_eq!(again["sealed"][0]["ordinal"], 1);
}

#[test]
fn an_entity_tag_outlives_a_restart_but_not_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let tag = |server: &Server| {
        let answer = server.client().get("/conversations/c/metrics");
        answer.header("etag").unwrap().to_owned()
    };
    let server = Server::start(directory.path());
    server.client().post_events(&line(r#"{"type":"done","reason":"stop"}"#));
    let before = tag(&server);
    server.kill();
    assert_eq!(tag(&Server::start(directory.path())), before);

    let elsewhere = tempfile::tempdir().unwrap();
    let other = Server::start(elsewhere.path());
    other.client().post_events(&line(r#"{"type":"done","reason":"aborted"}"#));
    assert_ne!(tag(&other), before, "another store with as many turns has the same tag");
}

#[test]
fn turns_are_abandoned_by_age_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server
        .client()
        .post_events(&line(r#"{"type":"usage","stepId":"t#0","usage":{"inputTokens":10,"outputTokens":5}}"#));
    assert_eq!(metrics(&mut server.client(), "c"), r#"{"turns":[]}"#);
    server.kill();

    // The sweep at the start finds it: its age is what the store says, not how long this process has known it.
    let server =
        Server::start_with(directory.path(), &[("TURNS__ABANDON_AFTER", "1ms"), ("TURNS__SWEEP_EVERY", "10ms")]);
    let mut client = server.client();
    let turns = until("the turn is abandoned", || {
        let turns = client.get("/conversations/c/turns").json();
        (turns["latestOrdinal"] == 1).then_some(turns)
    });
    assert_eq!(turns["turns"][0]["reason"], "abandoned");
    assert_eq!(turns["turns"][0]["metrics"]["usage"]["inputTokens"], 10);
    let late = client.post_events(&line(r#"{"type":"done","reason":"stop"}"#)).json();
    assert_eq!(late["sealed"][0]["duplicate"], true);
}

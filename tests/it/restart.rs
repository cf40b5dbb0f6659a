//! Everything that was acknowledged is there after a crash.

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
fn an_entity_tag_survives_a_restart_but_fits_no_other_data() {
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

    // The turn's age continues from the stored value, not from the start of this process.
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

#[test]
fn a_turn_that_ends_with_an_error_is_sealed_without_a_done() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let usage = line(r#"{"type":"usage","stepId":"t#0","usage":{"inputTokens":10,"outputTokens":5}}"#);
    let error = line(r#"{"type":"error","message":"overloaded","code":"529"}"#);
    let answer = server.client().post_events(&(usage + &error)).json();
    assert_eq!(answer["accepted"], 2);
    let unknown = server.client().post_events(&error.replace(r#""t""#, r#""unknown""#)).json();
    assert_eq!(unknown["accepted"], 1);
    // The failure is staged with the turn.
    server.kill();

    let server =
        Server::start_with(directory.path(), &[("TURNS__FAIL_AFTER", "100ms"), ("TURNS__SWEEP_EVERY", "10ms")]);
    let turns = until("the failed turn is sealed", || {
        let turns = server.client().get("/conversations/c/turns").json();
        (turns["latestOrdinal"] == 1).then_some(turns)
    });
    assert_eq!((&turns["turns"][0]["reason"], &turns["turns"][0]["metrics"]["turnId"]), (&"error".into(), &"t".into()));
}

#[test]
fn the_fields_beside_the_metrics_of_a_turn_are_served_in_order_and_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let lines = [
        r#"{"type":"turn-start","model":"big","provider":"A","project":"search"}"#,
        r#"{"type":"usage","stepId":"s","usage":{"inputTokens":900,"outputTokens":1,"cacheWriteTokens":300,"cacheWrite1hTokens":200}}"#,
        r#"{"type":"usage","stepId":"s","usage":{"inputTokens":300,"outputTokens":7,"cacheWriteTokens":300,"cacheWrite1hTokens":100},"final":true}"#,
        r#"{"type":"step-complete","stepId":"s","ttftMs":-5,"decodeMs":0.000001,"genTotalMs":1e21,"model":"small","provider":"A"}"#,
    ];
    let body: String = lines.iter().map(|json| line(json)).collect();
    assert_eq!(server.client().post_events(&body).status, 200);
    // An open turn is stored with all of its details.
    server.kill();
    let server = Server::start(directory.path());
    let done = line(r#"{"type":"done","reason":"stop","endedAt":1700000000000.75}"#);
    assert_eq!(server.client().post_events(&done).status, 200);
    let turns = |server: &Server| server.client().get("/conversations/c/turns").body;
    let before = turns(&server);
    let sealed_at = serde_json::from_str::<serde_json::Value>(&before).unwrap()["turns"][0]["sealedAt"].clone();
    let usage = r#"{"inputTokens":300,"outputTokens":7,"cacheWriteTokens":300}"#;
    let metrics = format!(
        r#"{{"turnId":"t","usage":{usage},"steps":[{{"stepId":"s","usage":{usage},"decodeMs":0.000001,"genTotalMs":1e+21}}],"contextSize":307}}"#
    );
    let expected = format!(
        r#"{{"turns":[{{"ordinal":1,"sealedAt":{sealed_at},"endedAt":1700000000000,"reason":"stop","model":"big","provider":"A","project":"search","cacheWrite1hTokens":100,"stepDetails":[{{"stepId":"s","model":"small","cacheWrite1hTokens":100}}],"metrics":{metrics}}}],"latestOrdinal":1}}"#
    );
    assert_eq!(before, expected);
    server.kill();
    assert_eq!(turns(&Server::start(directory.path())), expected);
}

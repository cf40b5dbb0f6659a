//! What the log says about a turn, and what it must never contain.

use serde_json::{Value, json};

use crate::server::Server;

/// Posts two turns and returns the log of the whole life of the server.
fn log_of_two_turns(level: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("LOG__LEVEL", level)]);
    let mut body = String::new();
    for (turn, usage) in [
        ("full", json!({"inputTokens": 11, "outputTokens": 12, "cacheReadTokens": 13, "cacheWriteTokens": 0})),
        ("part", json!({"inputTokens": 21, "outputTokens": 22, "cacheWriteTokens": 24})),
    ] {
        for mut event in [
            json!({"type": "turn-start", "model": "secret-model"}),
            json!({"type": "text-delta", "delta": "secret-text"}),
            json!({"type": "usage", "stepId": "secret-step", "usage": usage}),
            json!({"type": "done", "reason": "secret-reason"}),
        ] {
            let ids = json!({"conversationId": "c", "turnId": turn});
            event.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
            body += &event.to_string();
            body.push('\n');
        }
    }
    assert_eq!(server.client().post_events(&body).status, 200);
    // A refusal quotes the refused text, but only to its sender.
    let bad = r#"{"type":"usage","conversationId":"c","turnId":"t","usage":"secret-usage"}"#;
    assert_eq!(server.client().post_events(bad).status, 400);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    log
}

#[test]
fn warnings_of_a_conversation_are_in_the_log_once() {
    // Both turns have more cached tokens than their prompts.
    let log: Vec<Value> = log_of_two_turns("info").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warnings: Vec<_> = log.iter().filter(|event| event["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{log:#?}");
    assert_eq!((&warnings[0]["conversationId"], &warnings[0]["turnId"]), (&json!("c"), &json!("full")));
    assert!(warnings[0]["warning"].as_str().unwrap().contains("cached"), "{}", warnings[0]);
}

#[test]
fn a_warning_is_in_the_log_once_even_if_the_actor_of_its_conversation_was_retired() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), &[("TURNS__MAX_ACTIVE_CONVERSATIONS", "128")]);
    let turn = |conversation: &str, turn: &str, cached: u32| {
        let usage = json!({"inputTokens": 11, "outputTokens": 12, "cacheReadTokens": cached});
        let events =
            [json!({"type": "usage", "stepId": "s", "usage": usage}), json!({"type": "done", "reason": "stop"})];
        let with_ids = |mut event: Value| {
            let ids = json!({"conversationId": conversation, "turnId": turn});
            event.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
            event.to_string() + "\n"
        };
        events.map(with_ids).concat()
    };
    let mut client = server.client();
    let mut post = |body: &str| client.post_events(body).json();
    assert_eq!(post(&turn("c", "t1", 13))["warnings"].as_array().unwrap().len(), 1);
    // Each of these conversations needs a place in memory, so all idle ones are retired.
    for nth in 0..200 {
        post(&turn(&format!("other{nth}"), "t", 0));
    }
    assert_eq!(post(&turn("c", "t2", 13))["warnings"].as_array().unwrap().len(), 1);
    server.signal("TERM");
    let (_, log) = server.wait();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("more cached tokens")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
}

#[test]
fn at_level_debug_a_sealed_turn_is_one_event_with_its_place_and_its_usage() {
    let log: Vec<Value> = log_of_two_turns("debug").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sealed: Vec<_> = log.iter().filter(|event| event["message"] == "turn sealed").collect();
    let expected =
        [("full", 1, [Some(11), Some(12), Some(13), Some(0)]), ("part", 2, [Some(21), Some(22), None, Some(24)])];
    assert_eq!(sealed.len(), expected.len(), "{log:#?}");
    for (event, (turn, ordinal, counters)) in sealed.into_iter().zip(expected) {
        assert_eq!(event["level"], "DEBUG", "{event}");
        assert_eq!(event["conversationId"], "c", "{event}");
        assert_eq!(event["turnId"], turn, "{event}");
        assert_eq!(event["ordinal"], ordinal, "{event}");
        let names = ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"];
        let found = names.map(|name| event.get(format!("usage.{name}")).map(|count| count.as_u64().unwrap()));
        assert_eq!(found, counters, "{event}");
    }
}

#[test]
fn at_level_info_a_request_that_seals_many_turns_is_one_event() {
    let log: Vec<Value> = log_of_two_turns("info").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sealed: Vec<_> =
        log.iter().filter(|event| event["message"].as_str().is_some_and(|text| text.contains("sealed"))).collect();
    assert_eq!(sealed.len(), 1, "{log:#?}");
    assert_eq!(
        (&sealed[0]["level"], &sealed[0]["message"], &sealed[0]["sealed"]),
        (&json!("INFO"), &json!("turns sealed"), &json!(2))
    );
}

#[test]
fn no_posted_content_is_in_the_log_at_any_level() {
    for level in ["info", "trace"] {
        let log = log_of_two_turns(level);
        assert!(!log.is_empty());
        for line in log {
            assert!(!line.contains("secret"), "{level}: {line}");
        }
    }
}

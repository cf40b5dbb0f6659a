//! The parts of a receipt besides the sealed turns.

use serde_json::json;

use crate::server::Server;

fn line(event: &str) -> String {
    event.replacen('{', r#"{"conversationId":"c","turnId":"t","#, 1) + "\n"
}

#[test]
fn late_events_and_warnings_are_in_the_receipt_and_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let usage =
        line(r#"{"type":"usage","stepId":"s","usage":{"inputTokens":10,"outputTokens":5,"cacheReadTokens":11}}"#);
    let done = line(r#"{"type":"done","reason":"stop","usage":{"inputTokens":9},"endedAt":1780000000}"#);
    let receipt = server.client().post_events(&(usage.clone() + &done)).json();
    assert_eq!(receipt.get("late"), None, "{receipt}");
    let warnings: Vec<_> = receipt["warnings"].as_array().unwrap().iter().map(|told| told.as_str().unwrap()).collect();
    let start = "conversation `c`: turn `t`: ";
    let told = |what: &str| warnings.iter().filter(|told| told.starts_with(&format!("{start}{what}"))).count();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(told("1 of its steps, first `s`, report more cached tokens than `inputTokens`"), 1, "{warnings:?}");
    assert_eq!(told("the usage of its `done` differs from the sum of its steps"), 1, "{warnings:?}");
    let ended = "the `endedAt` of its `done` was ignored, so the turn counts as ended when it was received: `endedAt` \
                 must be in milliseconds (not seconds) since 1970, and at most a day ahead of the service's clock";
    assert_eq!(told(ended), 1, "{warnings:?}");

    let receipt = server.client().post_events(&(usage.repeat(2) + &done)).json();
    let sealed = json!([{"conversationId": "c", "turnId": "t", "ordinal": 1, "duplicate": true}]);
    assert_eq!(receipt, json!({"accepted": 3, "ignored": 0, "late": 3, "sealed": sealed}));

    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    for kind in ["`inputTokens`", "`done` differs from the sum", "an implausible `endedAt`"] {
        assert_eq!(log.iter().filter(|line| line.contains(kind)).count(), 1, "{kind}: {log:#?}");
    }
    assert!(log.iter().any(|line| line.contains(r#""warnings":3"#)), "the log has the total at the end: {log:#?}");
}

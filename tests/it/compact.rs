//! `turn-metrics compact` on the files of real servers.

use crate::server::{Server, metrics, turn_metrics};

#[test]
fn the_files_of_a_killed_server_become_one_with_the_same_turns_and_a_running_server_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let compact = || turn_metrics().args(["compact", "--data-dir"]).arg(directory.path()).output().unwrap();
    let missing = compact();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no database"), "{missing:?}");

    let server = Server::start(directory.path());
    let done = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    assert_eq!(server.client().post_events(done).status, 200);
    let before = metrics(&mut server.client(), "c");
    let refused = compact();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by another process"), "{refused:?}");
    server.kill();

    let compacted = compact();
    assert!(compacted.status.success(), "{compacted:?}");
    assert!(String::from_utf8_lossy(&compacted.stderr).starts_with("from "), "{compacted:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let server = Server::start(directory.path());
    assert_eq!(metrics(&mut server.client(), "c"), before);
}

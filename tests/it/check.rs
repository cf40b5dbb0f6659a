//! `turn-metrics check` on the files of real servers.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::server::{Server, turn_metrics};

fn check(data_dir: &Path, more: &[&str]) -> Output {
    turn_metrics().args(["check", "--data-dir"]).arg(data_dir).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file that a server left that was killed.
fn file_of_a_killed_server() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut events = String::new();
    for turn in 0..5 {
        for (id, event) in [("a-turn", r#"{"type":"done","reason":"stop"}"#), ("open", r#"{"type":"turn-start"}"#)] {
            events += &event.replacen('{', &format!("{{\"conversationId\":\"c\",\"turnId\":\"{id}-{turn}\","), 1);
            events.push('\n');
        }
    }
    assert_eq!(server.client().post_events(&events).status, 200);
    server.kill();
    directory
}

#[test]
fn a_killed_servers_file_is_clean_and_not_changed_by_looking() {
    let directory = file_of_a_killed_server();
    let file = directory.path().join("turn-metrics.redb");
    let before = fs::read(&file).unwrap();
    let output = check(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let sum = text(&output.stderr);
    assert!(sum.contains("clean: 1 conversations, 5 sealed turns, 5 open turns"), "{sum}");
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn a_damaged_file_is_2_and_what_cannot_be_checked_is_3_and_wrong_usage_64() {
    let directory = file_of_a_killed_server();
    let file = directory.path().join("turn-metrics.redb");
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<_> = (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(b"a-turn-3")).collect();
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    let output = check(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("the file: "), "{}", text(&output.stdout));

    // What a repair cannot mend it leaves, and says so, however often it is asked.
    let damaged = fs::read(&file).unwrap();
    for _ in 0..2 {
        let repair = check(directory.path(), &["--repair"]);
        assert_eq!(repair.status.code(), Some(2), "{}", text(&repair.stderr));
        assert_eq!(text(&repair.stdout), text(&output.stdout));
        assert!(text(&repair.stderr).contains("Nothing was changed"), "{}", text(&repair.stderr));
        assert!(fs::read(&file).unwrap() == damaged, "the file was changed");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a copy was made");
    }

    fs::write(&file, "").unwrap();
    for more in [&[][..], &["--repair"]] {
        let output = check(directory.path(), more);
        assert_eq!(output.status.code(), Some(3));
        let told = text(&output.stderr);
        assert!(told.ends_with("the file is empty\n") && told.lines().count() == 1, "{told}");
        assert_eq!(text(&output.stdout), "");
    }

    let output = check(&directory.path().join("nothing"), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("there is no database"), "{}", text(&output.stderr));

    let running = tempfile::tempdir().unwrap();
    let _server = Server::start(running.path());
    for more in [&[][..], &["--repair"]] {
        let output = check(running.path(), more);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains("in use by another process"), "{}", text(&output.stderr));
    }

    let output = check(running.path(), &["--nonsense"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--nonsense"), "{}", text(&output.stderr));
    assert_eq!(check(running.path(), &["--help"]).status.code(), Some(0));
}

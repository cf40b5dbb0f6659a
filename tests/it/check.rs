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

/// The files of a server, if they exist. After an orderly stop, everything is in the first file.
const FILES: [&str; 2] = ["turn-metrics.redb", "turn-metrics.journal.redb"];

/// The files of a server that was killed.
fn files_of_a_killed_server() -> tempfile::TempDir {
    let (directory, server) = serving();
    server.kill();
    directory
}

/// The file of a server that was stopped in order.
fn file_of_a_stopped_server() -> tempfile::TempDir {
    let (directory, server) = serving();
    server.signal("TERM");
    assert!(server.wait().0.success());
    directory
}

fn read(directory: &Path) -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|file| fs::read(directory.join(file)).ok()).collect()
}

fn serving() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut events = String::new();
    for turn in 0..5 {
        for (id, event) in [("a-turn", r#"{"type":"done","reason":"stop"}"#), ("open", r#"{"type":"turn-start"}"#)] {
            events += &event.replacen('{', &format!("{{\"conversationId\":\"c\",\"turnId\":\"{id}-{turn}\","), 1);
            events.push('\n');
        }
    }
    // Damage it twice, because damage to the latest write alone looks like a write that was cut short.
    for _ in 0..2 {
        assert_eq!(server.client().post_events(&events).status, 200);
    }
    (directory, server)
}

#[test]
fn the_files_of_a_server_are_clean_however_it_ended_and_a_check_does_not_change_them() {
    for (directory, files) in [(files_of_a_killed_server(), 2), (file_of_a_stopped_server(), 1)] {
        let before = read(directory.path());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), files);
        let output = check(directory.path(), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
        let sum = text(&output.stderr);
        assert!(sum.contains("clean: 1 conversations, 5 sealed turns, 5 open turns"), "{sum}");
        assert!(read(directory.path()) == before);
    }
}

#[test]
fn exit_codes_are_2_for_damage_3_for_unchecked_files_and_64_for_wrong_usage() {
    for (directory, damaged) in [(files_of_a_killed_server(), FILES[1]), (file_of_a_stopped_server(), FILES[0])] {
        let file = directory.path().join(damaged);
        let mut bytes = fs::read(&file).unwrap();
        let places: Vec<_> = (0..bytes.len() - 8).filter(|at| bytes[*at..].starts_with(b"a-turn-3")).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at] ^= 1;
        }
        fs::write(&file, bytes).unwrap();
        let output = check(directory.path(), &[]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("the file: "), "{}", text(&output.stdout));

        let sum = text(&output.stderr);
        assert!(sum.contains("`turn-metrics check --repair` repairs this"), "{sum}");

        let before = fs::read(directory.path().join(damaged)).unwrap();
        let repair = check(directory.path(), &["--repair"]);
        assert_eq!(repair.status.code(), Some(1), "{}", text(&repair.stderr));
        assert!(text(&repair.stdout).starts_with(&text(&output.stdout)), "{}", text(&repair.stdout));
        assert!(
            text(&repair.stderr).contains("repaired; now it is clean: 1 conversations"),
            "{}",
            text(&repair.stderr)
        );
        let kept = fs::read(directory.path().join(format!("{damaged}.before-repair-1"))).unwrap();
        assert!(kept == before, "the damaged file was not kept");
        let after = read(directory.path());
        for more in [&[][..], &["--repair"]] {
            assert_eq!(check(directory.path(), more).status.code(), Some(0));
            assert!(read(directory.path()) == after, "a sound file was changed");
        }
    }

    // No copy of the damaged file can be kept, as something is in the place where it is written.
    let directory = file_of_a_stopped_server();
    let file = directory.path().join(FILES[0]);
    let mut damaged = fs::read(&file).unwrap();
    for place in (0..damaged.len() - 8).filter(|at| damaged[*at..].starts_with(b"a-turn-3")).collect::<Vec<_>>() {
        damaged[place] ^= 1;
    }
    fs::write(&file, &damaged).unwrap();
    fs::create_dir(directory.path().join(format!("{}.unfinished-copy", FILES[0]))).unwrap();
    let output = check(directory.path(), &["--repair"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("the file: "), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("are as before: no copy of them can be kept at"), "{}", text(&output.stderr));
    assert!(fs::read(&file).unwrap() == damaged, "the damaged file was changed");

    let directory = file_of_a_stopped_server();
    let file = directory.path().join(FILES[0]);
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

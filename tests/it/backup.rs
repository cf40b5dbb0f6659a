//! `turn-metrics backup` of a running server.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::server::{Server, metrics, turn_metrics};

fn back_up(server: &Server, destination: &Path, more: &[&str]) -> Output {
    let mut command = turn_metrics();
    command.args(["backup", "--server", &server.url()]).arg(destination).args(more);
    command.output().unwrap()
}

fn done(turn: u64) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t{turn}\",\"reason\":\"stop\"}}\n")
}

#[test]
fn a_copy_made_under_load_is_clean_and_has_everything_acknowledged_before() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(from.path());
    let mut client = server.client();
    let events: String = (1..=200).map(done).collect();
    assert_eq!(client.post_events(&events).status, 200);
    client.post_events("{\"type\":\"turn-start\",\"conversationId\":\"c\",\"turnId\":\"open\"}\n");
    let before = metrics(&mut client, "c");

    let destination = to.path().join("turn-metrics.redb");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (201..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                assert_eq!(client.post_events(&done(turn)).status, 200);
            }
        });
        let output = back_up(&server, &destination, &[]);
        stop.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let mut left: Vec<_> = std::fs::read_dir(from.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["turn-metrics.journal.redb", "turn-metrics.redb"], "the server left files of the copy behind");

    let check = turn_metrics().args(["check", "--data-dir"]).arg(to.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stdout));
    let copy = Server::start(to.path());
    let after = metrics(&mut copy.client(), "c");
    assert!(after.starts_with(before.trim_end_matches("]}")), "{after}");
}

#[test]
fn the_error_about_a_missing_directory_names_the_path_that_was_given_once() {
    let to = tempfile::tempdir().unwrap();
    let destination = to.path().join("nodir/x.redb");
    let output = turn_metrics().arg("backup").arg(&destination).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!("{} cannot be written: No such file or directory (os error 2)\n", destination.display());
    assert!(told.ends_with(&expected) && told.matches("nodir").count() == 1, "{told}");
    assert_eq!(told.matches("No such file").count(), 1, "{told}");
}

#[test]
fn the_help_checks_the_file_that_its_example_writes() {
    let output = turn_metrics().args(["backup", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, examples) = help.split_once("Examples:").unwrap();
    for example in examples.split("turn-metrics backup ").skip(1) {
        assert!(example.contains("copy/turn-metrics.redb"), "{help}");
    }
    assert!(examples.contains("check --data-dir copy"), "{help}");
}

#[test]
fn an_existing_file_is_replaced_only_with_force() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(from.path());
    let destination = to.path().join("copy.redb");
    std::fs::write(&destination, "mine").unwrap();
    let refused = back_up(&server, &destination, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(std::fs::read(&destination).unwrap(), b"mine");
    assert!(back_up(&server, &destination, &["--force"]).status.success());
    assert_ne!(std::fs::read(&destination).unwrap(), b"mine");
}

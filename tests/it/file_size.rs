//! A limit on the size of files (`ulimit -f`). By default the system ends a process that exceeds it without a message.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::server::{Answer, Server, metrics, turn_metrics, until};

/// Returns the command under a limit of this many blocks of 512 bytes, ready for arguments.
fn limited(blocks: u32) -> Command {
    let program = turn_metrics();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -S -f {blocks} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

/// Turns of a few hundred bytes each.
fn turns(from: usize, to: usize) -> String {
    let name = "s".repeat(200);
    let turn = |n| {
        format!(
            "{{\"type\":\"usage\",\"conversationId\":\"c\",\"turnId\":\"t{n}\",\"stepId\":\"{name}{n}\",\
             \"usage\":{{\"inputTokens\":1,\"outputTokens\":2}}}}\n\
             {{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t{n}\",\"reason\":\"stop\"}}\n"
        )
    };
    (from..to).map(turn).collect()
}

#[track_caller]
fn assert_told(output: &Output, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {told}", output.status);
    assert!(!told.contains("panicked"), "{told}");
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

/// A stopped store of a thousand turns, larger than the limits of these tests.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    assert_eq!(server.client().post_events(&turns(0, 1000)).status, 200);
    server.signal("TERM");
    assert!(server.wait().0.success());
    let bytes = fs::metadata(directory.path().join("turn-metrics.redb")).unwrap().len();
    assert!(bytes > 300 * 512, "{bytes}");
    directory
}

const TOO_LARGE: &str = "File too large";

#[test]
fn a_server_at_the_limit_refuses_says_why_and_continues_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_by(limited(400), directory.path(), &[("STORE__REDB__JOURNAL_BYTES", "10000000")]);
    let mut client = server.client();
    let mut acknowledged = 0;
    // The files grow until one of them reaches its limit.
    let refused = loop {
        let answer = client.post_events(&turns(acknowledged, acknowledged + 100));
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 100;
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    // The readiness check is small. It may still find room until the store fails at a larger write.
    let not_ready: Answer = until("it is not ready", || {
        let ready = client.get("/ready");
        if ready.status == 503 {
            return Some(ready);
        }
        let answer = client.post_events(&turns(acknowledged, acknowledged + 100));
        acknowledged += if answer.status == 200 { 100 } else { 0 };
        None
    });
    for part in [TOO_LARGE, "the size limit of this process (`ulimit -f`)"] {
        assert!(not_ready.error().contains(part), "{not_ready:?}");
    }
    assert_eq!(client.get("/health").status, 200);

    server.lift_file_size_limit();
    until("there is room", || (client.get("/ready").status == 200).then_some(()));
    let answer = client.post_events(&turns(acknowledged, acknowledged + 100));
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = metrics(&mut client, "c");
    assert_eq!(all.matches("\"turnId\"").count(), acknowledged + 100, "each turn is there once");
    server.signal("TERM");
    assert!(server.wait().0.success());
}

#[test]
fn compact_at_the_limit_says_why_and_leaves_the_store_as_it_was() {
    let directory = store();
    // Each limit is too low for the new file or for the changes to the old one.
    let mut told = Vec::new();
    for blocks in [16, 300, 600, 700, 800] {
        let output = limited(blocks).args(["compact", "--data-dir"]).arg(directory.path()).output().unwrap();
        if output.status.success() {
            break;
        }
        assert_told(&output, &[TOO_LARGE, "turn-metrics.", "redb"]);
        told.push(String::from_utf8_lossy(&output.stderr).into_owned());
        let left = |name: &str| directory.path().join(name).exists();
        assert!(!left("turn-metrics.journal.redb"), "a journal was made for nothing: {told:#?}");
        assert!(!left("turn-metrics.redb.unfinished-compaction"), "{told:#?}");
        let check = turn_metrics().args(["check", "--data-dir"]).arg(directory.path()).output().unwrap();
        assert!(
            String::from_utf8_lossy(&check.stderr).contains("clean: 1 conversations, 1000 sealed turns"),
            "{check:?}"
        );
    }
    assert!(told.len() >= 2, "{told:#?}");
}

#[test]
fn backup_at_the_limit_says_why_and_leaves_nothing() {
    let (directory, to) = (store(), tempfile::tempdir().unwrap());
    let server = Server::start(directory.path());
    let destination = to.path().join("copy.redb");
    let output = limited(100).args(["backup", "--server", &server.url()]).arg(&destination).output().unwrap();
    assert_told(&output, &[TOO_LARGE, &destination.display().to_string()]);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn ingest_at_the_limit_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("events.ndjson");
    fs::write(&input, turns(0, 1000)).unwrap();
    let server = Server::start_by(limited(200), &directory.path().join("data"), &[]);
    let ingest = ["ingest", "--retries", "0", "--server", &server.url()];
    let output = turn_metrics().args(ingest).arg(&input).output().unwrap();
    assert_told(&output, &["503", "no line is acknowledged"]);
    server.lift_file_size_limit();
    until("there is room", || (server.client().get("/ready").status == 200).then_some(()));

    // Here standard output is a file that has reached the limit too.
    let output = directory.path().join("output");
    fs::write(&output, [b'x'; 512]).unwrap();
    let full = File::options().append(true).open(&output).unwrap();
    let output = limited(1).args(ingest).arg(&input).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_told(&output, &["cannot write to standard output", TOO_LARGE]);
    assert!(metrics(&mut server.client(), "c").contains("\"t999\""));
}

#[test]
fn a_message_that_cannot_be_written_does_not_hide_the_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str| File::create(directory.path().join(name)).unwrap();
    let missing: &Path = &directory.path().join("none");
    let mut command = limited(0);
    command.args(["compact", "--data-dir"]).arg(missing).stdout(log("out")).stderr(log("err"));
    assert_eq!(command.status().unwrap().code(), Some(1));
    assert_eq!(limited(0).arg("config").stdout(log("settings")).stderr(log("err")).status().unwrap().code(), Some(1));
}

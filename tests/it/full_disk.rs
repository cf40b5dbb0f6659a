//! The real binary on a real file system that fills up and is freed again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::server::{Answer, Client, Server};

/// A small file system in memory. Dropping it unmounts it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts the file system. If that is not permitted, prints the reason and returns `None`.
    fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                println!("skipped: a file system cannot be mounted here: {reason}");
                None
            }
            Err(error) => {
                println!("skipped: a file system cannot be mounted here: {error}");
                None
            }
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Fills the file system except for this many bytes.
    fn fill_but(&self, bytes: u64) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let taken = ballast.metadata().unwrap().len();
        ballast.set_len(taken.saturating_sub(bytes)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A turn of a few kilobytes, so that the disk fills quickly.
fn turn(n: usize) -> String {
    let model = "m".repeat(200);
    let steps = (0..20).map(|step| {
        let usage = json!({"inputTokens": n, "outputTokens": step});
        let step_id = format!("{}-{step}", "s".repeat(200));
        json!({"type": "usage", "conversationId": "c", "turnId": format!("t{n}"), "stepId": step_id, "usage": usage})
    });
    let done = json!({"type": "done", "conversationId": "c", "turnId": format!("t{n}"), "reason": "stop"});
    let start = json!({"type": "turn-start", "conversationId": "c", "turnId": format!("t{n}"), "model": model});
    let events: Vec<String> =
        std::iter::once(start).chain(steps).chain([done]).map(|event| event.to_string()).collect();
    events.join("\n")
}

fn ordinal_of(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sealed"][0]["ordinal"].as_u64().unwrap()
}

/// Requests `path` until the answer has this status, and returns the answer.
fn await_status(client: &mut Client, path: &str, status: u16) -> Answer {
    let until = std::time::Instant::now() + crate::server::PATIENCE;
    loop {
        let answer = client.get(path);
        if answer.status == status {
            return answer;
        }
        assert!(std::time::Instant::now() < until, "{path} still answers {answer:?}");
    }
}

/// Seals turns until one is refused. Returns how many were acknowledged, and checks their order.
fn seal_until_refused(client: &mut Client, from: usize) -> usize {
    for n in from.. {
        let answer = client.post_events(&turn(n));
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            return n;
        }
        assert_eq!(ordinal_of(&answer), n as u64 + 1);
    }
    unreachable!("no disk is endless");
}

/// Seals turns until the disk is full and `/ready` reports it. After the store has opened its database again, a small
/// write may find room although a turn does not. Then the next turn shows that the disk is full.
fn seal_until_not_ready(client: &mut Client, mut turns: usize) -> (usize, Answer) {
    let until = std::time::Instant::now() + crate::server::PATIENCE;
    loop {
        turns = seal_until_refused(client, turns);
        let ready = client.get("/ready");
        if ready.status == 503 {
            return (turns, ready);
        }
        assert!(std::time::Instant::now() < until, "/ready never reports the full disk: {ready:?}");
    }
}

fn assert_all_there(client: &mut Client, turns: usize) {
    let mut seen = 0;
    loop {
        let page = client.get(&format!("/conversations/c/turns?limit=1000&after={seen}")).json();
        let page = page["turns"].as_array().unwrap().clone();
        if page.is_empty() {
            break;
        }
        for stored in page {
            assert_eq!(stored["metrics"]["turnId"], format!("t{seen}"));
            assert_eq!(stored["metrics"]["steps"].as_array().unwrap().len(), 20);
            seen += 1;
            assert_eq!(stored["ordinal"], seen);
        }
    }
    assert_eq!(seen, turns);
}

#[test]
fn a_full_disk_is_reported_and_survived_without_a_restart_or_the_loss_of_an_acknowledged_turn() {
    let Some(disk) = SmallDisk::mount(24 * 1024 * 1024) else { return };
    let server = Server::start(&disk.data_dir());
    let mut client = server.client();
    let mut turns = 0;
    // Do this several times, because each time the disk fills during another operation.
    for round in 0..4_u64 {
        while turns < 10 * (usize::try_from(round).unwrap() + 1) {
            assert_eq!(ordinal_of(&client.post_events(&turn(turns))), turns as u64 + 1);
            turns += 1;
        }
        disk.fill_but(round * 12 * 1024);
        let (refused, not_ready) = seal_until_not_ready(&mut client, turns);
        turns = refused;
        assert!(not_ready.error().to_lowercase().contains("no space"), "{not_ready:?}");
        assert_eq!(client.get("/health").status, 200);

        fs::remove_file(disk.ballast()).unwrap();
        await_status(&mut client, "/ready", 200);
        assert_all_there_but_the_last(&mut client, turns);
        // The control: the same check must catch a client that counts a refusal as an acknowledgement.
        let too_many = std::panic::catch_unwind(|| assert_all_there(&mut server.client(), turns + 2));
        assert!(too_many.is_err(), "the check did not notice missing turns");
        // The turn in doubt may be durable or not. After it is sent again, it is there exactly once.
        assert_eq!(ordinal_of(&client.post_events(&turn(turns))), turns as u64 + 1);
        turns += 1;
        assert_all_there(&mut client, turns);
    }
    server.kill();
    let server = Server::start(&disk.data_dir());
    assert_all_there(&mut server.client(), turns);
}

/// Asserts that exactly the acknowledged turns are there. The turn after them is in doubt.
fn assert_all_there_but_the_last(client: &mut Client, acknowledged: usize) {
    let in_doubt = client.get(&format!("/conversations/c/turns?after={acknowledged}")).json();
    let in_doubt = in_doubt["turns"].as_array().unwrap().len();
    assert!(in_doubt <= 1, "{in_doubt} turns that were not acknowledged");
    assert_all_there(client, acknowledged + in_doubt);
}

/// Moves everything from one directory to another.
fn move_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_database_that_vanished_is_not_replaced_by_an_empty_one_when_the_store_opens_again() {
    let Some(disk) = SmallDisk::mount(24 * 1024 * 1024) else { return };
    let server = Server::start(&disk.data_dir());
    let mut client = server.client();
    disk.fill_but(64 * 1024);
    let turns = seal_until_refused(&mut client, 0);
    assert!(turns > 0);
    // Move the database away while the store has it closed, as if the disk were unmounted.
    let elsewhere = disk.0.path().join("elsewhere");
    move_files(&disk.data_dir(), &elsewhere);
    fs::remove_file(disk.ballast()).unwrap();
    for _ in 0..20 {
        let answer = client.post_events(&turn(turns));
        assert_eq!(answer.status, 503, "acknowledged into an empty database: {answer:?}");
    }
    let not_ready = await_status(&mut client, "/ready", 503);
    assert!(!not_ready.error().is_empty());

    // The real file replaces any file that an attempt has left there.
    move_files(&elsewhere, &disk.data_dir());
    await_status(&mut client, "/ready", 200);
    assert_eq!(ordinal_of(&client.post_events(&turn(turns))), turns as u64 + 1);
    assert_all_there(&mut client, turns + 1);
}

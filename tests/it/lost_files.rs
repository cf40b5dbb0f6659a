//! The files of a running server are removed, moved or replaced, and a server starts where a file is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::server::{Client, Server, metrics, serve, turn_metrics, until};

const MAIN: &str = "turn-metrics.redb";
const JOURNAL: &str = "turn-metrics.journal.redb";

fn done(turn: &str) -> String {
    format!(r#"{{"type":"done","conversationId":"c","turnId":"{turn}","reason":"stop"}}"#)
}

/// A server with the turns `t0` to `t4`. The directory `data` lies in another one, so that it can be moved.
struct Losing {
    home: tempfile::TempDir,
    server: Server,
}

impl Losing {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = Server::start(&home.path().join("data"));
        for turn in 0..5 {
            assert_eq!(server.client().post_events(&done(&format!("t{turn}"))).status, 200);
        }
        Self { home, server }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn away(&self) -> PathBuf {
        self.home.path().join("away")
    }
}

/// Asserts that these turns are there once each, and no others.
#[track_caller]
fn assert_turns(client: &mut Client, expected: &[String]) {
    let turns = client.get("/conversations/c/turns?limit=1000").json();
    let ids = turns["turns"].as_array().unwrap().iter().map(|turn| turn["metrics"]["turnId"].as_str().unwrap());
    let mut ids: Vec<_> = ids.map(str::to_owned).collect();
    ids.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(ids, expected);
}

fn first_turns() -> Vec<String> {
    (0..5).map(|turn| format!("t{turn}")).collect()
}

/// Asserts that nothing is acknowledged, that `/ready` names what is gone, and that the turns can still be read.
#[track_caller]
fn assert_nothing_acknowledged(server: &Server, gone: &str) {
    let mut client = server.client();
    for turn in 0..20 {
        let refused = client.post_events(&done(&format!("later{turn}")));
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
        assert!(refused.error().starts_with("the store is unavailable"), "{refused:?}");
        // The same events again, a turn that was acknowledged before, and one that may be stored.
        assert_eq!(client.post_events(&done(&format!("later{turn}"))).status, 503);
        assert_eq!(client.post_events(&done("t0")).status, 503);
    }
    let not_ready = client.get("/ready");
    assert_eq!(not_ready.status, 503);
    for part in [gone, "move", "back"] {
        assert!(not_ready.error().contains(part), "{part}: {not_ready:?}");
    }
    assert_eq!(client.get("/health").status, 200);
    let shown = metrics(&mut client, "c");
    assert!(first_turns().iter().all(|turn| shown.contains(&format!("\"{turn}\""))), "{shown}");
}

#[test]
fn nothing_is_acknowledged_after_a_file_or_the_directory_is_removed_moved_or_replaced() {
    type Lose = fn(&Losing);
    let cases: [(Lose, &str); 8] = [
        (|losing| fs::remove_file(losing.data().join(MAIN)).unwrap(), MAIN),
        (|losing| fs::remove_file(losing.data().join(JOURNAL)).unwrap(), JOURNAL),
        (|losing| fs::remove_dir_all(losing.data()).unwrap(), "data directory"),
        (|losing| fs::rename(losing.data(), losing.away()).unwrap(), "data directory"),
        (
            |losing| {
                fs::rename(losing.data(), losing.away()).unwrap();
                fs::create_dir(losing.data()).unwrap();
            },
            "data directory",
        ),
        (
            |losing| {
                fs::rename(losing.data(), losing.away()).unwrap();
                drop(Server::start(&losing.data()));
            },
            "data directory",
        ),
        (
            |losing| {
                // A copy of the file takes its place, as a restored backup does.
                fs::copy(losing.data().join(MAIN), losing.home.path().join("copy")).unwrap();
                fs::rename(losing.home.path().join("copy"), losing.data().join(MAIN)).unwrap();
            },
            MAIN,
        ),
        (|losing| fs::rename(losing.data().join(JOURNAL), losing.away()).unwrap(), JOURNAL),
    ];
    for (lose, gone) in cases {
        let losing = Losing::start();
        lose(&losing);
        assert_nothing_acknowledged(&losing.server, gone);
    }
}

#[test]
fn what_is_moved_back_is_used_again_without_a_restart() {
    let losing = Losing::start();
    let mut client = losing.server.client();
    fs::rename(losing.data(), losing.away()).unwrap();
    assert_nothing_acknowledged(&losing.server, "data directory");
    // Behind a link, they are the same files.
    symlink(losing.away(), losing.data()).unwrap();
    assert_eq!(client.get("/ready").status, 200);
    assert_eq!(client.post_events(&done("t5")).status, 200);
    fs::remove_file(losing.data()).unwrap();
    assert_eq!(client.post_events(&done("t6")).status, 503);
    fs::rename(losing.away(), losing.data()).unwrap();
    for turn in ["t5", "t6", "later0"] {
        assert_eq!(client.post_events(&done(turn)).status, 200);
    }
    losing.server.kill();
    let server = Server::start(&losing.home.path().join("data"));
    assert_turns(&mut server.client(), &[first_turns(), ["t5", "t6", "later0"].map(str::to_owned).into()].concat());
}

#[test]
fn every_turn_that_was_acknowledged_while_the_directory_was_moved_is_in_it() {
    let losing = Losing::start();
    let (moved, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = std::thread::scope(|scope| {
        let clients = ["a", "b", "c", "d"].map(|name| {
            let (address, moved, count) = (losing.server.address, &moved, &count);
            scope.spawn(move || {
                let mut client = Client::new(address);
                let turns = (0..5000).map(|turn| format!("{name}{turn}"));
                let taken = turns.take_while(|turn| {
                    let is_moved = moved.load(Ordering::SeqCst);
                    let answer = client.post_events(&done(turn));
                    assert!(!is_moved || answer.status == 503, "{answer:?}");
                    count.fetch_add(1, Ordering::SeqCst);
                    answer.status == 200
                });
                taken.collect::<Vec<_>>()
            })
        });
        until("some turns are sealed", || (count.load(Ordering::SeqCst) > 50).then_some(()));
        fs::rename(losing.data(), losing.away()).unwrap();
        moved.store(true, Ordering::SeqCst);
        clients.map(|client| client.join().unwrap()).concat()
    });
    assert!(acknowledged.len() >= 40);
    let away = losing.away();
    losing.server.kill();
    let server = Server::start(&away);
    let shown = metrics(&mut server.client(), "c");
    let missing: Vec<_> = acknowledged.iter().filter(|turn| !shown.contains(&format!("\"{turn}\""))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    drop(losing.home);
}

/// Stops the server with SIGTERM, and asserts that it ends in order.
fn stop(server: Server) -> Vec<String> {
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log:#?}");
    log
}

#[test]
fn a_server_that_lost_its_journal_saves_everything_when_it_is_stopped() {
    for replaces in [false, true] {
        let losing = Losing::start();
        let (data, journal) = (losing.data(), losing.data().join(JOURNAL));
        fs::remove_file(&journal).unwrap();
        if replaces {
            fs::write(&journal, "of somebody else").unwrap();
        }
        assert_nothing_acknowledged(&losing.server, JOURNAL);
        stop(losing.server);
        if replaces {
            assert_eq!(fs::read(&journal).unwrap(), b"of somebody else");
            fs::remove_file(&journal).unwrap();
        }
        let check = turn_metrics().args(["check", "--data-dir"]).arg(&data).output().unwrap();
        assert_eq!(check.status.code(), Some(0), "{check:?}");
        let server = Server::start(&data);
        let shown = metrics(&mut server.client(), "c");
        assert!(first_turns().iter().all(|turn| shown.contains(&format!("\"{turn}\""))), "{shown}");
        drop(losing.home);
    }
}

#[test]
fn the_contents_of_a_removed_database_can_be_saved_as_the_message_says() {
    for all in [false, true] {
        let losing = Losing::start();
        let (data, backup) = (losing.data(), losing.home.path().join("backup.redb"));
        if all {
            fs::remove_dir_all(&data).unwrap();
            assert_nothing_acknowledged(&losing.server, "data directory");
            fs::create_dir(&data).unwrap();
        } else {
            fs::remove_file(data.join(MAIN)).unwrap();
            assert_nothing_acknowledged(&losing.server, MAIN);
        }
        let mut command = turn_metrics();
        let saved = command.args(["backup", "--server", &losing.server.url()]).arg(&backup).output().unwrap();
        assert!(saved.status.success(), "{saved:?}");
        stop(losing.server);
        if !all {
            // The journal is still there, and is not taken for the journal of a new store.
            assert_refused(&data, &["is missing, and its journal", "move the journal away and restore a backup"]);
            assert!(!data.join(MAIN).exists() && data.join(JOURNAL).exists());
            fs::rename(data.join(JOURNAL), losing.home.path().join("old journal")).unwrap();
        }
        fs::rename(&backup, data.join(MAIN)).unwrap();
        let server = Server::start(&data);
        let shown = metrics(&mut server.client(), "c");
        assert!(first_turns().iter().all(|turn| shown.contains(&format!("\"{turn}\""))), "{shown}");
        drop(losing.home);
    }
}

#[test]
fn an_idle_server_logs_that_its_files_are_gone() {
    let losing = Losing::start();
    fs::remove_dir_all(losing.data()).unwrap();
    losing.server.await_log("nothing is acknowledged any more");
}

/// Writes over a file in place, as `cp` does, cuts it short, or empties it.
const OVERWRITES: [fn(&Path, &[u8]); 3] = [
    |path, earlier| fs::write(path, earlier).unwrap(),
    |path, _| fs::File::options().write(true).open(path).unwrap().set_len(16_384).unwrap(),
    |path, _| fs::write(path, "").unwrap(),
];

/// Asserts that nothing is acknowledged, and that `/ready` says which file was written over.
#[track_caller]
fn assert_overwritten(server: &Server, file: &str) {
    for turn in 0..20 {
        let refused = server.client().post_events(&done(&format!("later{turn}")));
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    let not_ready = server.client().get("/ready");
    assert_eq!(not_ready.status, 503, "{not_ready:?}");
    for part in [file, "another program has written over", "stop the server"] {
        assert!(not_ready.error().contains(part), "{part}: {not_ready:?}");
    }
}

#[test]
fn nothing_is_acknowledged_after_another_program_has_written_over_the_database_which_stays_as_it_wrote_it() {
    for overwrite in OVERWRITES {
        let losing = Losing::start();
        let (main, backup) = (losing.data().join(MAIN), losing.home.path().join("backup.redb"));
        let mut command = turn_metrics();
        let saved = command.args(["backup", "--server", &losing.server.url()]).arg(&backup).output().unwrap();
        assert!(saved.status.success(), "{saved:?}");
        assert_eq!(losing.server.client().post_events(&done("t5")).status, 200);
        overwrite(&main, &fs::read(&backup).unwrap());
        let written = fs::read(&main).unwrap();
        assert_overwritten(&losing.server, MAIN);
        // A backup may still have everything, if what it needs is in memory. Otherwise it is refused.
        let last = losing.home.path().join("last.redb");
        let mut command = turn_metrics();
        let saved = command.args(["backup", "--server", &losing.server.url()]).arg(&last).output().unwrap();
        stop(losing.server);
        assert_eq!(saved.status.success(), last.exists());
        if last.exists() {
            let data = losing.home.path().join("of the last backup");
            fs::create_dir(&data).unwrap();
            fs::rename(&last, data.join(MAIN)).unwrap();
            let turns = [first_turns(), vec!["t5".to_owned()]].concat();
            let shown = metrics(&mut Server::start(&data).client(), "c");
            assert!(turns.iter().all(|turn| shown.contains(&format!("\"{turn}\""))), "{shown}");
        }
        assert!(fs::read(&main).unwrap() == written, "the server wrote to the file");
        // As `/ready` says, and the journal is still there.
        fs::rename(losing.home.path().join("data").join(JOURNAL), losing.home.path().join("old journal")).unwrap();
        fs::write(&main, fs::read(&backup).unwrap()).unwrap();
        assert_turns(&mut Server::start(&losing.home.path().join("data")).client(), &first_turns());
    }
}

#[test]
fn everything_is_saved_by_a_stop_after_another_program_has_written_over_the_journal() {
    for overwrite in OVERWRITES {
        let losing = Losing::start();
        let (data, journal) = (losing.data(), losing.data().join(JOURNAL));
        let earlier = fs::read(&journal).unwrap();
        assert_eq!(losing.server.client().post_events(&done("t5")).status, 200);
        overwrite(&journal, &earlier);
        let written = fs::read(&journal).unwrap();
        assert_overwritten(&losing.server, JOURNAL);
        stop(losing.server);
        assert!(fs::read(&journal).unwrap() == written, "the server wrote to the file");
        fs::rename(&journal, losing.home.path().join("old journal")).unwrap();
        let check = turn_metrics().args(["check", "--data-dir"]).arg(&data).output().unwrap();
        assert_eq!(check.status.code(), Some(0), "{check:?}");
        let turns = [first_turns(), vec!["t5".to_owned()]].concat();
        assert_turns(&mut Server::start(&data).client(), &turns);
        drop(losing.home);
    }
}

#[test]
fn an_idle_server_logs_that_a_file_was_written_over() {
    let losing = Losing::start();
    fs::write(losing.data().join(MAIN), "of somebody else").unwrap();
    losing.server.await_log("another program has written over the database file");
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that no server starts on this directory, and that the message has these parts.
#[track_caller]
fn assert_refused(data: &Path, parts: &[&str]) {
    let refused = serve(data).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for part in parts {
        assert!(told(&refused).contains(part), "{part}: {}", told(&refused));
    }
}

#[test]
fn a_start_makes_no_new_database_in_the_place_of_a_lost_one() {
    let losing = Losing::start();
    let data = losing.data();
    let (main, journal) = (data.join(MAIN), data.join(JOURNAL));
    losing.server.kill();
    let content = fs::read(&main).unwrap();
    fs::write(&main, "").unwrap();
    assert_refused(
        &data,
        &["is empty (0 bytes)", "bring it back, or restore a backup", "what the journal beside it has"],
    );
    assert_eq!(fs::read(&main).unwrap(), b"");
    fs::remove_file(&main).unwrap();
    assert_refused(&data, &["is missing, and its journal", "bring the database back"]);
    let compact = turn_metrics().args(["compact", "--data-dir"]).arg(&data).output().unwrap();
    assert!(!compact.status.success() && told(&compact).contains("is missing, and its journal"), "{compact:?}");
    assert!(!main.exists());
    fs::write(&main, &content).unwrap();
    let kept = fs::read(&journal).unwrap();
    fs::write(&journal, "").unwrap();
    assert_refused(&data, &["is missing or empty", "bring it back"]);
    fs::write(&journal, kept).unwrap();
    stop(Server::start(&data));
    fs::write(&main, "").unwrap();
    for command in ["serve", "compact", "check"] {
        let mut refused = turn_metrics();
        refused.args([command, "--data-dir"]).arg(&data);
        let refused = refused.output().unwrap();
        assert!(!refused.status.success() && told(&refused).contains("is empty"), "{refused:?}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    drop(losing.home);
}

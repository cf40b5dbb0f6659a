//! What a killed backup, compaction or repair leaves in the directory is gone after the next start, and nothing else
//! is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use redb::Database;

use super::check::repair;
use super::compact::compact;
use super::crash_tests::{at_each_change, lose, open, prepared};
use crate::report::NoPrices;
use crate::store::Location;
use crate::store::redb::tables::schema::ROWS;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// Names that a user may give to files of their own.
const OF_THE_USER: [&str; 6] = [
    "turn-metrics.redb.backup",
    "turn-metrics.redb.compact",
    "turn-metrics.redb.new",
    "turn-metrics.redb.unfinished-backup.old",
    "turn-metrics.journal.redb.new",
    "unfinished-copy",
];

fn names(directory: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// Kills `operation` at one in `every` of its changes, starts the store, and asserts that only its files and the user's
/// are there. Returns how many changes there were, and how many kills left something.
fn kill(prepared: &Path, every: usize, operation: impl Fn(&Path), start: impl Fn(&Path)) -> (u64, usize) {
    for name in OF_THE_USER {
        fs::write(prepared.join(name), "mine").unwrap();
    }
    let expected: BTreeSet<_> = names(prepared);
    let [main, journal] =
        [StoreFile::Main, StoreFile::Journal].map(|file| fs::read(prepared.join(file.name())).unwrap());
    let leaving = std::cell::Cell::new(0);
    let kills = at_each_change(prepared, every, operation, |directory| {
        let is_unfinished = |name: &String| name.contains(".unfinished-") && !OF_THE_USER.contains(&name.as_str());
        leaving.set(leaving.get() + usize::from(names(directory).iter().any(is_unfinished)));
        // Copies that a repair has finished are kept for ever.
        let is_kept = |name: &String| name.contains(".before-repair-");
        for name in names(directory).iter().filter(|name| is_kept(name)) {
            let copy = fs::read(directory.join(name)).unwrap();
            assert!(copy == main || copy == journal, "{name} is not a whole copy");
        }
        start(directory);
        let mut left = names(directory);
        left.retain(|name| !is_kept(name));
        assert_eq!(left, expected);
        assert!(OF_THE_USER.iter().all(|name| fs::read(directory.join(name)).unwrap() == b"mine"));
    });
    (kills, leaving.get())
}

fn start(directory: &Path) {
    lose(open(directory).unwrap());
}

#[test]
fn a_start_removes_what_a_killed_backup_left() {
    let directory = prepared();
    let back_up = |directory: &Path| {
        if let Ok(running) = open(directory) {
            drop(running.0.back_up());
            lose(running);
        }
    };
    let (changes, leaving) = kill(directory.path(), 4, back_up, start);
    println!("{changes} changes");
    assert!(changes > 20 && leaving > 2, "{changes} {leaving}");
}

#[test]
fn a_start_removes_what_a_killed_compaction_left() {
    let directory = prepared();
    let (changes, leaving) = kill(directory.path(), 7, |directory| drop(compact(directory, Arc::new(NoPrices))), start);
    println!("{changes} changes");
    assert!(changes > 20 && leaving > 2, "{changes} {leaving}");
}

#[test]
fn a_start_removes_what_a_killed_repair_left() {
    let directory = prepared();
    let journal = Database::open(directory.path().join(StoreFile::Journal.name())).unwrap();
    let txn = journal.begin_write().unwrap();
    assert!(txn.open_table(ROWS).unwrap().remove(6).unwrap().is_some());
    txn.commit().unwrap();
    journal.close().unwrap();
    let start_repaired = |directory: &Path| {
        if open(directory).map(lose).is_err() {
            repair(directory).unwrap();
            start(directory);
        }
    };
    let (changes, leaving) = kill(directory.path(), 1, |directory| drop(repair(directory)), start_repaired);
    println!("{changes} changes");
    assert!(changes > 20 && leaving > 2, "{changes} {leaving}");
}

#[test]
fn control_a_start_that_removes_nothing_is_noticed() {
    let directory = prepared();
    let open_only = |directory: &Path| drop(Location::Directory(directory.to_owned()).open(1 << 20).unwrap());
    let compact = |directory: &Path| drop(compact(directory, Arc::new(NoPrices)));
    let noticed = unwind::caught(|| kill(directory.path(), 7, compact, open_only)).unwrap_err();
    assert!(noticed.to_string().contains(".unfinished-compaction"), "{noticed}");
}

//! Tests that crash at each change that a repair, a compaction and a backup make to files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use redb::Database;

use super::check::{check, repair};
use super::compact::compact;
use crate::report::NoPrices;
use crate::settings::StoreSettings;
use crate::simulate::random::Random;
use crate::store::redb::files::doom;
use crate::store::redb::tables::schema::ROWS;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{Commit, Lineage, Location, OpenError, RedbEngine, TurnRange, Version};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId};

fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

pub(super) fn open(directory: &Path) -> Result<(RedbEngine, Writer), OpenError> {
    let location = Location::Directory(directory.to_owned());
    RedbEngine::prepare(location, &StoreSettings::default(), Backoff::default())
}

fn seal(store: &RedbEngine, writer: &mut Writer, name: &str, version: u64) {
    let turn = OpenTurn::new(TurnId::new(format!("{name}{version}")).unwrap());
    let sealed = vec![turn.seal(&Done::because("stop"), EpochMillis::new(1))];
    let commit = Commit {
        conversation_id: id(name),
        expected_version: Version(version),
        staged: Vec::new(),
        sealed,
        imported_from: None,
    };
    let mut answer = std::pin::pin!(store.commit(commit));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(answer.as_mut().poll(&mut context).is_pending());
    let _ = writer.run_once();
    assert!(matches!(answer.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(_))));
}

/// Ends a store as if its process were killed.
pub(super) fn lose((store, writer): (RedbEngine, Writer)) {
    drop(store);
    writer.run();
}

/// Returns a store as a crash leaves it, with two turns of each conversation in the tables and two in the journal.
pub(super) fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for versions in [0..2, 2..4] {
        let (store, mut writer) = open(directory.path()).unwrap();
        for version in versions.clone() {
            for name in ["a", "b"] {
                seal(&store, &mut writer, name, version);
            }
        }
        if versions.start == 0 {
            store.tell_to_close();
        }
        lose((store, writer));
    }
    directory
}

/// Returns how many sealed turns the conversations `a` and `b` have, and the lineage, which is the id of the store's
/// history. Asserts that positions have no gap.
fn told(store: &RedbEngine) -> ([usize; 2], Lineage) {
    let turns = |name| store.turns(&TurnRange::after(id(name), 0, 99)).unwrap().len();
    let turns = [turns("a"), turns("b")];
    let page = store.sealed_turns(None, 99).unwrap();
    assert!(page.turns.iter().map(|turn| turn.position.number).eq(1..=(turns[0] + turns[1]) as u64));
    (turns, page.latest.lineage)
}

/// Does `operation` on copies of a directory. Each run crashes at another change, by a kill or by a power cut, and then
/// `check_rest` checks what is left. Only one in `every` changes is tried; `TURN_METRICS_TEST_EVERY=1` tries all.
/// Returns the number of changes.
pub(super) fn at_each_change(
    prepared: &Path,
    every: usize,
    operation: impl Fn(&Path),
    check_rest: impl Fn(&Path),
) -> u64 {
    let mut random = Random::new(1);
    let set = std::env::var("TURN_METRICS_TEST_EVERY").ok().map(|every| every.parse().unwrap());
    for crashes in (0..).step_by(set.unwrap_or(every)) {
        let directory = tempfile::tempdir().unwrap();
        for file in fs::read_dir(prepared).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
        doom::plan(crashes);
        operation(directory.path());
        let cuts_power = random.once_in(2);
        if !doom::end(cuts_power.then_some(&mut random)) {
            return crashes;
        }
        check_rest(directory.path());
    }
    unreachable!("it ends")
}

/// Overwrites both commit slots in the header of the main file, so that redb cannot open the file.
fn overwrite_header(directory: &Path) {
    let path = directory.join(StoreFile::Main.name());
    let mut main = fs::read(&path).unwrap();
    main[64..320].fill(0xAB);
    fs::write(&path, main).unwrap();
}

/// Asserts that the store is sound and has all turns and its lineage.
fn assert_whole(directory: &Path, lineage: Lineage) {
    assert_eq!(check(directory).unwrap().violations, []);
    let running = open(directory).unwrap();
    assert_eq!(told(&running.0), ([4, 4], lineage));
    lose(running);
}

fn lineage_of(directory: &Path) -> Lineage {
    let running = open(directory).unwrap();
    let (_, lineage) = told(&running.0);
    lose(running);
    lineage
}

#[test]
fn a_crash_in_a_compaction_loses_nothing() {
    let directory = prepared();
    let lineage = lineage_of(directory.path());
    let compact = |directory: &Path| drop(compact(directory, Arc::new(NoPrices)));
    let crashes = at_each_change(directory.path(), 7, compact, |directory| {
        assert_whole(directory, lineage);
        compact(directory);
        assert_whole(directory, lineage);
    });
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn a_crash_in_a_backup_loses_nothing_and_the_next_one_is_whole() {
    let directory = prepared();
    let lineage = lineage_of(directory.path());
    let back_up = |directory: &Path| {
        if let Ok(running) = open(directory) {
            drop(running.0.back_up());
            lose(running);
        }
    };
    let crashes = at_each_change(directory.path(), 4, back_up, |directory| {
        assert_whole(directory, lineage);
        let running = open(directory).unwrap();
        let mut copy = running.0.back_up().unwrap();
        lose(running);
        let restored = tempfile::tempdir().unwrap();
        let mut file = fs::File::create(restored.path().join(StoreFile::Main.name())).unwrap();
        std::io::copy(&mut copy.bytes, &mut file).unwrap();
        let (turns, of_copy) = told(&open(restored.path()).unwrap().0);
        assert!(turns == [4, 4] && of_copy != lineage);
    });
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn a_crash_in_a_repair_leaves_a_store_that_opens_or_that_a_repair_mends() {
    let directory = prepared();
    let lineage = lineage_of(directory.path());
    let journal = Database::open(directory.path().join(StoreFile::Journal.name())).unwrap();
    let txn = journal.begin_write().unwrap();
    // Removes the third commit of `b`. So the fourth does not follow any more, and the order has two gaps.
    assert!(txn.open_table(ROWS).unwrap().remove(6).unwrap().is_some());
    txn.commit().unwrap();
    journal.close().unwrap();
    let repair = |directory: &Path| drop(repair(directory));
    let crashes = at_each_change(directory.path(), 1, repair, |directory| {
        let before = check(directory).unwrap();
        match open(directory) {
            Ok(running) => {
                let (turns, now) = told(&running.0);
                assert!(turns == [4, 2] && now != lineage, "turns are lost under the same lineage");
                lose(running);
                assert_eq!(before.violations, []);
            }
            Err(refused) => assert!(refused.to_string().contains("row 6"), "{refused}"),
        }
        repair(directory);
        assert_eq!(check(directory).unwrap().violations, []);
        let running = open(directory).unwrap();
        let (turns, now) = told(&running.0);
        assert!(turns == [4, 2] && now != lineage);
        lose(running);
    });
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn a_crash_in_a_salvage_leaves_the_old_files_or_the_finished_new_one() {
    let directory = prepared();
    overwrite_header(directory.path());
    let files = |directory: &Path| {
        [StoreFile::Main, StoreFile::Journal].map(|file| fs::read(directory.join(file.name())).unwrap_or_default())
    };
    let damaged = files(directory.path());
    assert!(open(directory.path()).is_err());
    let repair = |directory: &Path| drop(repair(directory));
    let crashes = at_each_change(directory.path(), 5, repair, |directory| {
        let left = files(directory);
        if left[0] == damaged[0] {
            assert!(left[1] == damaged[1], "the journal is gone, and the main file is the damaged one");
            assert!(!check(directory).unwrap().violations.is_empty());
            repair(directory);
        }
        assert_eq!(check(directory).unwrap().violations, []);
        let unfinished = fs::read_dir(directory)
            .unwrap()
            .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".unfinished-repair"))
            .count();
        assert_eq!(unfinished, 0, "the next run did not remove the file that the crash left");
        let running = open(directory).unwrap();
        assert_eq!(told(&running.0).0, [4, 4]);
        lose(running);
    });
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn control_power_cuts_without_syncs_are_noticed() {
    for attack in [
        a_crash_in_a_compaction_loses_nothing,
        a_crash_in_a_repair_leaves_a_store_that_opens_or_that_a_repair_mends,
        a_crash_in_a_salvage_leaves_the_old_files_or_the_finished_new_one,
    ] {
        doom::lie(true);
        let noticed = unwind::caught(attack);
        doom::lie(false);
        noticed.unwrap_err();
    }
}

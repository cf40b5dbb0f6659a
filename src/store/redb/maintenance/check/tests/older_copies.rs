use std::fs;
use std::path::Path;

use redb::{Database, ReadableTable};

use super::set_up::{
    damage_meta, damage_noted_journal, forget_newest, id, lose, mark, open, places, refusal, seal, told,
};
use crate::settings::StoreSettings;
use crate::store::redb::files::open_error::OpenError;
use crate::store::redb::journal::chain::{chain, read_row};
use crate::store::redb::maintenance::check::error::CheckError;
use crate::store::redb::maintenance::check::loss::Loss;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{Location, RedbEngine};

/// Seals a turn in its own commit, and runs the writer on this thread.
fn seal_by_hand(store: &RedbEngine, writer: &mut Writer, name: &str, version: u64, turn: &str) {
    let turns = [turn];
    let mut sealing = std::pin::pin!(seal(store, name, version, &turns));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sealing.as_mut().poll(&mut context).is_pending());
    let _ = writer.run_once();
    assert!(sealing.as_mut().poll(&mut context).is_ready());
}

fn prepare(directory: &Path) -> (RedbEngine, Writer) {
    // The journal is so small that a flush moves one conversation.
    let settings = StoreSettings::with_journal_bytes(4800);
    RedbEngine::prepare(Location::Directory(directory.to_owned()), &settings, Backoff::default()).unwrap()
}

/// Asserts that the store does not open and cannot be checked, with `expected` as the cause.
fn assert_of_another_time(directory: &Path, expected: &str) {
    let refused = refusal(directory);
    assert!(
        matches!(&refused, OpenError::JournalOfAnother { cause, .. } if cause.to_string() == expected),
        "{refused}"
    );
    let unchecked = check(directory).unwrap_err();
    assert!(matches!(&unchecked, CheckError::Open(OpenError::JournalOfAnother { .. })), "{unchecked}");
}

#[tokio::test]
async fn an_older_journal_of_the_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join(StoreFile::Journal.name());
    let store = open(directory.path());
    seal(&store, "a", 0, &["t0"]).await;
    lose(store).await;
    let older = fs::read(&journal).unwrap();

    let location = Location::Directory(directory.path().to_owned());
    let (store, mut writer) = RedbEngine::prepare(location, &StoreSettings::default(), Backoff::default()).unwrap();
    for (version, turn) in [(1, "t1"), (2, "t2")] {
        let turns = [turn];
        let mut sealing = std::pin::pin!(seal(&store, "a", version, &turns));
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(sealing.as_mut().poll(&mut waker).is_pending());
        let _ = writer.run_once();
        sealing.await;
    }
    writer.checkpoint().move_all().unwrap();
    drop(store);
    writer.run();
    let newer = fs::read(&journal).unwrap();
    fs::write(&journal, older).unwrap();
    let refused = refusal(directory.path());
    assert!(matches!(refused, OpenError::JournalOfAnother { .. }), "{refused:?}");
    assert!(matches!(check(directory.path()), Err(CheckError::Open(OpenError::JournalOfAnother { .. }))));
    fs::write(&journal, newer).unwrap();
    assert_eq!(places(directory.path()).await.len(), 3);

    // After an orderly stop the store has another journal. The journal before it does not belong to the store any more.
    let older = fs::read(&journal).unwrap();
    let store = open(directory.path());
    store.close().await;
    lose(open(directory.path())).await;
    fs::write(&journal, older).unwrap();
    let refused = refusal(directory.path());
    assert!(matches!(refused, OpenError::JournalOfAnother { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_journal_without_the_newest_row_that_a_flush_has_seen_is_refused_or_with_another_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let journal = path.join(StoreFile::Journal.name());
    let (store, mut writer) = prepare(path);
    seal_by_hand(&store, &mut writer, "a", 0, "t");
    seal_by_hand(&store, &mut writer, "b", 0, "t");
    let older = fs::read(&journal).unwrap();
    seal_by_hand(&store, &mut writer, "c", 0, "t");
    writer.checkpoint().flush().unwrap();
    drop(store);
    writer.run();
    let newer = fs::read(&journal).unwrap();
    let head = ReadMeta::of(&Database::open(path.join(StoreFile::Main.name())).unwrap()).unwrap();
    assert_eq!(
        (head.checkpoint().unwrap().number, head.newest().unwrap().number),
        (0, 3),
        "the first flush must not be the last"
    );
    drop(head);

    fs::write(&journal, older).unwrap();
    assert_of_another_time(path, "it ends with row 2, and the database has seen row 3: it is an older copy");
    fs::write(&journal, &newer).unwrap();
    damage_noted_journal(path, |rows| {
        let second = mark(rows, 2);
        let mut other = read_row(2, rows.get(2).unwrap().unwrap().value()).unwrap().entries.to_vec();
        rows.insert(3, chain(second, &mut other)).unwrap();
    });
    assert_of_another_time(path, "its row 3 is another than the database has seen");
    fs::write(&journal, &newer).unwrap();
    let store = open(path);
    for name in ["a", "b", "c"] {
        assert_eq!(store.revision(&id(name)).unwrap().sealed_turns, 1);
    }
}

#[tokio::test]
async fn an_older_main_file_beside_a_journal_that_dropped_what_it_lacks_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join(StoreFile::Main.name());
    let (store, mut writer) = prepare(directory.path());
    seal_by_hand(&store, &mut writer, "a", 0, "t0");
    let older = fs::read(&main).unwrap();
    writer.checkpoint().move_all().unwrap();
    seal_by_hand(&store, &mut writer, "b", 0, "t0");
    drop(store);
    writer.run();
    let newer = fs::read(&main).unwrap();
    fs::write(&main, older).unwrap();
    let expected =
        "it begins after row 1, and the database has everything up to row 0 only: the database is an older copy";
    assert_of_another_time(directory.path(), expected);
    fs::write(&main, newer).unwrap();
    assert_eq!(open(directory.path()).revision(&id("b")).unwrap().sealed_turns, 1);
}

/// Returns a store whose process was killed with three commits in the journal, all of which the main file has seen, and
/// the bytes of the journal.
async fn killed() -> (tempfile::TempDir, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let files = [StoreFile::Main, StoreFile::Journal].map(|file| directory.path().join(file.name()));
    let store = open(directory.path());
    for (version, turn) in [(0, "t0"), (1, "t1"), (2, "t2")] {
        seal(&store, "a", version, &[turn]).await;
    }
    // The end of a test closes the files in order, which a kill does not.
    let [main, journal] = [0, 1].map(|file: usize| fs::read(&files[file]).unwrap());
    lose(store).await;
    fs::write(&files[0], main).unwrap();
    let mut newest = None;
    damage_noted_journal(directory.path(), |rows| newest = Some(mark(rows, 3)));
    damage_meta(directory.path(), |meta| meta.note_newest(newest.unwrap()).unwrap());
    fs::write(&files[1], &journal).unwrap();
    (directory, journal)
}

/// Asserts that a server refuses a damaged journal as an older copy, and that a repair brings back all turns.
fn assert_all_is_back(directory: &Path, journal: &[u8], losses: &[Loss], damage: &str) {
    fs::write(directory.join(StoreFile::Journal.name()), journal).unwrap();
    let refused = refusal(directory).to_string();
    assert!(refused.contains("run `turn-metrics check --repair` first"), "{damage}: {refused}");
    assert!(
        fs::read(directory.join(StoreFile::Journal.name())).unwrap() == journal,
        "{damage}: the refusal wrote to it"
    );
    let (before, repaired) = repair(directory).unwrap();
    assert_eq!(told(&before), ["the file: pages of the journal are damaged"], "{damage}");
    let (_, after) = repaired.unwrap();
    assert_eq!((told(&after), after.sealed_turns, &*after.losses), (vec![], 3, losses), "{damage}");
}

#[tokio::test]
async fn a_flipped_bit_in_the_latest_commit_slot_of_the_journal_is_flipped_back() {
    // In the pointer to the root, in the checksum of the root and in the slot's own checksum.
    for at in [8, 20, 113] {
        let (directory, mut journal) = killed().await;
        let slot = if journal[9] & 1 == 1 { 192 } else { 64 };
        journal[slot + at] ^= 4;
        assert_all_is_back(directory.path(), &journal, &[], &format!("byte {at} of the slot"));
    }
}

#[tokio::test]
async fn a_damaged_page_of_the_last_commit_of_the_journal_is_no_older_copy() {
    let (directory, mut journal) = killed().await;
    // The page with all three rows. Two bits of its first row are wrong; an earlier page still has that row.
    let all: [&[u8]; 3] = [b"t0", b"t1", b"t2"];
    let has = |page: &[u8], what: &[u8]| page.windows(what.len()).any(|bytes| bytes == what);
    let pages = (0..journal.len()).step_by(4096);
    let damaged: Vec<_> = pages.filter(|at| all.iter().all(|what| has(&journal[*at..*at + 4096], what))).collect();
    assert!(!damaged.is_empty());
    for at in damaged {
        let first = journal[at..].windows(2).position(|bytes| bytes == b"t0").unwrap();
        journal[at + first] ^= 1;
        journal[at + first + 1] ^= 4;
    }
    // Whether the damaged page had further rows cannot be told.
    assert_all_is_back(directory.path(), &journal, &[Loss::JournalEnd { last: 3 }], "a page of the last commit");
}

/// Writes the files of [`killed`] with these changes of the journal, repairs them, and returns the loss. Asserts that the
/// store opens then, and that it has what it did not name as lost.
async fn repaired_after(files: &[Vec<u8>; 2], change: impl Fn(&mut [u8]), damage: &str) -> Vec<Loss> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(StoreFile::Main.name()), &files[0]).unwrap();
    let mut journal = files[1].clone();
    change(&mut journal);
    fs::write(directory.path().join(StoreFile::Journal.name()), &journal).unwrap();
    let (before, repaired) = repair(directory.path()).unwrap_or_else(|refused| panic!("{damage}: {refused}"));
    let after = repaired.map_or(before, |(_, after)| after);
    assert_eq!(told(&after), [""; 0], "{damage}");
    let all = places(directory.path()).await;
    assert!(all.len() == 3 || !after.losses.is_empty(), "{damage}: turns are lost without a name: {all:?}");
    after.losses
}

#[tokio::test]
async fn a_damaged_page_of_the_journal_is_no_older_copy_whatever_the_page_has() {
    let (directory, journal) = killed().await;
    let files = [fs::read(directory.path().join(StoreFile::Main.name())).unwrap(), journal];
    let pages =
        (4096..files[1].len()).step_by(4096).filter(|at| files[1][*at..*at + 4096].iter().any(|byte| *byte != 0));
    for page in pages {
        // In the kind of the page, in its number of rows, in an offset, and in what follows.
        for at in [0, 2, 5, 20, 150] {
            let flipped = |journal: &mut [u8]| journal[page + at] ^= 1;
            let damage = format!("a bit of byte {at} of the page at {page}");
            assert_eq!(repaired_after(&files, flipped, &damage).await, [], "{damage}");
        }
        let blanked = |journal: &mut [u8]| journal[page..page + 4096].fill(0);
        repaired_after(&files, blanked, &format!("the page at {page} is blank")).await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_commit_of_the_journal_is_found_by_a_check_also_if_the_main_file_has_not_seen_it() {
    let (directory, mut journal) = killed().await;
    forget_newest(directory.path());
    let slot = if journal[9] & 1 == 1 { 192 } else { 64 };
    // The number of the page at the root of redb's own tables.
    let root = u64::from_le_bytes(journal[slot + 40..slot + 48].try_into().unwrap());
    let page = usize::try_from(4096 * (1 + (root & 0xf_ffff))).unwrap();
    journal[page + 5] ^= 1;
    fs::write(directory.path().join(StoreFile::Journal.name()), &journal).unwrap();
    assert_eq!(told(&check(directory.path()).unwrap()), ["the file: pages of the journal are damaged"]);
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!((told(&after), after.sealed_turns, after.losses), (vec![], 3, vec![]));
}

#[tokio::test]
async fn a_journal_whose_header_was_written_over_is_refused_with_the_advice_that_saves_its_rows() {
    let (directory, mut journal) = killed().await;
    journal[..512].fill(0xee);
    // Nothing says whether there were further rows.
    assert_all_is_back(directory.path(), &journal, &[Loss::JournalEnd { last: 3 }], "the header");
}

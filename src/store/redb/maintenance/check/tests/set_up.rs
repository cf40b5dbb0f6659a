use std::fs;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::settings::StoreSettings;
use crate::store::redb::files::open_error::OpenError;
use crate::store::redb::journal::chain::{chain, read_row};
use crate::store::redb::journal::entry;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::maintenance::check::report::CheckReport;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::row::Row;
use crate::store::redb::tables::schema::{JournalRows, ROWS};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{Commit, Health, Location, PositionedTurn, RedbEngine, StagedTurn, TurnRange, Version};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StepTimes, TurnId, Usage,
};

pub(in crate::store::redb::maintenance) fn turn(id: &str) -> OpenTurn {
    OpenTurn::new(TurnId::new(id).unwrap())
}

pub(in crate::store::redb::maintenance) fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

/// Returns a commit that seals one turn.
pub(in crate::store::redb::maintenance) fn sealing(name: &str, version: u64, turn_id: &str) -> Commit {
    Commit {
        conversation_id: id(name),
        expected_version: Version(version),
        staged: Vec::new(),
        sealed: vec![turn(turn_id).seal(&Done::because("stop"), EpochMillis::new(3))],
        imported_from: None,
    }
}

pub(in crate::store::redb::maintenance) fn open(directory: &Path) -> RedbEngine {
    RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap()
}

/// An open turn with some steps.
pub(in crate::store::redb::maintenance) fn staged(id: &str, steps: u32) -> StagedTurn {
    let mut turn = turn(id);
    for step in 0..steps {
        let step_id = StepId::new(format!("{id}#{step}")).unwrap();
        let times = StepTimes { decode: Some(step.into()), ..StepTimes::default() };
        turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
    }
    StagedTurn { turn, last_event_at: RunningTime::new(1) }
}

/// Returns a stopped store with the conversations `a` and `b`. Each has three sealed turns and two open turns, one of
/// which has three steps.
pub(in crate::store::redb::maintenance) async fn sound() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b"] {
        let done = Done { usage: Some(Usage::default().into()), ..Done::because("stop") };
        let commit = Commit {
            conversation_id: id(name),
            expected_version: Version(0),
            staged: vec![staged("open", 3).into(), staged("other", 0).into()],
            sealed: ["x", "y", "z"].map(|id| turn(id).seal(&done, EpochMillis::new(2))).into(),
            imported_from: None,
        };
        store.commit(commit).await.unwrap();
    }
    store.close().await;
    directory
}

pub(in crate::store::redb::maintenance) fn damage<K: redb::Key, V: redb::Value>(
    directory: &Path,
    table: TableDefinition<'_, K, V>,
    change: impl FnOnce(&mut redb::Table<'_, K, V>),
) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&mut txn.open_table(table).unwrap());
    txn.commit().unwrap();
    database.close().unwrap();
}

pub(in crate::store::redb::maintenance) fn damage_meta(directory: &Path, change: impl FnOnce(&mut WriteMeta<'_>)) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&mut WriteMeta::write(&txn).unwrap());
    txn.commit().unwrap();
}

/// Returns the hash under which the index has a turn.
pub(in crate::store::redb::maintenance) fn hash(directory: &Path, turn_id: &str) -> u64 {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    TurnHasher::of(ReadMeta::of(&database).unwrap().store_id().unwrap()).hash(turn_id)
}

pub(in crate::store::redb::maintenance) fn told(report: &CheckReport) -> Vec<String> {
    report.violations.iter().map(ToString::to_string).collect()
}

pub(in crate::store::redb::maintenance) fn bytes(directory: &Path) -> Vec<u8> {
    fs::read(directory.join(StoreFile::Main.name())).unwrap()
}

/// Damages a sound store. Asserts that the check finds `expected`, and that the repair makes the store sound and keeps
/// a copy of the damaged file.
pub(in crate::store::redb::maintenance) async fn assert_found_and_repaired(
    expected: &str,
    damaged: impl FnOnce(&Path),
) -> tempfile::TempDir {
    let directory = sound().await;
    damaged(directory.path());
    let before = bytes(directory.path());
    let found = told(&check(directory.path()).unwrap());
    assert!(found.iter().any(|line| line == expected), "{expected:?} is not in {found:#?}");
    assert!(bytes(directory.path()) == before, "the check changed the file");
    let (_, repaired) = repair(directory.path()).unwrap();
    let (copy, after) = repaired.unwrap();
    assert_eq!(told(&after), [""; 0], "after the repair");
    assert!(fs::read(copy).unwrap() == before, "the copy differs from the file before the repair");
    directory
}

/// Returns the order of all turns of a stopped store.
pub(in crate::store::redb::maintenance) async fn order(directory: &Path) -> Vec<(u64, String, u64)> {
    let store = open(directory);
    let page = store.sealed_turns(None, 99).unwrap();
    assert_eq!(page.next, page.latest);
    store.close().await;
    let place =
        |found: &PositionedTurn| (found.position.number, found.conversation_id.to_string(), found.turn.ordinal.get());
    page.turns.iter().map(place).collect()
}

/// Returns the order that [`order`] would return for these conversations, one letter for each position. The turns of
/// each conversation have the ordinals 1, 2, 3, ...
pub(in crate::store::redb::maintenance) fn in_order(conversations: &str) -> Vec<(u64, String, u64)> {
    let of = |(place, name): (usize, char)| {
        let ordinal = conversations[..=place].matches(name).count() as u64;
        (place as u64 + 1, name.to_string(), ordinal)
    };
    conversations.char_indices().map(of).collect()
}

/// Returns the number of rows in a table of lost rows.
pub(in crate::store::redb::maintenance) fn lost<K: redb::Key + 'static>(
    directory: &Path,
    table: TableDefinition<'_, K, &'static [u8]>,
) -> u64 {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let lost = database.begin_read().unwrap().open_table(table).unwrap();
    redb::ReadableTableMetadata::len(&lost).unwrap()
}

/// Seals turns of a conversation in one commit.
pub(in crate::store::redb::maintenance) async fn seal(store: &RedbEngine, name: &str, version: u64, ids: &[&str]) {
    let sealed = ids.iter().map(|id| turn(id).seal(&Done::because("stop"), EpochMillis::new(2))).collect();
    let expected_version = Version(version);
    store
        .commit(Commit { conversation_id: id(name), expected_version, staged: Vec::new(), sealed, imported_from: None })
        .await
        .unwrap();
}

/// Ends a store as a crash of its process does.
pub(in crate::store::redb::maintenance) async fn lose(store: RedbEngine) {
    let mut writer = store.health();
    drop(store);
    writer.wait_for(|state| *state != Health::Running).await.unwrap();
}

/// Returns the error of opening the store.
pub(in crate::store::redb::maintenance) fn refusal(directory: &Path) -> OpenError {
    RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap_err()
}

/// Returns a store as a crash leaves it, with three commits in the journal only.
pub(in crate::store::redb::maintenance) async fn with_a_journal() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (version, turn) in [(0, "t0"), (1, "t1"), (2, "t2")] {
        seal(&store, "a", version, &[turn]).await;
    }
    lose(store).await;
    directory
}

pub(in crate::store::redb::maintenance) async fn places(directory: &Path) -> Vec<(u64, String)> {
    let store = open(directory);
    let turns = store.turns(&TurnRange::after(id("a"), 0, 99)).unwrap();
    lose(store).await;
    turns.iter().map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.to_string())).collect()
}

pub(in crate::store::redb::maintenance) fn mark(
    rows: &redb::Table<'_, u64, Row<JournalRows>>,
    number: u64,
) -> JournalMark {
    JournalMark { number, checksum: rows.get(number).unwrap().unwrap().value().checksum() }
}

/// Changes the first entry of a row of the journal. The changed row has a right checksum and follows the row before it.
pub(in crate::store::redb::maintenance) fn change_entry(
    directory: &Path,
    number: u64,
    change: impl FnOnce(&mut Entry),
) {
    damage_journal(directory, |rows| {
        let (mut entries, before) = {
            let row = rows.get(number).unwrap().unwrap();
            let row = read_row(number, row.value()).unwrap();
            let before = JournalMark { number: number - 1, checksum: row.previous };
            (entry::decode_row(row.entries).unwrap(), before)
        };
        change(&mut entries[0]);
        rows.insert(number, chain(before, &mut entry::encode_row(&entries).unwrap())).unwrap();
    });
}

/// Lets the main file forget which rows of the journal it has seen since the checkpoint.
pub(in crate::store::redb::maintenance) fn forget_newest(directory: &Path) {
    let Ok(main) = Database::open(directory.join(StoreFile::Main.name())) else { return };
    let txn = main.begin_write().unwrap();
    {
        let mut meta = WriteMeta::write(&txn).unwrap();
        let checkpoint = meta.checkpoint().unwrap();
        meta.note_newest(checkpoint).unwrap();
    }
    txn.commit().unwrap();
    main.close().unwrap();
}

/// Changes rows of the journal. The main file forgets the newest row: a running store notes it at any time, and may or
/// may not have done so.
pub(in crate::store::redb::maintenance) fn damage_journal(
    directory: &Path,
    change: impl FnOnce(&mut redb::Table<'_, u64, Row<JournalRows>>),
) {
    damage_noted_journal(directory, change);
    forget_newest(directory);
}

/// Changes rows of the journal.
pub(super) fn damage_noted_journal(directory: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, Row<JournalRows>>)) {
    let database = Database::open(directory.join(StoreFile::Journal.name())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&mut txn.open_table(ROWS).unwrap());
    txn.commit().unwrap();
    database.close().unwrap();
}

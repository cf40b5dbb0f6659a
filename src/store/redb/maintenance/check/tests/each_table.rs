use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, Key, ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction};

use super::set_up::{id, open, sound, told, turn};
use crate::report::{BreakdownRow, NoPrices, RollupLabel};
use crate::settings::StoreSettings;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::maintenance::compact::compact;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::row::{self, Row, Rows};
use crate::store::redb::tables::schema::{Role, TableVisitor, visit_tables};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{Commit, DropTurns, ErasedSums, Location, RedbEngine, Version};
use crate::turn::{Done, EpochMillis, Progress, TurnLabels, Usage};

/// Changes the first byte of the last row of the `nth` table of data, and notes the name of the table.
struct Spoil<'txn> {
    txn: &'txn WriteTransaction,
    nth: usize,
    seen: usize,
    spoiled: Option<String>,
}

impl TableVisitor for Spoil<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
        role: Role,
    ) -> Result<(), Failure> {
        if role != Role::Data {
            return Ok(());
        }
        self.seen += 1;
        if self.seen != self.nth {
            return Ok(());
        }
        let name = table.name().to_owned();
        let mut rows = self.txn.open_table(table)?;
        let last = rows.last()?.map(|(key, value)| {
            (K::as_bytes(&key.value()).as_ref().to_vec(), V::as_bytes(&value.value()).as_ref().to_vec())
        });
        let Some((key, mut value)) = last else {
            panic!("the store of this test has no row in {name}: add one in `filled`");
        };
        value[0] ^= 1;
        rows.insert(K::from_bytes(&key), V::from_bytes(&value))?;
        self.spoiled = Some(name);
        Ok(())
    }
}

/// Changes the main file of a stopped store behind its back.
fn change<T>(directory: &Path, change: impl FnOnce(&WriteTransaction) -> T) -> T {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    let changed = change(&txn);
    txn.commit().unwrap();
    database.close().unwrap();
    changed
}

/// Spoils a row of the `nth` table of data. Returns the name of the table, or `None` if there are fewer tables.
fn spoil(directory: &Path, nth: usize) -> Option<String> {
    change(directory, |txn| {
        let mut spoil = Spoil { txn, nth, seen: 0, spoiled: None };
        visit_tables(&mut spoil).unwrap();
        spoil.spoiled
    })
}

/// Replaces the last row of the `nth` table whose rows have checksums by bytes that are no record, with a checksum that
/// fits. Notes the name of the table.
struct Replace<'txn> {
    txn: &'txn WriteTransaction,
    nth: usize,
    seen: usize,
    replaced: Option<&'static str>,
}

impl TableVisitor for Replace<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
        _: Role,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn visit_rows<T: Rows>(&mut self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        self.seen += 1;
        if self.seen != self.nth {
            return Ok(());
        }
        let mut rows = self.txn.open_table(table)?;
        let last = rows.last()?.map(|(key, _)| T::Key::as_bytes(&key.value()).as_ref().to_vec()).unwrap();
        let (key, mut record) = (T::Key::from_bytes(&last), vec![0xff; 7]);
        rows.insert(&key, row::seal(&key, &mut record))?;
        self.replaced = Some(T::NAME);
        Ok(())
    }
}

/// Returns the name of the table, or `None` if there are fewer tables.
fn replace(directory: &Path, nth: usize) -> Option<&'static str> {
    change(directory, |txn| {
        let mut replace = Replace { txn, nth, seen: 0, replaced: None };
        visit_tables(&mut replace).unwrap();
        replace.replaced
    })
}

/// Returns a sound store with a row in each table of data. Costs have a row for a turn with tokens. One conversation was
/// erased, another one is being erased, and the first turn of a third one was dropped.
pub(in crate::store::redb::maintenance) async fn filled() -> tempfile::TempDir {
    let directory = sound().await;
    let commit = |name| {
        let mut turn = turn("counted");
        turn.fold(&Progress::Start(TurnLabels::of_model("m")));
        let usage = Usage { input_tokens: 900.into(), output_tokens: 20.into(), ..Usage::default() };
        turn.fold(&Progress::Usage { step_id: None, report: usage.into(), is_final: false });
        let sealed = vec![turn.seal(&Done::because("stop"), EpochMillis::new(3))];
        Commit {
            conversation_id: id(name),
            expected_version: Version(0),
            staged: Vec::new(),
            sealed,
            imported_from: None,
        }
    };
    let store = open(directory.path());
    for name in ["c", "erased", "being erased"] {
        store.commit(commit(name)).await.unwrap();
    }
    assert_eq!(store.erase(id("erased")).await, Ok(true));
    let aged = [("old", 0), ("young", 3)];
    let sealed = aged.map(|(name, at)| turn(name).seal(&Done::because("stop"), EpochMillis::new(at))).into();
    let aging = Commit {
        conversation_id: id("aging"),
        expected_version: Version(0),
        staged: Vec::new(),
        sealed,
        imported_from: None,
    };
    store.commit(aging).await.unwrap();
    let old = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(1) };
    let mut dropped = 0;
    loop {
        let step = store.drop_turns(old).await.unwrap();
        dropped += step.turns;
        if step.is_done {
            break;
        }
    }
    assert_eq!(dropped, 1);
    let sums = ErasedSums {
        id: "000000000000000000000000000000ab-0000000000000000-0000000000000007".parse().unwrap(),
        label: RollupLabel::default(),
        sums: BreakdownRow::default(),
    };
    assert_eq!(store.take_erased_sums(vec![sums]).await, Ok(1));
    store.close().await;
    compact(directory.path(), Arc::new(NoPrices)).unwrap();
    // Nothing runs in the background, so the rows are not removed before the store is closed.
    let location = Location::Directory(directory.path().to_owned());
    let (store, mut writer) = RedbEngine::prepare(location, &StoreSettings::default(), Backoff::default()).unwrap();
    writer.checkpoint_by_hand();
    std::thread::spawn(move || writer.run());
    assert_eq!(store.erase(id("being erased")).await, Ok(true));
    store.close().await;
    directory
}

#[tokio::test]
async fn a_spoiled_row_of_any_table_is_found_and_repaired() {
    let mut spoiled = 0;
    loop {
        let directory = filled().await;
        let Some(table) = spoil(directory.path(), spoiled + 1) else { break };
        let found = told(&check(directory.path()).unwrap());
        assert!(!found.is_empty(), "no check finds a spoiled row of {table}: add one to inspect.rs or sums.rs");
        let (_, repaired) = repair(directory.path()).unwrap();
        let (_, after) = repaired.unwrap();
        assert_eq!(told(&after), [""; 0], "a repair must mend {table}: see repair.rs");
        spoiled += 1;
    }
    assert!(spoiled > 15, "the tables were not found");
}

#[tokio::test]
async fn a_row_of_any_table_that_is_no_record_although_its_checksum_fits_is_found_and_repaired() {
    let (mut nth, mut repaired) = (0, 0);
    loop {
        nth += 1;
        let directory = filled().await;
        let Some(table) = replace(directory.path(), nth) else { break };
        let found = told(&check(directory.path()).unwrap());
        assert!(!found.is_empty(), "no check finds such a row of {table}: add one to inspect.rs or sums.rs");
        let (_, outcome) = repair(directory.path()).unwrap();
        assert_eq!(told(&outcome.unwrap().1), [""; 0], "a repair must mend {table}: see repair.rs");
        repaired += 1;
    }
    assert!(repaired > 15, "the tables were not found");
}

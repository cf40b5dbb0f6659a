use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::set_up::{damage, id, lose, open, refusal, seal, sealing, sound, told};
use crate::report::NoPrices;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::maintenance::compact::{CompactError, compact};
use crate::store::redb::tables::meta::META;
use crate::store::redb::tables::row::{self, Stored};
use crate::store::redb::tables::schema::{FINDINGS, Findings};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{Fault, FaultKind, TurnOutcome};

fn rows_of_meta(path: &Path) -> Vec<(String, Vec<u8>)> {
    let database = Database::open(path).unwrap();
    let meta = database.begin_read().unwrap().open_table(META).unwrap();
    let rows = meta.iter().unwrap().map(|row| {
        let (name, row) = row.unwrap();
        (name.value().to_owned(), row.value().unverified().to_vec())
    });
    rows.collect()
}

/// Damages a fact about a file. The page gets a checksum that fits, as if the damage was there when the page was
/// written again.
fn damage_fact(path: &Path, name: &str, is_bit: bool) {
    let mut bytes = rows_of_meta(path).into_iter().find(|(found, _)| found == name).unwrap().1;
    if is_bit {
        bytes[0] ^= 4;
    } else {
        for byte in &mut bytes {
            *byte ^= 0x55;
        }
    }
    let database = Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(META).unwrap().insert(name, Stored::as_it_is(&bytes)).unwrap();
    txn.commit().unwrap();
    database.close().unwrap();
}

/// Returns a store with the turns of [`sound`]. If `is_killed`, some of its turns are in the journal only.
async fn store(is_killed: bool) -> tempfile::TempDir {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["v"]).await;
    seal(&store, "new", 0, &["w"]).await;
    if is_killed {
        lose(store).await;
    } else {
        store.close().await;
    }
    directory
}

/// Damages a fact. Asserts that each check names it, that the store does not open and so leaves the damage as it is, and
/// that a repair brings back every turn.
async fn assert_told_and_repaired(file: StoreFile, name: &str, is_killed: bool, is_bit: bool) {
    let damage = format!("{name} of {file:?}, killed: {is_killed}, one bit: {is_bit}");
    let directory = store(is_killed).await;
    let path = directory.path().join(file.name());
    damage_fact(&path, name, is_bit);
    let damaged = rows_of_meta(&path);
    let found = told(&check(directory.path()).unwrap());
    assert!(found.iter().any(|line| line.contains(&format!("`{name}`"))), "{damage}: {found:#?}");
    let fault = Fault::from(refusal(directory.path()));
    assert_eq!(fault.kind(), FaultKind::Damaged, "{damage}: {}", fault.in_full());
    assert!(fault.in_full().contains(name), "{damage}: {}", fault.in_full());
    assert_eq!(rows_of_meta(&path), damaged, "{damage}: an opening has changed the facts");
    assert_eq!(told(&check(directory.path()).unwrap()), found, "{damage}: an opening has hidden it");

    let repaired = repair(directory.path()).unwrap_or_else(|error| panic!("{damage}: {error:?}"));
    let after = repaired.1.unwrap().1;
    assert_eq!((told(&after), &after.losses), (vec![], &vec![]), "{damage}");
    let store = open(directory.path());
    for (name, turns, open_turns) in [("a", 4, 2), ("b", 3, 2), ("new", 1, 0)] {
        assert_eq!(store.all_turns(&id(name)).unwrap().len(), turns, "{damage}");
        let state = store.conversation_state(&id(name), &[]).unwrap();
        assert_eq!(state.open_turns.len(), open_turns, "{damage}");
        if open_turns > 0 {
            let again = store.commit(sealing(name, state.version.0, "y")).await.unwrap().outcomes;
            assert!(matches!(again[0].1, TurnOutcome::Duplicate(at) if at.get() == 2), "{damage}: {again:?}");
        }
    }
    seal(&store, "another", 0, &["u"]).await;
    assert_eq!(store.all_turns(&id("new")).unwrap().len(), 1, "{damage}: a key was given twice");
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0], "{damage}");
}

#[tokio::test]
async fn a_damaged_fact_of_a_stopped_store_is_told_until_a_repair_that_costs_nothing() {
    for is_killed in [false, true] {
        let names: Vec<_> = rows_of_meta(&store(is_killed).await.path().join(StoreFile::Main.name()));
        assert!(names.len() > 8, "{names:?}");
        for (name, _) in names {
            for is_bit in [false, true] {
                assert_told_and_repaired(StoreFile::Main, &name, is_killed, is_bit).await;
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_fact_of_a_journal_is_told_until_a_repair_that_costs_nothing() {
    let names = rows_of_meta(&store(true).await.path().join(StoreFile::Journal.name()));
    assert!(names.len() > 3, "{names:?}");
    for (name, _) in names {
        assert_told_and_repaired(StoreFile::Journal, &name, true, false).await;
    }
}

#[tokio::test]
async fn a_damaged_finding_is_told_and_not_compacted() {
    let directory = sound().await;
    let text = "turn 2 of conversation #1: damaged";
    damage(directory.path(), FINDINGS, |findings| {
        let mut row = row::seal::<Findings>(&text, &mut b"\x01\0\0\0\0\0\0\0a".to_vec()).unverified().to_vec();
        row[0] ^= 1;
        findings.insert(text, Stored::as_it_is(&row)).unwrap();
    });
    let unfit = "a stored finding of a scrub cannot be read: its checksum does not fit";
    assert_eq!(told(&check(directory.path()).unwrap()), [format!("a scrub found {text}: {unfit}")]);
    let refused = compact(directory.path(), Arc::new(NoPrices)).unwrap_err();
    assert!(matches!(refused, CompactError::Damaged { .. }), "{refused}");
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!((told(&after), after.losses), (vec![], vec![]));
}

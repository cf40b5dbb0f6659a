//! Tests that damage to the sums of reports is found and repaired.

use std::path::Path;
use std::sync::Arc;

use redb::Database;

use super::{check, repair};
use crate::report::{NoPrices, Period, Quarter, Rollup, RollupLabel};
use crate::settings::StoreSettings;
use crate::store::conformance::test_prices;
use crate::store::oracle::{breakdown_of, question_of_1970};
use crate::store::redb::maintenance::compact::compact;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::row::{self, Row, Rows, Stored};
use crate::store::redb::tables::schema::{CONVERSATION_SUMS, COSTS, LABELS, ROLLUPS};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, ConversationOrder, ConversationQuestion, Health, Location, RedbEngine, ReportQuestion, TurnRange, Version,
};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, StepId, StoredTurn, TurnId, Usage};

/// Opens a store, and computes all costs anew if they are by other prices.
fn open(directory: &Path) -> RedbEngine {
    let location = Location::Directory(directory.to_owned());
    let (settings, backoff) = (StoreSettings::default(), Backoff::default());
    let (engine, writer) = RedbEngine::prepare_pricing(location, &settings, backoff, test_prices()).unwrap();
    while writer.checkpoint().reprice_in_background() {}
    std::thread::spawn(move || writer.run());
    engine
}

fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

/// Seals turns of several models in two conversations, some hours apart.
async fn seal(store: &RedbEngine, version: u64) {
    for name in ["a", "b"] {
        let sealed = (0..3_u64).map(|nth| {
            let mut turn = OpenTurn::new(TurnId::new(format!("t{version}-{nth}")).unwrap());
            let usage = Usage {
                input_tokens: 900.into(),
                output_tokens: 20.into(),
                cache_read_tokens: Some(300.into()),
                ..Usage::default()
            };
            let step_id = Some(StepId::new(format!("{}#0", turn.id)).unwrap());
            turn.fold(&Progress::Usage { step_id, report: usage.into(), is_final: false });
            let model = ["m", "dear", "other"][usize::try_from(nth).unwrap()];
            let done = Done { model: Some(model.into()), duration: Some(7.into()), ..Done::because("stop") };
            turn.seal(&done, EpochMillis::new((version * 3 + nth) * 4_000_000))
        });
        let (expected_version, staged) = (Version(version), Vec::new());
        let commit = Commit {
            conversation_id: id(name),
            expected_version,
            staged,
            sealed: sealed.collect(),
            imported_from: None,
        };
        store.commit(commit).await.unwrap();
    }
}

async fn sound() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for version in 0..3 {
        seal(&store, version).await;
    }
    store.close().await;
    directory
}

fn turns(store: &RedbEngine) -> Vec<StoredTurn> {
    let of = |name| store.turns(&TurnRange::after(id(name), 0, 99)).unwrap();
    [of("a"), of("b")].concat()
}

/// Returns a report, and the report that is expected by the turns in the store.
fn reported(store: &RedbEngine) -> [crate::report::Breakdown; 2] {
    let question = question_of_1970();
    [store.report(&question).unwrap().breakdown, breakdown_of(&turns(store), &question, &*test_prices())]
}

fn change(directory: &Path, change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Failure>) {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn).unwrap();
    txn.commit().unwrap();
    database.close().unwrap();
}

/// Changes one byte of the last row of a table whose rows have checksums.
fn spoil<T: Rows>(txn: &redb::WriteTransaction, table: redb::TableDefinition<'static, T::Key, Row<T>>) {
    let mut rows = txn.open_table(table).unwrap();
    let last = redb::ReadableTable::last(&rows).unwrap().unwrap();
    let key = <T::Key as redb::Value>::as_bytes(&last.0.value()).as_ref().to_vec();
    let mut bytes = last.1.value().unverified().to_vec();
    drop(last);
    bytes[1] ^= 1;
    rows.insert(<T::Key as redb::Value>::from_bytes(&key), Stored::as_it_is(&bytes)).unwrap();
}

fn told(directory: &Path) -> Vec<String> {
    check(directory).unwrap().violations.iter().map(ToString::to_string).collect()
}

/// Asserts that a repair makes the store sound, and that a report then agrees with the turns.
async fn assert_mended(directory: &Path) {
    let (before, after) = repair(directory).unwrap();
    assert!(!before.violations.is_empty());
    assert_eq!(after.unwrap().1.violations, []);
    let store = open(directory);
    let [found, expected] = reported(&store);
    assert!(found == expected);
    seal(&store, 3).await;
    let [found, expected] = reported(&store);
    assert!(found == expected, "sums are wrong after a further commit");
    store.close().await;
    assert_eq!(told(directory), [""; 0]);
}

#[tokio::test]
async fn sound_sums_are_clean_also_with_turns_in_the_journal_and_after_a_compaction() {
    let directory = sound().await;
    assert_eq!(told(directory.path()), [""; 0]);
    let store = open(directory.path());
    seal(&store, 3).await;
    // The store is not closed in order, because that would move everything into the tables.
    let mut writer = store.health();
    let [found, expected] = reported(&store);
    assert!(found == expected);
    drop(store);
    writer.wait_for(|state| *state != Health::Running).await.unwrap();
    assert_eq!(told(directory.path()), [""; 0]);
    compact(directory.path(), Arc::new(NoPrices)).unwrap();
    assert_eq!(told(directory.path()), [""; 0]);
    let store = open(directory.path());
    let [found, expected] = reported(&store);
    assert!(found == expected, "turns that were compacted without prices have no prices afterwards");
    store.close().await;
}

type Damage<'a> = &'a dyn Fn(&redb::WriteTransaction) -> Result<(), Failure>;

#[tokio::test]
async fn sums_that_are_not_those_of_the_turns_are_found_and_made_anew() {
    let others: [(&str, Damage<'_>); 6] = [
        ("they are not the sums of the turns", &|txn| {
            let mut rollups = WriteRollups::open(txn)?;
            let (label, quarter) = (RollupLabel { model: Some("m".into()), ..RollupLabel::default() }, Quarter::new(3));
            rollups.add_rollups([(quarter, &label, &one_turn())].into_iter())
        }),
        ("they are missing", &|txn| {
            txn.open_table(ROLLUPS)?.pop_first()?;
            Ok(())
        }),
        ("they differ from row to row", &|txn| {
            txn.open_table(COSTS)?.pop_last()?;
            Ok(())
        }),
        ("they differ from row to row", &|txn| {
            txn.open_table(CONVERSATION_SUMS)?.pop_last()?;
            Ok(())
        }),
        ("conversations: they are not the sums", &|txn| {
            let (key, other) = ((1, 1), (1, 9));
            let mut rows = txn.open_table(CONVERSATION_SUMS)?;
            let bytes = rows.remove(key)?.unwrap().value().verify(&key)?.to_vec();
            rows.insert(other, row::seal(&other, &mut bytes.clone()))?;
            Ok(())
        }),
        ("label", &|txn| {
            txn.open_table(LABELS)?.pop_first()?;
            Ok(())
        }),
    ];
    for (expected, damage) in others {
        let directory = sound().await;
        change(directory.path(), damage);
        let told = told(directory.path());
        let is_told = told.iter().any(|told| told.starts_with("the sums of reports, ") && told.contains(expected));
        assert!(is_told || expected == "label" && !told.is_empty(), "{expected}: {told:?}");
        assert_mended(directory.path()).await;
    }
}

#[tokio::test]
async fn a_damaged_row_of_sums_is_left_out_of_reports_found_and_made_anew() {
    let spoils: [&dyn Fn(&redb::WriteTransaction); 4] =
        [&|txn| spoil(txn, ROLLUPS), &|txn| spoil(txn, COSTS), &|txn| spoil(txn, CONVERSATION_SUMS), &|txn| {
            spoil(txn, LABELS);
        }];
    for spoil in spoils {
        let directory = sound().await;
        change(directory.path(), |txn| {
            spoil(txn);
            Ok(())
        });
        assert!(told(directory.path()).iter().any(|told| told.contains("checksum")), "{:?}", told(directory.path()));
        let store = open(directory.path());
        let all = ConversationQuestion::first(ConversationOrder::Recent, 9);
        assert_eq!(store.conversations(&all).unwrap().len(), 2);
        let question = ReportQuestion { periods: vec![whole()], ..question_of_1970() };
        store.report(&question).unwrap();
        // This report reads rows of all levels.
        store.report(&question_of_1970()).unwrap();
        assert!(store.damaged_records() > 0);
        store.close().await;
        assert_mended(directory.path()).await;
    }
}

fn one_turn() -> Rollup {
    let turn = OpenTurn::new(TurnId::new("t").unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
    Rollup::of_turn(&turn.at(Ordinal::after(0))).remove(0).1
}

fn whole() -> Period {
    Period::new(Quarter::new(0), Quarter::new(9600)).unwrap()
}

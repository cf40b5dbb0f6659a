//! Tests of the check, which alone know the tables: they damage them.

use std::fs::{self, File};

use redb::{ReadableTable, TableDefinition, Value as _};

use super::*;
use crate::settings::StoreSettings;
use crate::store::redb::journal::chain::{chain, read_row};
use crate::store::redb::journal::entry;
use crate::store::redb::maintenance::compact::compact;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::tally::{Lacking, Recent};
use crate::store::redb::query::conversations::ConversationsQuery;
use crate::store::redb::query::order::OrderQuery;
use crate::store::redb::query::{LeftOut, StaleQuery, StateQuery, TurnsQuery};
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::record::{self, conversation::ConversationRecord};
use crate::store::redb::tables::row::{self, KeyOf, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, INDEX, JournalRows, KEYS, LOST_OPEN_TURNS, LOST_ROWS, LOST_UNKNOWN, OPEN_STEPS,
    OPEN_TURNS, OpenStepRows, POSITIONS, Positions, ROWS, StepKey, TURNS, copy_tables,
};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, ConversationOrder, ConversationQuestion, Lineage, Location, RedbEngine, StagedTurn, TurnRange, Version,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenStep, OpenTurn, Ordinal, Progress, RunningTime, StepId, StepTimes, TurnId,
};

fn turn(id: &str) -> OpenTurn {
    OpenTurn::new(TurnId::new(id).unwrap())
}

fn id(name: &str) -> ConversationId {
    ConversationId::new(name).unwrap()
}

/// A commit that seals one turn.
fn sealing(name: &str, version: u64, turn_id: &str) -> Commit {
    Commit {
        conversation_id: id(name),
        expected_version: Version(version),
        staged: Vec::new(),
        sealed: vec![turn(turn_id).seal(&Done::because("stop"), EpochMillis::new(3))],
    }
}

fn open(directory: &Path) -> RedbEngine {
    RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap()
}

/// An open turn with some steps.
fn staged(id: &str, steps: u32) -> StagedTurn {
    let mut turn = turn(id);
    for step in 0..steps {
        let step_id = StepId::new(format!("{id}#{step}")).unwrap();
        let times = StepTimes { decode: Some(step.into()), ..StepTimes::default() };
        turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
    }
    StagedTurn { turn, last_event_at: RunningTime::new(1) }
}

/// A store with a conversation of three sealed turns and two open ones, one of which has three steps, and one more.
async fn sound() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b"] {
        let done = Done { usage: Some(crate::turn::Usage::default().into()), ..Done::because("stop") };
        let commit = Commit {
            conversation_id: id(name),
            expected_version: Version(0),
            staged: vec![staged("open", 3).into(), staged("other", 0).into()],
            sealed: ["x", "y", "z"].map(|id| turn(id).seal(&done, EpochMillis::new(2))).into(),
        };
        store.commit(commit).await.unwrap();
    }
    store.close().await;
    directory
}

fn damage<K: redb::Key, V: redb::Value>(
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

/// Where the index has a turn.
fn hash(directory: &Path, turn_id: &str) -> u64 {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    TurnHasher::of(ReadMeta::of(&database).unwrap().store_id().unwrap()).hash(turn_id)
}

fn told(report: &CheckReport) -> Vec<String> {
    report.violations.iter().map(ToString::to_string).collect()
}

fn bytes(directory: &Path) -> Vec<u8> {
    fs::read(directory.join(StoreFile::Main.name())).unwrap()
}

#[tokio::test]
async fn a_sound_file_is_clean_and_neither_check_nor_repair_changes_a_byte() {
    let directory = sound().await;
    let before = bytes(directory.path());
    let report = check(directory.path()).unwrap();
    assert_eq!(told(&report), [""; 0]);
    assert_eq!((report.conversations, report.sealed_turns, report.open_turns), (2, 6, 4));
    assert_eq!(repair(directory.path()).unwrap(), (report, None));
    assert!(bytes(directory.path()) == before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a copy was made for nothing");
}

#[tokio::test]
async fn a_running_store_is_not_checked_and_a_missing_one_is_told() {
    let directory = sound().await;
    let store = open(directory.path());
    let refused = check(directory.path()).unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    store.close().await;
    assert!(matches!(check(&directory.path().join("none")), Err(CheckError::Missing { .. })));
}

/// Damages a sound file: the check must say `expected`, and the repair must leave it clean and keep the file as it was.
async fn assert_found_and_repaired(expected: &str, damaged: impl FnOnce(&Path)) -> tempfile::TempDir {
    let directory = sound().await;
    damaged(directory.path());
    let before = bytes(directory.path());
    let found = told(&check(directory.path()).unwrap());
    assert!(found.iter().any(|line| line == expected), "{expected:?} is not in {found:#?}");
    assert!(bytes(directory.path()) == before, "the check changed the file");
    let (_, repaired) = repair(directory.path()).unwrap();
    let (copy, after) = repaired.unwrap();
    assert_eq!(told(&after), [""; 0], "after the repair");
    assert!(fs::read(copy).unwrap() == before, "the copy is not the file as it was");
    directory
}

/// Gives a conversation's key a place by activity.
fn list(activity: &mut redb::Table<'_, (u64, &'static str), Row<Activity>>, place: (u64, &str), key: u64) {
    activity.insert(place, row::seal(&place, &mut key.to_le_bytes().to_vec())).unwrap();
}

#[tokio::test]
async fn each_kind_of_disagreement_is_named_and_repaired() {
    assert_found_and_repaired("turn 2 of conversation a: it is missing; the next one is 3", |path| {
        damage(path, TURNS, |turns| drop(turns.remove((1, 2)).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation a: its record says 3 sealed turns, there are 2", |path| {
        damage(path, TURNS, |turns| drop(turns.remove((1, 3)).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 2 of conversation b: the index does not have its id y", |path| {
        let place = hash(path, "y");
        damage(path, INDEX, |index| drop(index.remove((2, place)).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 1 of conversation a: the index does not have its id x", |path| {
        let place = hash(path, "x");
        damage(path, INDEX, |index| drop(index.insert((1, place), 3).unwrap()));
    })
    .await;
    assert_found_and_repaired("turn 1 of conversation a: the index has its id x at 9", |path| {
        let place = hash(path, "x");
        damage(path, INDEX, |index| drop(index.insert((1, place), 9).unwrap()));
    })
    .await;
    assert_found_and_repaired(
        "the index of conversation a at 0000000000000007: it names turn 9, which is not there",
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, 7), 9).unwrap()));
        },
    )
    .await;
    assert_found_and_repaired(
        "the index of conversation a at ffffffffffffffff: it names turn 2, which it names elsewhere",
        |path| {
            damage(path, INDEX, |index| drop(index.insert((1, u64::MAX), 2).unwrap()));
        },
    )
    .await;
    assert_found_and_repaired("open turn x of conversation a: it is sealed", |path| {
        damage(path, OPEN_TURNS, |open| {
            let mut staged = open.get((1, "open")).unwrap().unwrap().value().verify(&(1, "open")).unwrap().to_vec();
            open.insert((1, "x"), row::seal(&(1, "x"), &mut staged)).unwrap();
        });
    })
    .await;
    assert_found_and_repaired("conversation a: its record is missing", |path| {
        damage(path, CONVERSATIONS, |records| drop(records.remove(1).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation #1: the record of key 1 names a", |path| {
        damage(path, KEYS, |keys| drop(keys.remove("a").unwrap()));
    })
    .await;
    let place = u64::MAX - 2;
    assert_found_and_repaired("conversation a: it has no place by activity", |path| {
        damage(path, ACTIVITY, |activity| drop(activity.remove((place, "a")).unwrap()));
    })
    .await;
    assert_found_and_repaired("conversation b: it has no place by activity", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place, "b"), 1));
    })
    .await;
    assert_found_and_repaired("conversation a: it has a place by activity that is not its own", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place - 1, "a"), 1));
    })
    .await;
    assert_found_and_repaired("conversation c: it has a place by activity that is not its own", |path| {
        damage(path, ACTIVITY, |activity| list(activity, (place, "c"), 9));
    })
    .await;
    assert_found_and_repaired("conversation a: the latest activity in its record is not that of its turns", |path| {
        damage(path, CONVERSATIONS, |records| {
            let record = {
                let record = records.get(1).unwrap().unwrap();
                ConversationRecord::decode(record.value().verify(&1).unwrap()).unwrap()
            };
            let record = ConversationRecord { last_at: EpochMillis::new(9), ..record };
            records.insert(1, row::seal(&1, &mut record.encode().unwrap())).unwrap();
        });
    })
    .await;
    assert_found_and_repaired("the file: the next conversation would get a key that is taken", |path| {
        let database = Database::open(path.join(StoreFile::Main.name())).unwrap();
        let txn = database.begin_write().unwrap();
        WriteMeta::write(&txn).unwrap().set_next_key(2).unwrap();
        txn.commit().unwrap();
    })
    .await;
}

/// Puts a step of a conversation's turn, as it would be written.
fn put_step(steps: &mut redb::Table<'_, StepKey, Row<OpenStepRows>>, place: (u64, &str, u32), step: &OpenStep) {
    let mut record = record::encode_step(&TurnId::new(place.1).unwrap(), place.2, step).unwrap();
    steps.insert(place, row::seal(&place, &mut record)).unwrap();
}

#[tokio::test]
async fn each_disagreement_of_heads_and_steps_is_named_and_repaired() {
    type Damage = fn(&mut redb::Table<'_, StepKey, Row<OpenStepRows>>);
    let step = |id: &str| OpenStep::new(StepId::new(id).unwrap());
    let cases: [(&str, Damage, &[&str]); 8] = [
        ("step 0: it is missing", |rows| drop(rows.remove((1, "open", 0)).unwrap()), &["other"]),
        ("step 1: it is missing", |rows| drop(rows.remove((1, "open", 1)).unwrap()), &["other"]),
        ("step 2: it is missing", |rows| drop(rows.remove((1, "open", 2)).unwrap()), &["other"]),
        (
            "step 1: a stored step of an open turn cannot be read: its checksum does not fit",
            |rows| drop(rows.insert((1, "open", 1), Stored::as_it_is(b"nonsense")).unwrap()),
            &["other"],
        ),
        (
            "step 1: a stored step of an open turn cannot be read: Hit the end of buffer, expected more data",
            |rows| drop(rows.insert((1, "open", 1), row::seal(&(1, "open", 1), &mut b"\x01".to_vec())).unwrap()),
            &["other"],
        ),
        (
            "step 2: an earlier one has its id open#0",
            |rows| put_step(rows, (1, "open", 2), &OpenStep::new(StepId::new("open#0").unwrap())),
            &["other"],
        ),
        (
            "step 3: there are 3 steps by the head of the turn",
            |rows| put_step(rows, (1, "open", 3), &OpenStep::new(StepId::new("open#3").unwrap())),
            &["open", "other"],
        ),
        (
            "step 7: there is no head of the turn",
            |rows| put_step(rows, (1, "opened", 7), &OpenStep::new(StepId::new("s").unwrap())),
            &["open", "other"],
        ),
    ];
    for (expected, damaged, left) in cases {
        let name = if expected.starts_with("step 7") { "opened" } else { "open" };
        let expected = format!("open turn {name} of conversation a: {expected}");
        let directory = assert_found_and_repaired(&expected, |path| damage(path, OPEN_STEPS, damaged)).await;
        let store = open(directory.path());
        let open_of = |name| {
            let mut open = store.conversation_state(&id(name), &[]).unwrap().open_turns;
            open.sort_by(|one, other| one.turn.id.cmp(&other.turn.id));
            open
        };
        let whole = [staged("open", 3), staged("other", 0)];
        let expected: Vec<_> = whole.iter().filter(|staged| left.contains(&staged.turn.id.as_str())).cloned().collect();
        assert_eq!(open_of("a"), expected);
        assert_eq!(open_of("b"), whole);
        store.close().await;
    }
    // A step of a turn that is sealed.
    assert_found_and_repaired("open turn x of conversation a: step 0: there is no head of the turn", |path| {
        damage(path, OPEN_STEPS, |rows| put_step(rows, (1, "x", 0), &step("s")));
    })
    .await;
}

#[tokio::test]
async fn an_open_turn_with_a_damaged_row_begins_anew_and_leaves_nothing_of_before() {
    type Damage = fn(&Path);
    let damages: [Damage; 2] = [
        |path| damage(path, OPEN_STEPS, |rows| drop(rows.insert((1, "open", 1), Stored::as_it_is(b"")).unwrap())),
        |path| damage(path, OPEN_TURNS, |rows| drop(rows.insert((1, "open"), Stored::as_it_is(b"")).unwrap())),
    ];
    for damaged in damages {
        let directory = sound().await;
        damaged(directory.path());
        let store = open(directory.path());
        assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns, [staged("other", 0)]);
        assert_eq!(store.damaged_records(), 1);
        let anew = staged("open", 1);
        store
            .commit(Commit { staged: vec![anew.clone().into()], sealed: Vec::new(), ..sealing("a", 1, "none") })
            .await
            .unwrap();
        store.close().await;
        assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
        let store = open(directory.path());
        assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns, [anew, staged("other", 0)]);
        store.close().await;
    }
}

/// The order of all turns of a store that is not running.
async fn order(directory: &Path) -> Vec<(u64, String, u64)> {
    let store = open(directory);
    let page = store.sealed_turns(None, 99).unwrap();
    assert_eq!(page.next, page.latest);
    store.close().await;
    let place = |found: &crate::store::PositionedTurn| {
        (found.position.number, found.conversation_id.to_string(), found.turn.ordinal.get())
    };
    page.turns.iter().map(place).collect()
}

async fn lineage(directory: &Path) -> Lineage {
    let store = open(directory);
    let lineage = store.sealed_turns(None, 0).unwrap().latest.lineage;
    store.close().await;
    lineage
}

/// An order as `order` returns it: the conversations of the positions, each with its turns from ordinal 1.
fn in_order(conversations: &str) -> Vec<(u64, String, u64)> {
    let of = |(place, name): (usize, char)| {
        let ordinal = conversations[..=place].matches(name).count() as u64;
        (place as u64 + 1, name.to_string(), ordinal)
    };
    conversations.char_indices().map(of).collect()
}

fn put(positions: &mut redb::Table<'_, u64, Row<Positions>>, position: u64, key: u64, ordinal: u64) {
    let ordinal = Ordinal::new(ordinal).unwrap();
    put_record(positions, position, AtPosition::Sealed { key, ordinal }.encode().unwrap());
}

fn put_record(positions: &mut redb::Table<'_, u64, Row<Positions>>, position: u64, mut record: Vec<u8>) {
    positions.insert(position, row::seal(&position, &mut record)).unwrap();
}

#[tokio::test]
async fn each_disagreement_of_positions_and_turns_is_named_and_repaired() {
    type Damage = fn(&mut redb::Table<'_, u64, Row<Positions>>);
    let cases: [(&str, Damage, &str); 9] = [
        ("position 2: it is missing; the next one is 3", |rows| drop(rows.remove(2).unwrap()), "aabbba"),
        ("turn 2 of conversation a: it has no position", |rows| drop(rows.remove(2).unwrap()), "aabbba"),
        ("turn 3 of conversation b: it has no position", |rows| drop(rows.remove(6).unwrap()), "aaabbb"),
        ("position 5: it has turn 9 of conversation b, which is not there", |rows| put(rows, 5, 2, 9), "aaabbb"),
        ("position 5: it has turn 1 of conversation #7, which is not there", |rows| put(rows, 5, 7, 1), "aaabbb"),
        ("position 5: it has turn 1 of conversation b, after turn 1", |rows| put(rows, 5, 2, 1), "aaabbb"),
        ("position 7: it has turn 2 of conversation a, after turn 3", |rows| put(rows, 7, 1, 2), "aaabbb"),
        (
            "position 6: a stored position cannot be read: Serde Deserialization Error",
            |rows| put_record(rows, 6, b"\x01\x07".to_vec()),
            "aaabbb",
        ),
        ("position 0: 0 is no position", |rows| put(rows, 0, 2, 1), "baaabb"),
    ];
    for (expected, damaged, after) in cases {
        let directory = sound().await;
        assert_eq!(order(directory.path()).await, in_order("aaabbb"));
        let before = lineage(directory.path()).await;
        damage(directory.path(), POSITIONS, damaged);
        let found = told(&check(directory.path()).unwrap());
        assert!(found.iter().any(|line| line == expected), "{expected:?} is not in {found:#?}");
        let (_, report) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&report), [""; 0], "after the repair of {expected:?}");
        assert_eq!(order(directory.path()).await, in_order(after), "after the repair of {expected:?}");
        assert_ne!(lineage(directory.path()).await, before, "positions have another meaning now");
    }
}

#[tokio::test]
async fn a_position_that_was_erased_is_sound_and_passed_over() {
    let directory = sound().await;
    damage(directory.path(), POSITIONS, |rows| {
        put_record(rows, 7, AtPosition::Erased.encode().unwrap());
    });
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    let page = store.sealed_turns(None, 99).unwrap();
    assert!(page.turns.iter().map(|found| found.position.number).eq([1, 2, 3, 4, 5, 6, 8]));
    let erased = store.sealed_turns(Some(page.turns[5].position), 1).unwrap();
    assert_eq!((erased.turns.len(), erased.next.number), (0, 7), "a page of nothing leads on");
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_damaged_conversation_or_key_costs_none_of_its_turns_in_the_order() {
    let directory = sound().await;
    damage(directory.path(), CONVERSATIONS, |rows| drop(rows.insert(1, Stored::as_it_is(b"nonsense")).unwrap()));
    damage(directory.path(), KEYS, |rows| drop(rows.insert("b", Stored::as_it_is(b"nonsense")).unwrap()));
    let store = open(directory.path());
    let page = store.sealed_turns(None, 9).unwrap();
    let found = page.turns.iter().map(|found| (found.position.number, found.conversation_id.as_str()));
    assert!(found.eq([(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b")]));
    assert_eq!(store.damaged_records(), 0);
}

#[tokio::test]
async fn a_conversation_with_a_second_place_by_activity_is_listed_once() {
    let directory = sound().await;
    damage(directory.path(), ACTIVITY, |rows| {
        let place = (7, "a");
        let mut key = 1u64.to_le_bytes().to_vec();
        rows.insert(place, row::seal(&place, &mut key)).unwrap();
    });
    let store = open(directory.path());
    let listed = store.conversations(&ConversationQuestion::first(ConversationOrder::Recent, 9)).unwrap();
    assert_eq!(listed.iter().map(|listed| listed.conversation_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(listed.iter().all(|listed| listed.last_at == EpochMillis::new(2)), "{listed:?}");
    assert_eq!(store.damaged_records(), 1);
}

#[tokio::test]
async fn damage_in_the_order_costs_the_damaged_position_alone() {
    let directory = sound().await;
    damage(directory.path(), POSITIONS, |rows| {
        drop(rows.insert(2, Stored::as_it_is(b"")).unwrap());
        drop(rows.remove(6).unwrap());
    });
    damage(directory.path(), TURNS, |turns| drop(turns.insert((2, 1), Stored::as_it_is(b"nonsense")).unwrap()));
    let store = open(directory.path());
    let (mut after, mut found) = (None, Vec::new());
    for _ in 0..3 {
        let page = store.sealed_turns(after, 2).unwrap();
        found.extend(page.turns.iter().map(|found| found.position.number));
        after = Some(page.next);
    }
    assert_eq!(found, [1, 3, 5]);
    assert_eq!(store.damaged_records(), 2);
}

#[tokio::test]
async fn a_journal_whose_positions_do_not_follow_is_damaged() {
    for (number, position, expected) in [
        (1, 2, "row 1 of the journal: a commit begins at position 2, and not between 1 and 1"),
        (3, 4, "row 3 of the journal: a commit begins at position 4, and not between 3 and 3"),
        (3, 2, "row 3 of the journal: a commit begins at position 2, and not between 3 and 3"),
    ] {
        let directory = with_a_journal().await;
        damage_journal(directory.path(), |rows| {
            let (mut entries, previous) = {
                let row = rows.get(number).unwrap().unwrap();
                let row = read_row(number, row.value()).unwrap();
                (entry::decode_row(row.entries).unwrap(), row.previous)
            };
            entries[0].position = position;
            let before = JournalMark { number: number - 1, checksum: previous };
            rows.insert(number, chain(before, &mut entry::encode_row(&entries).unwrap())).unwrap();
        });
        let found = told(&check(directory.path()).unwrap());
        assert_eq!(found.first().map(String::as_str), Some(expected), "{found:?}");
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&after), [""; 0]);
    }
}

#[tokio::test]
async fn a_row_after_an_exchanged_one_is_taken_whatever_positions_that_one_had() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b", "c"] {
        seal(&store, name, 0, &["x"]).await;
    }
    lose(store).await;
    damage_journal(directory.path(), |rows| {
        let first = mark(rows, 1);
        let mut entries = {
            let row = rows.get(2).unwrap().unwrap();
            entry::decode_row(read_row(2, row.value()).unwrap().entries).unwrap()
        };
        let other = turn("y").seal(&Done::because("stop"), EpochMillis::new(2));
        entries[0].sealed.push(record::encode_sealed(&other).unwrap().into());
        entries[0].conversation.sealed_turns = 2;
        rows.insert(2, chain(first, &mut entry::encode_row(&entries).unwrap())).unwrap();
    });
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    let mut order = order(directory.path()).await;
    order.sort_by(|one, other| (&one.1, one.2).cmp(&(&other.1, other.2)));
    let turns: Vec<_> = order.iter().map(|(_, name, ordinal)| (name.as_str(), *ordinal)).collect();
    assert_eq!(turns, [("a", 1), ("b", 1), ("b", 2), ("c", 1)]);
}

#[tokio::test]
async fn a_repair_closes_the_gap_that_a_lost_row_of_the_journal_leaves_in_the_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (name, version, turn) in [("a", 0, "x"), ("b", 0, "x"), ("a", 1, "y"), ("b", 1, "y"), ("a", 2, "z")] {
        seal(&store, name, version, &[turn]).await;
    }
    lose(store).await;
    damage_journal(directory.path(), |rows| drop(rows.remove(4).unwrap()));
    let found = told(&check(directory.path()).unwrap());
    let expected =
        ["row 4 of the journal: it is missing; the next one is 5", "position 4: it is missing; the next one is 5"];
    assert_eq!(found, expected);
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert_eq!(order(directory.path()).await, in_order("abaa"));
}

#[tokio::test]
async fn a_file_without_a_lineage_gets_one_by_a_repair() {
    assert_found_and_repaired("the file: the store's lineage is missing", |path| {
        let database = Database::open(path.join(StoreFile::Main.name())).unwrap();
        let txn = database.begin_write().unwrap();
        WriteMeta::write(&txn).unwrap().forget_lineage();
        txn.commit().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_damaged_record_costs_that_record_alone_and_a_repair_moves_it_aside() {
    let directory = sound().await;
    damage(directory.path(), TURNS, |turns| drop(turns.insert((1, 2), Stored::as_it_is(b"nonsense")).unwrap()));
    damage(directory.path(), OPEN_TURNS, |open| drop(open.insert((1, "open"), Stored::as_it_is(b"")).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| {
        drop(records.insert(2, row::seal(&2, &mut b"\x01\xff".to_vec())).unwrap());
    });

    let store = open(directory.path());
    let range = |name, limit| TurnRange { conversation_id: id(name), after: 0, limit };
    let ordinals = |name, limit| {
        store.turns(&range(name, limit)).unwrap().iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>()
    };
    assert_eq!(ordinals("a", 9), [1, 3]);
    assert_eq!(store.damaged_records(), 1);
    assert_eq!(ordinals("a", 2), [1, 3], "a full page, so that nobody stops early");
    assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns.len(), 1);
    assert_eq!(
        store.stale_turns(RunningTime::new(9).into(), None, 9).unwrap().len(),
        1,
        "those of the others are found"
    );
    assert_eq!(ordinals("b", 9), [1, 2, 3], "its record is not needed for its turns");
    assert_eq!(store.revision(&id("b")).unwrap().sealed_turns, 3);
    let commit = |name, version| sealing(name, version, "new");
    let (refused, taken) = (store.commit(commit("b", 1)), store.commit(commit("a", 1)));
    assert!(refused.await.unwrap_err().in_full().contains("conversation cannot be read"));
    assert_eq!(taken.await.unwrap().version, Version(2), "the loss of one conversation is not that of another");
    store.close().await;

    let found = told(&check(directory.path()).unwrap());
    for start in ["turn 2 of conversation a: ", "open turn open of conversation a: ", "conversation b: a stored"] {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start:?} is not in {found:#?}");
    }
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert_eq!(after.lost_turns, 1);

    let store = open(directory.path());
    let again = Commit { sealed: vec![turn("y").seal(&Done::because("stop"), EpochMillis::new(3))], ..commit("a", 2) };
    let outcomes = store.commit(again).await.unwrap().outcomes;
    assert!(matches!(outcomes[0].1, crate::store::TurnOutcome::Duplicate(at) if at.get() == 2), "{outcomes:?}");
    assert_eq!(store.commit(commit("b", 1)).await.unwrap().outcomes.len(), 1, "it is written to again");
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

/// How many rows a table has of what repairs took out.
fn lost<K: redb::Key + 'static>(directory: &Path, table: TableDefinition<'_, K, &'static [u8]>) -> u64 {
    let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
    let lost = database.begin_read().unwrap().open_table(table).unwrap();
    redb::ReadableTableMetadata::len(&lost).unwrap()
}

#[tokio::test]
async fn what_an_earlier_repair_took_out_is_kept_by_a_later_one() {
    let directory = sound().await;
    for repairs in 1..=2 {
        damage(directory.path(), POSITIONS, |positions| {
            drop(positions.insert(6, Stored::as_it_is(&[repairs; 20])).unwrap());
        });
        // Sound by itself, and no open turn.
        damage(directory.path(), OPEN_TURNS, |open| {
            drop(open.insert((1, "open"), row::seal(&(1, "open"), &mut vec![repairs; 20])).unwrap());
        });
        let store = open(directory.path());
        let version = store.conversation_state(&id("b"), &[]).unwrap().version;
        seal(&store, "b", version.0, &["w"]).await;
        lose(store).await;
        fs::remove_file(directory.path().join(StoreFile::Journal.name())).unwrap();
        repair(directory.path()).unwrap().1.unwrap();
        let counted = [
            lost(directory.path(), LOST_UNKNOWN),
            lost(directory.path(), LOST_OPEN_TURNS),
            lost(directory.path(), LOST_ROWS),
        ];
        assert_eq!(counted, [u64::from(repairs); 3]);
    }
}

/// Puts a row as it is under another key.
fn misplace<T: Rows>(
    directory: &Path,
    table: TableDefinition<'_, T::Key, Row<T>>,
    from: KeyOf<'_, T>,
    to: KeyOf<'_, T>,
) {
    damage(directory, table, |rows| {
        let bytes = rows.remove(from).unwrap().unwrap().value().unverified().to_vec();
        rows.insert(to, Stored::as_it_is(&bytes)).unwrap();
    });
}

#[tokio::test]
async fn a_row_under_a_key_that_is_not_its_own_is_named_and_moved_aside() {
    let unfit = |what: &str| format!("a stored {what} cannot be read: its checksum does not fit");
    let turn = unfit("sealed turn");
    assert_found_and_repaired(&format!("turn 2 of conversation #9: {turn}"), |path| {
        misplace(path, TURNS, (1, 2), (9, 2));
    })
    .await;
    assert_found_and_repaired(&format!("turn {} of conversation a: {turn}", 1u64 << 40), |path| {
        misplace(path, TURNS, (1, 3), (1, 1 << 40));
    })
    .await;
    assert_found_and_repaired(&format!("conversation c: {}", unfit("key of a conversation")), |path| {
        misplace(path, KEYS, "a", "c");
    })
    .await;
    assert_found_and_repaired(&format!("conversation #5: {}", unfit("conversation")), |path| {
        misplace(path, CONVERSATIONS, 1, 5);
    })
    .await;
    assert_found_and_repaired(&format!("open turn opeo of conversation a: {}", unfit("open turn")), |path| {
        misplace(path, OPEN_TURNS, (1, "open"), (1, "opeo"));
    })
    .await;
    assert_found_and_repaired(&format!("conversation d: {}", unfit("place by activity")), |path| {
        misplace(path, ACTIVITY, (u64::MAX - 2, "a"), (u64::MAX - 2, "d"));
    })
    .await;
    assert_found_and_repaired(&format!("position 9: {}", unfit("position")), |path| {
        misplace(path, POSITIONS, 2, 9);
    })
    .await;
}

#[tokio::test]
async fn a_damaged_row_of_the_keys_costs_that_conversation_alone_and_the_journal_mends_it() {
    let directory = sound().await;
    let break_key = || {
        damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    };
    break_key();
    let store = open(directory.path());
    let range = |name| TurnRange { conversation_id: id(name), after: 0, limit: 9 };
    assert!(store.turns(&range("a")).unwrap_err().in_full().contains("key of a conversation cannot be read"));
    assert_eq!(store.turns(&range("b")).unwrap().len(), 3);
    seal(&store, "b", 1, &["w"]).await;
    let stale = store.stale_turns(RunningTime::new(9).into(), None, 1).unwrap();
    assert_eq!(store.stale_turns(RunningTime::new(9).into(), stale.last(), 9).unwrap().len(), 3);
    store.close().await;
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);

    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    lose(store).await;
    break_key();
    let store = open(directory.path());
    assert_eq!(store.turns(&range("a")).unwrap().len(), 4);
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_conversation_whose_key_and_record_are_both_damaged_is_found_by_its_place_by_activity() {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    seal(&store, "b", 1, &["w"]).await;
    lose(store).await;
    damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| drop(records.insert(1, Stored::as_it_is(b"\xff")).unwrap()));
    let store = open(directory.path());
    seal(&store, "a", 2, &["v"]).await;
    let turns = store.turns(&TurnRange { conversation_id: id("a"), after: 0, limit: 99 }).unwrap();
    assert_eq!(turns.len(), 5);
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_conversation_whose_key_nothing_tells_any_more_is_unavailable_and_others_go_on() {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    seal(&store, "b", 1, &["w"]).await;
    lose(store).await;
    damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| drop(records.insert(1, Stored::as_it_is(b"\xff")).unwrap()));
    damage(directory.path(), ACTIVITY, |places| drop(places.remove((u64::MAX - 2, "a")).unwrap()));
    let store = open(directory.path());
    let next = store.sealed_turns(None, 99).unwrap();
    assert_eq!((next.next.number, next.latest.number), (8, 8), "positions are passed over and not given again");
    assert!(store.back_up().unwrap_err().in_full().contains("a backup would lack"));
    seal(&store, "b", 2, &["v"]).await;
    let refused = store.commit(sealing("a", 2, "v")).await.unwrap_err();
    assert!(refused.in_full().contains("key of a conversation"), "{refused:?}");
    let range = |name| TurnRange { conversation_id: id(name), after: 0, limit: 9 };
    assert!(store.turns(&range("a")).unwrap_err().in_full().contains("key of a conversation"));
    store.close().await;
    let store = open(directory.path());
    assert_eq!(store.turns(&range("b")).unwrap().len(), 5);
    assert_eq!(store.sealed_turns(None, 99).unwrap().latest.number, 9);
    assert!(store.turns(&range("a")).is_err());
    store.close().await;
    let kept = "row 3 of the journal: the key of conversation a is lost".to_owned();
    let found = told(&check(directory.path()).unwrap());
    assert!(found.contains(&kept), "{found:#?}");
    repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(lost(directory.path(), LOST_ROWS), 1, "the repair keeps the row");
}

#[tokio::test]
async fn the_last_position_is_known_although_its_row_is_damaged() {
    for (at, lost) in [(1 << 60, true), (6, true), (6, false)] {
        let directory = sound().await;
        damage(directory.path(), POSITIONS, |positions| {
            let mut row = positions.remove(6).unwrap().unwrap().value().unverified().to_vec();
            // The key alone, or the value as well.
            row[0] ^= u8::from(lost && at == 6);
            positions.insert(at, Stored::as_it_is(&row)).unwrap();
        });
        for (version, turn) in [(1, "v"), (2, "w")] {
            let store = open(directory.path());
            seal(&store, "a", version, &[turn]).await;
            let page = store.sealed_turns(None, 99).unwrap();
            assert_eq!((page.latest.number, page.next.number), (6 + version, 6 + version));
            assert_eq!(page.turns.len() as u64, 5 + u64::from(!lost) + version);
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_row_of_the_journal_of_another_life_is_told_and_not_taken() {
    for (seals, of_tables) in [(1, true), (2, true), (2, false)] {
        let directory = if of_tables { sound().await } else { tempfile::tempdir().unwrap() };
        let store = open(directory.path());
        let version = u64::from(of_tables);
        for nth in 0..seals {
            seal(&store, "a", version + nth, &[&format!("t{nth}")]).await;
        }
        lose(store).await;
        damage_journal(directory.path(), |rows| {
            let last = rows.last().unwrap().unwrap().0.value();
            let (before, mut entries) = {
                let row = rows.get(last).unwrap().unwrap();
                let row = read_row(last, row.value()).unwrap();
                let before = JournalMark { number: last - 1, checksum: row.previous };
                (before, entry::decode_row(row.entries).unwrap())
            };
            entries[0].conversation.life = crate::store::Life(7);
            rows.insert(last, chain(before, &mut entry::encode_row(&entries).unwrap())).unwrap();
        });
        let refused = RedbEngine::open(Location::Directory(directory.path().to_owned()), &StoreSettings::default());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("conversation a is of another life"), "{refused}");
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&after), [""; 0]);
    }
}

#[tokio::test]
async fn an_index_row_that_leads_to_another_turn_is_not_taken_for_a_turn_that_is_not_sealed() {
    let directory = sound().await;
    let place = hash(directory.path(), "x");
    damage(directory.path(), INDEX, |index| drop(index.insert((1, place), 3).unwrap()));
    let store = open(directory.path());
    let commit = |name, version| sealing(name, version, "x");
    let (refused, taken) = (store.commit(commit("a", 1)), store.commit(commit("b", 1)));
    assert!(refused.await.unwrap_err().in_full().contains("row of the index cannot be read"));
    assert!(matches!(taken.await.unwrap().outcomes[0].1, crate::store::TurnOutcome::Duplicate(at) if at.get() == 1));
}

#[tokio::test]
async fn a_damaged_row_is_as_damaged_in_a_backup_and_after_a_compaction() {
    let directory = sound().await;
    damage(directory.path(), TURNS, |turns| {
        let mut bytes = turns.get((1, 2)).unwrap().unwrap().value().unverified().to_vec();
        let id = bytes.iter().position(|byte| *byte == b'y').unwrap();
        bytes[id] = b'w';
        turns.insert((1, 2), Stored::as_it_is(&bytes)).unwrap();
    });
    let expected = "turn 2 of conversation a: a stored sealed turn cannot be read: its checksum does not fit";
    let tells = |directory: &Path| told(&check(directory).unwrap()).iter().any(|line| line == expected);
    assert!(tells(directory.path()));
    let copied = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut copy = File::create(copied.path().join(StoreFile::Main.name())).unwrap();
    io::copy(&mut store.back_up().unwrap().bytes, &mut copy).unwrap();
    store.close().await;
    compact(directory.path()).unwrap();
    assert!(tells(copied.path()) && tells(directory.path()));
}

/// The rows of one table, in a database that a test damages bit by bit.
struct Flips<'a, T: Rows> {
    database: &'a Database,
    table: TableDefinition<'static, T::Key, Row<T>>,
    /// Whether a value without its checksum can be read.
    decodes: fn(&[u8]) -> bool,
}

impl<T: Rows> Flips<'_, T> {
    fn change(&self, change: impl FnOnce(&mut redb::Table<'_, T::Key, Row<T>>)) {
        let txn = self.database.begin_write().unwrap();
        change(&mut txn.open_table(self.table).unwrap());
        txn.commit().unwrap();
    }

    /// Flips each bit of the row's key and value. `met` reads it and returns whether the damage was seen.
    fn each(&self, key: &KeyOf<'_, T>, met: impl Fn(&ReadTables, KeyOf<'_, T>) -> bool) {
        let key = T::Key::as_bytes(key).as_ref().to_vec();
        let mut value = Vec::new();
        self.change(|rows| {
            value = rows.get(T::Key::from_bytes(&key)).unwrap().unwrap().value().unverified().to_vec();
        });
        let mut unseen_without = 0;
        for bit in 0..(key.len() + value.len()) * 8 {
            let mut row = [&*key, &*value].concat();
            row[bit / 8] ^= 1 << (bit % 8);
            let (other, damaged) = row.split_at(key.len());
            // These bytes are no key (no UTF-8, or wrong lengths), so nothing can ask for them.
            if std::panic::catch_unwind(|| drop(T::Key::from_bytes(other))).is_err() {
                continue;
            }
            let mut is_another = false;
            self.change(|rows| {
                is_another = other != &*key && rows.get(T::Key::from_bytes(other)).unwrap().is_some();
                if !is_another {
                    rows.remove(T::Key::from_bytes(&key)).unwrap();
                    rows.insert(T::Key::from_bytes(other), Stored::as_it_is(damaged)).unwrap();
                }
            });
            if is_another {
                continue;
            }
            let txn = self.database.begin_read().unwrap();
            let violations = told(&Inspection::of(&txn).unwrap());
            let unfit = format!("a stored {} cannot be read: its checksum does not fit", T::WHAT);
            let is_found = |line: &String| line.ends_with(&unfit) || line.ends_with("0 is no ordinal");
            assert!(violations.iter().any(is_found), "bit {bit} of {}: {violations:?}", T::NAME);
            let store_id = ReadMeta::read(&txn).unwrap().store_id().unwrap();
            let tables = ReadTables::new(txn, TurnHasher::of(store_id));
            assert!(met(&tables, T::Key::from_bytes(other)), "bit {bit} of {} is read as sound", T::NAME);
            unseen_without += u32::from((self.decodes)(&damaged[..damaged.len() - 8]));
            self.change(|rows| {
                rows.remove(T::Key::from_bytes(other)).unwrap();
                rows.insert(T::Key::from_bytes(&key), Stored::as_it_is(&value)).unwrap();
            });
        }
        assert!(unseen_without > 0, "the control: without checksums each flip in {} would be seen too", T::NAME);
    }
}

#[tokio::test]
async fn each_flipped_bit_of_a_row_is_found_by_the_check_and_by_the_read_that_meets_it() {
    let directory = sound().await;
    let file = Database::open(directory.path().join(StoreFile::Main.name())).unwrap();
    let database = &redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let txn = database.begin_write().unwrap();
    copy_tables(&file.begin_read().unwrap(), &txn).unwrap();
    txn.commit().unwrap();

    let none = Memtable::default();
    let at = Ordinal::after(0);
    Flips { database, table: TURNS, decodes: |value| record::decode_sealed(Ordinal::after(0), value).is_ok() }.each(
        &(1, 2),
        |tables, (key, ordinal)| {
            let range = TurnRange { conversation_id: id("a"), after: 0, limit: 9 };
            let mut left_out = LeftOut::default();
            TurnsQuery::of(&none, &range).read(Some(tables), &range, &mut left_out).unwrap();
            // No conversation has another key, so no read meets it there.
            key != 1 || ordinal < at.get() || left_out.count == 1
        },
    );
    Flips { database, table: OPEN_TURNS, decodes: |value| StagedHead::decode(value).is_ok() }.each(
        &(1, "open"),
        |tables, (key, _)| {
            let (mut stale, mut of_a) = (LeftOut::default(), LeftOut::default());
            let before = RunningTime::new(9).into();
            StaleQuery::of(&none).stale_turns(tables, before, None, 9, &mut stale).unwrap();
            StateQuery::of(&none, &id("a")).read(tables, &id("a"), &[], &mut of_a).unwrap();
            stale.count == 1 && (key != 1 || of_a.count == 1)
        },
    );
    let is_step = |value: &[u8]| record::decode_step(&TurnId::new("open").unwrap(), 1, value).is_ok();
    Flips { database, table: OPEN_STEPS, decodes: is_step }.each(&(1, "open", 1), |tables, _| {
        // Wherever the row stands, the turn lacks it.
        let mut left_out = LeftOut::default();
        let state = StateQuery::of(&none, &id("a")).read(tables, &id("a"), &[], &mut left_out).unwrap();
        left_out.count == 1 && state.open_turns == [staged("other", 0)]
    });
    Flips { database, table: CONVERSATIONS, decodes: |value| ConversationRecord::decode(value).is_ok() }
        .each(&1, |tables, key| matches!(tables.conversation(key), Err(Failure::Record(_))));
    Flips { database, table: KEYS, decodes: |_| true }.each(&"a", |tables, name| {
        // Not every text is an id.
        ConversationId::new(name).map_or(true, |id| matches!(tables.key_of(&id), Err(Failure::Record(_))))
    });
    Flips { database, table: ACTIVITY, decodes: |_| true }.each(&(u64::MAX - 2, "a"), |tables, (_, name)| {
        let mut left_out = LeftOut::default();
        let query = ConversationsQuery::of(Vec::new(), &Recent::default(), &Lacking::Nothing);
        query.read(tables, &ConversationQuestion::first(ConversationOrder::Recent, 9), &mut left_out).unwrap();
        ConversationId::new(name).is_err() || left_out.count == 1
    });
    Flips { database, table: POSITIONS, decodes: |value| AtPosition::decode(value).is_ok() }.each(
        &2,
        |tables, position| {
            // Nobody asks for what is at 0.
            let Some(after) = position.checked_sub(1) else { return true };
            let (given, mut left_out) = (Memtable::at(JournalMark::default(), position), LeftOut::default());
            let query = OrderQuery::of(&given, after, 1).unwrap();
            query.read(Lineage(uuid::Uuid::nil()), Some(tables), &mut left_out).unwrap();
            left_out.count == 1
        },
    );
}

/// Seals turns of a conversation in one commit.
async fn seal(store: &RedbEngine, name: &str, version: u64, ids: &[&str]) {
    let sealed = ids.iter().map(|id| turn(id).seal(&Done::because("stop"), EpochMillis::new(2))).collect();
    let expected_version = Version(version);
    store.commit(Commit { conversation_id: id(name), expected_version, staged: Vec::new(), sealed }).await.unwrap();
}

/// Ends a store as a crash of its process does.
async fn lose(store: RedbEngine) {
    let mut writer = store.health();
    drop(store);
    writer.wait_for(|state| *state != crate::store::Health::Running).await.unwrap();
}

/// What a crash leaves of a store of which three commits are in the journal alone.
async fn with_a_journal() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (version, turn) in [(0, "t0"), (1, "t1"), (2, "t2")] {
        seal(&store, "a", version, &[turn]).await;
    }
    lose(store).await;
    directory
}

async fn places(directory: &Path) -> Vec<(u64, String)> {
    let store = open(directory);
    let turns = store.turns(&TurnRange { conversation_id: id("a"), after: 0, limit: 99 }).unwrap();
    lose(store).await;
    turns.iter().map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.to_string())).collect()
}

#[tokio::test]
async fn a_repair_of_half_a_commit_moves_no_ordinal() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    seal(&store, "a", 0, &["v"]).await;
    seal(&store, "a", 1, &["x", "y", "z"]).await;
    seal(&store, "a", 2, &["w"]).await;
    lose(store).await;
    damage_journal(directory.path(), |rows| {
        let first = mark(rows, 1);
        let mut entries = {
            let row = rows.get(2).unwrap().unwrap();
            entry::decode_row(read_row(2, row.value()).unwrap().entries).unwrap()
        };
        entries[0].sealed[1] = b"\xff\xff".as_slice().into();
        rows.insert(2, chain(first, &mut entry::encode_row(&entries).unwrap())).unwrap();
    });
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert_eq!(places(directory.path()).await, [(1, "v".to_owned())]);
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
    let refused = RedbEngine::open(Location::Directory(directory.path().to_owned()), &StoreSettings::default());
    assert!(matches!(refused, Err(OpenError::JournalOfAnother { .. })), "{refused:?}");
    assert!(matches!(check(directory.path()), Err(CheckError::Open(OpenError::JournalOfAnother { .. }))));
    fs::write(&journal, newer).unwrap();
    assert_eq!(places(directory.path()).await.len(), 3);

    // After an orderly stop there is another journal. The one before it is none of the store's any more.
    let older = fs::read(&journal).unwrap();
    let store = open(directory.path());
    store.close().await;
    lose(open(directory.path())).await;
    fs::write(&journal, older).unwrap();
    let refused = RedbEngine::open(Location::Directory(directory.path().to_owned()), &StoreSettings::default());
    assert!(matches!(refused, Err(OpenError::JournalOfAnother { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_conversation_with_a_commit_in_the_journal_is_made_whole_by_that() {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    lose(store).await;
    damage(directory.path(), CONVERSATIONS, |records| drop(records.insert(1, Stored::as_it_is(b"\xff")).unwrap()));
    let report = check(directory.path()).unwrap();
    assert_eq!((told(&report), report.sealed_turns), (vec![], 7));
    let store = open(directory.path());
    seal(&store, "a", 2, &["v"]).await;
    let turns = store.turns(&TurnRange { conversation_id: id("a"), after: 0, limit: 99 }).unwrap();
    assert_eq!(turns.len(), 5);
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

/// Seals a turn in a commit of its own, on this thread.
fn seal_by_hand(store: &RedbEngine, writer: &mut Writer, name: &str, version: u64, turn: &str) {
    let turns = [turn];
    let mut sealing = std::pin::pin!(seal(store, name, version, &turns));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sealing.as_mut().poll(&mut context).is_pending());
    let _ = writer.run_once();
    assert!(sealing.as_mut().poll(&mut context).is_ready());
}

fn prepare(directory: &Path) -> (RedbEngine, Writer) {
    // So small that a flush moves one conversation.
    let settings = StoreSettings::with_journal_bytes(4800);
    RedbEngine::prepare(Location::Directory(directory.to_owned()), &settings, Backoff::default()).unwrap()
}

/// The store is refused with `expected` as the cause, by the start and by the check.
fn assert_of_another_time(directory: &Path, expected: &str) {
    let refused = RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::JournalOfAnother { cause, .. } if cause.to_string() == expected),
        "{refused}"
    );
    let unchecked = check(directory).unwrap_err();
    assert!(matches!(&unchecked, CheckError::Open(OpenError::JournalOfAnother { .. })), "{unchecked}");
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
    assert_eq!((head.checkpoint().unwrap().number, head.newest().unwrap().number), (0, 3), "the flush is not the last");
    drop(head);

    fs::write(&journal, older).unwrap();
    assert_of_another_time(path, "it ends with row 2, and the database has seen row 3: it is an older copy");
    fs::write(&journal, &newer).unwrap();
    damage_journal(path, |rows| {
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

#[tokio::test]
async fn a_row_of_the_journal_that_is_exchanged_damaged_or_taken_out_is_told_when_the_store_is_opened() {
    let refusal =
        |directory: &Path| match RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default())
        {
            Err(OpenError::DamagedRow { row, flaw, .. }) => format!("row {row}: {flaw}"),
            other => panic!("{other:?}"),
        };
    // Sound by itself, and of the right place in its conversation.
    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| {
        let first = mark(rows, 1);
        let mut entries = {
            let row = rows.get(2).unwrap().unwrap();
            entry::decode_row(read_row(2, row.value()).unwrap().entries).unwrap()
        };
        let other = turn("other").seal(&Done::because("stop"), EpochMillis::new(2));
        entries[0].sealed[0] = record::encode_sealed(&other).unwrap().into();
        rows.insert(2, chain(first, &mut entry::encode_row(&entries).unwrap())).unwrap();
    });
    assert_eq!(refusal(directory.path()), "row 3: it does not follow the row before it, one of which was exchanged");

    // The last row, which no other follows.
    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| {
        let mut bytes = rows.get(3).unwrap().unwrap().value().unverified().to_vec();
        let id = bytes.windows(2).position(|bytes| bytes == b"t2").unwrap();
        bytes[id] ^= 1;
        rows.insert(3, Stored::as_it_is(&bytes)).unwrap();
    });
    let unfit = "row 3: a stored row of the journal cannot be read: its checksum does not fit";
    assert_eq!(refusal(directory.path()), unfit);

    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    assert_eq!(refusal(directory.path()), "row 2: it is missing; the next one is 3");
}

fn mark(rows: &redb::Table<'_, u64, Row<JournalRows>>, number: u64) -> JournalMark {
    JournalMark { number, checksum: rows.get(number).unwrap().unwrap().value().checksum() }
}

fn damage_journal(directory: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, Row<JournalRows>>)) {
    let database = Database::open(directory.join(StoreFile::Journal.name())).unwrap();
    let txn = database.begin_write().unwrap();
    change(&mut txn.open_table(ROWS).unwrap());
    txn.commit().unwrap();
    database.close().unwrap();
}

/// A store that does not open any more but with a repair, which keeps `turns`.
async fn assert_repaired(directory: &Path, found: &[&str], turns: &[u64]) {
    let refused = RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap_err();
    assert!(refused.to_string().contains("journal"), "{refused}");
    assert_eq!(told(&check(directory).unwrap()), found);
    let (_, after) = repair(directory).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert!(!directory.join(StoreFile::Journal.name()).exists());
    let store = open(directory);
    let kept = store.turns(&TurnRange { conversation_id: id("a"), after: 0, limit: 9 }).unwrap();
    assert_eq!(kept.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), turns);
    store.close().await;
    assert_eq!(told(&check(directory).unwrap()), [""; 0]);
}

#[tokio::test]
async fn what_is_in_the_journal_alone_is_checked_where_it_belongs_and_changes_no_byte() {
    let directory = with_a_journal().await;
    let journal = directory.path().join(StoreFile::Journal.name());
    let before = (bytes(directory.path()), fs::read(&journal).unwrap());
    let report = check(directory.path()).unwrap();
    assert_eq!((told(&report), report.sealed_turns), (vec![], 3));
    assert_eq!(repair(directory.path()).unwrap(), (report, None));
    assert!((bytes(directory.path()), fs::read(&journal).unwrap()) == before);
}

#[tokio::test]
async fn a_row_of_the_journal_that_is_damaged_or_gone_is_named_and_costs_what_followed_it_in_its_conversation() {
    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| {
        let first = mark(rows, 1);
        rows.insert(2, chain(first, &mut b"\x01\xff".to_vec())).unwrap();
    });
    let follows = "conversation a goes from version 1 and 1 sealed turns to version 3 after 2 sealed turns";
    let found = [
        "row 2 of the journal: a stored row of the journal cannot be read: Hit the end of buffer, expected more data",
        &format!("row 3 of the journal: {follows}"),
    ];
    assert_repaired(directory.path(), &found, &[1]).await;

    let directory = with_a_journal().await;
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    let found = ["row 2 of the journal: it is missing; the next one is 3", &format!("row 3 of the journal: {follows}")];
    assert_repaired(directory.path(), &found, &[1]).await;
}

#[tokio::test]
async fn a_journal_that_is_gone_is_told_and_a_repair_goes_on_without_it() {
    let directory = with_a_journal().await;
    fs::remove_file(directory.path().join(StoreFile::Journal.name())).unwrap();
    let found = ["row 1 of the journal: the whole journal is missing, and what was acknowledged last with it"];
    assert_repaired(directory.path(), &found, &[]).await;
}

/// A store with a flipped bit in the middle of stored ids, which still decode: the checksums of their pages alone tell.
/// In all copies, as some are in pages of the past.
async fn with_damaged_pages() -> tempfile::TempDir {
    let directory = sound().await;
    let mut image = bytes(directory.path());
    let found: Vec<_> = (0..image.len() - 5).filter(|at| image[*at..].starts_with(b"other")).collect();
    assert!(!found.is_empty());
    for at in found {
        image[at] ^= 1;
    }
    fs::write(directory.path().join(StoreFile::Main.name()), &image).unwrap();
    directory
}

#[tokio::test]
async fn a_flipped_bit_in_a_page_is_found_and_a_repair_that_cannot_mend_it_touches_nothing() {
    let directory = with_damaged_pages().await;
    let before = bytes(directory.path());
    let report = check(directory.path()).unwrap();
    assert!(!report.violations.is_empty());
    for _ in 0..2 {
        assert_eq!(repair(directory.path()).unwrap(), (report.clone(), None));
        assert!(bytes(directory.path()) == before, "the repair changed the file");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "copies pile up");
    }
}

#[test]
fn an_empty_file_is_told_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(StoreFile::Main.name()), "").unwrap();
    let (checked, repaired) = (check(directory.path()).unwrap_err(), repair(directory.path()).unwrap_err());
    assert!(checked.to_string().ends_with("the file is empty"), "{checked}");
    assert_eq!(checked.to_string(), repaired.to_string());
    assert_eq!(bytes(directory.path()), b"");
}

#[tokio::test]
async fn the_name_of_the_copy_is_made_durable_when_the_copy_is_whole() {
    let directory = sound().await;
    let (path, synced) = (directory.path().join(StoreFile::Main.name()), std::cell::Cell::new(0));
    let copy = keep_copy(&path, |parent| {
        assert_eq!(parent, directory.path());
        let copy = fs::read(parent.join("turn-metrics.redb.before-repair-1")).unwrap();
        assert!(copy == bytes(directory.path()));
        synced.set(synced.get() + 1);
        Ok(())
    });
    assert!(copy.is_ok() && synced.get() == 1, "{copy:?}");

    let refused = keep_copy(&path, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert!(matches!(refused, CheckError::Copy { .. }), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "a copy is left whose name is not durable");
}

#[cfg(unix)]
#[tokio::test]
async fn linked_files_are_repaired_where_they_are_and_copied_beside_that() {
    let (directory, far) = (with_a_journal().await, tempfile::tempdir().unwrap());
    damage_journal(directory.path(), |rows| drop(rows.remove(2).unwrap()));
    for file in [StoreFile::Main, StoreFile::Journal] {
        let (link, to) = (directory.path().join(file.name()), far.path().join(file.name()));
        fs::rename(&link, &to).unwrap();
        std::os::unix::fs::symlink(&to, &link).unwrap();
    }
    let before = bytes(far.path());
    let (_, repaired) = repair(directory.path()).unwrap();
    let (copy, after) = repaired.unwrap();
    assert_eq!(told(&after), [""; 0]);
    assert!(copy.starts_with(far.path()) && fs::read(copy).unwrap() == before);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let (main, journal) = (StoreFile::Main.name(), StoreFile::Journal.name());
    let copy = |name: &str| format!("{name}.before-repair-1");
    assert_eq!(names(far.path()), [copy(journal), main.to_owned(), copy(main)]);
    assert_eq!(names(directory.path()), [journal, main]);
    assert!(directory.path().join(main).is_symlink() && directory.path().join(journal).is_symlink());
}

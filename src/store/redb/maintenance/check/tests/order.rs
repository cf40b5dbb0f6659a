use std::path::Path;

use super::set_up::{
    change_entry, damage, damage_journal, in_order, lose, open, order, seal, sound, told, turn, with_a_journal,
};
use crate::store::Lineage;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::row::{Row, Stored};
use crate::store::redb::tables::schema::{POSITIONS, Positions, TURNS};
use crate::store::redb::tables::{record, row};
use crate::turn::{Done, EpochMillis, Ordinal};

async fn lineage(directory: &Path) -> Lineage {
    let store = open(directory);
    let lineage = store.sealed_turns(None, 0).unwrap().latest.lineage;
    store.close().await;
    lineage
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
        assert_ne!(lineage(directory.path()).await, before, "positions changed under the same lineage");
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
    assert_eq!((erased.turns.len(), erased.next.number), (0, 7), "an empty page must lead on to the next");
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
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
    assert_eq!(store.damaged_records(), 3);
}

#[tokio::test]
async fn the_last_position_is_known_although_its_row_is_damaged() {
    for (at, lost) in [(1 << 60, true), (6, true), (6, false)] {
        let directory = sound().await;
        damage(directory.path(), POSITIONS, |positions| {
            let mut row = positions.remove(6).unwrap().unwrap().value().unverified().to_vec();
            // Either only the key of the row is wrong, or its value is damaged as well.
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
async fn missing_rows_of_the_order_are_counted_and_their_positions_are_not_given_again() {
    let directory = sound().await;
    damage(directory.path(), POSITIONS, |positions| {
        for lost in [3, 5, 6] {
            positions.remove(lost).unwrap().unwrap();
        }
    });
    let store = open(directory.path());
    let read = |limit| {
        let (mut after, mut found, mut left_out) = (None, Vec::new(), 0);
        loop {
            let page = store.sealed_turns(after, limit).unwrap();
            found.extend(page.turns.iter().map(|found| found.position.number));
            left_out += page.left_out;
            after = Some(page.next);
            if page.next == page.latest {
                return (found, left_out);
            }
        }
    };
    for limit in 1..=7 {
        assert_eq!(read(limit), (vec![1, 2, 4], 3), "pages of {limit}");
    }
    seal(&store, "a", 1, &["v"]).await;
    assert_eq!(read(99), (vec![1, 2, 4, 7], 3));
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
async fn a_row_after_an_exchanged_one_is_taken_whatever_positions_that_one_had() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for name in ["a", "b", "c"] {
        seal(&store, name, 0, &["x"]).await;
    }
    lose(store).await;
    change_entry(directory.path(), 2, |entry| {
        let other = turn("y").seal(&Done::because("stop"), EpochMillis::new(2));
        entry.sealed.push(record::encode_sealed(&other).unwrap().into());
        entry.conversation.sealed_turns = 2;
    });
    let (_, after) = repair(directory.path()).unwrap().1.unwrap();
    assert_eq!(told(&after), [""; 0]);
    let mut order = order(directory.path()).await;
    order.sort_by(|one, other| (&one.1, one.2).cmp(&(&other.1, other.2)));
    let turns: Vec<_> = order.iter().map(|(_, name, ordinal)| (name.as_str(), *ordinal)).collect();
    assert_eq!(turns, [("a", 1), ("b", 1), ("b", 2), ("c", 1)]);
}

#[tokio::test]
async fn a_journal_whose_positions_do_not_follow_is_damaged() {
    for (number, position, expected) in [
        (1, 2, "row 1 of the journal: a commit begins at position 2, and not between 1 and 1"),
        (3, 4, "row 3 of the journal: a commit begins at position 4, and not between 3 and 3"),
        (3, 2, "row 3 of the journal: a commit begins at position 2, and not between 3 and 3"),
    ] {
        let directory = with_a_journal().await;
        change_entry(directory.path(), number, |entry| entry.position = position);
        let found = told(&check(directory.path()).unwrap());
        assert_eq!(found.first().map(String::as_str), Some(expected), "{found:?}");
        let (_, after) = repair(directory.path()).unwrap().1.unwrap();
        assert_eq!(told(&after), [""; 0]);
    }
}

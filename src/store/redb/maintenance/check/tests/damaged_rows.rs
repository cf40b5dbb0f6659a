use std::fs;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};

use super::set_up::{
    assert_found_and_repaired, bytes, damage, hash, id, lose, lost, open, seal, sealing, sound, told, turn,
};
use crate::report::NoPrices;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::maintenance::compact::{CompactError, compact};
use crate::store::redb::tables::indexed::StoredOrdinal;
use crate::store::redb::tables::row;
use crate::store::redb::tables::row::{KeyOf, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, CONVERSATIONS, INDEX, KEYS, LOST_JOURNAL_ROWS, LOST_OPEN_TURNS, LOST_UNKNOWN, OPEN_TURNS, POSITIONS,
    TURNS,
};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::{BackupError, Commit, ConversationOrder, ConversationQuestion, TurnOutcome, TurnRange, Version};
use crate::turn::{Done, EpochMillis, RunningTime};

#[tokio::test]
async fn a_damaged_record_costs_that_record_alone_and_a_repair_moves_it_aside() {
    let directory = sound().await;
    damage(directory.path(), TURNS, |turns| drop(turns.insert((1, 2), Stored::as_it_is(b"nonsense")).unwrap()));
    damage(directory.path(), OPEN_TURNS, |open| drop(open.insert((1, "open"), Stored::as_it_is(b"")).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| {
        drop(records.insert(2, row::seal(&2, &mut b"\x01\xff".to_vec())).unwrap());
    });

    let store = open(directory.path());
    let range = |name, limit| TurnRange::after(id(name), 0, limit);
    let ordinals = |name, limit| {
        store.turns(&range(name, limit)).unwrap().iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>()
    };
    assert_eq!(ordinals("a", 9), [1, 3]);
    assert_eq!(store.damaged_records(), 1);
    assert_eq!(ordinals("a", 2), [1, 3], "the page must be full, or readers would stop early");
    assert_eq!(store.conversation_state(&id("a"), &[]).unwrap().open_turns.len(), 1);
    assert_eq!(store.stale_turns(RunningTime::new(9).into(), None, 9).unwrap().len(), 1, "other turns are not found");
    assert_eq!(ordinals("b", 9), [1, 2, 3], "turns of a conversation with a damaged record are not found");
    assert_eq!(store.revision(&id("b")).unwrap().sealed_turns, 3);
    let page = store.sealed_turns(None, 9).unwrap();
    assert_eq!((page.turns.len(), page.left_out), (5, 1), "the order of all turns says what it leaves out");
    let commit = |name, version| sealing(name, version, "new");
    let (refused, taken) = (store.commit(commit("b", 1)), store.commit(commit("a", 1)));
    assert!(refused.await.unwrap_err().in_full().contains("conversation cannot be read"));
    assert_eq!(taken.await.unwrap().version, Version(2), "damage of one conversation stops another one");
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
    assert!(matches!(outcomes[0].1, TurnOutcome::Duplicate(at) if at.get() == 2), "{outcomes:?}");
    assert_eq!(
        store.commit(commit("b", 1)).await.unwrap().outcomes.len(),
        1,
        "the repaired conversation takes no commit"
    );
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_later_repair_keeps_the_rows_that_an_earlier_one_took_out() {
    let directory = sound().await;
    for repairs in 1..=2 {
        damage(directory.path(), POSITIONS, |positions| {
            drop(positions.insert(6, Stored::as_it_is(&[repairs; 20])).unwrap());
        });
        // The row has a right checksum, but does not decode as an open turn.
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
            lost(directory.path(), LOST_JOURNAL_ROWS),
        ];
        assert_eq!(counted, [u64::from(repairs); 3]);
    }
}

/// Moves a row under another key without changing its bytes.
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
async fn an_index_row_that_leads_to_another_turn_is_not_taken_for_a_turn_that_is_not_sealed() {
    let directory = sound().await;
    let place = hash(directory.path(), "x");
    damage(directory.path(), INDEX, |index| {
        drop(index.insert((1, place), StoredOrdinal::seal((1, place), 3)).unwrap());
    });
    let store = open(directory.path());
    let commit = |name, version| sealing(name, version, "x");
    let (refused, taken) = (store.commit(commit("a", 1)), store.commit(commit("b", 1)));
    assert!(refused.await.unwrap_err().in_full().contains("row of the index cannot be read"));
    assert!(matches!(taken.await.unwrap().outcomes[0].1, TurnOutcome::Duplicate(at) if at.get() == 1));
}

#[tokio::test]
async fn a_damaged_row_is_neither_backed_up_nor_compacted() {
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
    let store = open(directory.path());
    let refused = store.back_up().unwrap_err();
    assert!(matches!(refused, BackupError::Damaged(_)), "{}", refused.in_full());
    store.close().await;
    let before = bytes(directory.path());
    let refused = compact(directory.path(), Arc::new(NoPrices)).unwrap_err();
    assert!(matches!(refused, CompactError::Damaged { .. }), "{refused}");
    assert!(tells(directory.path()) && bytes(directory.path()) == before);
}

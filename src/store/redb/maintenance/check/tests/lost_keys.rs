use super::set_up::{damage, id, lose, lost, open, seal, sealing, sound, told};
use crate::settings::StoreSettings;
use crate::store::redb::maintenance::check::{check, repair};
use crate::store::redb::tables::row::Stored;
use crate::store::redb::tables::schema::{ACTIVITY, CONVERSATIONS, KEYS, LOST_JOURNAL_ROWS};
use crate::store::{Location, RedbEngine, TurnRange};
use crate::turn::RunningTime;

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
async fn a_damaged_row_of_the_keys_costs_that_conversation_alone_and_the_journal_mends_it() {
    let directory = sound().await;
    let break_key = || {
        damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    };
    break_key();
    let store = open(directory.path());
    let range = |name| TurnRange::after(id(name), 0, 9);
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

/// Returns a store with a commit to each conversation in the journal. The key and the record of conversation `a` are
/// damaged.
async fn without_key_and_record() -> tempfile::TempDir {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    seal(&store, "b", 1, &["w"]).await;
    lose(store).await;
    damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| drop(records.insert(1, Stored::as_it_is(b"\xff")).unwrap()));
    directory
}

#[tokio::test]
async fn a_conversation_whose_key_and_record_are_both_damaged_is_found_by_its_place_by_activity() {
    let directory = without_key_and_record().await;
    let store = open(directory.path());
    seal(&store, "a", 2, &["v"]).await;
    let turns = store.turns(&TurnRange::after(id("a"), 0, 99)).unwrap();
    assert_eq!(turns.len(), 5);
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_conversation_whose_key_is_lost_is_unavailable_and_others_go_on() {
    let directory = without_key_and_record().await;
    damage(directory.path(), ACTIVITY, |places| drop(places.remove((u64::MAX - 2, "a")).unwrap()));
    let store = open(directory.path());
    let next = store.sealed_turns(None, 99).unwrap();
    assert_eq!((next.next.number, next.latest.number), (8, 8), "the lost commit's positions were given again");
    assert!(store.back_up().unwrap_err().in_full().contains("a backup would lack"));
    seal(&store, "b", 2, &["v"]).await;
    let refused = store.commit(sealing("a", 2, "v")).await.unwrap_err();
    assert!(refused.in_full().contains("key of a conversation"), "{refused:?}");
    let range = |name| TurnRange::after(id(name), 0, 9);
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
    assert_eq!(lost(directory.path(), LOST_JOURNAL_ROWS), 1, "the repair did not keep the row");
}

#[tokio::test]
async fn rows_that_must_stay_in_the_journal_leave_room_for_new_ones_however_large_they_are() {
    let directory = sound().await;
    let store = open(directory.path());
    seal(&store, "a", 1, &["w"]).await;
    lose(store).await;
    damage(directory.path(), KEYS, |keys| drop(keys.insert("a", Stored::as_it_is(&[1; 16])).unwrap()));
    damage(directory.path(), CONVERSATIONS, |records| drop(records.insert(1, Stored::as_it_is(b"\xff")).unwrap()));
    damage(directory.path(), ACTIVITY, |places| drop(places.remove((u64::MAX - 2, "a")).unwrap()));
    let location = Location::Directory(directory.path().to_owned());
    // The row of conversation a is larger than the limit.
    let store = RedbEngine::open(location, &StoreSettings::with_journal_bytes(64)).unwrap();
    seal(&store, "b", 1, &["w"]).await;
    assert_eq!(store.all_turns(&id("b")).unwrap().len(), 4);
    store.close().await;
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
    let turns = store.turns(&TurnRange::after(id("a"), 0, 99)).unwrap();
    assert_eq!(turns.len(), 5);
    store.close().await;
    assert_eq!(told(&check(directory.path()).unwrap()), [""; 0]);
}

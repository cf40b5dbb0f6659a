//! Cases about turns that come from another store.

use super::*;
use crate::store::oracle::listing_of;

/// A commit that imports a turn for each id and moment, of which the first has this ordinal where it comes from.
fn import(name: &str, version: u64, from: u64, turns: &[(&str, u64)]) -> Commit {
    let sealed = turns.iter().map(|(id, at)| sealed(id, *at)).collect();
    Commit { sealed, imported_from: Ordinal::new(from), ..commit(name, version, &[], &[]) }
}

/// Returns the ordinal, the id and the moment of the sealing of each turn of a conversation.
async fn kept(store: &StoreUnderTest, name: &str) -> Vec<(u64, String, u64)> {
    let turns = all(store, name).await.into_iter();
    turns.map(|turn| (turn.ordinal.get(), turn.metrics.turn_id.to_string(), turn.sealed_at.get())).collect()
}

fn expected(turns: &[(u64, &str, u64)]) -> Vec<(u64, String, u64)> {
    turns.iter().map(|(ordinal, id, at)| (*ordinal, (*id).to_owned(), *at)).collect()
}

pub(crate) async fn imported_turns_keep_their_ordinals_and_moments(store: &StoreUnderTest) {
    let committed = store.commit(import("c", 0, 1, &[("a", 50), ("b", 40)])).await.unwrap();
    assert_eq!(outcomes(&committed), [("a", TurnOutcome::Sealed(at(1))), ("b", TurnOutcome::Sealed(at(2)))]);
    store.commit(import("c", 1, 3, &[("c", 30)])).await.unwrap();
    assert_eq!(kept(store, "c").await, expected(&[(1, "a", 50), (2, "b", 40), (3, "c", 30)]));
    let revision = store.revision(&conversation("c")).await;
    assert_eq!((revision.sealed_turns, revision.dropped_turns), (3, 0));
}

pub(crate) async fn a_conversation_that_begins_with_a_later_ordinal_has_only_its_turns(store: &StoreUnderTest) {
    store.commit(import("c", 0, 5, &[("a", 10), ("b", 20)])).await.unwrap();
    store.commit(commit("d", 0, &["open"], &[])).await.unwrap();
    store.commit(import("d", 1, 3, &[("x", 30)])).await.unwrap();
    store.commit(commit("c", 1, &[], &["later"])).await.unwrap();
    let ordinals = |turns: Vec<(u64, String, u64)>| turns.into_iter().map(|(ordinal, ..)| ordinal).collect::<Vec<_>>();
    assert_eq!(ordinals(kept(store, "c").await), [5, 6, 7]);
    assert_eq!(ordinals(kept(store, "d").await), [3]);
    for (name, sealed_turns, missing) in [("c", 7, 4), ("d", 3, 2)] {
        let revision = store.revision(&conversation(name)).await;
        assert_eq!((revision.sealed_turns, revision.dropped_turns), (sealed_turns, missing), "{name}");
        assert_eq!(revision.stored_turns(), sealed_turns - missing);
    }
    assert_eq!(store.turns(&TurnRange::latest(conversation("c"), 9)).await, all(store, "c").await);
    for name in ["c", "d"] {
        let turns = all(store, name).await;
        let listed = listing_of(&conversation(name), &turns, usize::from(name == "d"), &*test_prices()).unwrap();
        assert_eq!(listed.sealed_turns, turns.len() as u64);
        let found = store.list(ConversationQuestion::first(ConversationOrder::Turns, 9)).await;
        assert!(found.contains(&listed), "{found:?} instead of {listed:?}");
    }
    let page = store.sealed(None, 9).await.unwrap();
    let places: Vec<_> = page.turns.iter().map(|found| (found.position.number, found.turn.ordinal.get())).collect();
    assert_eq!(places, [(1, 5), (2, 6), (3, 3), (4, 7)]);
}

pub(crate) async fn imported_turns_are_appended_to_a_conversation_that_has_turns(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["here"])).await.unwrap();
    let committed = store.commit(import("c", 1, 9, &[("a", 0), ("here", 0), ("b", 0)])).await.unwrap();
    assert_eq!(
        outcomes(&committed),
        [("a", TurnOutcome::Sealed(at(2))), ("here", TurnOutcome::Duplicate(at(1))), ("b", TurnOutcome::Sealed(at(3)))]
    );
    assert_eq!(store.revision(&conversation("c")).await.dropped_turns, 0);
}

pub(crate) async fn importing_again_changes_nothing(store: &StoreUnderTest) {
    let turns = [("a", 50), ("b", 40)];
    store.commit(import("c", 0, 4, &turns)).await.unwrap();
    let (before, position) = (all(store, "c").await, store.sealed(None, 9).await.unwrap().latest);
    let again = store.commit(import("c", 1, 1, &turns)).await.unwrap();
    assert_eq!(again.version, Version(1));
    assert_eq!(outcomes(&again), [("a", TurnOutcome::Duplicate(at(4))), ("b", TurnOutcome::Duplicate(at(5)))]);
    assert_eq!(all(store, "c").await, before);
    assert_eq!(store.sealed(None, 9).await.unwrap().latest, position);
}

pub(crate) async fn an_import_ends_the_open_turns_that_it_has_and_no_others(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["a", "stays"], &[])).await.unwrap();
    store.commit(import("c", 1, 2, &[("a", 7)])).await.unwrap();
    assert_eq!(kept(store, "c").await, expected(&[(2, "a", 7)]));
    let open = store.open_turns(&conversation("c")).await;
    assert_eq!(open.sealed_turns, 2);
    assert_eq!(open.turns.iter().map(|staged| staged.turn.id.as_str()).collect::<Vec<_>>(), ["stays"]);
}

pub(crate) async fn turns_that_follow_an_import_are_not_sealed_before_its_latest_turn(store: &StoreUnderTest) {
    store.commit(import("c", 0, 1, &[("a", 50), ("b", 40)])).await.unwrap();
    assert_eq!(store.open(&conversation("c"), &[]).await.last_sealed_at, EpochMillis::new(40));
    store.commit(Commit { sealed: vec![sealed("d", 10), sealed("e", 45)], ..commit("c", 1, &[], &[]) }).await.unwrap();
    assert_eq!(kept(store, "c").await, expected(&[(1, "a", 50), (2, "b", 40), (3, "d", 40), (4, "e", 45)]));
}

pub(crate) async fn imported_turns_are_dropped_and_erased_like_others(store: &StoreUnderTest) {
    store.commit(import("c", 0, 5, &[("a", 10), ("b", 30), ("d", 20)])).await.unwrap();
    assert_eq!(store.drop_turns(25).await, 1, "turns are dropped in their order, whatever their moments");
    let revision = store.revision(&conversation("c")).await;
    assert_eq!((revision.sealed_turns, revision.dropped_turns), (7, 5));
    assert_eq!(kept(store, "c").await, expected(&[(6, "b", 30), (7, "d", 20)]));
    let found = store.list(ConversationQuestion::first(ConversationOrder::Turns, 9)).await;
    assert_eq!(found[0].sealed_turns, 3, "dropped turns count, and turns that were never here do not");
    assert!(store.erase("c").await.unwrap());
    assert_eq!(store.revision(&conversation("c")).await.dropped_turns, 0);
    store.commit(import("c", 0, 2, &[("a", 10)])).await.unwrap();
    assert_eq!(kept(store, "c").await, expected(&[(2, "a", 10)]));
}

pub(crate) async fn imported_turns_alone_fit_any_version(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["open"], &[])).await.unwrap();
    for (version, id) in [(0, "a"), (9, "b")] {
        store.commit(import("c", version, 1, &[(id, 5)])).await.unwrap();
    }
    assert_eq!(kept(store, "c").await, expected(&[(1, "a", 5), (2, "b", 5)]));
    let staging = Commit { imported_from: Ordinal::new(1), ..commit("c", 0, &["open"], &["d"]) };
    let conflict = CommitError::Conflict { expected: Version(0), actual: Version(3) };
    assert_eq!(store.commit(staging).await, Err(conflict), "its staged turn was made from another state");
}

pub(crate) async fn a_series_takes_positions_in_its_order(store: &StoreUnderTest) {
    let places = [("c", 3, "a"), ("d", 1, "a"), ("c", 4, "b"), ("d", 2, "b"), ("c", 5, "c")];
    let commits: Vec<_> = places.iter().map(|(name, from, id)| import(name, 0, *from, &[(id, 7)])).collect();
    let answer = store.commit_series(commits.clone()).await;
    assert_eq!((answer.committed.len(), answer.ended), (5, None));
    let order = |page: SealedPage| {
        let place = |found: PositionedTurn| {
            (found.position.number, found.conversation_id.to_string(), found.turn.ordinal.get())
        };
        page.turns.into_iter().map(place).collect::<Vec<_>>()
    };
    let found = order(store.sealed(None, 9).await.unwrap());
    let all = (1..).zip(places).map(|(position, (name, ordinal, _))| (position, name.to_owned(), ordinal));
    assert_eq!(found, all.collect::<Vec<_>>());
    let again = store.commit_series(commits).await;
    let is_duplicate = |committed: &Committed| matches!(committed.outcomes[..], [(_, TurnOutcome::Duplicate(_))]);
    assert!(again.ended.is_none() && again.committed.iter().all(is_duplicate), "{again:?}");
    assert_eq!(order(store.sealed(None, 9).await.unwrap()), found);
}

pub(crate) async fn a_series_ends_at_the_first_refusal(store: &StoreUnderTest) {
    let series = vec![import("c", 0, 1, &[("a", 7)]), commit("d", 5, &[], &["a"]), import("c", 0, 2, &[("b", 7)])];
    let answer = store.commit_series(series).await;
    assert_eq!(answer.ended, Some(CommitError::Conflict { expected: Version(5), actual: Version(0) }));
    assert_eq!(answer.committed.iter().map(|committed| committed.version).collect::<Vec<_>>(), [Version(1)]);
    assert_eq!(kept(store, "c").await, expected(&[(1, "a", 7)]));
    assert_eq!(all(store, "d").await, []);
    assert_eq!(store.commit_series(Vec::new()).await, CommittedSeries::default());
}

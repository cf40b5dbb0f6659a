//! What a commit does.

use super::*;

pub(crate) async fn ordinals_have_no_gap_and_follow_the_order_given(store: &StoreUnderTest) {
    let first = store.commit(commit("c", 0, &[], &["z", "a"])).await.unwrap();
    assert_eq!(outcomes(&first), [("z", TurnOutcome::Sealed(at(1))), ("a", TurnOutcome::Sealed(at(2)))]);
    let second = store.commit(commit("c", 1, &["open"], &["a", "m"])).await.unwrap();
    assert_eq!(
        outcomes(&second),
        [("open", TurnOutcome::Staged), ("a", TurnOutcome::Duplicate(at(2))), ("m", TurnOutcome::Sealed(at(3)))]
    );
    assert_eq!(places(store, "c").await, in_order(&["z", "a", "m"]));
}

pub(crate) async fn each_conversation_has_ordinals_of_its_own(store: &StoreUnderTest) {
    store.commit(commit("a", 0, &[], &["x", "y"])).await.unwrap();
    let other = store.commit(commit("b", 0, &[], &["x"])).await.unwrap();
    assert_eq!(outcomes(&other), [("x", TurnOutcome::Sealed(at(1)))], "a turn id counts within its conversation");
    store.commit(commit("a", 1, &[], &["z"])).await.unwrap();
    assert_eq!(places(store, "a").await, in_order(&["x", "y", "z"]));
    assert_eq!(places(store, "b").await, in_order(&["x"]));
}

pub(crate) async fn a_turn_that_is_sealed_again_is_a_duplicate_and_stays_as_it_was(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["x", "y"])).await.unwrap();
    let before = all(store, "c").await;
    let changed = open_turn("y").seal(&Done::because("another reason"), EpochMillis::new(99));
    let again = store.commit(Commit { sealed: vec![changed], ..commit("c", 1, &[], &[]) }).await.unwrap();
    assert_eq!(outcomes(&again), [("y", TurnOutcome::Duplicate(at(2)))]);
    assert_eq!(all(store, "c").await, before);
    assert_eq!(state(store, "c").await.last_sealed_at, EpochMillis::new(7), "a duplicate is sealed at no moment");
}

pub(crate) async fn a_turn_sealed_twice_in_one_commit_is_sealed_once(store: &StoreUnderTest) {
    let twice = Commit { sealed: vec![sealed("x", 7), sealed("y", 7), sealed("x", 99)], ..commit("c", 0, &[], &[]) };
    let committed = store.commit(twice).await.unwrap();
    assert_eq!(
        outcomes(&committed),
        [("x", TurnOutcome::Sealed(at(1))), ("y", TurnOutcome::Sealed(at(2))), ("x", TurnOutcome::Duplicate(at(1)))]
    );
    assert_eq!(all(store, "c").await, [sealed("x", 7).at(at(1)), sealed("y", 7).at(at(2))]);
    assert_eq!(state(store, "c").await.last_sealed_at, EpochMillis::new(7));
}

pub(crate) async fn a_turn_staged_and_sealed_in_one_commit_is_sealed(store: &StoreUnderTest) {
    let committed = store.commit(commit("c", 0, &["x", "y"], &["x"])).await.unwrap();
    assert_eq!(committed.version, Version(1));
    assert_eq!(
        outcomes(&committed),
        [("x", TurnOutcome::Staged), ("y", TurnOutcome::Staged), ("x", TurnOutcome::Sealed(at(1)))]
    );
    assert_eq!(state(store, "c").await.open_turns, [staged("y", 5)]);
    assert_eq!(stale(store, RunningTime::new(99)).await, [("c".into(), "y".into())]);
    assert_eq!(places(store, "c").await, in_order(&["x"]));
}

pub(crate) async fn a_turn_staged_twice_in_one_commit_stays_as_staged_last(store: &StoreUnderTest) {
    let twice = Commit { staged: vec![staged("x", 5).into(), staged("x", 3).into()], ..commit("c", 0, &[], &[]) };
    let committed = store.commit(twice).await.unwrap();
    assert_eq!(outcomes(&committed), [("x", TurnOutcome::Staged), ("x", TurnOutcome::Staged)]);
    assert_eq!(state(store, "c").await.open_turns, [staged("x", 3)]);
}

pub(crate) async fn a_staged_turn_replaces_its_earlier_state(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["x", "y"], &[])).await.unwrap();
    let mut later = staged("x", 8);
    later.turn.fold(&Progress::Failed);
    store.commit(Commit { staged: vec![later.clone().into()], ..commit("c", 1, &[], &[]) }).await.unwrap();
    assert_eq!(state(store, "c").await.open_turns, [later, staged("y", 5)]);
}

pub(crate) async fn a_turn_is_open_until_it_is_sealed(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["x", "y"], &[])).await.unwrap();
    store.commit(commit("c", 1, &[], &["x"])).await.unwrap();
    let (last_sealed_at, open_turns) = (EpochMillis::new(7), vec![staged("y", 5)]);
    let expected = ConversationState { version: Version(2), last_sealed_at, open_turns, sealed_turns: Vec::new() };
    assert_eq!(state(store, "c").await, expected);
}

pub(crate) async fn a_late_turn_opens_nothing_and_holds_up_no_other(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    let late = store.commit(commit("c", 1, &["x", "y"], &["z"])).await.unwrap();
    assert_eq!(
        outcomes(&late),
        [("x", TurnOutcome::Duplicate(at(1))), ("y", TurnOutcome::Staged), ("z", TurnOutcome::Sealed(at(2)))]
    );
    assert_eq!(state(store, "c").await.open_turns, [staged("y", 5)]);
    assert_eq!(stale(store, RunningTime::new(99)).await, [("c".into(), "y".into())]);
    assert_eq!(places(store, "c").await, in_order(&["x", "z"]));
}

pub(crate) async fn the_version_rises_with_each_change_and_only_then(store: &StoreUnderTest) {
    let changes: [(&[&str], &[&str], u64); 7] = [
        (&[], &[], 0),
        (&["x"], &[], 1),
        (&["x"], &[], 2),
        (&["y", "z"], &["x"], 3),
        (&["x"], &["x"], 3),
        (&[], &[], 3),
        (&["x"], &["x", "y"], 4),
    ];
    let mut version = 0;
    for (open, ended, expected) in changes {
        let committed = store.commit(commit("c", version, open, ended)).await.unwrap();
        assert_eq!(committed.version, Version(expected), "{open:?}, {ended:?}");
        assert_eq!(state(store, "c").await.version, Version(expected), "{open:?}, {ended:?}");
        version = expected;
    }
}

pub(crate) async fn a_commit_from_another_version_is_a_conflict(store: &StoreUnderTest) {
    let conflict =
        |expected, actual| Err(CommitError::Conflict { expected: Version(expected), actual: Version(actual) });
    assert_eq!(store.commit(commit("c", 1, &[], &["x"])).await, conflict(1, 0), "an unknown conversation");
    store.commit(commit("c", 0, &["x"], &[])).await.unwrap();
    store.commit(commit("c", 1, &[], &["x"])).await.unwrap();
    for expected in [0, 1, 3, u64::MAX] {
        assert_eq!(store.commit(commit("c", expected, &[], &["y"])).await, conflict(expected, 2));
        assert_eq!(store.commit(commit("c", expected, &[], &["x"])).await, conflict(expected, 2), "a duplicate");
        assert_eq!(store.commit(commit("c", expected, &[], &[])).await, conflict(expected, 2), "an empty commit");
    }
    store.commit(commit("c", 2, &[], &["y"])).await.unwrap();
}

pub(crate) async fn a_refused_commit_changes_nothing(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["x", "y"], &["z"])).await.unwrap();
    let turn_ids = ["v", "w", "x", "y", "z"].map(turn_id);
    let said = async |name| {
        let sealed_turns = store.open(&conversation(name), &turn_ids).await.sealed_turns;
        let (turns, revision) = (all(store, name).await, store.revision(&conversation(name)).await);
        (state(store, name).await, sealed_turns, turns, revision, stale(store, RunningTime::new(99)).await)
    };
    for name in ["c", "unknown"] {
        let before = said(name).await;
        let staged = ["v", "x", "z"].map(|turn| staged(turn, 6).into()).into();
        let sealed = vec![sealed("w", 99), sealed("y", 99), sealed("z", 99)];
        let refused = Commit { staged, sealed, ..commit(name, 7, &[], &[]) };
        store.commit(refused).await.unwrap_err();
        assert_eq!(said(name).await, before, "conversation {name}");
    }
    let next = store.commit(commit("c", 1, &[], &["w"])).await.unwrap();
    assert_eq!(outcomes(&next), [("w", TurnOutcome::Sealed(at(2)))]);
}

pub(crate) async fn the_moment_of_sealing_never_falls(store: &StoreUnderTest) {
    let commits = [vec![("a", 100), ("b", 50)], vec![("c", 99)], vec![("d", 120), ("e", 0), ("f", 121)]];
    for (version, turns) in (0..).zip(commits) {
        let sealed = turns.into_iter().map(|(name, at)| sealed(name, at)).collect();
        store.commit(Commit { sealed, ..commit("c", version, &[], &[]) }).await.unwrap();
        let last = all(store, "c").await.last().unwrap().sealed_at;
        assert_eq!(state(store, "c").await.last_sealed_at, last);
    }
    store.commit(Commit { sealed: vec![sealed("a", 7)], ..commit("other", 0, &[], &[]) }).await.unwrap();
    let moments = async |name| all(store, name).await.iter().map(|turn| turn.sealed_at.get()).collect::<Vec<_>>();
    assert_eq!(moments("c").await, [100, 100, 100, 120, 120, 121]);
    assert_eq!(moments("other").await, [7], "each conversation has a latest moment of its own");
}

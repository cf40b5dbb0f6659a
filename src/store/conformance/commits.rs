//! Cases about what a commit does.

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
    assert_eq!(
        outcomes(&other),
        [("x", TurnOutcome::Sealed(at(1)))],
        "a turn id must be unique only within its conversation"
    );
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
    assert_eq!(
        state(store, "c").await.last_sealed_at,
        EpochMillis::new(7),
        "a duplicate changed the moment of the latest sealing"
    );
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

/// Stages the turn `x` with this many steps, in a conversation that has other open turns too.
async fn stage_long(store: &StoreUnderTest, steps: u32) -> StagedTurn {
    let long = staged_with_steps("x", 5, steps);
    let around = ["w", "x#", "y"].map(|turn| staged_with_steps(turn, 5, 2).into());
    let turns = around.into_iter().chain([long.clone().into()]).collect();
    store.commit(Commit { staged: turns, ..commit("c", 0, &[], &[]) }).await.unwrap();
    long
}

/// Returns the turn `x`, and asserts that the other open turns have not changed.
async fn long_turn(store: &StoreUnderTest) -> StagedTurn {
    let open = state(store, "c").await.open_turns;
    let [w, x, of_like_id, y] = <[StagedTurn; 4]>::try_from(open).unwrap();
    assert_eq!([w, of_like_id, y], ["w", "x#", "y"].map(|turn| staged_with_steps(turn, 5, 2)));
    x
}

/// Folds an event into the turn and stages only what the event changed. Returns the turn after the event.
async fn stage_event(store: &StoreUnderTest, version: u64, before: &StagedTurn, event: &Progress) -> StagedTurn {
    let mut after = StagedTurn { last_event_at: RunningTime::new(6 + version), ..before.clone() };
    after.turn.fold(event);
    let change = change(Some(before), after.clone());
    assert_eq!(change.steps.len(), 1);
    store.commit(Commit { staged: vec![change], ..commit("c", version, &[], &[]) }).await.unwrap();
    after
}

pub(crate) async fn a_step_is_staged_alone_and_the_others_stay(store: &StoreUnderTest) {
    let mut long = stage_long(store, 300).await;
    for (version, step) in (1..).zip([0, 299, 150, 300, 301]) {
        long = stage_event(store, version, &long, &report("x", step, 1000 + step)).await;
        assert_eq!(long_turn(store).await, long, "step {step}");
    }
    assert_eq!(
        stale(store, RunningTime::new(11)).await.len(),
        3,
        "the latest event of the turn must be that of its last step"
    );
}

pub(crate) async fn a_change_that_is_staged_again_is_harmless(store: &StoreUnderTest) {
    let before = stage_long(store, 40).await;
    let after = stage_event(store, 1, &before, &report("x", 40, 7)).await;
    let again = change(Some(&before), after.clone());
    let outcome = store.commit(Commit { staged: vec![again.clone()], ..commit("c", 2, &[], &[]) }).await.unwrap();
    assert_eq!(outcomes(&outcome), [("x", TurnOutcome::Staged)]);
    assert_eq!(long_turn(store).await, after);
    store.commit(Commit { staged: vec![again.clone(), again], ..commit("c", 3, &[], &[]) }).await.unwrap();
    assert_eq!(long_turn(store).await, after);
}

pub(crate) async fn steps_staged_in_any_number_of_commits_make_the_whole_turn(store: &StoreUnderTest) {
    let mut whole = stage_long(store, 0).await;
    // Events of new steps and of earlier steps. Each commit stages from 1 to 5 of them.
    let events: Vec<_> = (0..90).map(|nth| report("x", (nth * 7) % (nth / 2 + 1), nth)).collect();
    let (mut version, mut rest) = (1, &events[..]);
    while !rest.is_empty() {
        let (events, after) = rest.split_at((usize::try_from(version).unwrap() % 5 + 1).min(rest.len()));
        let before = whole.clone();
        for event in events {
            whole.turn.fold(event);
        }
        let staged = vec![change(Some(&before), whole.clone())];
        store.commit(Commit { staged, ..commit("c", version, &[], &[]) }).await.unwrap();
        (version, rest) = (version + 1, after);
        if version % 8 == 0 {
            assert_eq!(long_turn(store).await, whole);
        }
    }
    assert_eq!(long_turn(store).await, whole);
}

pub(crate) async fn a_turn_that_begins_anew_has_none_of_its_earlier_steps(store: &StoreUnderTest) {
    stage_long(store, 50).await;
    let mut anew = staged("x", 9);
    anew.turn.fold(&report("x", 7, 1));
    store.commit(Commit { staged: vec![anew.clone().into()], ..commit("c", 1, &[], &[]) }).await.unwrap();
    assert_eq!(long_turn(store).await, anew);
    let longer = stage_event(store, 2, &anew, &report("x", 8, 1)).await;
    assert_eq!(long_turn(store).await, longer);
}

pub(crate) async fn a_sealed_turn_leaves_no_staged_step(store: &StoreUnderTest) {
    let long = stage_long(store, 50).await;
    assert_eq!(long_turn(store).await, long);
    // One commit stages the last step and seals the turn.
    let mut ended = long.clone();
    ended.turn.fold(&report("x", 50, 1));
    let staged = vec![change(Some(&long), ended.clone())];
    let end = ended.turn.seal(&Done::because("stop"), EpochMillis::new(7));
    store.commit(Commit { staged, sealed: vec![end.clone()], ..commit("c", 1, &[], &[]) }).await.unwrap();
    let open = ["w", "x#", "y"].map(|turn| staged_with_steps(turn, 5, 2));
    assert_eq!(state(store, "c").await.open_turns, open);
    assert_eq!(all(store, "c").await, [end.at(at(1))]);
    // Late events of the sealed turn do not open it again.
    let late = vec![change(Some(&long), ended)];
    let late = store.commit(Commit { staged: late, ..commit("c", 2, &[], &[]) }).await.unwrap();
    assert_eq!(outcomes(&late), [("x", TurnOutcome::Duplicate(at(1)))]);
    assert_eq!(state(store, "c").await.open_turns, open);
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
    assert_eq!(moments("other").await, [7], "the moment of another conversation raised this one");
}

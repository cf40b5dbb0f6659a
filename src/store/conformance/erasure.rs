//! Cases about erased conversations.

use super::order::told;
use super::*;
use crate::store::oracle::question_of_1970;

/// Seals turns of the conversations `c` and `d`, and leaves a turn of each open.
async fn fill(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["open"], &["x", "y"])).await.unwrap();
    store.commit(commit("d", 0, &["open"], &["x"])).await.unwrap();
    store.commit(commit("c", 1, &["other"], &["z"])).await.unwrap();
}

/// Asserts that nothing shows that there ever was a conversation of this name.
async fn assert_unknown(store: &StoreUnderTest, name: &str) {
    let id = conversation(name);
    let turns = ["x", "y", "z", "open"].map(turn_id);
    assert_eq!(store.open(&id, &turns).await, ConversationState::default());
    assert_eq!(all(store, name).await, []);
    assert_eq!(store.turns(&TurnRange::latest(id.clone(), 5)).await, []);
    assert_eq!(store.open_turns(&id).await, OpenTurns::default());
    let unknown = store.revision(&conversation("never seen")).await;
    assert_eq!(store.revision(&id).await, unknown);
    for order in [ConversationOrder::Recent, ConversationOrder::Turns, ConversationOrder::Cost] {
        let listed = store.list(ConversationQuestion::first(order, 99)).await;
        assert!(listed.iter().all(|listed| listed.conversation_id != id), "{order:?}");
    }
    let page = store.sealed(None, 99).await.unwrap();
    assert!(told(&page).iter().all(|(_, of, _)| *of != name));
    assert!(stale(store, RunningTime::new(99)).await.iter().all(|(of, _)| of != name));
}

pub(crate) async fn an_erased_conversation_is_in_no_read(store: &StoreUnderTest) {
    fill(store).await;
    let before = store.revision(&conversation("c")).await;
    assert_eq!(store.erase("c").await, Ok(true));
    assert_unknown(store, "c").await;
    assert_ne!(store.revision(&conversation("c")).await.to_string(), before.to_string());
    assert_eq!(places(store, "d").await, in_order(&["x"]));
    assert_eq!(stale(store, RunningTime::new(99)).await, [("d".to_owned(), "open".to_owned())]);
    // A conversation that has only open turns is erased, too.
    store.commit(commit("e", 0, &["open"], &[])).await.unwrap();
    assert_eq!(store.erase("e").await, Ok(true));
    assert_unknown(store, "e").await;
}

pub(crate) async fn only_a_conversation_that_is_there_can_be_erased(store: &StoreUnderTest) {
    assert_eq!(store.erase("c").await, Ok(false));
    fill(store).await;
    store.commit(commit("e", 5, &[], &["refused"])).await.unwrap_err();
    assert_eq!(store.erase("e").await, Ok(false));
    let answers = [store.erase("c").await, store.erase("c").await, store.erase("d").await, store.erase("c").await];
    assert_eq!(answers, [Ok(true), Ok(false), Ok(true), Ok(false)]);
}

pub(crate) async fn a_conversation_that_was_erased_begins_anew(store: &StoreUnderTest) {
    fill(store).await;
    let id = conversation("c");
    let before = store.revision(&id).await;
    store.erase("c").await.unwrap();
    let committed = store.commit(commit("c", 0, &["other"], &["z", "x"])).await.unwrap();
    let expected =
        [("other", TurnOutcome::Staged), ("z", TurnOutcome::Sealed(at(1))), ("x", TurnOutcome::Sealed(at(2)))];
    assert_eq!((committed.version, outcomes(&committed)), (Version(1), expected.into()));
    let again = store.commit(commit("c", 1, &[], &["x", "y"])).await.unwrap();
    assert_eq!(
        outcomes(&again),
        [("x", TurnOutcome::Duplicate(at(2))), ("y", TurnOutcome::Sealed(at(3)))],
        "a turn of the new life is sealed once"
    );
    assert_eq!(places(store, "c").await, in_order(&["z", "x", "y"]));
    let state = state(store, "c").await;
    assert_eq!((state.version, state.open_turns), (Version(2), vec![staged("other", 5)]));
    let after = store.revision(&id).await;
    assert_eq!(after.sealed_turns, before.sealed_turns);
    assert!(!after.is_of_the_same_life(&before), "the entity tag of the earlier life fits the new one");
    let listed = store.conversations(None, 9).await;
    let figures: Vec<_> = listed.iter().map(|listed| (listed.conversation_id.as_str(), listed.sealed_turns)).collect();
    assert_eq!(figures, [("c", 3), ("d", 1)]);
}

pub(crate) async fn erased_turns_keep_their_positions_and_no_reader_sees_them(store: &StoreUnderTest) {
    fill(store).await;
    let second = store.sealed(None, 2).await.unwrap().next;
    store.erase("c").await.unwrap();
    store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    let page = store.sealed(None, 99).await.unwrap();
    assert_eq!(told(&page), [(3, "d", "x"), (5, "c", "x")]);
    assert_eq!((page.next, page.latest.number), (page.latest, 5));
    let rest = store.sealed(Some(second), 99).await.unwrap();
    assert_eq!(told(&rest), told(&page), "a position from before the erasure is good");
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = store.sealed(after, 1).await.unwrap();
        pages.push(page.turns.len());
        after = Some(page.next);
        if page.next == page.latest {
            break;
        }
    }
    assert_eq!(pages, [0, 0, 1, 0, 1], "a page without turns leads on to the next one");
}

pub(crate) async fn reports_and_sums_keep_what_erased_turns_have_added(store: &StoreUnderTest) {
    for (name, model, tokens) in [("c", "m", 7), ("d", "dear", 11), ("c", "unknown", 13)] {
        let version = state(store, name).await.version;
        let mut turn = OpenTurn::new(turn_id(model));
        turn.fold(&Progress::Start(TurnLabels::of_model(model)));
        turn.fold(&report(model, 0, tokens));
        let sealed = vec![turn.seal(&Done::because("stop"), EpochMillis::new(7))];
        let commit = Commit {
            conversation_id: conversation(name),
            expected_version: version,
            staged: Vec::new(),
            sealed,
            imported_from: None,
        };
        store.commit(commit).await.unwrap();
    }
    let before = store.report(question_of_1970()).await.unwrap();
    assert_eq!(before.breakdown.rows().map(|(_, _, row)| row.rollup.turns()).sum::<i128>(), 3);
    store.erase("c").await.unwrap();
    assert_eq!(store.report(question_of_1970()).await, Ok(before.clone()));
    store.erase("d").await.unwrap();
    assert_eq!(store.report(question_of_1970()).await, Ok(before));
    let turn = open_turn("again").seal(&Done::because("stop"), EpochMillis::new(7));
    let commit = Commit {
        conversation_id: conversation("c"),
        expected_version: Version(0),
        staged: Vec::new(),
        sealed: vec![turn],
        imported_from: None,
    };
    store.commit(commit).await.unwrap();
    let after = store.report(question_of_1970()).await.unwrap();
    assert_eq!(after.breakdown.rows().map(|(_, _, row)| row.rollup.turns()).sum::<i128>(), 4);
    let listed = store.conversations(None, 9).await;
    assert_eq!(listed[0].sums, crate::report::ConversationSums::default(), "the new life has only its own sums");
}

pub(crate) async fn a_commit_from_before_an_erasure_is_a_conflict(store: &StoreUnderTest) {
    fill(store).await;
    store.erase("c").await.unwrap();
    let late = store.commit(commit("c", 2, &["open"], &["new"])).await;
    assert_eq!(late, Err(CommitError::Conflict { expected: Version(2), actual: Version(0) }));
    assert_unknown(store, "c").await;
}

pub(crate) async fn erasures_and_commits_take_effect_in_the_order_sent(store: &StoreUnderTest) {
    let first = store.commit(commit("c", 0, &["open"], &["x"]));
    let (erased, unknown) = (store.erase("c"), store.erase("c"));
    let second = store.commit(commit("c", 0, &[], &["x", "y"]));
    let refused = store.commit(commit("c", 0, &[], &["z"]));
    first.await.unwrap();
    assert_eq!((erased.await, unknown.await), (Ok(true), Ok(false)));
    second.await.unwrap();
    refused.await.unwrap_err();
    assert_eq!(places(store, "c").await, in_order(&["x", "y"]));
    // Each life may have the turns of the one before.
    for life in 1..=3 {
        assert_eq!(store.erase("c").await, Ok(true));
        let committed = store.commit(commit("c", 0, &["open"], &["x", "y"])).await.unwrap();
        assert_eq!(outcomes(&committed)[2], ("y", TurnOutcome::Sealed(at(2))), "life {life}");
    }
    let page = store.sealed(None, 99).await.unwrap();
    assert_eq!(told(&page), [(8, "c", "x"), (9, "c", "y")]);
    let report = store.report(question_of_1970()).await.unwrap();
    assert_eq!(report.breakdown.rows().map(|(_, _, row)| row.rollup.turns()).sum::<i128>(), 9);
}

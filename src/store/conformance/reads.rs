//! Cases about what a store answers when it is read.

use super::*;
use crate::turn::{Label, Millis, StepId, StepTimes, UsageReport};

/// An open turn in which every field has a value.
fn full_turn(name: &str) -> OpenTurn {
    let report = UsageReport {
        input_tokens: Some(9000.into()),
        output_tokens: Some(120.into()),
        cache_read_tokens: Some(8000.into()),
        cache_write_tokens: Some(5.into()),
        cache_write_1h_tokens: Some(3.into()),
    };
    let mut turn = OpenTurn::new(turn_id(name));
    turn.fold(&Progress::Start(TurnLabels {
        model: Some("a model".into()),
        provider: Some("a provider".into()),
        project: Some("a project".into()),
    }));
    for (step, is_final) in [("s0", false), ("s1", true)] {
        let step_id = StepId::new(step).unwrap();
        turn.fold(&Progress::Usage { step_id: Some(step_id.clone()), report, is_final });
        turn.fold(&Progress::StepComplete {
            step_id,
            times: StepTimes { ttft: Some(Millis::new(51.25).unwrap()), decode: Some(7.into()), gen_total: None },
            model: Some(Label::from("a small model")),
            provider: None,
        });
        turn.fold(&Progress::Usage { step_id: None, report, is_final });
    }
    turn.fold(&Progress::Failed);
    turn
}

pub(crate) async fn an_unknown_conversation_is_empty(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["open"], &["x"])).await.unwrap();
    let unknown = conversation("unknown");
    assert_eq!(store.open(&unknown, &[turn_id("x"), turn_id("open")]).await, ConversationState::default());
    assert_eq!(all(store, "unknown").await, []);
    assert_eq!(store.revision(&unknown).await.sealed_turns, 0);
}

pub(crate) async fn a_sealed_turn_is_given_out_with_all_it_has(store: &StoreUnderTest) {
    let done = Done {
        duration: Some(Millis::new(1234.5).unwrap()),
        context_size: Some(9120.into()),
        ended_at: Some(EpochMillis::new(1_699_999_999_000).into()),
        ..Done::because("max-steps")
    };
    let turns = [full_turn("full").seal(&done, EpochMillis::new(1_700_000_000_000)), sealed("bare", 0)];
    store.commit(Commit { sealed: turns[..1].to_vec(), ..commit("c", 0, &[], &[]) }).await.unwrap();
    store.commit(Commit { sealed: turns[1..].to_vec(), ..commit("d", 0, &[], &[]) }).await.unwrap();
    let stored = [all(store, "c").await, all(store, "d").await].concat();
    assert_eq!(stored, turns.map(|turn| turn.at(at(1))));
}

pub(crate) async fn an_open_turn_is_given_out_with_all_it_has(store: &StoreUnderTest) {
    let full = StagedTurn { turn: full_turn("full"), last_event_at: RunningTime::new(7) };
    store.commit(Commit { staged: vec![full.clone().into()], ..commit("c", 0, &[], &[]) }).await.unwrap();
    assert_eq!(state(store, "c").await.open_turns, [full]);
}

pub(crate) async fn ids_that_resemble_each_other_are_told_apart(store: &StoreUnderTest) {
    let long = ["x".repeat(256), "x".repeat(255)];
    let names = ["a", "A", "aa", "a ", " a", "a/b", "a%2Fb", "é", "e\u{301}", "'a'", &long[0], &long[1]];
    for (nth, name) in (0..).zip(names) {
        let mut turns = names;
        turns.rotate_left(nth);
        store.commit(commit(name, 0, &turns[6..], &turns[..6])).await.unwrap();
    }
    for (nth, name) in (0..).zip(names) {
        let mut turns = names;
        turns.rotate_left(nth);
        assert_eq!(places(store, name).await, in_order(&turns[..6]), "conversation {name:?}");
        let open = state(store, name).await.open_turns;
        let mut open: Vec<_> = open.iter().map(|staged| staged.turn.id.as_str()).collect();
        open.sort_unstable();
        turns[6..].sort_unstable();
        assert_eq!(open, turns[6..], "conversation {name:?}");
    }
}

pub(crate) async fn opening_tells_which_of_some_turns_are_sealed(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &["open"], &["x", "y", "z"])).await.unwrap();
    store.commit(commit("d", 0, &[], &["of another"])).await.unwrap();
    let asked = ["y", "open", "of another", "new", "x"].map(turn_id);
    let mut told = store.open(&conversation("c"), &asked).await.sealed_turns;
    told.sort();
    assert_eq!(told, [(turn_id("x"), at(1)), (turn_id("y"), at(2))]);
}

pub(crate) async fn a_range_begins_after_an_ordinal_and_ends_at_its_limit(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["a", "b"])).await.unwrap();
    store.commit(commit("d", 0, &[], &["a", "b", "c", "d", "e"])).await.unwrap();
    store.commit(commit("c", 1, &[], &["c", "d"])).await.unwrap();
    let ordinals = async |after, limit| {
        let turns = store.turns(&TurnRange::after(conversation("c"), after, limit)).await;
        turns.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>()
    };
    assert_eq!(ordinals(0, usize::MAX).await, [1, 2, 3, 4]);
    assert_eq!(ordinals(0, 2).await, [1, 2]);
    assert_eq!(ordinals(1, 2).await, [2, 3], "a range over two commits");
    assert_eq!(ordinals(2, 10).await, [3, 4]);
    assert_eq!(ordinals(4, 10).await, [0; 0]);
    assert_eq!(ordinals(u64::MAX, 10).await, [0; 0]);
    assert_eq!(ordinals(0, 0).await, [0; 0]);
}

pub(crate) async fn a_range_ends_before_an_ordinal_and_may_begin_at_its_end(store: &StoreUnderTest) {
    store.commit(commit("c", 0, &[], &["a", "b"])).await.unwrap();
    store.commit(commit("d", 0, &[], &["a", "b", "c", "d", "e"])).await.unwrap();
    store.commit(commit("c", 1, &[], &["c", "d"])).await.unwrap();
    let ordinals = async |end, after, before, limit| {
        let range = TurnRange { before, end, ..TurnRange::after(conversation("c"), after, limit) };
        store.turns(&range).await.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>()
    };
    for after in [0, 1, 2, 3, 4, 9, u64::MAX] {
        for before in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(u64::MAX)] {
            let all: Vec<_> = (1..=4).filter(|n| *n > after && before.is_none_or(|before| *n < before)).collect();
            for limit in [0, 1, 2, 3, 4, usize::MAX] {
                let count = limit.min(all.len());
                let case = format!("after {after}, before {before:?}, at most {limit}");
                assert_eq!(ordinals(RangeEnd::Oldest, after, before, limit).await, all[..count], "{case}");
                assert_eq!(ordinals(RangeEnd::Latest, after, before, limit).await, all[all.len() - count..], "{case}");
            }
        }
    }
    let latest = store.turns(&TurnRange::latest(conversation("c"), 1)).await;
    assert_eq!(latest, all(store, "c").await[3..]);
}

pub(crate) async fn the_open_turns_come_by_id_with_the_number_of_sealed_ones(store: &StoreUnderTest) {
    assert_eq!(store.open_turns(&conversation("unknown")).await, OpenTurns::default());
    let full = StagedTurn { turn: full_turn("full"), last_event_at: RunningTime::new(7) };
    store.commit(Commit { staged: vec![full.clone().into()], ..commit("c", 0, &[], &["a", "b"]) }).await.unwrap();
    store.commit(commit("d", 0, &["z"], &["x"])).await.unwrap();
    store.commit(commit("c", 1, &["open", "ends"], &[])).await.unwrap();
    store.commit(commit("c", 2, &[], &["ends"])).await.unwrap();
    let open = store.open_turns(&conversation("c")).await;
    assert_eq!(open, OpenTurns { sealed_turns: 3, turns: vec![full, staged("open", 5)] });
}

pub(crate) async fn a_revision_changes_with_the_sealed_turns_alone(store: &StoreUnderTest) {
    let id = conversation("c");
    let before = store.revision(&id).await;
    assert_eq!(before.sealed_turns, 0);
    store.commit(commit("c", 0, &["x"], &[])).await.unwrap();
    store.commit(commit("d", 0, &[], &["x"])).await.unwrap();
    assert_eq!(store.revision(&id).await, before, "an open turn or another conversation changed the revision");
    store.commit(commit("c", 1, &[], &["x", "y"])).await.unwrap();
    let after = store.revision(&id).await;
    assert_eq!((after.sealed_turns, after.lineage), (2, before.lineage));
    assert_ne!(after.to_string(), before.to_string());
    store.commit(commit("c", 2, &[], &["x"])).await.unwrap();
    assert_eq!(store.revision(&id).await, after, "a duplicate changed the revision");
    store.commit(commit("c", 2, &[], &["z"])).await.unwrap();
    let later = store.revision(&id).await;
    assert!(later.is_of_the_same_life(&after) && later.sealed_turns == 3, "{later}");
    let other = store.revision(&conversation("d")).await;
    assert!(!other.is_of_the_same_life(&after), "two conversations have the same life");
}

pub(crate) async fn revisions_of_two_stores_differ(store: &StoreUnderTest, other: &StoreUnderTest) {
    let id = conversation("c");
    for store in [store, other] {
        store.commit(commit("c", 0, &[], &["x"])).await.unwrap();
    }
    assert_ne!(store.revision(&id).await.to_string(), other.revision(&id).await.to_string());
}

pub(crate) async fn a_turn_is_stale_if_its_latest_event_came_before(store: &StoreUnderTest) {
    let turns = vec![staged("old", 10).into(), staged("new", 20).into()];
    store.commit(Commit { staged: turns, ..commit("c", 0, &[], &["sealed"]) }).await.unwrap();
    let named = |turns: &[&str]| turns.iter().map(|turn| ("c".to_owned(), (*turn).to_owned())).collect::<Vec<_>>();
    assert_eq!(stale(store, RunningTime::new(10)).await, named(&[]));
    assert_eq!(stale(store, RunningTime::new(11)).await, named(&["old"]));
    assert_eq!(stale(store, RunningTime::new(21)).await, named(&["new", "old"]));
    store.commit(Commit { staged: vec![staged("old", 30).into()], ..commit("c", 1, &[], &[]) }).await.unwrap();
    assert_eq!(stale(store, RunningTime::new(21)).await, named(&["new"]), "a turn with a new event is still stale");
    store.commit(commit("c", 2, &[], &["new"])).await.unwrap();
    assert_eq!(stale(store, RunningTime::new(99)).await, named(&["old"]), "a sealed turn is stale");
}

pub(crate) async fn a_failed_turn_is_stale_by_a_moment_of_its_own(store: &StoreUnderTest) {
    let mut failed = staged("failed", 10);
    failed.turn.fold(&Progress::Failed);
    store
        .commit(Commit { staged: vec![failed.into(), staged("open", 10).into()], ..commit("c", 0, &[], &[]) })
        .await
        .unwrap();
    let turns = async |open, failed| {
        let before = StaleBefore { open: RunningTime::new(open), failed: RunningTime::new(failed) };
        stale(store, before).await.into_iter().map(|(_, turn)| turn).collect::<Vec<_>>()
    };
    assert_eq!(turns(10, 10).await, [""; 0]);
    assert_eq!(turns(10, 11).await, ["failed"]);
    assert_eq!(turns(11, 0).await, ["failed", "open"]);
}

/// Stages stale turns and fresh turns in several conversations. Returns the stale turns, in order.
async fn stage_many(store: &StoreUnderTest) -> Vec<(String, String)> {
    let mut expected = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let turns = ["t1", "t2", "t3"].map(|turn| staged(turn, 10));
        let fresh = [staged("fresh", 20)];
        let staged = turns.into_iter().chain(fresh).map(StagedChange::from).collect();
        store.commit(Commit { staged, ..commit(name, 0, &[], &["sealed"]) }).await.unwrap();
        expected.extend(["t1", "t2", "t3"].map(|turn| (name.to_owned(), turn.to_owned())));
    }
    expected
}

pub(crate) async fn stale_turns_come_page_by_page_each_once(store: &StoreUnderTest) {
    let expected = stage_many(store).await;
    let before = RunningTime::new(15).into();
    for limit in [1, 2, 5, 12, 13] {
        let mut found = Vec::new();
        loop {
            let page = store.stale_turns(before, found.last(), limit).await;
            assert!(page.len() <= limit, "{} turns in a page of {limit}", page.len());
            let is_last = page.len() < limit;
            found.extend(page);
            assert!(found.len() <= expected.len(), "a turn came twice: {found:?}");
            if is_last {
                break;
            }
        }
        assert_eq!(named(&found), expected, "in pages of {limit}");
    }
}

pub(crate) async fn pages_go_on_after_turns_that_were_sealed_meanwhile(store: &StoreUnderTest) {
    let expected = stage_many(store).await;
    let before = RunningTime::new(15).into();
    let mut found: Vec<StaleTurn> = Vec::new();
    loop {
        let page = store.stale_turns(before, found.last(), 2).await;
        for StaleTurn { conversation_id, turn_id } in &page {
            let name = conversation_id.as_str();
            let version = state(store, name).await.version.0;
            store.commit(commit(name, version, &[], &[turn_id.as_str()])).await.unwrap();
        }
        let is_last = page.len() < 2;
        found.extend(page);
        assert!(found.len() <= expected.len(), "a turn came twice: {found:?}");
        if is_last {
            break;
        }
    }
    assert_eq!(named(&found), expected);
    assert_eq!(stale(store, RunningTime::new(15)).await, []);
}

//! Cases about commits that are under way at the same time.

use tokio::task::{JoinSet, LocalSet};

use super::*;

/// Waits for the answers, the last one first: the order of the calls must count, and not the order of waiting.
async fn answers<F: Future>(sent: Vec<F>) -> Vec<F::Output> {
    let mut answers = Vec::new();
    for answer in sent.into_iter().rev() {
        answers.push(answer.await);
    }
    answers.reverse();
    answers
}

pub(crate) async fn commits_of_one_conversation_take_effect_in_the_order_sent(store: &StoreUnderTest) {
    // The number of turns is small, so that they do not overload a machine that is busy with other work.
    let names: Vec<_> = (0..100).map(|nth| format!("t{nth}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    // Each commit but the first also sends the turn of the commit before it once more.
    let turns = (0..names.len()).map(|nth| &names[nth.saturating_sub(1)..=nth]);
    let sent: Vec<_> = (0..).zip(turns).map(|(nth, turns)| store.commit(commit("c", nth, &[], turns))).collect();
    let mut again = None;
    for ((nth, name), committed) in (1..).zip(&names).zip(answers(sent).await) {
        let committed = committed.unwrap();
        assert_eq!(committed.version, Version(nth));
        let expected: Vec<_> = again.into_iter().chain([(*name, TurnOutcome::Sealed(at(nth)))]).collect();
        assert_eq!(outcomes(&committed), expected);
        again = Some((*name, TurnOutcome::Duplicate(at(nth))));
    }
    assert_eq!(places(store, "c").await, in_order(&names));
}

pub(crate) async fn the_first_of_several_commits_from_one_version_wins(store: &StoreUnderTest) {
    let sent = ["x", "y", "z"].map(|turn| store.commit(commit("c", 0, &[], &[turn]))).into();
    let answers: Vec<_> =
        answers(sent).await.into_iter().map(|answer| answer.map(|committed| committed.version)).collect();
    let conflict = Err(CommitError::Conflict { expected: Version(0), actual: Version(1) });
    assert_eq!(answers, [Ok(Version(1)), conflict.clone(), conflict]);
    assert_eq!(places(store, "c").await, in_order(&["x"]));
}

pub(crate) async fn a_commit_whose_answer_is_dropped_takes_effect(store: &StoreUnderTest) {
    drop(store.commit(commit("c", 0, &["open"], &["x"])));
    let next = store.commit(commit("c", 1, &[], &["y", "x"])).await.unwrap();
    assert_eq!(outcomes(&next), [("y", TurnOutcome::Sealed(at(2))), ("x", TurnOutcome::Duplicate(at(1)))]);
    assert_eq!(state(store, "c").await.open_turns, [staged("open", 5)]);
}

/// Commits turns of one conversation. Asserts that the answers and the reads have these turns alone, whatever other
/// senders commit.
async fn send_and_read(store: StoreUnderTest, name: String) {
    for turn in 0..20 {
        let [one, other] = [format!("t{turn}"), format!("u{turn}")];
        store.commit(commit(&name, 2 * turn, &[&one, &other], &[])).await.unwrap();
        let opened = state(&store, &name).await;
        assert_eq!(
            (opened.version, opened.open_turns),
            (Version(2 * turn + 1), vec![staged(&one, 5), staged(&other, 5)])
        );
        let committed = store.commit(commit(&name, 2 * turn + 1, &[], &[&one, &other])).await.unwrap();
        assert_eq!(
            outcomes(&committed),
            [(&*one, TurnOutcome::Sealed(at(2 * turn + 1))), (&*other, TurnOutcome::Sealed(at(2 * turn + 2)))]
        );
        assert!(places(&store, &name).await.iter().map(|(ordinal, _)| *ordinal).eq(1..=2 * turn + 2));
        assert_eq!(store.revision(&conversation(&name)).await.sealed_turns, 2 * turn + 2);
        let again = store.commit(commit(&name, 2 * turn + 2, &[&one], &["t0"])).await.unwrap();
        assert_eq!(
            outcomes(&again),
            [(&*one, TurnOutcome::Duplicate(at(2 * turn + 1))), ("t0", TurnOutcome::Duplicate(at(1)))]
        );
        assert_eq!(state(&store, &name).await.open_turns, []);
    }
}

pub(crate) async fn conversations_that_commit_at_the_same_time_do_not_affect_each_other(store: &StoreUnderTest) {
    let mut senders = JoinSet::new();
    let local = LocalSet::new();
    for sender in 0..30 {
        senders.spawn_local_on(send_and_read(store.clone(), format!("c{sender}")), &local);
    }
    local.run_until(senders.join_all()).await;
    assert_eq!(stale(store, RunningTime::new(99)).await, []);
}

pub(crate) async fn a_reader_of_the_order_misses_nothing_and_sees_nothing_twice(store: &StoreUnderTest) {
    const SENDERS: usize = 8;
    let mut senders = JoinSet::new();
    let local = LocalSet::new();
    for sender in 0..SENDERS {
        let store = store.clone();
        let send = async move {
            for nth in 0..25 {
                let turns = [format!("t{nth}"), format!("u{nth}")];
                store.commit(commit(&format!("c{sender}"), nth, &[], &[&turns[0], &turns[1]])).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        senders.spawn_local_on(send, &local);
    }
    let mut seen = Vec::new();
    let read = async {
        let mut after = None;
        while seen.len() < SENDERS * 50 {
            let page = store.sealed(after, 7).await.unwrap();
            let told = order::told(&page).into_iter();
            seen.extend(told.map(|(at, conversation, turn)| (at, conversation.to_owned(), turn.to_owned())));
            after = Some(page.next);
            tokio::task::yield_now().await;
        }
    };
    local.run_until(async { tokio::join!(senders.join_all(), read) }).await;
    assert!(seen.iter().map(|(at, ..)| *at).eq(1..=(SENDERS * 50) as u64), "positions have a gap or come twice");
    for sender in 0..SENDERS {
        let name = format!("c{sender}");
        let turns: Vec<_> = seen.iter().filter(|(_, id, _)| *id == name).map(|(.., turn)| turn.as_str()).collect();
        assert_eq!(places(store, &name).await, in_order(&turns));
    }
}

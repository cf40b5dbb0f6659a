//! Tests with more commits than the store can take: it refuses some at once or after a flush of the checkpoint, and
//! loses none that it acknowledged.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::writer::backoff::Backoff;
use super::writer::pace::Capacity;
use crate::settings::StoreSettings;
use crate::store::{Commit, CommitError, Location, RedbEngine, Version, check};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Progress, SealedTurn, StepId, TurnId, Usage};

fn conversation(nth: usize) -> ConversationId {
    ConversationId::new(format!("c{nth}")).unwrap()
}

/// Returns the first commit of a conversation. It seals this many turns, each of some kilobytes.
fn commit(conversation_id: ConversationId, turns: usize) -> Commit {
    commit_of(conversation_id, turns, "a step with a long id")
}

/// Like [`commit`], with ids of steps that begin with `step`.
fn commit_of(conversation_id: ConversationId, turns: usize, step: &str) -> Commit {
    let sealed = |turn| -> SealedTurn {
        let mut turn = OpenTurn::new(TurnId::new(format!("t{turn}")).unwrap());
        for nth in 0..150 {
            let step_id = Some(StepId::new(format!("{step}, {nth}")).unwrap());
            turn.fold(&Progress::Usage { step_id, report: Usage::default().into(), is_final: false });
        }
        turn.seal(&Done::because("stop"), EpochMillis::new(1))
    };
    let sealed = (0..turns).map(sealed).collect();
    Commit { conversation_id, expected_version: Version(0), staged: Vec::new(), sealed, imported_from: None }
}

fn sealed_turns(store: &RedbEngine, id: &ConversationId) -> usize {
    store.all_turns(id).unwrap().len()
}

#[tokio::test]
async fn a_full_memtable_refuses_commits_until_there_is_room_and_nothing_is_lost() {
    // All commits together have so few turns and bytes that they fit into the first batch.
    const CONVERSATIONS: usize = 16;
    const TURNS: usize = 6;
    // The first batch alone exceeds the limit several times, and a flush moves only one of its conversations.
    let settings = StoreSettings::with_journal_bytes(256 * 1024);
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Directory(directory.path().to_owned());
    let (store, mut writer) = RedbEngine::prepare(location, &settings, Backoff::default()).unwrap();
    writer.checkpoint_by_hand();
    let checkpoint = Arc::clone(writer.checkpoint());
    assert!(!checkpoint.is_behind(), "nothing was taken in yet");
    // The limit on a commit counts a fixed number of bytes for each step besides its texts. So steps with long ids fill
    // the memtable more for the same count.
    let step = "a step with a long id ".repeat(4);
    let commits = (0..CONVERSATIONS).map(|nth| commit_of(conversation(nth), TURNS, &step));
    let waiting: Vec<_> = commits.map(|commit| store.commit(commit)).collect();
    let thread = std::thread::spawn(move || writer.run());
    for committed in waiting {
        committed.await.unwrap();
    }
    assert!(checkpoint.is_due() && checkpoint.is_behind(), "the memtable is not full");

    let late = conversation(CONVERSATIONS);
    let mut refused = pin!(store.commit(commit(late.clone(), 1)));
    let mut answer = None;
    // Eight flushes do not make enough room, but the writer refuses the commit after fewer flushes.
    for _ in 0..8 {
        if let Poll::Ready(refused) = refused.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            answer = Some(refused);
            break;
        }
        assert!(checkpoint.flush_in_background());
    }
    let answer = if let Some(answer) = answer { answer } else { refused.await };
    assert_eq!(answer, Err(CommitError::Overloaded));
    assert!(checkpoint.is_due());
    assert_eq!(sealed_turns(&store, &late), 0);

    while checkpoint.is_due() {
        assert!(checkpoint.flush_in_background());
    }
    store.commit(commit(late.clone(), 1)).await.unwrap();
    store.close().await;
    thread.join().unwrap();
    let report = check(directory.path()).unwrap();
    assert_eq!((report.violations, report.sealed_turns), (Vec::new(), (CONVERSATIONS * TURNS) as u64 + 1));
}

#[tokio::test]
async fn a_close_leaves_no_queued_commit_undone_however_long_their_batch_takes() {
    // These commits take so long that the writer would end the batch before the last of them.
    const CONVERSATIONS: usize = 40;
    const TURNS: usize = 20;
    let (store, writer) = RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
    let waiting: Vec<_> = (0..CONVERSATIONS).map(|nth| store.commit(commit(conversation(nth), TURNS))).collect();
    let mut closed = pin!(store.close());
    assert!(closed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let thread = std::thread::spawn(move || writer.run());
    for committed in waiting {
        committed.await.unwrap();
    }
    closed.await;
    thread.join().unwrap();
}

#[tokio::test]
async fn commits_that_would_wait_too_long_are_refused_before_they_are_queued() {
    let (store, writer) = RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
    let most = Capacity::default().turns();
    // Each commit has two turns: the limit counts turns.
    let queued: Vec<_> = (0..most.div_ceil(2)).map(|nth| store.commit(commit(conversation(nth), 2))).collect();
    let refused = conversation(most);
    // The writer does not run yet, so the commit is refused at once or not answered at all.
    let answer = pin!(store.commit(commit(refused.clone(), 1))).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(answer, Poll::Ready(Err(CommitError::Overloaded)));
    let check_write = store.check_write();
    std::thread::spawn(move || writer.run());
    for committed in queued {
        committed.await.unwrap();
    }
    check_write.await.unwrap();
    assert_eq!(sealed_turns(&store, &refused), 0);
    store.commit(commit(refused.clone(), 1)).await.unwrap();
    assert_eq!(sealed_turns(&store, &refused), 1);
}

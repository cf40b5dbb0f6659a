//! Tests of imports through the directory. Probes stand in for the store.

use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::Clock;
use crate::settings::{TURNS_AT_ONCE, TurnSettings};
use crate::store::{Commit, CommitError, Fault, FaultKind, Version};
use crate::testing::{MemoryStore, Probe, TestClock, TurnScript};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, SealedTurn, TurnId};

struct Setup {
    kept: MemoryStore,
    commits: Probe<Arc<Commit>>,
    facts: Facts,
    directory: Addr<Directory>,
}

/// Starts a directory. The function `fail` decides which commits fail, by their numbers from 0.
fn setup_with(fail: impl Fn(usize, &Commit) -> Option<CommitError> + Unpin + 'static) -> Setup {
    let (kept, mut count) = (MemoryStore::default(), 0);
    let store = kept.clone();
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        count += 1;
        ready(fail(count - 1, &commit).map_or_else(|| store.commit(&commit), Err))
    });
    place(kept, commits, Arc::new(TestClock::at(1000)))
}

fn place(kept: MemoryStore, commits: Probe<Arc<Commit>>, clock: Arc<dyn Clock>) -> Setup {
    let facts = Facts::new(1024);
    let store = StoreRecipients { commit: commits.recipient(), ..kept.recipients() };
    let directory = Directory::new(store, clock, TurnSettings::default()).telling(facts.clone()).start();
    Setup { kept, commits, facts, directory }
}

fn setup() -> Setup {
    setup_with(|_, _| None)
}

/// Returns a turn that was sealed at this moment elsewhere.
fn turn(id: &str, sealed_at: u64) -> SealedTurn {
    OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("elsewhere"), EpochMillis::new(sealed_at))
}

fn turns(count: usize) -> Vec<SealedTurn> {
    (0..count).map(|nth| turn(&format!("t{nth}"), 5)).collect()
}

fn import(from: u64, turns: Vec<SealedTurn>) -> Import {
    Import { conversation_id: ConversationId::new("c").unwrap(), turns, imported_from: Ordinal::new(from).unwrap() }
}

fn receipt(imported: u64, duplicates: u64) -> ImportReceipt {
    ImportReceipt { imported, duplicates }
}

impl Setup {
    async fn import(&self, from: u64, turns: Vec<SealedTurn>) -> Result<ImportReceipt, ImportError> {
        self.directory.send(import(from, turns)).await.unwrap()
    }

    /// Returns the turns of the conversation: their ids, their ordinals and the moments of their sealing.
    fn stored(&self) -> Vec<(String, u64, u64)> {
        let turns = self.kept.all_turns("c").into_iter();
        turns.map(|turn| (turn.metrics.turn_id.to_string(), turn.ordinal.get(), turn.sealed_at.get())).collect()
    }
}

#[actix_rt::test]
async fn imported_turns_keep_their_ordinals_and_moments_and_leave_other_open_turns_open() {
    let setup = setup();
    for id in ["open", "imported"] {
        setup.directory.send(TurnScript::new("c", id).usage(0, 7, 7).observe()).await.unwrap().unwrap();
    }
    let imported = setup.import(5, vec![turn("a", 90), turn("imported", 80)]).await;
    assert_eq!(imported, Ok(receipt(2, 0)));
    let expected = [("a".to_owned(), 5, 90), ("imported".to_owned(), 6, 80)];
    assert_eq!(setup.stored(), expected);
    assert_eq!(setup.kept.all_turns("c")[1].metrics.steps, [], "the turn is as it was imported");
    let open = setup.kept.open_turns(&ConversationId::new("c").unwrap());
    assert_eq!(open.turns.iter().map(|staged| staged.turn.id.as_str()).collect::<Vec<_>>(), ["open"]);

    // The conversation has turns, so those of another store are appended.
    assert_eq!(setup.import(40, vec![turn("a", 1), turn("b", 70)]).await, Ok(receipt(1, 1)));
    let late = setup.directory.send(TurnScript::new("c", "imported").usage(0, 1, 1).observe()).await.unwrap().unwrap();
    assert_eq!((late.late, late.sealed[0].ordinal.get()), (1, 6));
    setup.directory.send(TurnScript::new("c", "open").done("stop").observe()).await.unwrap().unwrap();
    assert_eq!(setup.stored()[2..], [("b".to_owned(), 7, 70), ("open".to_owned(), 8, 1000)]);
}

#[actix_rt::test]
async fn the_latest_moment_is_that_of_the_latest_imported_turn_for_the_actor_as_for_the_store() {
    let setup = setup();
    setup.import(1, vec![turn("a", 9000), turn("b", 2000)]).await.unwrap();
    let mut subscription = setup.facts.subscribe();
    setup.directory.send(TurnScript::new("c", "t").done("stop").observe()).await.unwrap().unwrap();
    let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("not told") };
    assert_eq!(sealed.turn, setup.kept.all_turns("c")[2]);
    assert_eq!(sealed.turn.sealed_at.get(), 2000, "the clock shows an earlier moment");
}

#[actix_rt::test]
async fn an_import_is_alone_in_its_commit_and_in_order_with_other_work() {
    let (kept, gate) = (MemoryStore::default(), Rc::new(Semaphore::new(0)));
    let (store, held) = (kept.clone(), Rc::clone(&gate));
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let (store, held) = (store.clone(), Rc::clone(&held));
        async move {
            held.acquire().await.unwrap().forget();
            store.commit(&commit)
        }
    });
    let setup = place(kept, commits, Arc::new(TestClock::at(1000)));
    let observe = |id: &str| {
        let sent = setup.directory.send(TurnScript::new("c", id).done("stop").observe());
        tokio::task::spawn_local(async move { drop(sent.await.unwrap().unwrap()) })
    };
    let import = |id: &str| {
        let sent = setup.directory.send(import(1, vec![turn(id, 5)]));
        tokio::task::spawn_local(async move { assert_eq!(sent.await.unwrap(), Ok(receipt(1, 0))) })
    };
    let first = observe("a");
    setup.commits.wait_for(1).await;
    let rest = [observe("b"), observe("c"), import("d"), import("e"), observe("f")];
    while setup.directory.send(CountWork).await.unwrap().in_flight < 6 {}
    gate.add_permits(100);
    first.await.unwrap();
    for sent in rest {
        sent.await.unwrap();
    }
    let commits: Vec<_> =
        setup.commits.seen().iter().map(|commit| (commit.sealed.len(), commit.imported_from)).collect();
    let one = Ordinal::new(1);
    assert_eq!(commits, [(1, None), (2, None), (1, one), (1, one), (1, None)]);
    let ids: Vec<_> = setup.stored().into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
}

#[actix_rt::test]
async fn very_many_turns_become_several_commits_and_importing_them_again_changes_nothing() {
    let setup = setup();
    let mut subscription = setup.facts.subscribe();
    let count = TURNS_AT_ONCE + 1;
    assert_eq!(setup.import(7, turns(count)).await, Ok(receipt(count as u64, 0)));
    let sizes: Vec<_> = setup.commits.seen().iter().map(|commit| commit.sealed.len()).collect();
    assert_eq!(sizes, [TURNS_AT_ONCE / 2, TURNS_AT_ONCE / 2, 1]);
    let stored = setup.stored();
    assert!(stored.iter().map(|(_, ordinal, _)| *ordinal).eq(7..7 + count as u64));
    for turn in setup.kept.all_turns("c") {
        let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("not told") };
        assert_eq!(sealed.turn, turn);
    }
    assert_eq!(setup.import(7, turns(count)).await, Ok(receipt(0, count as u64)));
    assert_eq!(setup.import(1, Vec::new()).await, Ok(receipt(0, 0)));
    assert_eq!(setup.stored(), stored);
}

#[actix_rt::test]
async fn a_commit_that_is_too_large_is_split_and_a_turn_that_is_too_large_is_told_with_what_came_before_it() {
    const LIMIT: usize = 1500;
    let setup = setup_with(|_, commit| {
        let bytes = commit.bytes();
        (bytes > LIMIT).then_some(CommitError::TooLarge { bytes, limit: LIMIT })
    });
    assert_eq!(setup.import(1, turns(50)).await, Ok(receipt(50, 0)));
    let long = SealedTurn { model: Some("m".repeat(256).as_str().into()), ..turn("long", 5) };
    let long = SealedTurn { provider: long.model.clone(), project: long.model.clone(), ..long };
    let long = SealedTurn { reason: "r".repeat(256).as_str().into(), ..long };
    let refused = setup.import(1, vec![turn("t1", 5), turn("u", 5), long, turn("v", 5)]).await;
    let before = receipt(1, 1);
    let turn_id = TurnId::new("long").unwrap();
    assert_eq!(refused, Err(ImportError::TurnTooLarge { turn_id, limit: LIMIT, before }));
    assert!(refused.unwrap_err().to_string().contains("`store.max_commit_bytes`"));
    assert_eq!(setup.stored().len(), 51);
    assert_eq!(setup.import(1, vec![turn("v", 5)]).await, Ok(receipt(1, 0)), "later imports are not affected");
}

#[actix_rt::test]
async fn a_conflict_is_tried_again_and_other_failures_are_told() {
    let conflict = || CommitError::Conflict { expected: Version(1), actual: Version(2) };
    let setup = setup_with(move |nth, _| (nth == 1).then(conflict));
    assert_eq!(setup.import(3, turns(TURNS_AT_ONCE)).await, Ok(receipt(TURNS_AT_ONCE as u64, 0)));
    assert!(setup.stored().iter().map(|(_, ordinal, _)| *ordinal).eq(3..3 + TURNS_AT_ONCE as u64));

    let setup = setup_with(move |nth, _| (nth < 9).then(conflict));
    assert_eq!(setup.import(1, turns(1)).await, Err(ImportError::Contended));
    assert_eq!(setup.import(1, turns(1)).await, Ok(receipt(1, 0)));

    let fault = || Fault::new(FaultKind::Disk, "the disk failed");
    let setup = setup_with(move |nth, _| match nth {
        1 => Some(CommitError::Unavailable(fault())),
        2 => Some(CommitError::Overloaded),
        _ => None,
    });
    assert_eq!(setup.import(3, turns(TURNS_AT_ONCE)).await, Err(ImportError::StoreUnavailable(fault())));
    assert_eq!(setup.import(3, turns(TURNS_AT_ONCE)).await, Err(ImportError::Overloaded));
    let half = TURNS_AT_ONCE as u64 / 2;
    assert_eq!(setup.import(3, turns(TURNS_AT_ONCE)).await, Ok(receipt(half, half)));
    assert!(setup.stored().iter().map(|(_, ordinal, _)| *ordinal).eq(3..3 + 2 * half));
}

#[actix_rt::test]
async fn a_store_that_cannot_be_read_refuses_imports() {
    let kept = MemoryStore::default();
    let fault = || Fault::new(FaultKind::Disk, "the disk failed");
    let opens = Probe::<OpenConversation>::start(move |_| ready(Err(fault())));
    let store = StoreRecipients { open: opens.recipient(), ..kept.recipients() };
    let directory = Directory::new(store, Arc::new(TestClock::at(1)), TurnSettings::default()).start();
    let refused = directory.send(import(1, turns(1))).await.unwrap();
    assert_eq!(refused, Err(ImportError::StoreUnavailable(fault())));
}

/// A clock that always panics, and the actor that asks it.
struct Panics;

impl Clock for Panics {
    fn now(&self) -> EpochMillis {
        panic!("this panic is part of a test");
    }
}

#[actix_rt::test]
async fn an_actor_that_dies_is_told_and_counted() {
    let kept = MemoryStore::default();
    let commits = kept.commits();
    let setup = place(kept, commits, Arc::new(Panics));
    assert_eq!(setup.import(1, turns(1)).await, Err(ImportError::ActorGone));
    let counts = setup.directory.send(CountWork).await.unwrap();
    assert_eq!((counts.died, counts.in_flight), (1, 0));
}

#[actix_rt::test]
async fn imports_count_as_work_and_are_refused_when_there_is_too_much_or_while_the_service_stops() {
    let settings = TurnSettings { max_in_flight: 1, ..TurnSettings::default() };
    let (kept, gate) = (MemoryStore::default(), Rc::new(Semaphore::new(0)));
    let (store, held) = (kept.clone(), Rc::clone(&gate));
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let (store, held) = (store.clone(), Rc::clone(&held));
        async move {
            held.acquire().await.unwrap().forget();
            store.commit(&commit)
        }
    });
    let store = StoreRecipients { commit: commits.recipient(), ..kept.recipients() };
    let directory = Directory::new(store, Arc::new(TestClock::at(1)), settings).start();
    let first = tokio::task::spawn_local(directory.send(import(1, turns(1))));
    commits.wait_for(1).await;
    assert_eq!(directory.send(import(1, turns(1))).await.unwrap(), Err(ImportError::Overloaded));
    let drained = tokio::task::spawn_local(directory.send(Drain));
    assert_eq!(directory.send(import(1, turns(1))).await.unwrap(), Err(ImportError::ShuttingDown));
    assert!(!drained.is_finished(), "drained with an import in flight");
    gate.add_permits(1);
    drained.await.unwrap().unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Ok(receipt(1, 0)));
}

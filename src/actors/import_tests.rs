//! Tests of imports through the directory. Probes stand in for the store.

use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr};
use tokio::sync::Semaphore;

use super::*;
use crate::settings::{TURNS_AT_ONCE, TurnSettings};
use crate::store::{Commit, CommitError, CommitSeries, CommittedSeries, Fault, FaultKind};
use crate::testing::{MemoryStore, Probe, TestClock, TurnScript};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, SealedTurn, TurnId};

struct Setup {
    kept: MemoryStore,
    series: Probe<Arc<CommitSeries>>,
    facts: Facts,
    directory: Addr<Directory>,
}

/// Starts a directory. The function `fail` decides which series of commits fail, by their numbers from 0.
fn setup_with(fail: impl Fn(usize, &CommitSeries) -> Option<CommitError> + Unpin + 'static) -> Setup {
    let (kept, mut count) = (MemoryStore::default(), 0);
    let store = kept.clone();
    let series = Probe::<Arc<CommitSeries>>::start(move |series| {
        count += 1;
        let failed = fail(count - 1, &series).map(CommittedSeries::from);
        ready(failed.unwrap_or_else(|| store.commit_series(&series)))
    });
    place(kept, series, TurnSettings::default())
}

fn place(kept: MemoryStore, series: Probe<Arc<CommitSeries>>, settings: TurnSettings) -> Setup {
    let facts = Facts::new(1024);
    let directory = Directory::new(kept.recipients(), Arc::new(TestClock::at(1000)), settings);
    let directory = directory.importing(series.recipient()).telling(facts.clone()).start();
    Setup { kept, series, facts, directory }
}

fn setup() -> Setup {
    setup_with(|_, _| None)
}

/// Returns a turn that was sealed at this moment elsewhere.
fn turn(id: &str, sealed_at: u64) -> SealedTurn {
    OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("elsewhere"), EpochMillis::new(sealed_at))
}

fn imported(conversation: &str, ordinal: u64, turn: SealedTurn) -> ImportedTurn {
    ImportedTurn { conversation_id: ConversationId::new(conversation).unwrap(), ordinal: Ordinal::new(ordinal), turn }
}

/// Returns turns of one conversation, of which the first has this ordinal where it comes from.
fn turns(from: u64, count: usize) -> Vec<ImportedTurn> {
    (from..).take(count).map(|at| imported("c", at, turn(&format!("t{}", at - from), 5))).collect()
}

fn receipt(imported: u64, duplicates: u64) -> ImportReceipt {
    ImportReceipt { imported, duplicates }
}

fn ended(before: ImportReceipt, why: ImportFailure) -> Result<ImportReceipt, ImportError> {
    Err(ImportError { before, why })
}

impl Setup {
    async fn import(&self, turns: Vec<ImportedTurn>) -> Result<ImportReceipt, ImportError> {
        self.directory.send(Import { turns: turns.into() }).await.unwrap()
    }

    /// Returns the turns of the conversation: their ids, their ordinals and the moments of their sealing.
    fn stored(&self) -> Vec<(String, u64, u64)> {
        let turns = self.kept.all_turns("c").into_iter();
        turns.map(|turn| (turn.metrics.turn_id.to_string(), turn.ordinal.get(), turn.sealed_at.get())).collect()
    }

    /// Returns the number of turns in each series so far.
    fn sizes(&self) -> Vec<usize> {
        let turns = |series: &Arc<CommitSeries>| series.commits.iter().map(|commit| commit.sealed.len()).sum();
        self.series.seen().iter().map(turns).collect()
    }
}

#[actix_rt::test]
async fn imported_turns_keep_their_ordinals_and_moments_and_leave_other_open_turns_open() {
    let setup = setup();
    for id in ["open", "imported"] {
        setup.directory.send(TurnScript::new("c", id).usage(0, 7, 7).observe()).await.unwrap().unwrap();
    }
    let first = [imported("c", 5, turn("a", 90)), imported("c", 6, turn("imported", 80))];
    assert_eq!(setup.import(first.into()).await, Ok(receipt(2, 0)));
    let expected = [("a".to_owned(), 5, 90), ("imported".to_owned(), 6, 80)];
    assert_eq!(setup.stored(), expected);
    assert_eq!(setup.kept.all_turns("c")[1].metrics.steps, [], "the turn is as it was imported");
    let open = setup.kept.open_turns(&ConversationId::new("c").unwrap());
    assert_eq!(open.turns.iter().map(|staged| staged.turn.id.as_str()).collect::<Vec<_>>(), ["open"]);

    // The conversation has turns, so those of another store are appended.
    let more = [imported("c", 40, turn("a", 1)), imported("c", 41, turn("b", 70))];
    assert_eq!(setup.import(more.into()).await, Ok(receipt(1, 1)));
    let late = setup.directory.send(TurnScript::new("c", "imported").usage(0, 1, 1).observe()).await.unwrap().unwrap();
    assert_eq!((late.late, late.sealed[0].ordinal.get()), (1, 6));
    setup.directory.send(TurnScript::new("c", "open").done("stop").observe()).await.unwrap().unwrap();
    assert_eq!(setup.stored()[2..], [("b".to_owned(), 7, 70), ("open".to_owned(), 8, 1000)]);
}

#[actix_rt::test]
async fn an_actor_that_knows_the_state_before_an_import_goes_on_with_the_state_after_it() {
    let setup = setup();
    for id in ["a", "b"] {
        setup.directory.send(TurnScript::new("c", id).usage(0, 7, 7).observe()).await.unwrap().unwrap();
    }
    // The actor knows that both turns are open.
    setup.import(vec![imported("c", 1, turn("a", 9000))]).await.unwrap();
    let mut subscription = setup.facts.subscribe();
    let events = [TurnScript::new("c", "a").usage(0, 9, 9), TurnScript::new("c", "b").done("stop")];
    let [late, sealed] = events.map(|events| setup.directory.send(events.observe()));
    assert_eq!(late.await.unwrap().unwrap().late, 1);
    assert_eq!(sealed.await.unwrap().unwrap().sealed[0].ordinal.get(), 2);
    let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("not told") };
    assert_eq!(sealed.turn, setup.kept.all_turns("c")[1]);
    assert_eq!(sealed.turn.sealed_at.get(), 9000, "the clock shows an earlier moment");
}

#[actix_rt::test]
async fn turns_of_several_conversations_become_durable_in_their_order_and_are_told() {
    let setup = setup();
    let mut subscription = setup.facts.subscribe();
    let places = [("a", 3), ("b", 1), ("a", 4), ("a", 5), ("b", 2), ("a", 6)];
    let all = || places.map(|(name, at)| imported(name, at, turn(&format!("t{at}"), 100 - at)));
    assert_eq!(setup.import(all().into()).await, Ok(receipt(6, 0)));
    let order = setup.kept.sealed_turns(None, 9).unwrap().turns;
    let order: Vec<_> = order.iter().map(|at| (at.conversation_id.as_str(), at.turn.ordinal.get())).collect();
    assert_eq!(order, places);
    for (name, at) in places {
        let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("not told") };
        assert_eq!((sealed.conversation_id.as_str(), sealed.turn.ordinal.get()), (name, at));
    }
    assert_eq!(setup.import(all().into()).await, Ok(receipt(0, 6)));
}

#[actix_rt::test]
async fn a_series_waits_for_the_work_of_its_conversations_and_of_no_others() {
    let (kept, gate) = (MemoryStore::default(), Rc::new(Semaphore::new(0)));
    let (store, held) = (kept.clone(), Rc::clone(&gate));
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let (store, held) = (store.clone(), Rc::clone(&held));
        async move {
            held.acquire().await.unwrap().forget();
            store.commit(&commit)
        }
    });
    let series = kept.series();
    let recipients = StoreRecipients { commit: commits.recipient(), ..kept.recipients() };
    let directory = Directory::new(recipients, Arc::new(TestClock::at(1000)), TurnSettings::default());
    let directory = directory.importing(series.recipient()).start();
    let observed = tokio::task::spawn_local(directory.send(TurnScript::new("c", "t").done("stop").observe()));
    commits.wait_for(1).await;
    let import = |name: &str| {
        let turns = [imported(name, 1, turn("i", 5))].into();
        tokio::task::spawn_local(directory.send(Import { turns }))
    };
    let (waits, other) = (import("c"), import("d"));
    assert_eq!(other.await.unwrap().unwrap(), Ok(receipt(1, 0)));
    assert!(!waits.is_finished() && series.seen().len() == 1);
    gate.add_permits(1);
    assert_eq!(observed.await.unwrap().unwrap().unwrap().sealed[0].ordinal.get(), 1, "it met no conflict");
    assert_eq!(waits.await.unwrap().unwrap(), Ok(receipt(1, 0)));
    assert_eq!(commits.seen().len(), 1);
}

#[actix_rt::test]
async fn very_many_turns_become_several_series_and_importing_them_again_changes_nothing() {
    let setup = setup();
    let count = 2 * TURNS_AT_ONCE + 1;
    assert_eq!(setup.import(turns(7, count)).await, Ok(receipt(count as u64, 0)));
    assert_eq!(setup.sizes(), [TURNS_AT_ONCE, TURNS_AT_ONCE, 1]);
    let stored = setup.stored();
    assert!(stored.iter().map(|(_, ordinal, _)| *ordinal).eq(7..7 + count as u64));
    assert_eq!(setup.import(turns(7, count)).await, Ok(receipt(0, count as u64)));
    assert_eq!(setup.import(Vec::new()).await, Ok(receipt(0, 0)));
    assert_eq!(setup.stored(), stored);
}

#[actix_rt::test]
async fn a_series_that_is_too_large_is_split_and_a_turn_that_is_too_large_is_told_with_what_came_before_it() {
    const LIMIT: usize = 1500;
    let setup = setup_with(|_, series| {
        let bytes = series.bytes();
        (bytes > LIMIT).then_some(CommitError::TooLarge { bytes, limit: LIMIT })
    });
    assert_eq!(setup.import(turns(1, 50)).await, Ok(receipt(50, 0)));
    let label = || Some("m".repeat(256).as_str().into());
    let long = SealedTurn { model: label(), provider: label(), project: label(), ..turn("long", 5) };
    let long = SealedTurn { reason: "r".repeat(256).as_str().into(), ..long };
    let ids = [turn("t1", 5), turn("u", 5), long, turn("v", 5)];
    let refused = setup.import(ids.map(|turn| imported("c", 1, turn)).into()).await;
    let (conversation_id, turn_id) = (ConversationId::new("c").unwrap(), TurnId::new("long").unwrap());
    let too_large = ImportFailure::TurnTooLarge { conversation_id, turn_id, limit: LIMIT };
    assert_eq!(refused, ended(receipt(1, 1), too_large));
    assert!(refused.unwrap_err().to_string().contains("`store.max_commit_bytes`"));
    assert_eq!(setup.stored().len(), 51);
    assert_eq!(
        setup.import(vec![imported("c", 1, turn("v", 5))]).await,
        Ok(receipt(1, 0)),
        "later ones are not affected"
    );
}

#[actix_rt::test]
async fn a_failure_is_told_with_what_is_durable() {
    let fault = || Fault::new(FaultKind::Disk, "the disk failed");
    let setup = setup_with(move |nth, _| match nth {
        1 => Some(CommitError::Unavailable(fault())),
        3 => Some(CommitError::Overloaded),
        _ => None,
    });
    let (half, whole) = (TURNS_AT_ONCE as u64, 2 * TURNS_AT_ONCE);
    let failed = setup.import(turns(3, whole)).await;
    assert_eq!(failed, ended(receipt(half, 0), ImportFailure::StoreUnavailable(fault())));
    assert_eq!(setup.import(turns(3, whole)).await, ended(receipt(0, half), ImportFailure::Overloaded));
    assert_eq!(setup.import(turns(3, whole)).await, Ok(receipt(half, half)));
    assert!(setup.stored().iter().map(|(_, ordinal, _)| *ordinal).eq(3..3 + 2 * half));
}

#[actix_rt::test]
async fn within_a_series_the_first_refusal_is_the_end() {
    let kept = MemoryStore::default();
    let store = kept.clone();
    // The store refuses the commits of one conversation.
    let series = Probe::<Arc<CommitSeries>>::start(move |series| {
        let at = series.commits.iter().position(|commit| commit.conversation_id.as_str() == "damaged");
        let first = CommitSeries { commits: series.commits[..at.unwrap_or(series.commits.len())].to_vec() };
        let committed = store.commit_series(&first);
        let fault = || Fault::new(FaultKind::Damaged, "the conversation is damaged");
        ready(CommittedSeries { ended: at.map(|_| CommitError::Unavailable(fault())), ..committed })
    });
    let setup = place(kept, series, TurnSettings::default());
    let all = [("c", "a"), ("d", "a"), ("c", "b"), ("damaged", "a"), ("c", "c")];
    let refused = setup.import(all.map(|(name, id)| imported(name, 1, turn(id, 5))).into()).await.unwrap_err();
    assert_eq!(refused.before, receipt(3, 0));
    assert_eq!(setup.stored().into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), ["a", "b"]);
}

#[actix_rt::test]
async fn a_directory_without_a_store_for_imports_refuses_them() {
    let kept = MemoryStore::default();
    let directory = Directory::new(kept.recipients(), Arc::new(TestClock::at(1)), TurnSettings::default()).start();
    let refused = directory.send(Import { turns: turns(1, 1).into() }).await.unwrap().unwrap_err();
    assert!(matches!(refused.why, ImportFailure::StoreUnavailable(_)), "{refused:?}");
    assert_eq!(refused.before, receipt(0, 0));
}

#[actix_rt::test]
async fn imports_count_as_work_and_are_refused_when_there_is_too_much_or_while_the_service_stops() {
    let (kept, gate) = (MemoryStore::default(), Rc::new(Semaphore::new(0)));
    let (store, held) = (kept.clone(), Rc::clone(&gate));
    let series = Probe::<Arc<CommitSeries>>::start(move |series| {
        let (store, held) = (store.clone(), Rc::clone(&held));
        async move {
            held.acquire().await.unwrap().forget();
            store.commit_series(&series)
        }
    });
    let setup = place(kept, series, TurnSettings { max_in_flight: 1, ..TurnSettings::default() });
    let first = tokio::task::spawn_local(setup.directory.send(Import { turns: turns(1, 1).into() }));
    setup.series.wait_for(1).await;
    assert_eq!(setup.import(turns(1, 1)).await, ended(receipt(0, 0), ImportFailure::Overloaded));
    let drained = tokio::task::spawn_local(setup.directory.send(Drain));
    assert_eq!(setup.import(turns(1, 1)).await, ended(receipt(0, 0), ImportFailure::ShuttingDown));
    assert!(!drained.is_finished(), "drained with an import in flight");
    gate.add_permits(1);
    drained.await.unwrap().unwrap();
    assert_eq!(first.await.unwrap().unwrap(), Ok(receipt(1, 0)));
}

//! Tests of the directory and the sweeper through their messages alone, with paused time.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::RunningClock;
use crate::settings::TurnSettings;
use crate::store::{Commit, Committed, ConversationState, StaleBefore, StaleTurn, Version};
use crate::testing::{Probe, TestClock};
use crate::turn::{ConversationId, Done, RunningTime, TurnEvent, TurnEventKind, TurnId};

struct Setup {
    opens: Probe<OpenConversation>,
    commits: Probe<Arc<Commit>>,
    directory: Addr<Directory>,
}

/// Starts a directory over a store that keeps nothing. Each commit waits for a permit of `gate`.
fn setup_with(settings: TurnSettings, gate: Rc<Semaphore>) -> Setup {
    tokio::time::pause();
    let opens = Probe::start(|_| std::future::ready(Ok(ConversationState::default())));
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let gate = Rc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Committed { version: Version(commit.expected_version.0 + 1), outcomes: Vec::new() })
        }
    });
    let store = StoreRecipients {
        open: opens.recipient(),
        commit: commits.recipient(),
        erase: crate::testing::MemoryStore::default().erasures().recipient(),
    };
    let directory = Directory::new(store, Arc::new(TestClock::at(1000)), settings).start();
    Setup { opens, commits, directory }
}

fn setup(settings: TurnSettings) -> Setup {
    setup_with(settings, Rc::new(Semaphore::new(Semaphore::MAX_PERMITS)))
}

fn id(id: &str) -> ConversationId {
    ConversationId::new(id).unwrap()
}

fn done(conversation: &str) -> Observe {
    let kind = TurnEventKind::Done(Done::because("stop"));
    let events = vec![TurnEvent { turn_id: TurnId::new("t").unwrap(), kind }];
    Observe { conversation_id: id(conversation), events }
}

impl Setup {
    async fn observe(&self, conversation: &str) -> Result<Receipt, ObserveError> {
        self.directory.send(done(conversation)).await.unwrap()
    }

    async fn counts(&self) -> WorkCounts {
        self.directory.send(CountWork).await.unwrap()
    }

    async fn active(&self) -> usize {
        self.counts().await.active_conversations
    }

    fn opened(&self) -> Vec<String> {
        self.opens.seen().iter().map(|open| open.conversation_id.to_string()).collect()
    }
}

#[actix_rt::test]
async fn each_conversation_has_one_actor_started_on_first_use() {
    let setup = setup(TurnSettings::default());
    for conversation in ["a", "b", "a", "a", "b"] {
        setup.observe(conversation).await.unwrap();
    }
    assert_eq!(setup.opened(), ["a", "b"]);
    assert_eq!(setup.counts().await, WorkCounts { active_conversations: 2, in_flight: 0, warnings: 0, died: 0 });
}

#[actix_rt::test]
async fn an_idle_conversation_is_retired_and_started_again_on_its_next_event() {
    let idle_after = Duration::from_mins(1);
    let setup = setup(TurnSettings { idle_after, ..TurnSettings::default() });
    setup.observe("a").await.unwrap();
    setup.observe("b").await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    setup.observe("b").await.unwrap();
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert_eq!(setup.active().await, 1, "a is idle for 76 s, b for 26 s");
    setup.observe("a").await.unwrap();
    assert_eq!(setup.opened(), ["a", "b", "a"]);
}

#[actix_rt::test]
async fn a_conversation_with_work_is_never_retired() {
    let gate = Rc::new(Semaphore::new(0));
    let idle_after = Duration::from_secs(1);
    let setup = setup_with(TurnSettings { idle_after, ..TurnSettings::default() }, Rc::clone(&gate));
    let waiting = setup.directory.send(done("a"));
    setup.commits.wait_for(1).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(setup.counts().await, WorkCounts { active_conversations: 1, in_flight: 1, warnings: 0, died: 0 });
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
}

#[actix_rt::test]
async fn work_goes_on_where_its_sender_is_gone() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup_with(TurnSettings::default(), Rc::clone(&gate));
    let waiting = setup.directory.send(done("a"));
    setup.commits.wait_for(1).await;
    drop(waiting);
    assert_eq!(setup.counts().await.in_flight, 1, "it is still being worked on");
    gate.add_permits(1);
    setup.directory.send(Drain).await.unwrap();
    assert_eq!(setup.counts().await.in_flight, 0);
}

#[actix_rt::test]
async fn more_than_may_be_in_flight_is_refused_and_taken_again_later() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup_with(TurnSettings { max_in_flight: 1, ..TurnSettings::default() }, Rc::clone(&gate));
    let waiting = setup.directory.send(done("a"));
    setup.commits.wait_for(1).await;
    assert_eq!(setup.observe("b").await, Err(ObserveError::Overloaded));
    gate.add_permits(2);
    waiting.await.unwrap().unwrap();
    setup.observe("b").await.unwrap();
}

#[actix_rt::test]
async fn the_load_shows_how_many_messages_are_unanswered() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup_with(TurnSettings::default(), Rc::clone(&gate));
    let load = Load::new(1);
    let store = StoreRecipients {
        open: setup.opens.recipient(),
        commit: setup.commits.recipient(),
        erase: crate::testing::MemoryStore::default().erasures().recipient(),
    };
    let directory = Directory::new(store, Arc::new(TestClock::at(1)), TurnSettings::default()).showing(load.clone());
    let directory = directory.start();
    assert!(!load.is_full());
    let waiting = directory.send(done("a"));
    setup.commits.wait_for(1).await;
    assert!(load.is_full());
    assert_eq!(directory.send(done("b")).await.unwrap(), Err(ObserveError::Overloaded));
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    directory.send(Drain).await.unwrap();
    assert_eq!(load.in_flight(), 0);
}

#[actix_rt::test]
async fn the_number_of_actors_is_bounded_and_idle_ones_give_way() {
    let gate = Rc::new(Semaphore::new(1));
    let settings = TurnSettings { max_active_conversations: 2, ..TurnSettings::default() };
    let setup = setup_with(settings, Rc::clone(&gate));
    setup.observe("idle").await.unwrap();
    let a = setup.directory.send(done("a"));
    let b = setup.directory.send(done("b"));
    setup.commits.wait_for(3).await;
    assert_eq!(setup.active().await, 2, "the idle one gave way");
    assert_eq!(setup.observe("c").await, Err(ObserveError::Overloaded), "those at work do not");
    gate.add_permits(2);
    a.await.unwrap().unwrap();
    b.await.unwrap().unwrap();
}

#[actix_rt::test]
async fn draining_refuses_new_work_and_waits_for_what_is_in_flight() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup_with(TurnSettings::default(), Rc::clone(&gate));
    let waiting = setup.directory.send(done("a"));
    setup.commits.wait_for(1).await;
    let drained = tokio::task::spawn_local(setup.directory.send(Drain));
    assert_eq!(setup.observe("a").await, Err(ObserveError::ShuttingDown));
    assert!(!drained.is_finished(), "drained with work in flight");
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    drained.await.unwrap().unwrap();
}

/// A sweeper over a store with these stale turns. `seals` says which of them the directory seals.
struct Sweep {
    lists: Probe<ListStaleTurns>,
    abandons: Probe<Abandon>,
    ticks: Probe<Tick>,
    running: RunningClock,
    clock: TestClock,
    sweeper: Addr<Sweeper>,
}

fn sweep(settings: TurnSettings, stale: Vec<StaleTurn>, seals: bool) -> Sweep {
    tokio::time::pause();
    let stale = Rc::new(RefCell::new(stale));
    let left = Rc::clone(&stale);
    let lists = Probe::<ListStaleTurns>::start(move |list| {
        let left = left.borrow();
        let behind = left.iter().filter(|turn| list.after.as_ref().is_none_or(|after| place(turn) > place(after)));
        std::future::ready(Ok(behind.take(list.limit).cloned().collect()))
    });
    let abandons = Probe::<Abandon>::start(move |abandon| {
        let mut sealed = Vec::new();
        if seals {
            stale.borrow_mut().retain(|turn| !abandon.turn_ids.contains(&turn.turn_id));
            let ordinal = crate::turn::Ordinal::new(1).unwrap();
            sealed = abandon
                .turn_ids
                .into_iter()
                .map(|turn_id| TurnReceipt { turn_id, ordinal, duplicate: false })
                .collect();
        }
        std::future::ready(Ok(Receipt { sealed, ..Receipt::default() }))
    });
    let ticks = Probe::<Tick>::start(|Tick { elapsed }| {
        std::future::ready(Ok(RunningTime::new(100_000).saturating_add(elapsed)))
    });
    let running = RunningClock::at(RunningTime::new(100_000));
    let clock = TestClock::at(0);
    let recipients =
        SweeperRecipients { tick: ticks.recipient(), stale: lists.recipient(), abandon: abandons.recipient() };
    let sweeper = Sweeper::new(recipients, running.clone(), Arc::new(clock.clone()), settings).start();
    Sweep { lists, abandons, ticks, running, clock, sweeper }
}

/// Returns the number of a turn that [`stale`] made.
fn place(turn: &StaleTurn) -> usize {
    turn.turn_id.as_str()[1..].parse().unwrap()
}

fn stale(count: usize) -> Vec<StaleTurn> {
    let turn =
        |n| StaleTurn { conversation_id: id(&format!("c{}", n % 2)), turn_id: TurnId::new(format!("t{n}")).unwrap() };
    (0..count).map(turn).collect()
}

#[actix_rt::test]
async fn a_sweep_begins_at_the_start_and_again_after_each_interval() {
    let settings = TurnSettings {
        abandon_after: Duration::from_secs(40),
        fail_after: Duration::from_secs(8),
        sweep_every: Duration::from_secs(10),
        ..TurnSettings::default()
    };
    let sweep = sweep(settings, Vec::new(), true);
    // A turn has the running time of the last tick before its event, so one period of two seconds is added to the age.
    let before = StaleBefore { open: RunningTime::new(58_000), failed: RunningTime::new(90_000) };
    assert_eq!(sweep.lists.wait_for(1).await[0].before, before);
    let before = tokio::time::Instant::now();
    sweep.lists.wait_for(3).await;
    assert_eq!(before.elapsed().as_secs(), 20);
    assert_eq!(sweep.abandons.seen(), []);
}

#[actix_rt::test]
async fn a_tick_counts_the_time_since_the_last_one_and_at_most_a_quarter_of_the_shortest_age() {
    let settings = TurnSettings {
        abandon_after: Duration::from_secs(40),
        fail_after: Duration::from_mins(1),
        ..TurnSettings::default()
    };
    let sweep = sweep(settings, Vec::new(), true);
    let ticks = async |count| sweep.ticks.wait_for(count).await.pop().unwrap().elapsed.as_secs();
    let begun = tokio::time::Instant::now();
    sweep.clock.advance(Duration::from_secs(9));
    assert_eq!((ticks(1).await, begun.elapsed().as_secs()), (9, 10));
    // The process was suspended for an hour.
    sweep.clock.advance(Duration::from_hours(1));
    assert_eq!((ticks(2).await, begun.elapsed().as_secs()), (10, 20));
    assert_eq!(ticks(3).await, 0, "what was not counted is not made up for");
    sweep.clock.advance(Duration::from_secs(3));
    sweep.sweeper.send(Drain).await.unwrap();
    assert_eq!(ticks(4).await, 3, "the end has a tick of its own");
    assert_eq!(
        sweep.running.now(),
        RunningTime::new(110_000),
        "the clock shows what the store answered, and never goes back"
    );
}

#[actix_rt::test]
async fn a_sweep_asks_each_conversation_once_a_page_and_goes_on_until_no_stale_turn_is_left() {
    let settings = TurnSettings { sweep_every: Duration::from_hours(1), ..TurnSettings::default() };
    let sweep = sweep(settings, stale(1500), true);
    let mut abandons = sweep.abandons.wait_for(4).await;
    assert_eq!(sweep.lists.seen().len(), 2);
    abandons.sort_by_key(|abandon| (abandon.turn_ids.len(), abandon.conversation_id.clone()));
    let asked: Vec<_> =
        abandons.iter().map(|abandon| (abandon.conversation_id.as_str(), abandon.turn_ids.len())).collect();
    assert_eq!(asked, [("c0", 250), ("c1", 250), ("c0", 500), ("c1", 500)]);
}

#[actix_rt::test]
async fn turns_that_cannot_be_sealed_do_not_keep_those_behind_them_from_it() {
    let settings = TurnSettings { sweep_every: Duration::from_hours(1), ..TurnSettings::default() };
    let sweep = sweep(settings, stale(1500), false);
    let abandons = sweep.abandons.wait_for(4).await;
    let asked: HashSet<TurnId> = abandons.into_iter().flat_map(|abandon| abandon.turn_ids).collect();
    assert_eq!(asked.len(), 1500, "some were never asked about");
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(sweep.lists.seen().len(), 2, "it asked again for turns that did not go away");
}

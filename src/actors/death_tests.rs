//! Tests of actors that die. If a conversation's actor dies, its senders get an error and nothing else happens. If the
//! directory or the store dies, that is reported.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::Semaphore;

use super::*;
use crate::clock::Clock;
use crate::settings::{StoreSettings, TurnSettings};
use crate::store::{Commit, ConversationState, Location, RedbEngine, TurnRange};
use crate::testing::Probe;
use crate::turn::{ConversationId, EpochMillis, StoredTurn, parse_line};

/// Makes an actor panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Die;

impl Message for Die {
    type Result = ();
}

impl Handler<Die> for Directory {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Context<Self>) {
        panic!("this panic is part of a test");
    }
}

impl Handler<Die> for Store {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Context<Self>) {
        panic!("this panic is part of a test");
    }
}

/// A clock that panics at some of its calls. A conversation's actor asks it once for each batch, and nothing else that
/// the actor calls can be made to panic by a test.
struct PanickingClock {
    asked: AtomicU64,
    panics_at: &'static [u64],
}

impl Clock for PanickingClock {
    fn now(&self) -> EpochMillis {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(!self.panics_at.contains(&asked), "this panic is part of a test");
        EpochMillis::new(asked)
    }
}

/// A directory over a store in memory. Its conversations panic at some of their batches.
struct Setup {
    engine: RedbEngine,
    opens: Probe<OpenConversation>,
    commits: Probe<Arc<Commit>>,
    directory: Addr<Directory>,
    /// Lets one commit through at a time, and none while a test holds the permit.
    gate: Rc<Semaphore>,
}

fn setup(panics_at: &'static [u64]) -> Setup {
    setup_with(panics_at, |_| {})
}

/// `panics_at` has the numbers of the batches that panic. `forget` removes a part of the staged state before a
/// conversation's actor starts from it.
fn setup_with(panics_at: &'static [u64], forget: fn(&mut ConversationState)) -> Setup {
    let engine = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
    let store = Store::new(Arc::new(engine.clone())).start();
    let to = store.clone();
    let opens = Probe::<OpenConversation>::start(move |open| {
        let asked = to.send(open);
        async move {
            let mut state = asked.await.unwrap();
            state.iter_mut().for_each(forget);
            state
        }
    });
    let gate = Rc::new(Semaphore::new(1));
    let held = Rc::clone(&gate);
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let (held, store) = (Rc::clone(&held), store.clone());
        async move {
            let _permit = held.acquire().await.unwrap();
            store.send(commit).await.unwrap()
        }
    });
    let recipients = StoreRecipients {
        open: opens.recipient(),
        commit: commits.recipient(),
        erase: crate::testing::MemoryStore::default().erasures().recipient(),
    };
    let clock = Arc::new(PanickingClock { asked: AtomicU64::new(0), panics_at });
    let directory = Directory::new(recipients, clock, TurnSettings::default()).start();
    Setup { engine, opens, commits, directory, gate }
}

fn observe(turn: &str, kind: &str, more: &str) -> Observe {
    let line = format!(r#"{{"type":"{kind}","conversationId":"c","turnId":"{turn}"{more}}}"#);
    let event = parse_line(line.as_bytes()).unwrap().unwrap();
    Observe { conversation_id: event.conversation_id, events: vec![event.event] }
}

fn usage(turn: &str, step: u32) -> Observe {
    let more = format!(r#","stepId":"{turn}#{step}","usage":{{"inputTokens":{},"outputTokens":1}}"#, step + 1);
    observe(turn, "usage", &more)
}

fn done(turn: &str) -> Observe {
    observe(turn, "done", r#","reason":"stop""#)
}

impl Setup {
    async fn observe(&self, observe: Observe) -> Result<Receipt, ObserveError> {
        self.directory.send(observe).await.unwrap()
    }

    async fn died(&self) -> u64 {
        let counts = self.directory.send(CountWork).await.unwrap();
        assert_eq!(counts.in_flight, 0);
        counts.died
    }

    fn turns(&self) -> Vec<StoredTurn> {
        let conversation_id = ConversationId::new("c").unwrap();
        self.engine.turns(&TurnRange::after(conversation_id, 0, 100)).unwrap()
    }
}

#[actix_rt::test]
async fn a_conversation_that_panics_costs_its_sender_an_error_and_loses_nothing_that_was_acknowledged() {
    let setup = setup(&[3]);
    let steps = steps_of_a_turn_with_a_death_in_it(&setup).await;
    assert_eq!(steps, ["t#0", "t#1"], "what was acknowledged before the panic, and nothing of what died with it");
}

#[actix_rt::test]
async fn control_an_actor_that_does_not_start_from_what_is_staged_is_caught() {
    let setup = setup_with(&[3], |state| state.open_turns.clear());
    assert_ne!(steps_of_a_turn_with_a_death_in_it(&setup).await, ["t#0", "t#1"]);
}

async fn steps_of_a_turn_with_a_death_in_it(setup: &Setup) -> Vec<String> {
    setup.observe(usage("t", 0)).await.unwrap();
    setup.observe(usage("t", 1)).await.unwrap();
    assert_eq!(setup.observe(usage("t", 2)).await, Err(ObserveError::ActorGone));
    assert_eq!(setup.died().await, 1);

    let receipt = setup.observe(done("t")).await.unwrap();
    assert_eq!(receipt.sealed.len(), 1);
    assert_eq!(setup.opens.seen().len(), 2, "it is started anew from the store");
    assert_eq!(setup.died().await, 1);
    setup.turns()[0].metrics.steps.iter().map(|step| step.step_id.to_string()).collect()
}

#[actix_rt::test]
async fn a_conversation_that_panics_with_much_waiting_answers_all_of_it_and_is_counted_once() {
    let setup = setup(&[2]);
    let held = setup.gate.acquire().await.unwrap();
    // The first message is being committed. The others wait for it, and become the batch that panics.
    let first = tokio::task::spawn_local(setup.directory.send(usage("t", 0)));
    setup.commits.wait_for(1).await;
    let others: Vec<_> = (1..20).map(|step| tokio::task::spawn_local(setup.directory.send(usage("t", step)))).collect();
    while setup.directory.send(CountWork).await.unwrap().in_flight < 20 {}
    drop(held);
    first.await.unwrap().unwrap().unwrap();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), Err(ObserveError::ActorGone));
    }
    assert_eq!(setup.died().await, 1);

    for step in 1..20 {
        setup.observe(usage("t", step)).await.unwrap();
    }
    setup.observe(done("t")).await.unwrap();
    assert_eq!(setup.turns()[0].metrics.steps.len(), 20);
    assert_eq!(setup.died().await, 1);
}

#[actix_rt::test]
async fn a_conversation_that_panics_again_and_again_goes_on_each_time() {
    let setup = setup(&[1, 2, 4, 5, 7, 9]);
    for turn in ["a", "b", "c"] {
        while setup.observe(usage(turn, 0)).await.is_err() {}
        while setup.observe(done(turn)).await.is_err() {}
    }
    assert_eq!(setup.died().await, 6);
    let turns = setup.turns();
    let ids: Vec<_> = turns.iter().map(|turn| (turn.metrics.turn_id.as_str(), turn.metrics.steps.len())).collect();
    assert_eq!(ids, [("a", 1), ("b", 1), ("c", 1)]);
}

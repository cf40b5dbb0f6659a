//! Tests an actor with the testing kit. A probe stands in for the system, and the tests need no disk, no network and no
//! real time.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use turn_metrics::actors::{Directory, Observe, ObserveError, Receipt};
use turn_metrics::recorder::{Outbox, Recorder};
use turn_metrics::settings::TurnSettings;
use turn_metrics::testing::{MemoryStore, Probe, TestClock, TurnScript};
use turn_metrics::turn::{ConversationId, Millis, TurnId, TurnLabels, Usage};

/// The actor under test: it answers a question, and records the turn.
struct Agent {
    recorder: Recorder,
    clock: TestClock,
}

/// Asks the agent for an answer.
struct Ask(&'static str);

impl Message for Ask {
    type Result = String;
}

impl Actor for Agent {
    type Context = Context<Self>;
}

impl Handler<Ask> for Agent {
    type Result = ResponseFuture<String>;

    fn handle(&mut self, Ask(question): Ask, _: &mut Self::Context) -> Self::Result {
        let (recorder, clock) = (self.recorder.clone(), self.clock.clone());
        Box::pin(async move {
            let (Ok(conversation_id), Ok(turn_id)) = (ConversationId::new("c"), TurnId::new(question)) else {
                return "?".into();
            };
            if let Ok(mut turn) = recorder.start_turn(conversation_id, turn_id, TurnLabels::default()) {
                let mut step = turn.start_step();
                clock.advance(Duration::from_millis(120));
                step.token();
                step.usage(Usage { input_tokens: 10.into(), output_tokens: 1.into(), ..Usage::default() });
                step.end("stop");
                turn.end("stop");
            }
            "42".into()
        })
    }
}

fn agent(observe: Recipient<Observe>) -> (Agent, Outbox) {
    let clock = TestClock::at(0);
    let outbox = Outbox::start(observe, 100);
    (Agent { recorder: Recorder::with_stopwatch(outbox.clone(), Arc::new(clock.clone())), clock }, outbox)
}

/// A probe records the messages that it receives, and answers as the test tells it to: here, like a system that accepts
/// everything.
async fn it_sends_the_events_of_its_turn() {
    let probe = Probe::<Observe>::start(|_| ready(Ok(Receipt::default())));
    let (agent, outbox) = agent(probe.recipient());
    assert_eq!(agent.start().send(Ask("life")).await.as_deref(), Ok("42"));
    outbox.flush().await;
    let seen = probe.seen();
    let first = TurnScript::new("c", "life").start().usage(0, 10, 1).observe().events;
    assert_eq!(seen[0].events[..2], first);
    println!("the probe saw {} events in {} message", seen[0].events.len(), seen.len());
}

/// A probe that answers like a system that has ended. The agent must answer its user nevertheless.
async fn it_answers_even_if_its_metrics_are_lost() {
    let probe = Probe::<Observe>::start(|_| ready(Err(ObserveError::ShuttingDown)));
    let (agent, outbox) = agent(probe.recipient());
    assert_eq!(agent.start().send(Ask("life")).await.as_deref(), Ok("42"));
    outbox.flush().await;
    println!("{} events were lost, the answer was not", outbox.counts().lost);
}

/// The real actors on a store in memory, to test the whole path of an event.
async fn its_turn_is_sealed() {
    let store = MemoryStore::default();
    let clock = Arc::new(TestClock::at(1000));
    let directory = Directory::new(store.recipients(), clock, TurnSettings::default()).start();
    let (agent, outbox) = agent(directory.recipient());
    assert_eq!(agent.start().send(Ask("life")).await.as_deref(), Ok("42"));
    outbox.flush().await;
    let turns = store.all_turns("c");
    println!(
        "turn {} is sealed with a TTFT of {:?} ms",
        turns[0].ordinal,
        turns[0].metrics.steps[0].times.ttft.map(Millis::get)
    );
}

fn main() {
    // In a test file these functions have the attribute `#[actix_rt::test]`.
    actix::System::new().block_on(async {
        it_sends_the_events_of_its_turn().await;
        it_answers_even_if_its_metrics_are_lost().await;
        its_turn_is_sealed().await;
    });
}

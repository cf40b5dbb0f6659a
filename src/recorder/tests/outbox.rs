use std::cell::Cell;
use std::future::ready;
use std::rc::Rc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler};
use tokio::sync::Semaphore;

use super::*;
use crate::actors::{Fact, Observe, ObserveError, Receipt};
use crate::runtime::Runtime;
use crate::settings::TurnSettings;
use crate::testing::{Probe, TurnScript};

fn offer(outbox: &Outbox, conversation: &str, turn: &str) -> Result<(), EventLost> {
    let event = TurnScript::new(conversation, turn).done("stop").kernel_events().pop().unwrap();
    outbox.offer(event)
}

fn groups(seen: &[Observe]) -> Vec<(&str, Vec<&str>)> {
    fn turns(observe: &Observe) -> Vec<&str> {
        observe.events.iter().map(|event| event.turn_id.as_str()).collect()
    }
    seen.iter().map(|observe| (observe.conversation_id.as_str(), turns(observe))).collect()
}

#[actix_rt::test]
async fn waiting_events_are_sent_in_order_as_one_message_for_each_conversation() {
    let probe = Probe::<Observe>::start(|_| ready(Ok(Receipt::default())));
    let outbox = Outbox::start(probe.recipient(), 100);
    for (conversation, turn) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"), ("a", "5")] {
        offer(&outbox, conversation, turn).unwrap();
    }
    outbox.flush().await;
    assert_eq!(groups(&probe.seen()), [("a", vec!["1", "3", "5"]), ("b", vec!["2", "4"])]);
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 5, lost: 0 });
}

#[actix_rt::test]
async fn a_stuck_system_blocks_no_turn_and_the_queue_does_not_grow() {
    let gate = Rc::new(Semaphore::new(0));
    let held = Rc::clone(&gate);
    let probe = Probe::<Observe>::start(move |_| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Ok(Receipt::default())
        }
    });
    let outbox = Outbox::start(probe.recipient(), 2);
    offer(&outbox, "a", "in hand").unwrap();
    probe.wait_for(1).await;
    offer(&outbox, "a", "waits").unwrap();
    offer(&outbox, "a", "waits too").unwrap();
    assert_eq!(offer(&outbox, "a", "one too many"), Err(EventLost::Full));
    gate.add_permits(2);
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 3, lost: 0 });
}

#[actix_rt::test]
async fn events_are_sent_again_to_a_busy_system_and_given_up_in_the_end() {
    tokio::time::pause();
    for (refusals, counts) in [(7, OutboxCounts { delivered: 1, lost: 0 }), (8, OutboxCounts { delivered: 0, lost: 1 })]
    {
        let left = Rc::new(Cell::new(refusals));
        let refuse = Rc::clone(&left);
        let probe = Probe::<Observe>::start(move |_| {
            let refused = refuse.get() > 0;
            refuse.set(refuse.get().max(1) - 1);
            ready(if refused { Err(ObserveError::Overloaded) } else { Ok(Receipt::default()) })
        });
        let outbox = Outbox::start(probe.recipient(), 10);
        offer(&outbox, "a", "1").unwrap();
        outbox.flush().await;
        assert_eq!(outbox.counts(), counts);
        assert_eq!(probe.seen().len(), 8);
    }
}

#[actix_rt::test]
async fn refused_events_are_counted_and_later_ones_are_sent() {
    let probe = Probe::<Observe>::start(|observe| {
        let refused = observe.conversation_id.as_str() == "a";
        let refusal = ObserveError::TooManyOpenTurns { conversation_id: observe.conversation_id, limit: 1 };
        ready(if refused { Err(refusal) } else { Ok(Receipt::default()) })
    });
    let outbox = Outbox::start(probe.recipient(), 10);
    offer(&outbox, "a", "1").unwrap();
    offer(&outbox, "b", "2").unwrap();
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 1, lost: 1 });
    assert_eq!(probe.seen().len(), 2, "the refused events were not sent again");
}

#[actix_rt::test]
async fn events_for_a_system_that_has_ended_are_counted_and_never_sent_again() {
    let runtime = Runtime::builder().start().await.unwrap();
    let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 10);
    let recorder = Recorder::new(outbox.clone());
    runtime.shutdown().await;
    let start = || {
        recorder
            .start_turn(ConversationId::new("c").unwrap(), TurnId::new("t").unwrap(), TurnLabels::default())
            .unwrap()
    };
    drop(start());
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 0, lost: 2 });
    // Once the task has noticed the end, the sink refuses events at once.
    drop(start());
    assert_eq!(recorder.counts(), RecorderCounts { taken: 2, lost_to_full: 0, lost_to_gone: 2 });
}

/// A system that answers the conversation `busy` with an overload, and drops the messages of all others unanswered.
struct Dying;

impl Actor for Dying {
    type Context = Context<Self>;
}

impl Handler<Observe> for Dying {
    type Result = DyingReply;

    fn handle(&mut self, observe: Observe, _: &mut Self::Context) -> Self::Result {
        DyingReply { is_busy: observe.conversation_id.as_str() == "busy" }
    }
}

struct DyingReply {
    is_busy: bool,
}

impl MessageResponse<Dying, Observe> for DyingReply {
    fn handle(self, _: &mut Context<Dying>, reply: Option<OneshotSender<Result<Receipt, ObserveError>>>) {
        if let Some(reply) = reply.filter(|_| self.is_busy) {
            reply.send(Err(ObserveError::Overloaded)).unwrap();
        }
    }
}

#[actix_rt::test]
async fn events_waiting_for_a_repetition_are_counted_when_the_system_has_ended() {
    let outbox = Outbox::start(Dying.start().recipient(), 10);
    offer(&outbox, "busy", "1").unwrap();
    offer(&outbox, "busy", "2").unwrap();
    offer(&outbox, "gone", "3").unwrap();
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 0, lost: 3 });
}

#[test]
fn undecided_events_are_counted_when_the_arbiter_ends() {
    let outbox = actix_rt::System::new().block_on(async {
        let probe = Probe::<Observe>::start(|_| std::future::pending());
        let outbox = Outbox::start(probe.recipient(), 10);
        offer(&outbox, "a", "in hand").unwrap();
        probe.wait_for(1).await;
        offer(&outbox, "a", "waits").unwrap();
        offer(&outbox, "b", "waits too").unwrap();
        outbox
    });
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 0, lost: 3 });
    assert_eq!(offer(&outbox, "a", "late"), Err(EventLost::Gone));
}

fn offer_all(outbox: &Outbox, script: &TurnScript) {
    for event in script.kernel_events() {
        outbox.offer(event).unwrap();
    }
}

#[actix_rt::test]
async fn a_turn_with_too_many_steps_loses_only_those_steps_and_other_turns_lose_nothing() {
    let settings = TurnSettings { max_steps: 3, ..TurnSettings::default() };
    let runtime = Runtime::builder().turns(settings).start().await.unwrap();
    let mut facts = runtime.subscribe();
    let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 100);
    let long = (0..5).fold(TurnScript::new("c", "long").start(), |turn, step| turn.usage(step, 10, 1));
    let (before, after) = (TurnScript::new("c", "before"), TurnScript::new("c", "after"));
    for turn in [before.usage(0, 1, 1).done("stop"), long.done("stop"), after.usage(0, 1, 1).done("stop")] {
        offer_all(&outbox, &turn);
    }
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 9, lost: 2 });
    let mut sealed = Vec::new();
    for _ in 0..3 {
        let Some(Fact::TurnSealed(fact)) = facts.next().await else { panic!("a turn was not sealed") };
        sealed.push((fact.turn.metrics.turn_id.as_str().to_owned(), fact.turn.metrics.steps.len()));
    }
    assert_eq!(sealed, [("before".to_owned(), 1), ("long".to_owned(), 3), ("after".to_owned(), 1)]);
    runtime.shutdown().await;
}

#[actix_rt::test]
async fn only_the_excess_of_too_many_open_turns_is_lost() {
    let settings = TurnSettings { max_open_turns: 1, ..TurnSettings::default() };
    let runtime = Runtime::builder().turns(settings).start().await.unwrap();
    let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 100);
    for turn in [
        TurnScript::new("c", "open").start(),
        TurnScript::new("c", "too many").start(),
        TurnScript::new("c", "whole").start().done("stop"),
    ] {
        offer_all(&outbox, &turn);
    }
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 3, lost: 1 });
    runtime.shutdown().await;
}

#[actix_rt::test]
async fn any_limit_is_clamped_to_the_allowed_range() {
    for limit in [0, usize::MAX] {
        let probe = Probe::<Observe>::start(|_| ready(Ok(Receipt::default())));
        let outbox = Outbox::start(probe.recipient(), limit);
        offer(&outbox, "a", "1").unwrap();
        outbox.flush().await;
        assert_eq!(outbox.counts(), OutboxCounts { delivered: 1, lost: 0 }, "{limit}");

        let (sink, writer) = NdjsonSink::start(std::io::sink(), limit).unwrap();
        sink.offer(TurnScript::new("c", "t").done("stop").kernel_events().remove(0)).unwrap();
        drop(writer);
    }
}

use std::cell::Cell;
use std::future::ready;
use std::rc::Rc;

use tokio::sync::Semaphore;

use super::*;
use crate::actors::{Observe, ObserveError, Receipt};
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
async fn what_waits_goes_out_as_one_message_a_conversation_in_order() {
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
async fn a_stuck_system_holds_nobody_up_and_the_queue_does_not_grow() {
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
async fn a_busy_system_is_asked_again_and_in_the_end_the_events_are_given_up() {
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
async fn what_the_system_refuses_for_good_is_counted_and_the_rest_goes_on() {
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
    assert_eq!(probe.seen().len(), 2, "it was not asked again");
}

#[actix_rt::test]
async fn a_system_that_has_ended_is_counted_and_never_asked_again() {
    let runtime = crate::runtime::Runtime::builder().start().await.unwrap();
    let outbox = Outbox::start(runtime.handles().observe.clone(), 10);
    let recorder = Recorder::new(outbox.clone());
    runtime.shutdown().await;
    let start = || recorder.start_turn(ConversationId::new("c").unwrap(), TurnId::new("t").unwrap(), None).unwrap();
    drop(start());
    outbox.flush().await;
    assert_eq!(outbox.counts(), OutboxCounts { delivered: 0, lost: 2 });
    // Once the task has seen the end, the sink says so at once.
    drop(start());
    assert_eq!(recorder.counts(), RecorderCounts { taken: 2, lost_to_full: 0, lost_to_gone: 2 });
}

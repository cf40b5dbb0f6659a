use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Recipient;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::{EventLost, EventSink};
use crate::actors::{Observe, ObserveError};
use crate::turn::{ConversationId, KernelEvent, TurnEvent};

/// The most events that go out together: enough that one fsync serves many, few enough to hold.
const BATCH: usize = 1024;
/// How often events are sent before they are given up. With the waits between, the last time is after 6 seconds.
const ATTEMPTS: u32 = 8;
/// The wait before the second time; doubled before each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A sink that sends events on to a system's [`Observe`] recipient, grouped by conversation.
///
/// Events wait in a bounded queue, which a task on the present arbiter empties: whoever records is never held up. A
/// group that the system is too busy for, or whose fate it does not know, is sent again for some seconds; sending
/// twice is harmless. A clone is the same outbox; it goes on while one is left and something waits.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: Sender<Item>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Item {
    Event(KernelEvent),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    lost: AtomicU64,
}

/// What became of the events that an outbox took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounts {
    /// Events that the system acknowledged: they are durable.
    pub delivered: u64,
    /// Events that it refused, or could not take before they were given up.
    pub lost: u64,
}

impl Outbox {
    /// Starts an outbox in which at most `limit` events wait. To be called within an actix system.
    pub fn start(observe: Recipient<Observe>, limit: usize) -> Self {
        let (queue, received) = channel(limit.max(1));
        let counters = Arc::<Counters>::default();
        actix_rt::spawn(run(received, observe, Arc::clone(&counters)));
        Self { queue, counters }
    }

    /// Resolves when all that was taken before has been acknowledged or given up. Before a system is shut down, this
    /// brings it the end of the last turns.
    pub async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.queue.send(Item::Flush(reply)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// What became of the events so far.
    pub fn counts(&self) -> OutboxCounts {
        OutboxCounts {
            delivered: self.counters.delivered.load(Ordering::Relaxed),
            lost: self.counters.lost.load(Ordering::Relaxed),
        }
    }
}

impl EventSink for Outbox {
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost> {
        self.queue.try_send(Item::Event(event)).map_err(|error| match error {
            TrySendError::Full(_) => EventLost::Full,
            TrySendError::Closed(_) => EventLost::Gone,
        })
    }
}

/// The system has ended: nothing is taken any more.
struct SystemGone;

async fn run(mut queue: Receiver<Item>, observe: Recipient<Observe>, counters: Arc<Counters>) {
    let mut items = Vec::new();
    while queue.recv_many(&mut items, BATCH).await > 0 {
        let (groups, flushes) = sort(items.drain(..));
        let delivered = deliver(groups, &observe, &counters).await;
        for flush in flushes {
            let _ = flush.send(());
        }
        if delivered.is_err() {
            break;
        }
    }
    // Whoever offers now is told that nobody is here; what still waits is lost, and a flush answered by being dropped.
    queue.close();
    while let Some(item) = queue.recv().await {
        if matches!(item, Item::Event(_)) {
            counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The events of each conversation in their order, and who waits for them.
fn sort(items: impl Iterator<Item = Item>) -> (Vec<Observe>, Vec<oneshot::Sender<()>>) {
    let (mut groups, mut flushes) = (Vec::<Observe>::new(), Vec::new());
    let mut places = HashMap::<ConversationId, usize>::new();
    for item in items {
        match item {
            Item::Flush(reply) => flushes.push(reply),
            Item::Event(KernelEvent { conversation_id, event }) => {
                let place = *places.entry(conversation_id.clone()).or_insert_with(|| {
                    groups.push(Observe { conversation_id, events: Vec::<TurnEvent>::new() });
                    groups.len() - 1
                });
                groups[place].events.push(event);
            }
        }
    }
    (groups, flushes)
}

async fn deliver(
    mut groups: Vec<Observe>,
    observe: &Recipient<Observe>,
    counters: &Counters,
) -> Result<(), SystemGone> {
    let mut wait = FIRST_RETRY;
    for attempt in 1..=ATTEMPTS {
        // All are on their way before the first is awaited, so that one commit can serve them all.
        let sent: Vec<_> = groups.drain(..).map(|group| (observe.send(group.clone()), group)).collect();
        let mut is_gone = false;
        for (answer, group) in sent {
            let count = group.events.len() as u64;
            match answer.await {
                Ok(Ok(_)) => {
                    counters.delivered.fetch_add(count, Ordering::Relaxed);
                }
                Ok(Err(error)) if is_worth_another(&error) && attempt < ATTEMPTS => groups.push(group),
                Ok(Err(error)) => {
                    counters.lost.fetch_add(count, Ordering::Relaxed);
                    tracing::warn!(%error, conversationId = %group.conversation_id, count, "events were lost");
                }
                Err(_) => {
                    counters.lost.fetch_add(count, Ordering::Relaxed);
                    is_gone = true;
                }
            }
        }
        if is_gone {
            tracing::warn!("the system that took events has ended");
            return Err(SystemGone);
        }
        if groups.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    Ok(())
}

fn is_worth_another(error: &ObserveError) -> bool {
    matches!(error, ObserveError::Overloaded | ObserveError::StoreUnavailable(_) | ObserveError::ActorGone)
}

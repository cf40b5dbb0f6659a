use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Recipient;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use super::{EventLost, EventSink, MAX_WAITING};
use crate::actors::{Observe, ObserveError};
use crate::turn::{ConversationId, KernelEvent, TurnEvent, TurnId};

/// The maximum number of events that are sent together: enough that one fsync serves many of them, and few enough to
/// keep in memory.
const BATCH: usize = 1024;
/// The maximum number of attempts to send an event. The last attempt is about 6 seconds after the first.
const ATTEMPTS: u32 = 8;
/// The pause before the second attempt. The pause doubles before each further attempt.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A sink that sends events to a system's [`Observe`] recipient, grouped by conversation.
///
/// Events wait in a bounded queue, and a task on the current arbiter sends them, so a turn never waits. The outbox
/// repeats a group of events for some seconds if the system is overloaded or the outcome is unknown; sending twice is
/// harmless. A group that exceeds a limit is sent again in ever smaller parts, so that only the events that do not fit
/// are lost. A clone is the same outbox. The task ends once all clones are dropped and nothing waits.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: Sender<Item>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all items are events, and a box for each would be one more allocation"
)]
enum Item {
    Event(KernelEvent),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    lost: AtomicU64,
}

/// How many events of an outbox were delivered and lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounts {
    /// Events that the system acknowledged: they are durable.
    pub delivered: u64,
    /// Events that the system refused, that the outbox gave up, or that were not acknowledged when the system or the
    /// arbiter of the outbox ended.
    pub lost: u64,
}

impl Outbox {
    /// Starts an outbox in which at most `limit` events wait, limited to the range from 1 to 2^20. Must be called
    /// within an actix system.
    pub fn start(observe: Recipient<Observe>, limit: usize) -> Self {
        let (queue, received) = channel(limit.clamp(1, MAX_WAITING));
        let counters = Arc::<Counters>::default();
        let (in_hand, flushes) = (0, Vec::new());
        let task = Task { queue: received, observe, counters: Arc::clone(&counters), in_hand, flushes };
        actix_rt::spawn(task.run());
        Self { queue, counters }
    }

    /// Waits until each event that the outbox took before this call is delivered or lost. Call this before a system is
    /// shut down, so that the system receives the end of the last turns.
    pub async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.queue.send(Item::Flush(reply)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Returns the numbers of events that were delivered and lost so far.
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

/// The system has ended and takes no more events.
struct SystemGone;

/// The task behind the queue of an outbox. When the task ends, for any reason, it counts events that are neither
/// delivered nor lost as lost.
struct Task {
    queue: Receiver<Item>,
    observe: Recipient<Observe>,
    counters: Arc<Counters>,
    /// Events that were taken from the queue and are neither delivered nor lost yet.
    in_hand: u64,
    /// The callers of `flush` that wait for the events in hand. Once these events are counted, the callers are
    /// answered, or their channels are dropped.
    flushes: Vec<oneshot::Sender<()>>,
}

impl Task {
    async fn run(mut self) {
        let mut items = Vec::new();
        while self.queue.recv_many(&mut items, BATCH).await > 0 {
            let parcels = self.sort(items.drain(..));
            if self.deliver(parcels).await.is_err() {
                break;
            }
            for flush in self.flushes.drain(..) {
                let _ = flush.send(());
            }
        }
    }

    /// Groups the events by conversation. Events of one conversation keep their order.
    fn sort(&mut self, items: impl Iterator<Item = Item>) -> Vec<Parcel> {
        let mut parcels = Vec::<Parcel>::new();
        let mut places = HashMap::<ConversationId, usize>::new();
        for item in items {
            match item {
                Item::Flush(reply) => self.flushes.push(reply),
                Item::Event(KernelEvent { conversation_id, event }) => {
                    self.in_hand += 1;
                    let place = *places.entry(conversation_id.clone()).or_insert_with(|| {
                        parcels.push(Parcel::new(conversation_id, Vec::new()));
                        parcels.len() - 1
                    });
                    parcels[place].observe.events.push(event);
                }
            }
        }
        parcels
    }

    async fn deliver(&mut self, mut parcels: Vec<Parcel>) -> Result<(), SystemGone> {
        let (mut attempt, mut wait) = (1, FIRST_RETRY);
        let mut put_off = Vec::new();
        loop {
            // All groups are sent before the first answer is awaited, so that one commit can serve them all.
            let sent = parcels.drain(..).map(|parcel| (self.observe.send(parcel.observe.clone()), parcel));
            let sent: Vec<_> = sent.collect();
            let mut is_gone = false;
            for (answer, parcel) in sent {
                let count = parcel.observe.events.len();
                match answer.await {
                    Ok(Ok(_)) => {
                        self.delivered(count);
                        parcels.extend(parcel.next());
                    }
                    Ok(Err(error)) if is_worth_another(&error) && attempt < ATTEMPTS => put_off.push(parcel),
                    // Each half is smaller than its parcel, so the splitting ends.
                    Ok(Err(error)) if error.is_over_limit() && count > 1 => parcels.push(parcel.split()),
                    Ok(Err(error)) => {
                        self.lost(count, &parcel.observe.conversation_id, &error);
                        parcels.extend(parcel.next());
                    }
                    Err(_) => is_gone = true,
                }
            }
            if is_gone {
                tracing::warn!("the system that received the events has ended");
                return Err(SystemGone);
            }
            if parcels.is_empty() {
                if put_off.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
                attempt += 1;
                std::mem::swap(&mut parcels, &mut put_off);
            }
        }
    }

    fn delivered(&mut self, count: usize) {
        self.in_hand -= count as u64;
        self.counters.delivered.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn lost(&mut self, count: usize, conversation_id: &ConversationId, error: &ObserveError) {
        self.in_hand -= count as u64;
        let before = self.counters.lost.fetch_add(count as u64, Ordering::Relaxed);
        let so_far = before + count as u64;
        // Logged only when the number of losses has about doubled: a turn with too many steps loses one event after
        // another.
        if before.checked_ilog2() != so_far.checked_ilog2() {
            tracing::warn!(%error, conversationId = %conversation_id, count, so_far, "events were lost");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.counters.lost.fetch_add(self.in_hand, Ordering::Relaxed);
        // After this, the queue takes no event. Events that still wait are lost. Dropping the channel of a flush ends
        // its wait.
        self.queue.close();
        while let Ok(item) = self.queue.try_recv() {
            if matches!(item, Item::Event(_)) {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Events of one conversation that are sent together. The system takes all of them or none.
struct Parcel {
    observe: Observe,
    /// The parts to send after these events, the last part first. They must not be sent at the same time, since an
    /// event that arrives after the end of its turn is late.
    after: Vec<Vec<TurnEvent>>,
}

impl Parcel {
    fn new(conversation_id: ConversationId, events: Vec<TurnEvent>) -> Self {
        Self { observe: Observe { conversation_id, events }, after: Vec::new() }
    }

    /// Returns the next part to send, to be called when the events of this part are delivered or lost.
    fn next(mut self) -> Option<Self> {
        self.observe.events = self.after.pop()?;
        Some(self)
    }

    /// Splits the events into two halves; the second is sent after the first. A turn is cut in two only if the parcel
    /// has no other turn. Turns keep the order of their last events, which is the order in which they would be sealed.
    fn split(mut self) -> Self {
        let mut turns = Vec::<Vec<TurnEvent>>::new();
        let mut places = HashMap::<TurnId, usize>::new();
        for event in self.observe.events.drain(..).rev() {
            let place = *places.entry(event.turn_id.clone()).or_insert_with(|| {
                turns.push(Vec::new());
                turns.len() - 1
            });
            turns[place].push(event);
        }
        // The turns are in reverse order here.
        let middle = match turns.len() {
            0 | 1 => turns.iter().map(Vec::len).sum::<usize>() / 2,
            count => turns[count.div_ceil(2)..].iter().map(Vec::len).sum(),
        };
        let mut events: Vec<_> = turns.into_iter().flatten().collect();
        events.reverse();
        self.after.push(events.split_off(middle));
        self.observe.events = events;
        self
    }
}

fn is_worth_another(error: &ObserveError) -> bool {
    matches!(
        error,
        ObserveError::Overloaded
            | ObserveError::Contended
            | ObserveError::StoreUnavailable(_)
            | ObserveError::ActorGone
    )
}

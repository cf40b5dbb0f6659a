//! Facts: messages to subscribers that something has become durable.

use std::sync::Arc;

use actix::{Message, Recipient};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::sync::watch;

use super::open_changes::{OpenWatch, Watches};
use crate::turn::{ConversationId, StoredTurn, TurnId};

/// A turn was sealed, and the seal is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnSealed {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The turn, with its ordinal.
    pub turn: StoredTurn,
}

/// A message to a subscriber. An actor that subscribed with [`Subscription::forward`] receives it as an actix message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// A turn was sealed or imported. The turns of one conversation come in the order of their ordinals, unless turns are
    /// imported into it while others of it are sealed.
    TurnSealed(Arc<TurnSealed>),
    /// A conversation was erased: all its turns so far are gone. Turns of it that come later are of a new life.
    Erased(ConversationId),
    /// The subscriber was too slow: this many facts before the next one were lost. The ordinals have no gaps, so the
    /// subscriber can read the missed turns from the store.
    Missed(u64),
}

impl Message for Fact {
    type Result = ();
}

/// The maximum number of facts that are kept for subscribers. More would be a second store, in memory.
const MAX_KEPT: usize = 1 << 20;

/// How many erased conversations are kept for those who read sealed turns from the store.
const ERASED_KEPT: usize = 256;

/// The queue of facts: a ring of the latest facts, from which each subscriber reads at its own pace.
///
/// A slow subscriber delays nobody. The ring does not grow, and publishing does not wait. A subscriber that falls
/// behind by more facts than the ring holds misses the oldest ones and is told how many.
#[derive(Debug, Clone)]
pub struct Facts {
    ring: Sender<Fact>,
    /// The conversations that were erased, for those who read sealed turns from the store.
    erased: Sender<ConversationId>,
    /// The number of facts so far. It wakes those who read sealed turns from the store.
    sealed: watch::Sender<u64>,
    open: Watches,
}

impl Facts {
    /// Returns a queue that keeps the latest facts: `kept` of them, rounded up to a power of two.
    pub fn new(kept: usize) -> Self {
        Self {
            ring: Sender::new(kept.clamp(1, MAX_KEPT)),
            erased: Sender::new(ERASED_KEPT),
            sealed: watch::Sender::new(0),
            open: Watches::default(),
        }
    }

    /// Returns a subscription to all facts that are published from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { ring: self.ring.subscribe() }
    }

    /// Publishes a fact. `fact` is only called if there is a subscriber.
    pub(super) fn tell(&self, fact: impl FnOnce() -> TurnSealed) {
        if self.ring.receiver_count() > 0 {
            // Sending fails if the last subscriber has just gone. Then nobody wants the fact.
            let _ = self.ring.send(Fact::TurnSealed(Arc::new(fact())));
        }
        if self.sealed.receiver_count() > 0 {
            self.sealed.send_modify(|count| *count += 1);
        }
    }

    /// Publishes that a conversation was erased.
    pub(crate) fn tell_erased(&self, conversation_id: &ConversationId) {
        // Sending fails if nobody listens.
        let _ = self.ring.send(Fact::Erased(conversation_id.clone()));
        let _ = self.erased.send(conversation_id.clone());
    }

    /// Returns a receiver of the conversations that are erased from now on.
    pub(crate) fn erased(&self) -> Receiver<ConversationId> {
        self.erased.subscribe()
    }

    /// Returns a receiver that sees a change whenever a fact is published from now on.
    pub(super) fn sealed(&self) -> watch::Receiver<u64> {
        self.sealed.subscribe()
    }

    /// Notes that open turns of a conversation have changed, and that the change is durable. `turns` is only called if
    /// somebody watches.
    pub(super) fn note_open<'a, T>(&self, conversation_id: &ConversationId, turns: impl Fn() -> T)
    where
        T: Iterator<Item = &'a TurnId>,
    {
        self.open.note(conversation_id, turns);
    }

    /// Returns a watch on the open turns that change from now on.
    pub(crate) fn watch_open(&self) -> OpenWatch {
        self.open.watch()
    }
}

/// The facts that one subscriber has not received yet.
///
/// The system publishes each fact once and does not keep it. It publishes no fact for a turn whose commit had an
/// unknown outcome, and a subscription has no fact from before it began; such turns are in the store. A subscriber that
/// needs every turn reads the store, beginning after the last ordinal it has seen.
#[derive(Debug)]
pub struct Subscription {
    ring: Receiver<Fact>,
}

impl Subscription {
    /// Waits for the next fact. Returns `None` once the system has shut down and the subscriber has received all facts.
    ///
    /// Dropping the future loses no fact.
    pub async fn next(&mut self) -> Option<Fact> {
        match self.ring.recv().await {
            Ok(fact) => Some(fact),
            Err(RecvError::Lagged(missed)) => Some(Fact::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// Sends the facts to an actor as messages. The next message is sent when the actor has handled the last one, so at
    /// most one is in its mailbox. The future ends when the system has shut down or the actor has gone. Spawn it.
    pub async fn forward(mut self, to: Recipient<Fact>) {
        while let Some(fact) = self.next().await {
            if to.send(fact).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Probe, stored_turn};

    fn sealed(ordinal: u64) -> TurnSealed {
        TurnSealed { conversation_id: ConversationId::new("c").unwrap(), turn: stored_turn("t", ordinal) }
    }

    fn told(fact: Option<Fact>) -> u64 {
        match fact {
            Some(Fact::TurnSealed(sealed)) => sealed.turn.ordinal.get(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn every_subscriber_is_told_and_the_rest_is_told_after_the_end() {
        let facts = Facts::new(8);
        facts.tell(|| panic!("made though nobody listens"));
        let mut subscriptions = [facts.subscribe(), facts.subscribe()];
        facts.tell(|| sealed(1));
        facts.tell(|| sealed(2));
        drop(facts);
        for subscription in &mut subscriptions {
            assert_eq!(told(subscription.next().await), 1);
            assert_eq!(told(subscription.next().await), 2);
            assert_eq!(subscription.next().await, None);
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_how_much_it_missed_and_a_quick_one_misses_nothing() {
        let facts = Facts::new(4);
        let (mut slow, mut quick) = (facts.subscribe(), facts.subscribe());
        for ordinal in 1..=10 {
            facts.tell(|| sealed(ordinal));
            assert_eq!(told(quick.next().await), ordinal);
        }
        assert_eq!(slow.next().await, Some(Fact::Missed(6)));
        assert_eq!(told(slow.next().await), 7);
    }

    #[actix_rt::test]
    async fn an_actor_is_sent_one_fact_at_a_time_until_the_end() {
        let facts = Facts::new(8);
        let actor = Probe::<Fact>::start(|_| std::future::ready(()));
        let forwarding = tokio::task::spawn_local(facts.subscribe().forward(actor.recipient()));
        // The task subscribed before it was spawned, so this fact is for it.
        facts.tell(|| sealed(1));
        facts.tell(|| sealed(2));
        drop(facts);
        forwarding.await.unwrap();
        let told: Vec<_> = actor.seen().into_iter().map(|fact| self::told(Some(fact))).collect();
        assert_eq!(told, [1, 2]);
    }
}

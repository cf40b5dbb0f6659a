//! The live feed: a feed that also has erasures and open turns.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::vec;

use actix::{Message, Recipient};

use super::changes::{Change, Changes, Erasure, RETRY_AFTER};
use super::facts::Facts;
use super::feed::{Feed, FeedStart};
use super::reader::{ListOpenTurns, ListSealed};
use crate::store::{Fault, FaultKind, ListSealedError, Position, PositionedTurn, StagedTurn};
use crate::turn::{ConversationId, TurnId};

/// What has happened to turns, as `GET /feed` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEvent {
    /// The next sealed turn. A reader that has dealt with it can continue after its position.
    Sealed(PositionedTurn),
    /// An open turn has changed. A turn comes at most once a second, as it is then.
    Open {
        /// The conversation.
        conversation_id: ConversationId,
        /// The open turn.
        turn: StagedTurn,
    },
    /// A conversation was erased: all its turns so far are gone. Turns of it that come later are of a new life.
    Erased(ConversationId),
    /// Conversations were erased faster than the reader took events, so it is unknown which ones. Read again what you
    /// have kept. No sealed turn is missed.
    ErasuresMissed,
}

impl Message for FeedEvent {
    type Result = ();
}

/// A [`Feed`] that also has erasures, and open turns as they change: what `GET /feed` tells, for an embedding program.
///
/// Sealed turns come from a position on, each once. They are read from the store, as fast as they are taken. Erasures and
/// open turns come from now on and have no position. So a reader that continues at a position, instead of going on with
/// a feed, reads again whatever else it shows.
///
/// A slow reader delays nobody. It gets an open turn as it is when the reader gets there, and not each of its states. At
/// most 16,384 changed turns are remembered for it; the next change of any other turn shows that turn.
///
/// After [`FeedEvent::Erased`], no turn comes that was sealed in that conversation before. A runtime and its handles begin
/// live feeds.
pub struct LiveFeed {
    changes: Changes,
    list_open: Recipient<ListOpenTurns>,
    /// The rest of the page of sealed turns.
    sealed: vec::IntoIter<PositionedTurn>,
    /// The position of the latest sealed turn that was taken, or that of the beginning.
    taken: Position,
    /// The changed open turns that come next, by their ids, and as they were read. They are kept here in case the reader
    /// stops waiting.
    changed: Option<(ConversationId, HashSet<TurnId>)>,
    open: Option<vec::IntoIter<StagedTurn>>,
}

impl fmt::Debug for LiveFeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LiveFeed").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl LiveFeed {
    /// Begins a live feed. Fails if the store cannot be read, or has not given the position.
    pub(crate) async fn begin(
        list: Recipient<ListSealed>,
        list_open: Recipient<ListOpenTurns>,
        facts: &Facts,
        start: FeedStart,
    ) -> Result<Self, ListSealedError> {
        let (watch, erased) = (Arc::new(facts.watch_open()), facts.erased());
        watch.enter(None);
        let feed = Feed::begin(list, facts, start).await?;
        let taken = feed.position();
        let changes = Changes::new(feed, watch, erased);
        Ok(Self { changes, list_open, sealed: Vec::new().into_iter(), taken, changed: None, open: None })
    }

    /// Waits for the next event. Returns `None` once the system has shut down.
    ///
    /// If the store cannot be read, call it again: nothing is lost. Dropping the future loses nothing either. A turn that
    /// is sealed shortly before the shutdown may come only after the restart, from a feed that continues at the last
    /// position.
    pub async fn next(&mut self) -> Result<Option<FeedEvent>, Fault> {
        loop {
            if let Some(erasure) = self.changes.erased_by_now() {
                return Ok(Some(self.take_erasure(erasure)));
            }
            if let Some((conversation_id, turns)) = &mut self.changed {
                let open = match &mut self.open {
                    Some(open) => open,
                    None => match read(&self.list_open, conversation_id).await? {
                        Some(open) => self.open.insert(open.into_iter()),
                        None => return Ok(None),
                    },
                };
                if let Some(turn) = open.find(|staged| turns.remove(&staged.turn.id)) {
                    return Ok(Some(FeedEvent::Open { conversation_id: conversation_id.clone(), turn }));
                }
                (self.changed, self.open) = (None, None);
            }
            if let Some(turn) = self.sealed.next() {
                self.taken = turn.position;
                return Ok(Some(FeedEvent::Sealed(turn)));
            }
            match self.changes.next().await? {
                Some(Change::Sealed(page)) => self.sealed = page.turns.into_iter(),
                Some(Change::Open(conversation_id, turns)) => self.changed = Some((conversation_id, turns)),
                Some(Change::Erasure(erasure)) => return Ok(Some(self.take_erasure(erasure))),
                None => return Ok(None),
            }
        }
    }

    /// Forgets what may have been read before the erasure, so that it is read again.
    fn take_erasure(&mut self, erasure: Erasure) -> FeedEvent {
        self.open = None;
        if self.sealed.len() > 0 {
            self.sealed = Vec::new().into_iter();
            self.changes.go_to(self.taken);
        }
        match erasure {
            Erasure::Of(conversation_id) => FeedEvent::Erased(conversation_id),
            Erasure::Missed => FeedEvent::ErasuresMissed,
        }
    }

    /// Sends the events to an actor as messages. The next message is sent when the actor has handled the last one, so at
    /// most one is in its mailbox. While the store cannot be read, the actor receives nothing.
    ///
    /// The future ends when the system has shut down or the actor has gone. Spawn it.
    pub async fn forward(mut self, to: Recipient<FeedEvent>) {
        loop {
            match self.next().await {
                Ok(Some(event)) => {
                    if to.send(event).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(fault) => {
                    tracing::warn!(cause = fault.in_full(), "the store could not be read for a feed");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

/// Reads the open turns of a conversation. Returns `None` if the store is closed.
async fn read(
    list_open: &Recipient<ListOpenTurns>,
    conversation_id: &ConversationId,
) -> Result<Option<Vec<StagedTurn>>, Fault> {
    match list_open.send(ListOpenTurns { conversation_id: conversation_id.clone() }).await {
        Ok(Ok(open)) => Ok(Some(open.turns)),
        Ok(Err(fault)) if fault.kind() == FaultKind::Closed => Ok(None),
        Ok(Err(fault)) => Err(fault),
        // The actor has ended, as it does after the store was closed.
        Err(_) => Ok(None),
    }
}

//! The feed: all sealed turns from a position on, first those that the store has and then each new one.

use std::time::Duration;

use actix::{Message, Recipient};
use tokio::sync::watch;
use tokio::time::timeout;

use super::facts::Facts;
use super::reader::ListSealed;
use crate::store::{Fault, FaultKind, ListSealedError, Position, PositionedTurn, SealedPage};

/// The maximum number of turns that are read at once. A store reads so few on the caller's thread.
const PAGE_TURNS: usize = 128;

/// How long a feed waits before it looks into the store although no fact has come. A turn is sealed without a fact if
/// the outcome of its commit was unknown. After a failed read, a feed also waits this long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a feed begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// At the first turn of the store.
    First,
    /// After the turns that are sealed by now.
    Now,
    /// After the turn at this position, for a reader who has seen that turn.
    After(Position),
}

/// All sealed turns of a system in the order of their positions, from a position on: first those that the store has,
/// then each new one as soon as it is durable. No turn is left out, and none comes twice.
///
/// The turns are read from the store, page by page, as fast as they are taken. So a slow reader delays nobody, and
/// holds one page in memory however far it is behind. Facts only say that there is something to read.
///
/// A reader that keeps the position of the last turn it has dealt with can continue there after a restart, with
/// [`FeedStart::After`]. A runtime and its handles begin feeds.
///
/// A feed has no erasures and no open turns. A `LiveFeed` has them too.
#[derive(Debug)]
pub struct Feed {
    list: Recipient<ListSealed>,
    /// Changes when a turn is sealed.
    sealed: watch::Receiver<u64>,
    after: Position,
    page: std::vec::IntoIter<PositionedTurn>,
}

impl Message for PositionedTurn {
    type Result = ();
}

impl Feed {
    /// Begins a feed. Fails if the store cannot be read, or has not given the position.
    pub(crate) async fn begin(
        list: Recipient<ListSealed>,
        facts: &Facts,
        start: FeedStart,
    ) -> Result<Self, ListSealedError> {
        // The subscription begins before the store is read, so that no turn is missed in between.
        let sealed = facts.sealed();
        let after = match start {
            FeedStart::First | FeedStart::Now => None,
            FeedStart::After(position) => Some(position),
        };
        let Some(page) = read(&list, after, 0).await? else { return Err(Fault::closed().into()) };
        let after = if start == FeedStart::Now { page.latest } else { page.next };
        Ok(Self { list, sealed, after, page: Vec::new().into_iter() })
    }

    /// Returns the feed of all turns after a position that the store has given.
    #[cfg(feature = "server")]
    pub(crate) fn after(list: Recipient<ListSealed>, facts: &Facts, position: Position) -> Self {
        Self { list, sealed: facts.sealed(), after: position, page: Vec::new().into_iter() }
    }

    /// The position after which the next turns come.
    pub(super) fn position(&self) -> Position {
        self.after
    }

    /// Returns another feed that begins where this one is.
    pub(super) fn again(&self) -> Self {
        Self { list: self.list.clone(), sealed: self.sealed.clone(), after: self.after, page: Vec::new().into_iter() }
    }

    /// Continues after another position, which the store has given.
    pub(super) fn go_to(&mut self, after: Position) {
        self.after = after;
        self.page = Vec::new().into_iter();
    }

    /// Waits for the next turn. Returns `None` once the system has shut down.
    ///
    /// If the store cannot be read, call it again later: nothing is lost. Dropping the future loses nothing either. A
    /// turn that is sealed shortly before the shutdown may come only after the restart, from a feed that continues at
    /// the last position.
    pub async fn next(&mut self) -> Result<Option<PositionedTurn>, Fault> {
        loop {
            if let Some(turn) = self.page.next() {
                return Ok(Some(turn));
            }
            match self.next_page().await? {
                Some(page) => self.page = page.turns.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// Waits for the next page of turns, which has at least one. Use either this or [`Self::next`].
    pub(crate) async fn next_page(&mut self) -> Result<Option<SealedPage>, Fault> {
        loop {
            // Facts from here on wake the wait below, even if the read that comes next finds their turns.
            self.sealed.borrow_and_update();
            let page = match read(&self.list, Some(self.after), PAGE_TURNS).await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(None),
                Err(ListSealedError::Read(fault)) => return Err(fault),
                Err(error @ ListSealedError::OtherLineage(_)) => {
                    return Err(
                        Fault::new(FaultKind::Database, "the lineage of the store has changed").caused_by(error)
                    );
                }
            };
            self.after = page.next;
            if !page.turns.is_empty() {
                return Ok(Some(page));
            }
            // Positions without a turn are passed over.
            if page.next == page.latest && matches!(timeout(LOOK_EVERY, self.sealed.changed()).await, Ok(Err(_))) {
                // The system ends, and the store closes soon.
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Sends the turns to an actor as messages. The next message is sent when the actor has handled the last one, so at
    /// most one is in its mailbox. While the store cannot be read, the actor receives nothing.
    ///
    /// The future ends when the system has shut down or the actor has gone. Spawn it.
    pub async fn forward(mut self, to: Recipient<PositionedTurn>) {
        loop {
            match self.next().await {
                Ok(Some(turn)) => {
                    if to.send(turn).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(fault) => {
                    tracing::warn!(cause = fault.in_full(), "the store could not be read for a feed");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }
}

/// Reads a page of at most `limit` turns. Returns `None` if the store is closed.
async fn read(
    list: &Recipient<ListSealed>,
    after: Option<Position>,
    limit: usize,
) -> Result<Option<SealedPage>, ListSealedError> {
    match list.send(ListSealed { after, limit }).await {
        Ok(Ok(page)) => Ok(Some(page)),
        Ok(Err(ListSealedError::Read(fault))) if fault.kind() == FaultKind::Closed => Ok(None),
        Ok(Err(error)) => Err(error),
        // The actor has ended, as it does after the store was closed.
        Err(_) => Ok(None),
    }
}

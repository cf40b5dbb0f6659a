//! Everything that happens to turns, in one place: pages of sealed turns, erasures, and open turns that have changed.

use std::collections::HashSet;
use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{mem, vec};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::feed::Feed;
use super::open_changes::OpenWatch;
use crate::store::{Fault, Position, SealedPage};
use crate::turn::{ConversationId, TurnId};

/// A changed open turn is named at most once in this time.
const OPEN_EVERY: Duration = Duration::from_secs(1);

/// The pause after a read that failed.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Follows sealed turns from a position on, and from now on erasures and changes of open turns.
///
/// A page of sealed turns that comes after an erasure was read after it. So it has no turn that the erasure removed.
pub(crate) struct Changes {
    /// Where the next page begins. The page itself is read by a copy of this feed.
    feed: Feed,
    /// The next page. It goes on being read while other changes are returned.
    reading: Option<Reading>,
    erased: Option<Receiver<ConversationId>>,
    watch: Arc<OpenWatch>,
    ticks: Interval,
    /// The open turns of the last tick that were not returned yet.
    changed: vec::IntoIter<(ConversationId, HashSet<TurnId>)>,
    /// Whether the caller was just given changed open turns, and has shown them by its next call.
    has_named_turns: bool,
}

type Reading = Pin<Box<dyn Future<Output = Result<Option<SealedPage>, Fault>> + Send>>;

/// Something that has happened to turns.
#[derive(Debug)]
pub(crate) enum Change {
    /// The next sealed turns, at least one.
    Sealed(SealedPage),
    /// These open turns of a conversation have changed. Those that are sealed by now are no longer open.
    Open(ConversationId, HashSet<TurnId>),
    /// Turns were erased.
    Erasure(Erasure),
}

/// Turns of which conversations were erased.
#[derive(Debug)]
pub(crate) enum Erasure {
    /// Those of this conversation.
    Of(ConversationId),
    /// Conversations were erased faster than this was taken, so it is unknown which ones.
    Missed,
}

impl Changes {
    /// Follows the turns of `feed`, and the open turns and erasures of the two receivers. These have to be older than
    /// the feed, so that nothing is missed in between.
    pub(crate) fn new(feed: Feed, watch: Arc<OpenWatch>, erased: Receiver<ConversationId>) -> Self {
        let mut ticks = interval(OPEN_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changed = Vec::new().into_iter();
        Self { feed, reading: None, erased: Some(erased), watch, ticks, changed, has_named_turns: false }
    }

    /// Waits for the next change. Returns `None` once the system has shut down. After an error, call it again. Errors
    /// come at most once a second.
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Change>, Fault> {
        if mem::take(&mut self.has_named_turns) {
            // The second counts from here on, as the turns may have changed at once.
            self.ticks.reset();
        }
        loop {
            let is_idle = self.changed.len() == 0;
            let reading = self.reading.get_or_insert_with(|| read_page(self.feed.again()));
            tokio::select! {
                biased;
                erased = next_of(self.erased.as_mut()) => match erased {
                    Ok(id) => return Ok(Some(Change::Erasure(self.noted(Erasure::Of(id))))),
                    Err(RecvError::Lagged(_)) => return Ok(Some(Change::Erasure(self.noted(Erasure::Missed)))),
                    // The system ends. The pages end too, once the store is closed.
                    Err(RecvError::Closed) => self.erased = None,
                },
                page = reading => {
                    self.reading = None;
                    let Some(page) = page? else { return Ok(None) };
                    self.feed.go_to(page.next);
                    return Ok(Some(Change::Sealed(page)));
                }
                // The change is taken only here, because each expression above is evaluated whichever branch comes first.
                () = ready(()), if !is_idle => {
                    if let Some((conversation_id, turns)) = self.changed.next() {
                        self.has_named_turns = true;
                        return Ok(Some(Change::Open(conversation_id, turns)));
                    }
                }
                _ = self.ticks.tick(), if is_idle => {
                    self.changed = self.watch.take().into_iter().collect::<Vec<_>>().into_iter();
                }
            }
        }
    }

    /// Returns an erasure if there is one already.
    pub(super) fn erased_by_now(&mut self) -> Option<Erasure> {
        match self.erased.as_mut()?.try_recv() {
            Ok(id) => Some(self.noted(Erasure::Of(id))),
            Err(TryRecvError::Lagged(_)) => Some(self.noted(Erasure::Missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// Continues after another position.
    pub(super) fn go_to(&mut self, position: Position) {
        self.feed.go_to(position);
        self.reading = None;
    }

    /// Reads again what may have been read before the erasure.
    fn noted(&mut self, erasure: Erasure) -> Erasure {
        self.reading = None;
        erasure
    }
}

fn read_page(mut feed: Feed) -> Reading {
    Box::pin(async move {
        let page = feed.next_page().await;
        if page.is_err() {
            sleep(RETRY_AFTER).await;
        }
        page
    })
}

/// Waits for the next erasure, for ever if no more can come.
async fn next_of(erased: Option<&mut Receiver<ConversationId>>) -> Result<ConversationId, RecvError> {
    match erased {
        Some(erased) => erased.recv().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::actors::{Facts, FeedStart};
    use crate::testing::MemoryStore;

    #[actix_rt::test]
    async fn a_change_of_an_open_turn_is_not_lost_when_something_else_comes_first() {
        let facts = Facts::new(1);
        let (watch, erased) = (Arc::new(facts.watch_open()), facts.erased());
        watch.enter(None);
        let list = MemoryStore::default().sealed_lists().recipient();
        let feed = Feed::begin(list, &facts, FeedStart::Now).await.unwrap();
        let mut changes = Changes::new(feed, watch, erased);
        let (id, turn_id) = (|name: &str| ConversationId::new(name).unwrap(), TurnId::new("t").unwrap());
        for name in ["c", "d", "e"] {
            facts.note_open(&id(name), || iter::once(&turn_id));
        }
        let mut named = Vec::new();
        while named.len() < 3 {
            let next = tokio::time::timeout(Duration::from_secs(30), changes.next()).await.expect("a change is lost");
            let Some(Change::Open(conversation_id, _)) = next.unwrap() else { continue };
            named.push(conversation_id.to_string());
            facts.tell_erased(&id("erased"));
        }
        assert_eq!(named, ["c", "d", "e"]);
    }
}

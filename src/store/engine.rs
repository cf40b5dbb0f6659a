//! What an engine does: it keeps a store, wherever that is.
//!
//! Actors hold an `Arc<dyn Engine>` and know no engine by name. The trait is for engines of this crate: what they share
//! (the commit rule, the conformance suite) is not public, and the trait grows with what is asked of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::contract::{
    Backup, BackupError, Commit, CommitError, Committed, ConversationQuestion, ConversationState, Health,
    ListSealedError, ListedConversation, OpenTurns, Report, ReportError, ReportQuestion, Revision, SealedPage,
    StaleBefore, StaleTurn, StoreSizes, TurnRange,
};
use super::fault::Fault;
use super::position::Position;
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

/// An answer that is ready, or a future of it.
///
/// Dropping an answer cancels nothing: the work is done even if nobody waits for it.
pub(crate) enum Answer<T> {
    /// Ready: the work took no longer than handing it to another thread. Nothing was allocated.
    Now(T),
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Answer<T> {
    pub(crate) fn later(answer: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }

    /// Waits for the answer.
    #[cfg(test)]
    pub(crate) async fn get(self) -> T {
        match self {
            Self::Now(answer) => answer,
            Self::Later(answer) => answer.await,
        }
    }
}

/// An engine, which keeps one store. Called in a tokio runtime, on the threads of actors: a call never blocks for long.
///
/// Each question is queued by the call, not by the first poll of its answer: the order of calls is the order of writes.
/// Which reads are answered at once and which on another thread is the engine's affair. Besides redb's, the testing
/// kit's store and one of the conformance tests implement it.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Makes a change durable, by the commit rule. The caller keeps the commit too, until it knows the outcome.
    fn commit(&self, commit: Arc<Commit>) -> Answer<Result<Committed, CommitError>>;

    /// Returns the state that a conversation's actor starts from, and which of these turns are sealed.
    fn open(&self, id: ConversationId, turn_ids: Vec<TurnId>) -> Answer<Result<ConversationState, Fault>>;

    /// The open turns of a conversation.
    fn open_turns(&self, id: ConversationId) -> Answer<Result<OpenTurns, Fault>>;

    /// Sealed turns of a range, in order. Only an empty list means that there are no more.
    fn turns(&self, range: TurnRange) -> Answer<Result<Vec<StoredTurn>, Fault>>;

    /// A page of the sealed turns of all conversations, in the order in which they became durable: those after this
    /// position, or from the beginning.
    fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Answer<Result<SealedPage, ListSealedError>>;

    /// Conversations with a sealed turn. Fewer than the limit means that there are no more.
    fn conversations(&self, question: ConversationQuestion) -> Answer<Result<Vec<ListedConversation>, Fault>>;

    /// Sums over the turns of some periods.
    fn report(&self, question: ReportQuestion) -> Answer<Result<Report, ReportError>>;

    /// The revision of a conversation's sealed turns at this moment.
    fn revision(&self, id: ConversationId) -> Answer<Result<Revision, Fault>>;

    /// A page of the open turns whose latest event came before these moments, in an order of the engine's own. `after`
    /// is the turn that the page before ended with.
    fn stale_turns(
        &self,
        before: StaleBefore,
        after: Option<StaleTurn>,
        limit: usize,
    ) -> Answer<Result<Vec<StaleTurn>, Fault>>;

    /// Makes something durable, to show that a write works.
    fn check_write(&self) -> Answer<Result<(), CommitError>>;

    /// Adds to the running time, and answers with the sum when that is durable.
    fn tick(&self, elapsed: Duration) -> Answer<Result<RunningTime, CommitError>>;

    /// The durable running time; 0 if the store is closed.
    fn running_time(&self) -> RunningTime;

    /// A copy of the store as it is at this moment.
    fn back_up(&self) -> Answer<Result<Backup, BackupError>>;

    /// How large the store is; zeros for what it cannot tell.
    fn sizes(&self) -> StoreSizes;

    /// Follows whether the store still works. A disk that fails for a while does not change it.
    fn health(&self) -> watch::Receiver<Health>;

    /// Writes what waits and closes the store. Answered when that is done, also by a store that is closed already.
    fn close(&self) -> Answer<()>;
}

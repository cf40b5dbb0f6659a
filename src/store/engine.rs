//! The trait of an engine: an engine keeps one store, on disks or elsewhere.
//!
//! Actors hold an `Arc<dyn Engine>` and know no engine by name, but for `Store::open`, which makes a store for programs
//! without a runtime. The trait is for engines of this crate only: the commit rule and the conformance suite, which
//! engines share, are not public, and the trait grows with the questions that stores are asked.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::contract::{
    Backup, BackupError, Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationQuestion,
    ConversationState, DamageReport, DropError, DropTurns, DroppedTurns, ExportHold, Health, ListSealedError,
    ListedConversation, OpenTurns, Report, ReportError, ReportQuestion, RepricingProgress, Revision, SealedPage,
    StaleBefore, StaleTurn, StoreSizes, TurnRange,
};
use super::erased_sums::{ErasedSums, ErasedSumsId, ErasedSumsPage};
use super::fault::Fault;
use super::position::Position;
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

/// An answer that is ready, or a future of it.
///
/// Dropping an answer does not cancel the work.
pub(crate) enum Answer<T> {
    /// The answer is ready. The engine answers so if the work takes no longer than handing it to another thread would.
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

/// An engine, which keeps one store. Actors call it on their own threads, within a tokio runtime, so no call may block
/// for long.
///
/// A call queues its work at once, and not when its answer is first polled: so writes happen in the order of the calls.
/// The engine decides which reads it answers at once and which on another thread. The program has one engine, on redb.
/// The tests have two more implementations: one wraps the memory store of the testing kit, and one moves all turns into
/// the tables before each read.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Makes a change durable, by the commit rule. The commit is shared, because the caller keeps it until the outcome
    /// is known.
    fn commit(&self, commit: Arc<Commit>) -> Answer<Result<Committed, CommitError>>;

    /// Makes changes durable together, by the commit rule, one after the other.
    fn commit_series(&self, series: Arc<CommitSeries>) -> Answer<CommittedSeries>;

    /// Erases a conversation: its turns, its open turns and its id are gone once the answer is durable. The sums of
    /// reports keep what its turns added to them. Later commits begin a new life of the conversation, from version 0.
    /// Returns whether there was anything to erase.
    fn erase(&self, id: ConversationId) -> Answer<Result<bool, CommitError>>;

    /// Drops some of the turns that are too old. Each step takes some milliseconds; the caller pauses between steps.
    fn drop_turns(&self, question: DropTurns) -> Answer<Result<DroppedTurns, DropError>>;

    /// Returns the state of a conversation, and which of these turns are sealed.
    fn open(&self, id: ConversationId, turn_ids: Vec<TurnId>) -> Answer<Result<ConversationState, Fault>>;

    /// Returns the open turns of a conversation.
    fn open_turns(&self, id: ConversationId) -> Answer<Result<OpenTurns, Fault>>;

    /// Returns sealed turns of a range, in order. Only an empty list means that the range has no more turns.
    fn turns(&self, range: TurnRange) -> Answer<Result<Vec<StoredTurn>, Fault>>;

    /// Returns a page of the sealed turns of all conversations, in the order in which they became durable. The page
    /// begins after this position, or at the first turn.
    fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Answer<Result<SealedPage, ListSealedError>>;

    /// Prepares an export: no turn is dropped as long as the hold lives, and the sums of the conversations that were erased
    /// before the call are among the sums of erased turns when the answer comes. If moving them takes longer than some
    /// seconds, the answer is an error.
    fn begin_export(&self) -> Answer<Result<ExportHold, Fault>>;

    /// Returns a page of the sums of erased and dropped turns, by quarter of an hour and label. The page begins after this
    /// id, whatever lineage it has, or with the first sums. A page may have fewer sums than the limit although more follow.
    fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> Answer<Result<ErasedSumsPage, Fault>>;

    /// Takes in sums of erased turns that another store has listed. Together with the sums that were taken in under the
    /// same ids before, the store has these sums then, so it changes nothing to take in the same sums again. Sums of the
    /// store's own lineage are passed over. All of them become durable, or none. Returns how many of them changed
    /// something.
    fn take_erased_sums(&self, sums: Vec<ErasedSums>) -> Answer<Result<u64, CommitError>>;

    /// Returns conversations that have a sealed turn. If the answer has fewer than the limit, no more follow.
    fn conversations(&self, question: ConversationQuestion) -> Answer<Result<Vec<ListedConversation>, Fault>>;

    /// Returns sums over the turns of some periods.
    fn report(&self, question: ReportQuestion) -> Answer<Result<Report, ReportError>>;

    /// Returns the revision of a conversation's sealed turns.
    fn revision(&self, id: ConversationId) -> Answer<Result<Revision, Fault>>;

    /// Returns a page of the open turns that are stale by `before`. The engine chooses the order. `after` is the last
    /// turn of the previous page.
    fn stale_turns(
        &self,
        before: StaleBefore,
        after: Option<StaleTurn>,
        limit: usize,
    ) -> Answer<Result<Vec<StaleTurn>, Fault>>;

    /// Writes and syncs something, to show that a write works.
    fn check_write(&self) -> Answer<Result<(), CommitError>>;

    /// Adds to the running time, and answers with the sum once the sum is durable.
    fn tick(&self, elapsed: Duration) -> Answer<Result<RunningTime, CommitError>>;

    /// Returns the durable running time; 0 if the store is closed.
    fn running_time(&self) -> RunningTime;

    /// Returns a copy of the store as it is at one moment.
    fn back_up(&self) -> Answer<Result<Backup, BackupError>>;

    /// Returns the sizes of the store. A size that the engine does not know is 0.
    fn sizes(&self) -> StoreSizes;

    /// Returns how far the store is in computing all costs anew; `None` if it does not, or if it is closed.
    fn repricing(&self) -> Option<RepricingProgress>;

    /// Returns what the store knows of damage to its data.
    fn damage(&self) -> DamageReport;

    /// Reads all rows of the store and compares them with each other. Answers when that is done. After an error, the next
    /// call goes on from there.
    fn scrub(&self) -> Answer<Result<DamageReport, Fault>>;

    /// Returns a receiver that shows whether the store still works. A disk that fails for a while does not change the
    /// health.
    fn health(&self) -> watch::Receiver<Health>;

    /// Writes the commits that wait and closes the store. The answer comes when the store is closed; a closed store
    /// answers too.
    fn close(&self) -> Answer<()>;
}

//! What the actors are told and asked. They know these messages, not each other.

use std::time::Duration;

use actix::{Actor, Message, ResponseActFuture};

use crate::store::{
    ActiveConversation, ActivityPlace, Backup, BackupError, Commit, CommitError, Committed, ConversationState, Fault,
    ListSealedError, Position, Revision, SealedPage, StaleBefore, StaleTurn, StoreSizes, TurnRange, Version,
};
use crate::turn::{ConversationId, Ordinal, RunningTime, StoredTurn, TurnEvent, TurnId, Warning};

/// Take in events of a conversation, in this order. Sent to the directory, which passes it to the conversation.
///
/// The answer comes when all of it is durable. Without one (an error, or a dropped future) the outcome is unknown:
/// send the same again, it changes nothing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observe {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Its events.
    pub events: Vec<TurnEvent>,
}

impl Message for Observe {
    type Result = Result<Receipt, ObserveError>;
}

/// What became of the turns that an [`Observe`] ended or came late for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The turns, in the order of their first mention. A turn that was sealed and then had a late event stands twice,
    /// first as sealed, then as a duplicate.
    pub sealed: Vec<TurnReceipt>,
    /// How many of the events were late: their turn was sealed already, and they changed nothing.
    pub late: u64,
    /// Probable mistakes of the sender; at most the first [`Receipt::MAX_WARNINGS`].
    pub warnings: Vec<Warning>,
}

impl Receipt {
    /// The maximum number of warnings in a receipt.
    pub const MAX_WARNINGS: usize = 100;
}

/// A turn that is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnReceipt {
    /// The turn.
    pub turn_id: TurnId,
    /// Its place in the conversation.
    pub ordinal: Ordinal,
    /// Whether it was sealed already, so that an event of it changed nothing.
    pub duplicate: bool,
}

/// Why events were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Nothing was taken in: too much is being worked on. Send again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// Nothing was taken in: the service is shutting down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// Nothing of this conversation was taken in: it would have more open turns than it may.
    #[error("conversation `{conversation_id}` would have more than {limit} open turns")]
    TooManyOpenTurns {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many turns may be open side by side.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: a turn would have more steps than it may.
    #[error("turn `{turn_id}` would have more than {limit} steps")]
    TooManySteps {
        /// The turn.
        turn_id: TurnId,
        /// How many steps a turn may have.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: others changed it again and again meanwhile. Send again later.
    #[error("the conversation is being changed by others")]
    Contended,
    /// The outcome is unknown: the store failed. Send again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor is gone. Send again, it is started anew.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

/// Seal the turns of this list that are stale, with the reason `error` if their latest event was an `error`, else
/// `abandoned`. The sweeper sends this to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandon {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The turns to look at.
    pub turn_ids: Vec<TurnId>,
    /// A turn with an event at this moment or later stays open.
    pub before: StaleBefore,
}

impl Message for Abandon {
    type Result = Result<Receipt, ObserveError>;
}

/// Ask the store for what is known of a conversation, to start its actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Turns of which to tell whether they are sealed.
    pub turn_ids: Vec<TurnId>,
}

impl Message for OpenConversation {
    type Result = Result<ConversationState, Fault>;
}

impl Message for Commit {
    type Result = Result<Committed, CommitError>;
}

/// Ask the store for sealed turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTurns(pub TurnRange);

impl Message for ListTurns {
    type Result = Result<Vec<StoredTurn>, Fault>;
}

/// Ask the store for sealed turns of all conversations, in the order in which they became durable.
///
/// A reader that goes on after [`SealedPage::next`] each time sees every turn once, however many are sealed meanwhile
/// and however often the service is restarted.
///
/// ```
/// use turn_metrics::actors::{ListSealed, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// for name in ["one", "another"] {
///     let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(Done::because("stop")) };
///     let observe = Observe { conversation_id: ConversationId::new(name)?, events: vec![event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
/// let (mut after, mut seen) = (None, Vec::new());
/// loop {
///     let page = runtime.handles().reads.list_sealed.send(ListSealed { after, limit: 1 }).await??;
///     seen.extend(page.turns.into_iter().map(|sealed| (sealed.position.number, sealed.conversation_id.to_string())));
///     after = Some(page.next);
///     if page.next == page.latest {
///         break;
///     }
/// }
/// assert_eq!(seen, [(1, "one".to_owned()), (2, "another".to_owned())]);
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListSealed {
    /// Only turns after this position; `None` for all.
    pub after: Option<Position>,
    /// At most so many turns, and at most [`SealedPage::MAX_POSITIONS`].
    pub limit: usize,
}

impl Message for ListSealed {
    type Result = Result<SealedPage, ListSealedError>;
}

/// Ask the store for the conversations that have a sealed turn, by their latest activity: the latest first, those of one
/// moment by id. A conversation that changes between two pages may be missed or come twice.
///
/// ```
/// use turn_metrics::actors::{ListConversations, Observe};
/// use turn_metrics::runtime::Runtime;
/// use turn_metrics::turn::{ConversationId, Done, EpochMillis, TurnEvent, TurnEventKind, TurnId};
///
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// for (name, ended_at) in [("earlier", 1_700_000_001_000), ("later", 1_700_000_002_000)] {
///     let done = Done { ended_at: Some(EpochMillis::new(ended_at).into()), ..Done::because("stop") };
///     let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(done) };
///     let observe = Observe { conversation_id: ConversationId::new(name)?, events: vec![event] };
///     runtime.handles().intake.observe.send(observe).await??;
/// }
/// let (mut after, mut seen) = (None, Vec::new());
/// loop {
///     let list = ListConversations { after, limit: 1 };
///     let page = runtime.handles().reads.list_conversations.send(list).await??;
///     let Some(last) = page.last() else { break };
///     after = Some(last.place());
///     seen.extend(page.into_iter().map(|listed| listed.conversation_id.to_string()));
/// }
/// assert_eq!(seen, ["later", "earlier"]);
/// runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListConversations {
    /// Go on after this place, that of the last conversation of an earlier answer.
    pub after: Option<ActivityPlace>,
    /// At most so many conversations.
    pub limit: usize,
}

impl Message for ListConversations {
    type Result = Result<Vec<ActiveConversation>, Fault>;
}

/// Ask the store what a conversation's sealed turns are right now, without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindRevision {
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Message for FindRevision {
    type Result = Result<Revision, Fault>;
}

/// Ask the store for a page of stale turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStaleTurns {
    /// A turn is stale if its latest event came before these moments.
    pub before: StaleBefore,
    /// Go on after this turn, which an earlier answer ended with.
    pub after: Option<StaleTurn>,
    /// At most so many turns.
    pub limit: usize,
}

impl Message for ListStaleTurns {
    type Result = Result<Vec<StaleTurn>, Fault>;
}

/// Add to the running time. The store answers with the sum once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The time since the last tick.
    pub elapsed: Duration,
}

impl Message for Tick {
    type Result = Result<RunningTime, CommitError>;
}

/// Ask the store to make a durable write, to show that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckWrite;

impl Message for CheckWrite {
    type Result = Result<(), CommitError>;
}

/// Ask the store for a copy of everything as it is now, made while it works on. One is made at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackUp;

impl Message for BackUp {
    type Result = Result<Backup, BackupError>;
}

/// Tell the directory to refuse new work and to answer when what it has is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain;

impl Message for Drain {
    type Result = ();
}

/// Tell the store to write what waits and to close its file; answers when the file is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close;

impl Message for Close {
    type Result = ();
}

/// Ask an actor to answer never, so that the asker's error tells of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwaitEnd;

impl Message for AwaitEnd {
    type Result = ();
}

/// The answer to [`AwaitEnd`]: the actor holds it, so it goes where the actor goes.
pub(super) fn never<A: Actor>() -> ResponseActFuture<A, ()> {
    Box::pin(actix::fut::wrap_future(std::future::pending()))
}

/// Ask the directory how much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWork;

/// How much is going on in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkCounts {
    /// Conversations that have an actor.
    pub active_conversations: usize,
    /// Messages to conversations that are not answered yet.
    pub in_flight: usize,
    /// The number of warnings in receipts since the start.
    pub warnings: u64,
    /// Conversations' actors that have died by a panic since the start, each of them a defect.
    pub died: u64,
}

impl Message for CountWork {
    type Result = WorkCounts;
}

/// Ask a conversation how it is; the directory passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
}

/// How a conversation's actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationReport {
    /// Turns that are open, as far as it knows.
    pub open_turns: usize,
    /// The version that the conversation has; `None` before the first load and whenever it is in doubt.
    pub version: Option<Version>,
    /// Messages that wait for the store to be done with what came before them.
    pub waiting: usize,
    /// Whether the store is being waited for.
    pub busy: bool,
}

impl Message for InspectConversation {
    /// `None` if the conversation has no actor.
    type Result = Option<ConversationReport>;
}

/// Ask the store how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectStore;

/// How the store is: how large, and what it has been asked to write since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreReport {
    /// Commits that are not answered yet.
    pub waiting_commits: usize,
    /// Commits that became durable.
    pub commits: u64,
    /// Commits that the store failed to make durable, or of which it does not know.
    pub failed_commits: u64,
    /// Commits refused because too many were waiting.
    pub refused_commits: u64,
    /// Commits that expected another version.
    pub conflicts: u64,
    /// How large the store is.
    pub sizes: StoreSizes,
}

impl Message for InspectStore {
    type Result = StoreReport;
}

/// Ask the sweeper how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectSweeper;

/// How the sweeper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweeperReport {
    /// Whether a sweep is under way.
    pub sweeping: bool,
    /// Sweeps that have ended.
    pub sweeps: u64,
    /// The number of turns that it sealed, as abandoned or failed.
    pub sealed_turns: u64,
}

impl Message for InspectSweeper {
    type Result = SweeperReport;
}

use std::cmp::Reverse;
use std::fmt;
use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fault::Fault;
use super::position::{Lineage, Position};
use crate::report::{Breakdown, ConversationSums, Grouping, Period, PicoDollars, Selection};
use crate::turn::{
    ConversationId, EpochMillis, Label, OpenHead, OpenStep, OpenTurn, Ordinal, RunningTime, SealedTurn, StoredTurn,
    TokenCount, TurnId, Usage,
};

/// An open turn as a store returns it. The store keeps it, so that it survives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedTurn {
    /// The fold of its events.
    pub turn: OpenTurn,
    /// The running time at its latest event. The age of the turn is the running time since then.
    pub last_event_at: RunningTime,
}

impl StagedTurn {
    /// Returns the turn that a change makes of the turn `before`, or of no turn.
    pub fn after(before: Option<Self>, change: &StagedChange) -> Self {
        let mut steps = before.map(|before| before.turn.steps).unwrap_or_default();
        steps.truncate(change.step_count);
        for (place, step) in change.steps.iter().filter(|(place, _)| *place < change.step_count) {
            steps.put(*place, step.clone());
        }
        let turn = OpenTurn { id: change.turn_id.clone(), head: change.head.clone(), steps };
        Self { turn, last_event_at: change.last_event_at }
    }
}

/// The part of an open turn that a commit writes: its head, and the steps that changed since the turn was last staged.
///
/// So an event of a turn of thousands of steps stages one step. The other steps stay as they are in the store. A step
/// that is neither in the change nor in the store makes the turn unreadable, as if it were damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedChange {
    /// The turn.
    pub turn_id: TurnId,
    /// The turn without its steps.
    pub head: OpenHead,
    /// The number of steps of the turn. Further steps in the store, of an earlier turn of the same id, are removed.
    pub step_count: u32,
    /// The steps that changed, each with its place among the steps of the turn, from 0.
    pub steps: Vec<(u32, OpenStep)>,
    /// The running time at the latest event.
    pub last_event_at: RunningTime,
}

impl From<StagedTurn> for StagedChange {
    /// Returns the change that writes the whole turn, whatever the store has of it.
    fn from(StagedTurn { turn: OpenTurn { id, head, steps }, last_event_at }: StagedTurn) -> Self {
        let step_count = steps.count();
        Self { turn_id: id, head, step_count, steps: (0..).zip(steps).collect(), last_event_at }
    }
}

/// An open turn is stale if its latest event came before the moment `open`, or if that event was an `error` and came
/// before the moment `failed`. Both are moments of the running time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleBefore {
    /// The moment for every open turn.
    pub open: RunningTime,
    /// The moment for a turn whose latest event was an `error`. It may be later than `open`.
    pub failed: RunningTime,
}

impl StaleBefore {
    /// Returns whether a turn is stale, given the moment of its latest event and its head.
    pub fn is_stale(&self, last_event_at: RunningTime, head: &OpenHead) -> bool {
        last_event_at < self.open || (head.has_failed && last_event_at < self.failed)
    }
}

impl From<RunningTime> for StaleBefore {
    /// Uses the same moment for both kinds of turns.
    fn from(moment: RunningTime) -> Self {
        Self { open: moment, failed: moment }
    }
}

/// The number of changes that a conversation has had; 0 for an unknown conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// Distinguishes the lives of a conversation: after its turns were erased, the same id begins a new life with ordinal
/// 1.
///
/// The number is random, because a counter would have to survive every crash, backup and repair. One conversation has
/// few lives, and it is enough that their numbers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Life(pub u64);

impl Life {
    /// Draws the number of a new life.
    pub(crate) fn draw() -> Self {
        Self(Uuid::new_v4().as_u64_pair().0)
    }
}

/// One atomic change of a conversation: either the whole change becomes durable, or nothing of it.
///
/// Sealed turns get their ordinals in the order given and are no longer open. The changes of open turns are made to the
/// staged turns. A `sealed_at` that is earlier than that of the conversation's latest turn is raised to it, unless the
/// turns are imported. A turn that is sealed already does not change, and is answered as [`TurnOutcome::Duplicate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The conversation that changes.
    pub conversation_id: ConversationId,
    /// The version that the change was made from. If the store has another version, the answer is a
    /// [`CommitError::Conflict`]. Imported turns depend on nothing that the conversation has, so a commit of them alone
    /// fits any version.
    pub expected_version: Version,
    /// The changes of open turns.
    pub staged: Vec<StagedChange>,
    /// The turns that ended.
    pub sealed: Vec<SealedTurn>,
    /// The ordinal of the first of `sealed` in the store that the turns come from, if they are imported. Imported turns
    /// keep their `sealed_at`. If no turn of the conversation was sealed before, the first of them keeps this ordinal
    /// too, and the ordinals before it are never given. An ordinal above [`Commit::MAX_IMPORTED_FROM`] counts as that one.
    pub imported_from: Option<Ordinal>,
}

impl Commit {
    /// The highest ordinal that the first turn of a conversation may keep. It leaves room for more turns than a
    /// conversation can get.
    pub const MAX_IMPORTED_FROM: u64 = u32::MAX as u64;

    /// Returns the number of bytes that limits count for the commit. It is at least the number that an engine writes.
    ///
    /// A commit counts 384 bytes and its conversation's id. Each changed open turn, and each changed step of it, counts
    /// 256 bytes and its texts. Each sealed turn counts 160 bytes and its texts, and each of its steps 176 bytes and
    /// its texts.
    pub fn bytes(&self) -> usize {
        let staged = self.staged.iter().map(|change| {
            let steps = change.steps.iter().map(|(_, step)| Self::STAGED_BYTES + step.text_bytes());
            Self::STAGED_BYTES + change.turn_id.as_str().len() + change.head.text_bytes() + steps.sum::<usize>()
        });
        let sealed = self.sealed.iter().map(Self::sealed_bytes);
        Self::base_bytes(&self.conversation_id) + staged.chain(sealed).sum::<usize>()
    }

    /// Returns the number of bytes that limits count for a commit without turns.
    pub(crate) fn base_bytes(conversation_id: &ConversationId) -> usize {
        Self::BASE_BYTES + conversation_id.as_str().len()
    }

    /// Returns the number of bytes that limits count for one sealed turn of a commit.
    pub(crate) fn sealed_bytes(turn: &SealedTurn) -> usize {
        Self::SEALED_BYTES + turn.text_bytes() + Self::SEALED_STEP_BYTES * turn.metrics.steps.len()
    }

    const BASE_BYTES: usize = 384;
    const STAGED_BYTES: usize = 256;
    const SEALED_BYTES: usize = 160;
    const SEALED_STEP_BYTES: usize = 176;

    /// Returns the number of turns of the commit, at least 1. It measures the work that the commit makes.
    pub(super) fn weight(&self) -> usize {
        (self.staged.len() + self.sealed.len()).max(1)
    }
}

/// Commits that become durable together and in this order, with no other commit between them.
///
/// If one of them is refused, the series ends there: neither this commit nor a later one changes anything. Those before
/// it are durable. All commits of a series together may have as many bytes as one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSeries {
    /// The commits. A conversation may have several.
    pub commits: Vec<Commit>,
}

impl CommitSeries {
    /// Returns the number of bytes that limits count for the series.
    pub(crate) fn bytes(&self) -> usize {
        self.commits.iter().map(Commit::bytes).sum()
    }

    /// Returns the number of turns of the series, at least 1.
    pub(super) fn weight(&self) -> usize {
        self.commits.iter().map(Commit::weight).sum::<usize>().max(1)
    }
}

/// The answer to a [`CommitSeries`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommittedSeries {
    /// The answers to the first commits of the series, which are durable.
    pub committed: Vec<Committed>,
    /// Why the commits after these were not acknowledged; `None` if there are none. If the reason is
    /// [`CommitError::Unavailable`], the next commits may be durable or not.
    pub ended: Option<CommitError>,
}

impl From<CommitError> for CommittedSeries {
    /// Returns the answer to a series of which no commit was acknowledged.
    fn from(error: CommitError) -> Self {
        Self { committed: Vec::new(), ended: Some(error) }
    }
}

/// The answer to a commit that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The version that the conversation has now.
    pub version: Version,
    /// The outcome of each turn of the commit: the staged turns in their order, then the sealed turns in theirs.
    pub outcomes: Vec<(TurnId, TurnOutcome)>,
}

/// The outcome of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnOutcome {
    /// The turn is open, and durable as it was sent.
    Staged,
    /// This commit sealed the turn, at this ordinal.
    Sealed(Ordinal),
    /// The turn was sealed before, at this ordinal, and nothing changed.
    Duplicate(Ordinal),
}

impl TurnOutcome {
    /// Returns the ordinal of the turn if it is sealed.
    pub fn ordinal(self) -> Option<Ordinal> {
        match self {
            Self::Staged => None,
            Self::Sealed(ordinal) | Self::Duplicate(ordinal) => Some(ordinal),
        }
    }
}

/// Why a commit was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Nothing changed: the conversation has another version. Open the conversation again, make the change anew, and
    /// retry.
    #[error("the conversation is at version {}, not {}", actual.0, expected.0)]
    Conflict {
        /// The version that the commit expected.
        expected: Version,
        /// The version that the conversation has.
        actual: Version,
    },
    /// Nothing changed: too many commits wait, or the engine has fallen behind. Retry later.
    #[error("too many commits are waiting to be written")]
    Overloaded,
    /// Nothing changed: the commit has too many bytes, as counted by [`Commit::bytes`]. Split the change into several
    /// commits.
    #[error("the commit has {bytes} bytes and may have {limit} (`store.max_commit_bytes`)")]
    TooLarge {
        /// The bytes of the commit.
        bytes: usize,
        /// The maximum number of bytes.
        limit: usize,
    },
    /// The outcome is unknown: the commit may have become durable or not. Send the same commit again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(Fault),
}

impl CommitError {
    /// Returns the text of the error for the log. For a fault, this is the text of its cause, which may name paths.
    pub fn in_full(&self) -> String {
        match self {
            Self::Unavailable(fault) => fault.in_full(),
            _ => self.to_string(),
        }
    }
}

/// The state of a conversation when its actor starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConversationState {
    /// The version of the conversation.
    pub version: Version,
    /// The moment at which its latest turn was sealed; the beginning of 1970 if no turn is sealed.
    pub last_sealed_at: EpochMillis,
    /// Its open turns, in no particular order.
    pub open_turns: Vec<StagedTurn>,
    /// The requested turns that are sealed, with their ordinals.
    pub sealed_turns: Vec<(TurnId, Ordinal)>,
}

/// Identifies a conversation's sealed turns at one moment. The revision changes when a turn is sealed, and differs
/// between stores.
///
/// Displays as an opaque text, which can be used as an HTTP entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// The history of the store.
    pub lineage: Lineage,
    /// The life of the conversation; 0 while no turn is sealed, since every life begins without turns.
    pub life: Life,
    /// The number of sealed turns, which is also the latest ordinal.
    pub sealed_turns: u64,
    /// How many of them are not stored: the first ones, which were dropped because of their age, or which the store never
    /// had, because the conversation was imported without them.
    pub dropped_turns: u64,
}

impl Revision {
    /// Returns the revision of this many sealed turns.
    pub(crate) fn new(lineage: Lineage, life: Life, sealed_turns: u64) -> Self {
        let life = if sealed_turns == 0 { Life::default() } else { life };
        Self { lineage, life, sealed_turns, dropped_turns: 0 }
    }

    /// Returns the number of turns that are stored.
    pub fn stored_turns(&self) -> u64 {
        self.sealed_turns.saturating_sub(self.dropped_turns)
    }

    /// Returns whether the turns of one revision are the first turns of the other.
    pub fn is_of_the_same_life(&self, other: &Self) -> bool {
        (self.lineage, self.life, self.dropped_turns) == (other.lineage, other.life, other.dropped_turns)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}-{}", self.lineage, self.life.0, self.sealed_turns)?;
        if self.dropped_turns > 0 { write!(f, "-{}", self.dropped_turns) } else { Ok(()) }
    }
}

/// Asks for sealed turns of a conversation. The answer has them in the order of their ordinals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRange {
    /// The conversation. An unknown conversation has no turns.
    pub conversation_id: ConversationId,
    /// Selects the turns with a larger ordinal; 0 selects all.
    pub after: u64,
    /// Only turns with a smaller ordinal; `None` for all.
    pub before: Option<u64>,
    /// The end of the range at which the answer begins. This end decides which turns are left out if not all turns fit.
    pub end: RangeEnd,
    /// The maximum number of turns. The bytes of an answer are bounded too, so an answer may have fewer turns. Only an
    /// empty answer means that the range has no more turns.
    pub limit: usize,
}

/// The end of a range of turns at which an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RangeEnd {
    /// The oldest turns are returned, and later ones are left out.
    #[default]
    Oldest,
    /// The latest turns are returned, and earlier ones are left out.
    Latest,
}

impl TurnRange {
    /// Asks for the oldest turns after an ordinal; 0 for the first turns.
    pub fn after(conversation_id: ConversationId, after: u64, limit: usize) -> Self {
        Self { conversation_id, after, before: None, end: RangeEnd::Oldest, limit }
    }

    /// Asks for the latest turns.
    pub fn latest(conversation_id: ConversationId, limit: usize) -> Self {
        Self { end: RangeEnd::Latest, ..Self::after(conversation_id, 0, limit) }
    }

    /// Returns the first and the last ordinal of the range, or `None` if the range is empty.
    pub(crate) fn ordinals(&self) -> Option<(u64, u64)> {
        let first = self.after.checked_add(1)?;
        let last = self.before.map_or(Some(u64::MAX), |before| before.checked_sub(1))?;
        (first <= last).then_some((first, last))
    }
}

/// The open turns of a conversation at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenTurns {
    /// The number of sealed turns at that moment, which is also the latest ordinal. A turn is either among the open
    /// turns or has an ordinal up to this number.
    pub sealed_turns: u64,
    /// The open turns, in the order of their ids.
    pub turns: Vec<StagedTurn>,
}

/// A sealed turn and its place in the order of all turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionedTurn {
    /// The place of the turn.
    pub position: Position,
    /// The conversation of the turn.
    pub conversation_id: ConversationId,
    /// The turn.
    pub turn: StoredTurn,
}

/// Some of the sealed turns of all conversations, in the order in which they became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedPage {
    /// The turns. A page may have fewer turns than asked for although more follow: a page of long turns ends earlier,
    /// and damaged turns are left out.
    pub turns: Vec<PositionedTurn>,
    /// The position to ask for the next page with: that page begins after it.
    pub next: Position,
    /// The position of the latest turn of the store. There is more to read unless `next` is equal to it.
    pub latest: Position,
    /// How many turns the page leaves out because they are damaged.
    pub left_out: u64,
}

impl SealedPage {
    /// The maximum number of positions of a page, even if the limit is higher: reading a page delays commits for a
    /// moment.
    pub const MAX_POSITIONS: usize = 1000;
}

/// The order of a list of conversations. Each order is descending; conversations of equal rank are in the order of
/// their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConversationOrder {
    /// By the report time of the latest turn. Only in this order does the cost of a page not grow with the number of
    /// stored conversations.
    Recent,
    /// By the tokens of prompts and output.
    Tokens,
    /// By cost; conversations whose cost is unknown come last.
    Cost,
    /// By the number of sealed turns.
    Turns,
}

impl ConversationOrder {
    /// Returns the place of a conversation in the list.
    pub(crate) fn place(self, listed: &ListedConversation) -> ConversationPlace {
        let rank = match self {
            Self::Recent => Some(listed.last_at.get().into()),
            Self::Tokens => Some(
                i128::from(listed.total_usage.input_tokens.get()) + i128::from(listed.total_usage.output_tokens.get()),
            ),
            Self::Cost => listed.sums.cost.usd().map(PicoDollars::get),
            Self::Turns => Some(listed.sealed_turns.into()),
        };
        ConversationPlace::new(rank, listed.conversation_id.clone())
    }
}

/// A place in a list of conversations. The list goes from the highest rank to the lowest, and by id within a rank.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationPlace {
    rank: Reverse<Option<i128>>,
    conversation_id: ConversationId,
}

impl ConversationPlace {
    /// Returns the place of a conversation of this rank. The order of the list says what the rank is; `None` comes
    /// last.
    pub fn new(rank: Option<i128>, conversation_id: ConversationId) -> Self {
        Self { rank: Reverse(rank), conversation_id }
    }

    /// The rank.
    pub fn rank(&self) -> Option<i128> {
        self.rank.0
    }

    /// The conversation.
    pub fn conversation_id(&self) -> &ConversationId {
        &self.conversation_id
    }
}

/// Asks for conversations that have a sealed turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationQuestion {
    /// The order of the list.
    pub order: ConversationOrder,
    /// Selects conversations whose latest turn has a report time from the first moment on and before the second moment.
    pub last_at: Option<(EpochMillis, EpochMillis)>,
    /// Selects conversations whose latest turn asked this model.
    pub model: Option<Label>,
    /// Selects conversations whose ids begin with this text.
    pub prefix: String,
    /// The place of the last conversation of an earlier answer to the same question; the answer goes on after it.
    pub after: Option<ConversationPlace>,
    /// The maximum number of conversations.
    pub limit: usize,
}

impl ConversationQuestion {
    /// Asks for the first conversations of a list.
    pub fn first(order: ConversationOrder, limit: usize) -> Self {
        Self { order, last_at: None, model: None, prefix: String::new(), after: None, limit }
    }

    /// Asks for the conversations that follow this one in the list.
    #[must_use]
    pub fn after(self, listed: &ListedConversation) -> Self {
        Self { after: Some(self.order.place(listed)), ..self }
    }

    /// Returns whether an index leads to the requested conversations, so that the store reads few others: at most those
    /// whose latest turn ended at the same moment.
    pub(crate) fn finds_by_index(&self) -> bool {
        let is_within_a_moment = self.last_at.is_some_and(|(from, to)| to.get() <= from.get().saturating_add(1));
        let chooses_all = self.model.is_none() && self.prefix.is_empty();
        self.order == ConversationOrder::Recent && (chooses_all || is_within_a_moment)
    }

    /// Returns whether the question selects a conversation, by everything but its place.
    pub(crate) fn chooses(&self, listed: &ListedConversation) -> bool {
        listed.sealed_turns > 0
            && self.last_at.is_none_or(|(from, to)| from <= listed.last_at && listed.last_at < to)
            && (self.model.is_none() || self.model == listed.model)
            && listed.conversation_id.as_str().starts_with(&self.prefix)
    }
}

/// A conversation in a list, with figures of its whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The number of its sealed turns, at least 1.
    pub sealed_turns: u64,
    /// The number of its open turns.
    pub open_turns: usize,
    /// The sum of the usage of its sealed turns.
    pub total_usage: Usage,
    /// The report time of its first turn: the moment at which the turn ended, or was sealed if its end is not known.
    pub first_at: EpochMillis,
    /// The report time of its latest turn, the turn with the last ordinal.
    pub last_at: EpochMillis,
    /// The model that its latest turn asked.
    pub model: Option<Label>,
    /// The project that the cost of its latest turn belongs to.
    pub project: Option<Label>,
    /// The tokens of the model's context window that are in use after its latest turn.
    pub context_size: Option<TokenCount>,
    /// The cost of the conversation, and further sums.
    pub sums: ConversationSums,
}

/// Why a list of sealed turns failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListSealedError {
    /// The position is not of this store's lineage: it comes from another store, or from a time before the store was
    /// restored or repaired. Read from the beginning.
    #[error("the position {0} is not of this store's lineage")]
    OtherLineage(Position),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] Fault),
}

/// Asks for sums over the turns of some periods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportQuestion {
    /// The periods, in order and without an overlap, such as the [`periods`](crate::report::Zone::periods) of a zone.
    pub periods: Vec<Period>,
    /// The labels that the report is grouped by.
    pub grouping: Grouping,
    /// Which turns and steps count.
    pub selection: Selection,
}

/// Sums over the turns of some periods, all at one moment. Every turn that was acknowledged before the question is
/// counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The rows of the report.
    pub breakdown: Breakdown,
    /// Whether the store is computing all costs anew because the prices changed. Until it has finished, the costs are
    /// by the earlier prices and the new ones: a turn keeps the cost that the store had stored for it, and all other
    /// turns, such as those that are sealed meanwhile, have the new prices.
    pub is_repricing: bool,
}

impl Report {
    /// The maximum number of rows of a report.
    pub const MAX_ROWS: usize = 10_000;

    /// Roughly the maximum memory of the rows of a report, if each row has distributions over some hundred values.
    pub(crate) const MAX_BYTES: usize = 48 * 1024 * 1024;

    /// Returns whether the breakdown exceeds the limits of a report.
    pub(crate) fn is_too_large(breakdown: &Breakdown) -> bool {
        breakdown.rows().len() > Self::MAX_ROWS || breakdown.bytes() > Self::MAX_BYTES
    }
}

/// Why a report failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The report would have too many rows.
    #[error("the report would have more than {} rows: ask for longer periods or a shorter time", Report::MAX_ROWS)]
    TooManyRows,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] Fault),
}

/// An open turn whose latest event came before the moments of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleTurn {
    /// The conversation of the turn.
    pub conversation_id: ConversationId,
    /// The turn.
    pub turn_id: TurnId,
}

/// Whether a store still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The store works, or recovers by itself.
    Running,
    /// The store was told to close, and is closed.
    Closed,
    /// The store ended without being closed: it makes nothing durable any more.
    Ended,
}

/// The sizes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreSizes {
    /// The bytes of all rows in the store's tables, without the overhead of the engine.
    pub live_bytes: u64,
    /// The bytes of the store's files; 0 if it has none. The difference from `live_bytes` is overhead: free space that
    /// the engine uses again, and data that is not in the tables yet.
    pub file_bytes: u64,
    /// The approximate memory, in bytes, of data that is durable but not in the tables yet.
    pub recent_bytes: u64,
}

/// How far a store is that computes all costs anew because the prices have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepricingProgress {
    /// How many turns have to be priced. Erased turns count too, because the store counts places in the order of all
    /// turns.
    pub turns: u64,
    /// How many of them are priced.
    pub priced_turns: u64,
}

/// A step of dropping old turns: the store drops some of those that were sealed longer ago than `keep`.
///
/// The turns of a conversation are dropped in order from its first one, and their ordinals are not given again. The sums of
/// reports and of lists keep what they have added. A turn whose id was dropped can be sealed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropTurns {
    /// How long turns are kept after they were sealed.
    pub keep: Duration,
    /// The present time by the clock of the host.
    pub now: EpochMillis,
}

impl DropTurns {
    /// Returns the moment before which the turns were sealed that are dropped.
    pub(crate) fn before(&self) -> EpochMillis {
        let keep = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        EpochMillis::new(self.now.get().saturating_sub(keep))
    }
}

/// What a step has dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedTurns {
    /// The number of turns that were dropped.
    pub turns: u64,
    /// Whether all conversations have been looked at since the last step that said so.
    pub is_done: bool,
}

/// Why a step dropped nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// The clock of the host has gained more than a day on the running time of the store. Either it is wrong, or the
    /// service was stopped. Turns are dropped again when the clock is set right, or after a day of running time.
    #[error("the clock is {} ahead of the running time of the store", Days(*by))]
    ClockAhead {
        /// By how much it is ahead.
        by: Duration,
    },
    /// All costs are being computed anew, as the prices have changed. A turn keeps its cost when it is dropped, so this has
    /// to end first.
    #[error("all costs are being computed anew")]
    Repricing,
    /// An export is being sent, which would lack the turns that are dropped meanwhile. See [`ExportHold`].
    #[error("an export is being sent")]
    Exporting,
    /// The store cannot be read or written.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[from] Fault),
}

/// Keeps a store from dropping old turns while an export is being sent: the sums of dropped turns are at the beginning of
/// an export, so a turn that is dropped before it was sent would be missing. Dropping this ends the hold. An engine may end
/// it earlier, after some hours.
pub struct ExportHold(#[expect(dead_code, reason = "it ends the hold when it is dropped")] Box<dyn Send + Sync>);

impl ExportHold {
    /// Returns a hold that ends when `hold` is dropped.
    pub(crate) fn new(hold: impl Send + Sync + 'static) -> Self {
        Self(Box::new(hold))
    }
}

impl fmt::Debug for ExportHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportHold").finish_non_exhaustive()
    }
}

/// Displays a time in days, with one decimal.
struct Days(Duration);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} days", self.0.as_secs_f64() / 86_400.0)
    }
}

/// What a store knows of damage to its data, and how far it has searched for damage. All numbers but `findings` are
/// since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DamageReport {
    /// How many damaged records reads have left out. A record counts each time that a read meets it.
    pub left_out_records: u64,
    /// How many kinds of damage scrubs have found that no repair has mended. The conversations that they belong to take
    /// nothing new.
    pub findings: u64,
    /// How many times scrubs have read all rows of the store.
    pub scrub_passes: u64,
    /// How many rows scrubs have read.
    pub scrubbed_rows: u64,
}

impl DamageReport {
    /// Returns whether the store knows of any damage.
    pub fn is_any(&self) -> bool {
        self.left_out_records + self.findings > 0
    }
}

/// A copy of everything in a store, as it was at one moment. The engine defines the format.
pub struct Backup {
    /// Reads the copy. Dropping this removes the copy.
    pub bytes: Box<dyn Read + Send>,
    /// The number of bytes.
    pub length: u64,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another backup is being made, or its copy is still being read. Ask again later.
    #[error("a backup is being made or sent already")]
    Busy,
    /// A copy might leave too little free space on the disk for commits.
    #[error(
        "the disk has {free_bytes} bytes free, too few for a copy of up to {copy_bytes} bytes that leaves \
         {reserve_bytes} for commits"
    )]
    DiskNearlyFull {
        /// The free bytes of the disk.
        free_bytes: u64,
        /// The maximum size of the copy.
        copy_bytes: u64,
        /// The bytes that have to stay free for commits.
        reserve_bytes: u64,
    },
    /// The store is in memory, so there is no disk for a copy.
    #[error("the store is in memory, and no backup of it can be made")]
    InMemory,
    /// The store is damaged, and a copy would hide that.
    #[error(
        "the store is damaged, and no backup of it can be made: stop the server, and run `turn-metrics check --repair`"
    )]
    Damaged(Fault),
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Read(Fault),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {0}")]
    Write(Fault),
}

impl BackupError {
    /// Returns the text of the error for the log. For a fault, this is the text of its cause, which may name paths.
    pub fn in_full(&self) -> String {
        match self {
            Self::Read(fault) | Self::Write(fault) | Self::Damaged(fault) => fault.in_full(),
            Self::Busy | Self::DiskNearlyFull { .. } | Self::InMemory => self.to_string(),
        }
    }
}

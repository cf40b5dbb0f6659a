//! The messages that bring a conversation events or seal its turns, and the answers to them.

use actix::Message;

use crate::store::{Fault, StaleBefore};
use crate::turn::{ConversationId, Ordinal, TurnEvent, TurnId, Warning};

/// Take in these events of a conversation, in this order. The sender sends the message to the directory, which passes
/// it to the conversation.
///
/// The answer comes when all events are durable. If there is an error, or the sender drops the future, the outcome is
/// unknown. The sender may then send the same events again: they count once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observe {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The events of the conversation.
    pub events: Vec<TurnEvent>,
}

impl Message for Observe {
    type Result = Result<Receipt, ObserveError>;
}

/// The answer to an [`Observe`]: the turns that it sealed, and the turns that were sealed before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The turns, in the order in which the message mentions them. A turn that the message sealed and then had a late
    /// event for stands twice: first as sealed, then as a duplicate.
    pub sealed: Vec<TurnReceipt>,
    /// How many events were late. The turn of a late event was sealed before, so the event changed nothing.
    pub late: u64,
    /// Probable mistakes of the sender: the first ones, at most [`Receipt::MAX_WARNINGS`].
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
    /// The turn's place in the conversation.
    pub ordinal: Ordinal,
    /// Whether the turn was sealed before, so that an event of the message changed nothing.
    pub duplicate: bool,
}

/// Why events were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// Too many messages are unanswered. Either nothing was taken in, or only the first parts of a message of many
    /// events. Send the message again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. Nothing was taken in.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// Nothing of this conversation was taken in: the conversation would have more open turns than its limit.
    #[error("conversation `{conversation_id}` would have more than {limit} open turns (`turns.max_open_turns`)")]
    TooManyOpenTurns {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many turns of a conversation may be open at one time.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: a turn would have more steps than its limit.
    #[error("turn `{turn_id}` would have more than {limit} steps (`turns.max_steps`)")]
    TooManySteps {
        /// The turn.
        turn_id: TurnId,
        /// How many steps a turn may have.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: an open turn would have more bytes than its limit, as
    /// [`OpenTurn::bytes`](crate::turn::OpenTurn::bytes) counts them.
    #[error("turn `{turn_id}` would have more than {limit} bytes while it is open (`turns.max_turn_bytes`)")]
    TurnTooLarge {
        /// The turn.
        turn_id: TurnId,
        /// How many bytes an open turn may have.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: its open turns together would have more bytes than their limit, as
    /// [`OpenTurn::bytes`](crate::turn::OpenTurn::bytes) counts them.
    #[error(
        "the open turns of conversation `{conversation_id}` would have more than {limit} bytes (`turns.max_open_bytes`)"
    )]
    OpenTurnsTooLarge {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many bytes the open turns of a conversation may have together.
        limit: usize,
    },
    /// The events make a commit that is larger than a commit may be, as [`Commit::bytes`](crate::store::Commit::bytes)
    /// counts it. Either nothing of this conversation was taken in, or only the first parts of a message of many
    /// events. A message with fewer events may succeed.
    #[error(
        "the events of conversation `{conversation_id}` make a commit of more than {limit} bytes (`store.max_commit_bytes`)"
    )]
    CommitTooLarge {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many bytes a commit may have.
        limit: usize,
    },
    /// Other writers changed the conversation at each attempt. Either nothing of the message was taken in, or only the
    /// first parts of a message of many events. Send it again later.
    #[error("the conversation is being changed by others")]
    Contended,
    /// The outcome is unknown: the store failed. Send again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor has died. Send the message again; a new actor is started for
    /// it.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

impl ObserveError {
    /// Returns whether the events exceed a limit of their conversation. Sending the same events again does not help.
    /// Sending fewer events, or sealing an open turn, may help.
    pub fn is_over_limit(&self) -> bool {
        match self {
            Self::TooManyOpenTurns { .. }
            | Self::TooManySteps { .. }
            | Self::TurnTooLarge { .. }
            | Self::OpenTurnsTooLarge { .. }
            | Self::CommitTooLarge { .. } => true,
            Self::Overloaded | Self::ShuttingDown | Self::Contended | Self::StoreUnavailable(_) | Self::ActorGone => {
                false
            }
        }
    }
}

/// Seal all turns of this list that are stale. The reason is `error` if the latest event of the turn was an `error`,
/// and `abandoned` otherwise. The sweeper sends this message to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandon {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The turns to check.
    pub turn_ids: Vec<TurnId>,
    /// A turn whose latest event came at this moment or later stays open.
    pub before: StaleBefore,
}

impl Message for Abandon {
    type Result = Result<Receipt, ObserveError>;
}

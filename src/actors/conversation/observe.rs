//! The messages that bring a conversation events or end its turns, and their answers.

use actix::Message;

use crate::store::{Fault, StaleBefore};
use crate::turn::{ConversationId, Ordinal, TurnEvent, TurnId, Warning};

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
    /// Too much is being worked on. Nothing was taken in, or the first part of a message of many events. Send again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// Nothing was taken in: the service is shutting down.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// Nothing of this conversation was taken in: it would have more open turns than it may.
    #[error("conversation `{conversation_id}` would have more than {limit} open turns (`turns.max_open_turns`)")]
    TooManyOpenTurns {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many turns may be open side by side.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: a turn would have more steps than it may.
    #[error("turn `{turn_id}` would have more than {limit} steps (`turns.max_steps`)")]
    TooManySteps {
        /// The turn.
        turn_id: TurnId,
        /// How many steps a turn may have.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: an open turn would have more bytes than it may, as
    /// [`OpenTurn::bytes`](crate::turn::OpenTurn::bytes) counts them.
    #[error("turn `{turn_id}` would have more than {limit} bytes while it is open (`turns.max_turn_bytes`)")]
    TurnTooLarge {
        /// The turn.
        turn_id: TurnId,
        /// How many bytes an open turn may have.
        limit: usize,
    },
    /// Nothing of this conversation was taken in: its open turns would have more bytes than they may, as
    /// [`OpenTurn::bytes`](crate::turn::OpenTurn::bytes) counts them.
    #[error(
        "the open turns of conversation `{conversation_id}` would have more than {limit} bytes (`turns.max_open_bytes`)"
    )]
    OpenTurnsTooLarge {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many bytes its open turns may have together.
        limit: usize,
    },
    /// The events change more than one commit may, as [`Commit::bytes`](crate::store::Commit::bytes) counts it. Nothing of
    /// this conversation was taken in, or the first part of a message of many events. Fewer events at one time may be
    /// taken.
    #[error(
        "the events of conversation `{conversation_id}` make a commit of more than {limit} bytes (`store.max_commit_bytes`)"
    )]
    CommitTooLarge {
        /// The conversation.
        conversation_id: ConversationId,
        /// How many bytes a commit may have.
        limit: usize,
    },
    /// Others changed the conversation again and again meanwhile. Nothing of it was taken in, or the first part of a
    /// message of many events. Send again later.
    #[error("the conversation is being changed by others")]
    Contended,
    /// The outcome is unknown: the store failed. Send again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor is gone. Send again, it is started anew.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

impl ObserveError {
    /// Whether the events exceed a limit of their conversation. Sending the same events again does not help, but fewer at
    /// one time or the end of an open turn may.
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

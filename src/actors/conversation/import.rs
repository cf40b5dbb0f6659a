//! The message that imports sealed turns into a conversation, and the answer to it.

use actix::Message;

use crate::store::Fault;
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnId};

/// Import these sealed turns of another store into a conversation, in this order. The sender sends the message to the
/// directory, which passes it to the conversation.
///
/// Each turn keeps all that it has, its `sealed_at` too. If no turn of the conversation was ever sealed here, the turns
/// keep their ordinals, from `imported_from` on. Otherwise they are appended. A turn that is sealed already does not
/// change. An open turn of the same id is sealed as it is imported, and other open turns stay open.
///
/// The answer comes when all turns are durable. If there is an error, or the sender drops the future, the outcome is
/// unknown: some of the first turns may be imported. The sender may then send the same turns again: each is stored once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The turns. The `step_details` of a turn must be in the order of its steps.
    pub turns: Vec<SealedTurn>,
    /// The ordinal that the first of `turns` has in the store that the turns come from; 1 if it has none. An ordinal
    /// above [`Commit::MAX_IMPORTED_FROM`](crate::store::Commit::MAX_IMPORTED_FROM) counts as that one.
    pub imported_from: Ordinal,
}

impl Message for Import {
    type Result = Result<ImportReceipt, ImportError>;
}

/// The answer to an [`Import`]: what became of its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportReceipt {
    /// How many turns the message sealed.
    pub imported: u64,
    /// How many turns were sealed before, so that nothing changed.
    pub duplicates: u64,
}

/// Why turns were not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Too much is being worked on. Either nothing was imported, or only the first turns of a message of many. Send the
    /// message again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. Nothing was imported.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// A turn makes a commit that is larger than a commit may be, as [`Commit::bytes`](crate::store::Commit::bytes)
    /// counts it. The turns before it in the message are imported. This turn and those after it are not.
    #[error("turn `{turn_id}` makes a commit of more than {limit} bytes (`store.max_commit_bytes`)")]
    TurnTooLarge {
        /// The turn.
        turn_id: TurnId,
        /// How many bytes a commit may have.
        limit: usize,
        /// What became of the turns before it.
        before: ImportReceipt,
    },
    /// Other writers changed the conversation at each attempt. Either nothing was imported, or only the first turns of a
    /// message of many. Send it again later.
    #[error("the conversation is being changed by others")]
    Contended,
    /// The outcome is unknown: the store failed. Send the message again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor has died. Send the message again; a new actor is started for it.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

//! The message that erases a conversation, and why it may fail.

use actix::Message;

use crate::store::Fault;
use crate::turn::ConversationId;

/// Erase a conversation: its sealed turns, its open turns and its id. The sender sends the message to the directory,
/// which passes it to the conversation.
///
/// The answer comes when the erasure is durable. It says whether there was anything to erase. Everything that was
/// acknowledged before is gone then, but for what it has added to the sums of reports, which contain no ids. Events that
/// are sent after the answer begin a new life of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Message for Erase {
    type Result = Result<bool, EraseError>;
}

/// Why an erasure was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// Too much is being worked on. Nothing was erased. Send the message again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. Nothing was erased.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The outcome is unknown: the store failed. Send the message again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor has died. Send the message again.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

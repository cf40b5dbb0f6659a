//! The answer to posted events.

use serde::Serialize;

use crate::turn::{ConversationId, Ordinal, TurnId};

/// The events that were taken in and are durable.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Acknowledged {
    pub(crate) accepted: u64,
    pub(crate) ignored: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) late: u64,
    pub(crate) sealed: Vec<SealedHere>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// The refused lines, if bad lines are skipped, and the conversations over a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Vec<Refused>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused_count: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "`serde` passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A turn that is sealed, by this request or before it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SealedHere {
    pub(crate) conversation_id: ConversationId,
    pub(crate) turn_id: TurnId,
    pub(crate) ordinal: Ordinal,
    pub(crate) duplicate: bool,
}

#[cfg(test)]
impl SealedHere {
    /// A turn that this request sealed.
    pub(crate) fn new(conversation_id: ConversationId, turn_id: TurnId) -> Self {
        Self { conversation_id, turn_id, ordinal: Ordinal::after(0), duplicate: false }
    }
}

/// A refused line or conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    /// The line; for a conversation, its first line.
    pub(crate) line: u64,
    pub(crate) error: String,
    /// The conversation, if all of it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_id: Option<ConversationId>,
}

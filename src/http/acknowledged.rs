//! The body of the answer to `POST /events`.

use serde::Serialize;

use crate::turn::{ConversationId, Ordinal, TurnId};

/// Says what became of the posted events. The accepted ones are durable.
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
    /// The first refused lines, if bad lines are skipped, and the first conversations over a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Vec<Refused>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused_count: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "`serde` passes a reference")]
pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A turn that is sealed, either by this request or before it.
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
    /// Returns the entry of a turn that this request sealed.
    pub(crate) fn new(conversation_id: ConversationId, turn_id: TurnId) -> Self {
        Self { conversation_id, turn_id, ordinal: Ordinal::after(0), duplicate: false }
    }
}

/// A refused line or conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    /// The number of the line; for a conversation, the number of its first line.
    pub(crate) line: u64,
    pub(crate) error: String,
    /// The conversation, if all its events were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation_id: Option<ConversationId>,
}

use crate::store::contract::{Life, Version};
use crate::turn::{ConversationId, EpochMillis, Usage};

/// What is stored once for each conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    pub(crate) life: Life,
    pub(crate) version: Version,
    pub(crate) sealed_turns: u64,
    /// When its latest turn was sealed. This moment never goes back.
    pub(crate) last_sealed_at: EpochMillis,
    /// The sum of the usage of its sealed turns.
    pub(crate) total_usage: Usage,
}

impl Conversation {
    /// A conversation that nobody has committed to.
    pub(crate) fn begin(id: ConversationId) -> Self {
        Self {
            id,
            life: Life::draw(),
            version: Version::default(),
            sealed_turns: 0,
            last_sealed_at: EpochMillis::default(),
            total_usage: Usage::default(),
        }
    }
}

use super::damaged::{DamagedRecord, RecordFlaw};
use crate::store::contract::{Life, Version};
use crate::turn::{ConversationId, EpochMillis, Usage};

/// What is stored once for each conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConversationRecord {
    pub(crate) id: ConversationId,
    pub(crate) life: Life,
    pub(crate) version: Version,
    pub(crate) sealed_turns: u64,
    /// When its latest turn was sealed. This moment never goes back.
    pub(crate) last_sealed_at: EpochMillis,
    /// When its latest turn ended, or was sealed if that is not known; 1970 if none is sealed.
    pub(crate) last_at: EpochMillis,
    /// The sum of the usage of its sealed turns.
    pub(crate) total_usage: Usage,
}

impl ConversationRecord {
    /// A conversation that nobody has committed to.
    pub(crate) fn begin(id: ConversationId) -> Self {
        Self {
            id,
            life: Life::draw(),
            version: Version::default(),
            sealed_turns: 0,
            last_sealed_at: EpochMillis::default(),
            last_at: EpochMillis::default(),
            total_usage: Usage::default(),
        }
    }

    /// Whether another state of the conversation is the later one. Versions of two lives say nothing of each other: rows
    /// of one must not be laid over those of the other.
    pub(crate) fn is_before(&self, other: &Self) -> Result<bool, DamagedRecord> {
        if self.life == other.life {
            Ok(self.version < other.version)
        } else {
            Err(DamagedRecord::new("conversation", RecordFlaw::OtherLife(self.id.clone())))
        }
    }

    /// Its row in the table of activity, if it has a sealed turn.
    pub(crate) fn activity(&self) -> Option<(u64, &str)> {
        (self.sealed_turns > 0).then(|| (inverted(self.last_at), self.id.as_str()))
    }
}

/// A moment as the table of activity has it: the later, the smaller.
pub(crate) fn inverted(moment: EpochMillis) -> u64 {
    u64::MAX - moment.get()
}

/// The moment that the table of activity has as this number.
pub(crate) fn moment_of(inverted: u64) -> EpochMillis {
    EpochMillis::new(u64::MAX - inverted)
}

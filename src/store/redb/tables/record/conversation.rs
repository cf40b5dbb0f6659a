use super::damaged::{DamagedRecord, RecordFlaw};
use crate::store::contract::{Life, Version};
use crate::turn::{ConversationId, EpochMillis, Label, SealedTurn, TokenCount, Usage};

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
    /// When its first turn ended, or was sealed if that is not known; 1970 if none is sealed.
    pub(crate) first_at: EpochMillis,
    /// The sum of the usage of its sealed turns.
    pub(crate) total_usage: Usage,
    /// Of its latest turn.
    pub(crate) model: Option<Label>,
    /// Of its latest turn.
    pub(crate) project: Option<Label>,
    /// Of its latest turn.
    pub(crate) context_size: Option<TokenCount>,
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
            first_at: EpochMillis::default(),
            total_usage: Usage::default(),
            model: None,
            project: None,
            context_size: None,
        }
    }

    /// Takes over what it says of its turns from the next one, which was sealed at this moment.
    pub(crate) fn count(&mut self, turn: &SealedTurn, sealed_at: EpochMillis, is_first: bool) {
        self.last_at = turn.ended_at.unwrap_or(sealed_at);
        if is_first {
            self.first_at = self.last_at;
        }
        self.total_usage = self.total_usage.saturating_add(turn.metrics.usage);
        (self.model, self.project) = (turn.model.clone(), turn.project.clone());
        self.context_size = turn.metrics.context_size;
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

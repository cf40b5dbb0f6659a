use super::damaged::{DamagedRecord, RecordFlaw};
use crate::store::contract::{Life, Version};
use crate::turn::{
    ConversationId, EpochMillis, Label, Ordinal, SealedTurn, StoredTurn, TokenCount, TurnMetrics, Usage,
};

/// The record that is stored once for each conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConversationRecord {
    pub(crate) id: ConversationId,
    pub(crate) life: Life,
    pub(crate) version: Version,
    /// The ordinal of its latest turn; 0 if no turn is sealed.
    pub(crate) sealed_turns: u64,
    /// The number of ordinals before that of its first turn: 0, unless that turn was imported with a later ordinal.
    pub(crate) begins_after: u64,
    /// The moment at which its latest turn was sealed. Only an import can make this moment go back.
    pub(crate) last_sealed_at: EpochMillis,
    /// The report time of its latest turn; the beginning of 1970 if no turn is sealed.
    pub(crate) last_at: EpochMillis,
    /// The report time of its first turn; the beginning of 1970 if no turn is sealed.
    pub(crate) first_at: EpochMillis,
    /// The sum of the usage of its sealed turns.
    pub(crate) total_usage: Usage,
    /// From its latest turn.
    pub(crate) model: Option<Label>,
    /// From its latest turn.
    pub(crate) project: Option<Label>,
    /// From its latest turn.
    pub(crate) context_size: Option<TokenCount>,
}

impl ConversationRecord {
    /// Returns the record of a conversation before its first commit.
    pub(crate) fn begin(id: ConversationId) -> Self {
        Self {
            id,
            life: Life::draw(),
            version: Version::default(),
            sealed_turns: 0,
            begins_after: 0,
            last_sealed_at: EpochMillis::default(),
            last_at: EpochMillis::default(),
            first_at: EpochMillis::default(),
            total_usage: Usage::default(),
            model: None,
            project: None,
            context_size: None,
        }
    }

    /// Updates all facts about turns with the next turn, which was sealed at `sealed_at`.
    pub(crate) fn count(&mut self, turn: &SealedTurn, ordinal: Ordinal, sealed_at: EpochMillis) {
        let is_first = self.advance(ordinal, sealed_at);
        (self.model, self.project) = (turn.model.clone(), turn.project.clone());
        self.take_figures(&turn.metrics, turn.ended_at.unwrap_or(sealed_at), is_first);
    }

    /// Updates all facts about turns with the next turn, as it is stored.
    pub(crate) fn count_stored(&mut self, turn: &StoredTurn) {
        let is_first = self.advance(turn.ordinal, turn.sealed_at);
        (self.model, self.project) = (turn.model.clone(), turn.project.clone());
        self.take_figures(&turn.metrics, turn.ended_at.unwrap_or(turn.sealed_at), is_first);
    }

    /// Takes the ordinal and the moment of the next turn. Returns whether it is the first turn.
    fn advance(&mut self, ordinal: Ordinal, sealed_at: EpochMillis) -> bool {
        let is_first = self.sealed_turns == self.begins_after;
        self.sealed_turns = ordinal.get();
        self.last_sealed_at = sealed_at;
        is_first
    }

    fn take_figures(&mut self, metrics: &TurnMetrics, at: EpochMillis, is_first: bool) {
        self.last_at = at;
        if is_first {
            self.first_at = at;
        }
        self.total_usage = self.total_usage.saturating_add(metrics.usage);
        self.context_size = metrics.context_size;
    }

    /// Returns whether `other` is a later state of the conversation. Versions of different lives cannot be compared, so
    /// another life is an error: rows of one life must not overlay rows of another.
    pub(crate) fn is_before(&self, other: &Self) -> Result<bool, DamagedRecord> {
        if self.life == other.life {
            Ok(self.version < other.version)
        } else {
            Err(DamagedRecord::new("conversation", RecordFlaw::OtherLife(self.id.clone())))
        }
    }

    /// Returns the key of its row in the table by activity, if the conversation has a sealed turn.
    pub(crate) fn activity(&self) -> Option<(u64, &str)> {
        (self.sealed_turns > 0).then(|| (inverted(self.last_at), self.id.as_str()))
    }
}

/// Returns a moment as it stands in the keys of the table by activity: a later moment is a smaller number.
pub(crate) fn inverted(moment: EpochMillis) -> u64 {
    u64::MAX - moment.get()
}

/// Returns the moment of a number in the keys of the table by activity.
pub(crate) fn moment_of(inverted: u64) -> EpochMillis {
    EpochMillis::new(u64::MAX - inverted)
}

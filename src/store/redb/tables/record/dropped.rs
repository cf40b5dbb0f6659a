use serde::{Deserialize, Serialize};

use super::conversation::ConversationRecord;
use super::damaged::DamagedRecord;
use super::{decode_plain, encode_plain};
use crate::report::ConversationSums;

/// What is known of the turns of a conversation that were dropped: its first turns, up to an ordinal. A conversation that
/// was imported without its first turns has a note too, as if they had been dropped before they added to any sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// The record that the conversation would have if the dropped turns were all of its turns.
    pub(crate) record: ConversationRecord,
    /// The sums over the dropped turns. Their costs are those that they had when they were dropped.
    pub(crate) sums: ConversationSums,
}

#[derive(Serialize, Deserialize)]
struct Twin {
    record: Vec<u8>,
    sums: ConversationSums,
}

impl Dropped {
    const WHAT: &'static str = "note of dropped turns";

    /// Returns the note of a conversation of which no turn was dropped.
    pub(crate) fn none_of(record: &ConversationRecord) -> Self {
        let ConversationRecord { life, begins_after, .. } = *record;
        let begun = ConversationRecord::begin(record.id.clone());
        let record = ConversationRecord { life, sealed_turns: begins_after, begins_after, ..begun };
        Self { record, sums: ConversationSums::default() }
    }

    /// Returns the ordinal of the last dropped turn.
    pub(crate) fn last(&self) -> u64 {
        self.record.sealed_turns
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, DamagedRecord> {
        encode_plain(Self::WHAT, &Twin { record: self.record.encode()?, sums: self.sums.clone() })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        let Twin { record, sums } = decode_plain(Self::WHAT, bytes)?;
        Ok(Self { record: ConversationRecord::decode(&record)?, sums })
    }
}

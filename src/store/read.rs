//! What is read in one read transaction.

use redb::{ReadOnlyTable, ReadTransaction};
use uuid::Uuid;

use super::record::{self, Conversation};
use super::schema::{
    CONVERSATIONS, Failure, KEYS, META, META_STORE_ID, OPEN_TURNS, ORDINALS, TURNS, find_conversation,
};
use super::{ConversationState, Revision, StaleTurn, TurnRange};
use crate::turn::{ConversationId, EpochMillis, Ordinal, StoredTurn, TurnId};

/// The tables of one read transaction: one consistent state of the store.
pub(super) struct ReadTables {
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    keys: ReadOnlyTable<&'static str, u64>,
    conversations: ReadOnlyTable<u64, &'static [u8]>,
    turns: ReadOnlyTable<(u64, u64), &'static [u8]>,
    ordinals: ReadOnlyTable<(u64, &'static str), u64>,
    open_turns: ReadOnlyTable<(u64, &'static str), &'static [u8]>,
}

impl ReadTables {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self {
            meta: txn.open_table(META)?,
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            ordinals: txn.open_table(ORDINALS)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
        })
    }

    fn find(&self, id: &ConversationId) -> Result<Option<(u64, Conversation)>, Failure> {
        find_conversation(&self.keys, &self.conversations, id)
    }

    pub(super) fn conversation_state(
        &self,
        id: &ConversationId,
        turn_ids: &[TurnId],
    ) -> Result<ConversationState, Failure> {
        let Some((key, record)) = self.find(id)? else { return Ok(ConversationState::default()) };
        // The range ends before the next conversation; there is none after the largest key.
        let range = match key.checked_add(1) {
            Some(next) => self.open_turns.range((key, "")..(next, ""))?,
            None => self.open_turns.range((key, "")..)?,
        };
        let open_turns = range.map(|row| Ok(record::decode_staged(row?.1.value())?));
        let open_turns = open_turns.collect::<Result<_, Failure>>()?;
        let mut sealed_turns = Vec::new();
        for turn_id in turn_ids {
            let ordinal = self.ordinals.get((key, turn_id.as_str()))?;
            if let Some(ordinal) = ordinal.and_then(|ordinal| Ordinal::new(ordinal.value())) {
                sealed_turns.push((turn_id.clone(), ordinal));
            }
        }
        Ok(ConversationState { version: record.version, open_turns, sealed_turns })
    }

    pub(super) fn revision(&self, id: &ConversationId) -> Result<Revision, Failure> {
        let store_id = self.meta.get(META_STORE_ID)?.and_then(|bytes| bytes.value().try_into().ok());
        let store_id = store_id.map(Uuid::from_bytes).ok_or(Failure::Meta(META_STORE_ID))?;
        let sealed_turns = self.find(id)?.map_or(0, |(_, record)| record.sealed_turns);
        Ok(Revision { store_id, sealed_turns })
    }

    pub(super) fn turns(&self, range: &TurnRange) -> Result<Vec<StoredTurn>, Failure> {
        // No conversation has a turn after the largest ordinal.
        let (Some((key, _)), Some(first)) = (self.find(&range.conversation_id)?, range.after.checked_add(1)) else {
            return Ok(Vec::new());
        };
        let rows = self.turns.range((key, first)..=(key, u64::MAX))?.take(range.limit);
        let turns = rows.map(|row| {
            let (place, value) = row?;
            let (_, ordinal) = place.value();
            let ordinal = Ordinal::new(ordinal).ok_or(Failure::Meta("turns"))?;
            Ok(record::decode_sealed(ordinal, value.value())?)
        });
        turns.collect()
    }

    pub(super) fn stale_turns(&self, idle_since: EpochMillis, limit: usize) -> Result<Vec<StaleTurn>, Failure> {
        let mut stale = Vec::new();
        for row in self.open_turns.range::<(u64, &str)>(..)? {
            if stale.len() == limit {
                break;
            }
            let (place, value) = row?;
            let staged = record::decode_staged(value.value())?;
            if staged.last_event_at < idle_since {
                let (key, _) = place.value();
                let record = self.conversations.get(key)?.ok_or(Failure::Meta("conversations"))?;
                let id = Conversation::decode(record.value())?.id;
                let conversation_id = ConversationId::new(id).map_err(|_| Failure::Meta("conversations"))?;
                stale.push(StaleTurn { conversation_id, turn_id: staged.turn.id });
            }
        }
        Ok(stale)
    }
}

//! What is read in one read transaction.
//!
//! A record that does not decode is left out and told, rather than failing what is asked: its neighbours are sound.

use std::cell::RefCell;
use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};
use uuid::Uuid;

use super::record::{self, DamagedRecord};
use super::schema::{
    CONVERSATIONS, Failure, KEYS, META, META_STORE_ID, OPEN_TURNS, ORDINALS, TURNS, find_conversation,
    read_conversation,
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
    left_out: RefCell<LeftOut>,
}

/// The damaged records that a read met.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub(super) count: u64,
    /// Where the first one stands, and what is wrong with it.
    pub(super) first: String,
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
            left_out: RefCell::default(),
        })
    }

    /// What was left out so far.
    pub(super) fn into_left_out(self) -> LeftOut {
        self.left_out.into_inner()
    }

    fn leave_out(&self, damaged: &DamagedRecord, place: impl FnOnce() -> String) {
        let mut left_out = self.left_out.borrow_mut();
        if left_out.count == 0 {
            left_out.first = format!("{}: {damaged}", place());
        }
        left_out.count += 1;
    }

    pub(super) fn conversation_state(
        &self,
        id: &ConversationId,
        turn_ids: &[TurnId],
    ) -> Result<ConversationState, Failure> {
        let Some((key, record)) = find_conversation(&self.keys, &self.conversations, id)? else {
            return Ok(ConversationState::default());
        };
        // The range ends before the next conversation; there is none after the largest key.
        let range = match key.checked_add(1) {
            Some(next) => self.open_turns.range((key, "")..(next, ""))?,
            None => self.open_turns.range((key, "")..)?,
        };
        let mut open_turns = Vec::new();
        for row in range {
            let (place, value) = row?;
            match record::decode_staged(value.value()) {
                Ok(staged) => open_turns.push(staged),
                // Without it the turn begins anew with its next event; refusing the conversation would lose those too.
                Err(damaged) => self.leave_out(&damaged, || format!("open turn {} of {id}", place.value().1)),
            }
        }
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
        let Some(key) = self.key_of(id)? else { return Ok(Revision { store_id, sealed_turns: 0 }) };
        let sealed_turns = match read_conversation(&self.conversations, key) {
            Ok(record) => record.sealed_turns,
            Err(Failure::Record(damaged)) => {
                self.leave_out(&damaged, || format!("conversation {id}"));
                self.last_ordinal(key)?
            }
            Err(failure) => return Err(failure),
        };
        Ok(Revision { store_id, sealed_turns })
    }

    fn key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        Ok(self.keys.get(id.as_str())?.map(|key| key.value()))
    }

    fn last_ordinal(&self, key: u64) -> Result<u64, Failure> {
        let last = self.turns.range((key, 0)..=(key, u64::MAX))?.next_back().transpose()?;
        Ok(last.map_or(0, |(place, _)| place.value().1))
    }

    /// At most as many turns as are asked for, all of them sound: damaged ones between them are passed over, so that
    /// fewer than asked for still means that there are no more.
    pub(super) fn turns(&self, range: &TurnRange) -> Result<Vec<StoredTurn>, Failure> {
        let id = &range.conversation_id;
        // No conversation has a turn after the largest ordinal.
        let (Some(key), Some(first)) = (self.key_of(id)?, range.after.checked_add(1)) else {
            return Ok(Vec::new());
        };
        let mut turns = Vec::new();
        let mut rows = self.turns.range((key, first)..=(key, u64::MAX))?;
        while turns.len() < range.limit {
            let Some(row) = rows.next() else { break };
            let (place, value) = row?;
            let (_, ordinal) = place.value();
            let ordinal = Ordinal::new(ordinal).ok_or(Failure::Meta("turns"))?;
            match record::decode_sealed(ordinal, value.value()) {
                Ok(turn) => turns.push(turn),
                Err(damaged) => self.leave_out(&damaged, || format!("turn {ordinal} of {id}")),
            }
        }
        Ok(turns)
    }

    pub(super) fn stale_turns(
        &self,
        idle_since: EpochMillis,
        after: Option<&StaleTurn>,
        limit: usize,
    ) -> Result<Vec<StaleTurn>, Failure> {
        let after = match after {
            Some(StaleTurn { conversation_id, turn_id }) => {
                // A conversation that is not known any more has the key of none, which is before all.
                let key = self.keys.get(conversation_id.as_str())?.map_or(0, |key| key.value());
                Bound::Excluded((key, turn_id.as_str()))
            }
            None => Bound::Unbounded,
        };
        let mut stale = Vec::new();
        for row in self.open_turns.range::<(u64, &str)>((after, Bound::Unbounded))? {
            if stale.len() == limit {
                break;
            }
            let (place, value) = row?;
            let (key, turn_id) = place.value();
            let found = self.if_stale(key, value.value(), idle_since);
            match found {
                Ok(found) => stale.extend(found),
                // It must not keep all others from being found.
                Err(Failure::Record(damaged)) => self.leave_out(&damaged, || format!("open turn {turn_id}")),
                Err(failure) => return Err(failure),
            }
        }
        Ok(stale)
    }

    fn if_stale(&self, key: u64, staged: &[u8], idle_since: EpochMillis) -> Result<Option<StaleTurn>, Failure> {
        let staged = record::decode_staged(staged)?;
        if staged.last_event_at >= idle_since {
            return Ok(None);
        }
        let id = read_conversation(&self.conversations, key)?.id;
        let conversation_id = ConversationId::new(id).map_err(|_| Failure::Meta("conversations"))?;
        Ok(Some(StaleTurn { conversation_id, turn_id: staged.turn.id }))
    }
}

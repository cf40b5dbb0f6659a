//! Drops turns that are older than the operator wants to keep, a few at a time.
//!
//! The turns of a conversation are dropped in order from its first one, in the tables of the main file. What they have
//! added to the sums of reports moves to the sums of erased turns, so reports show the same as before. A note keeps what
//! the conversation's record says of them.
//!
//! A cost can be moved only if it can be computed again, and a sum only if it is in the tables. So nothing is dropped while
//! costs are by other prices than the present ones, or while the memtable has an immutable table.

use std::ops::Bound;

use redb::WriteTransaction;

use super::erasing::BYTES_AT_ONCE;
use crate::report::{ConversationSums, PriceBook};
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::{self};
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::WriteTables;
use crate::turn::{EpochMillis, Ordinal, StoredTurn};

/// The number of turns that one transaction drops, which takes some milliseconds.
const TURNS_AT_ONCE: usize = 250;

/// The number of conversations that one step looks at.
const CONVERSATIONS_AT_ONCE: usize = 1000;

/// The turns that one step drops.
#[derive(Debug, Default)]
pub(super) struct Old {
    /// The old turns of some conversations, with the keys and the records of these.
    conversations: Vec<(u64, ConversationRecord, Vec<StoredTurn>)>,
    /// The number of these turns.
    pub(super) turns: usize,
    /// The bytes of their records.
    bytes: usize,
    /// Whether all conversations have been looked at.
    pub(super) is_all: bool,
    /// The key of the last conversation whose old turns are all among these.
    pub(super) last: Option<u64>,
}

impl Old {
    /// Searches for turns that were sealed before a moment, in conversations after this key.
    pub(super) fn find(tables: &ReadTables, after: Option<u64>, before: EpochMillis) -> Result<Self, Failure> {
        let mut old = Self { last: after, ..Self::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (nth, row) in tables.conversations()?.range::<u64>((from, Bound::Unbounded))?.enumerate() {
            let (key, value) = row?;
            let key = key.value();
            if nth == CONVERSATIONS_AT_ONCE {
                return Ok(old);
            }
            // A damaged conversation keeps its turns until a repair.
            let record = value.value().verify(&key).and_then(ConversationRecord::decode);
            if let Ok(record) = record
                && !old.take(tables, key, record, before)?
            {
                // The next step goes on with this conversation.
                return Ok(old);
            }
            old.last = Some(key);
        }
        old.is_all = true;
        Ok(old)
    }

    /// Takes the old turns of a conversation. Returns whether there was room for all of them.
    fn take(
        &mut self,
        tables: &ReadTables,
        key: u64,
        record: ConversationRecord,
        before: EpochMillis,
    ) -> Result<bool, Failure> {
        let mut turns = Vec::new();
        let mut is_all = true;
        for row in tables.turns()?.range((key, 0)..=(key, u64::MAX))? {
            let (place, value) = row?;
            let place = place.value();
            // Damaged turns and rows of the index stay until a repair, and so do the turns behind them.
            let (Some(ordinal), Ok(bytes)) = (Ordinal::new(place.1), value.value().verify(&place)) else { break };
            if record::sealed_at_of(bytes).map_or(true, |sealed_at| sealed_at >= before) {
                break;
            }
            if self.turns == TURNS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
                is_all = false;
                break;
            }
            let Ok(turn) = record::decode_sealed(ordinal, bytes) else { break };
            if !tables.can_leave_index(key, turn.metrics.turn_id.as_str())? {
                break;
            }
            self.turns += 1;
            self.bytes += bytes.len();
            turns.push(turn);
        }
        if matches!(tables.dropped(key), Err(Failure::Record(_))) {
            self.turns -= turns.len();
            return Ok(true);
        }
        if !turns.is_empty() {
            self.conversations.push((key, record, turns));
        }
        Ok(is_all)
    }

    /// Drops the turns.
    pub(super) fn write(
        &self,
        txn: &WriteTransaction,
        hasher: TurnHasher,
        book: &dyn PriceBook,
    ) -> Result<(), Failure> {
        let mut tables = WriteTables::open(txn, hasher)?;
        let mut rollups = WriteRollups::open(txn)?;
        let generation = tables.meta().costs()?.generation;
        let mut tally = Tally::default();
        for (key, record, turns) in &self.conversations {
            let mut sums = ConversationSums::default();
            for turn in turns {
                sums.add(&tally.count_parts(turn, book));
            }
            tables.drop_turns(*key, record, turns, &sums)?;
            rollups.take_from_conversation(generation, *key, &sums)?;
        }
        rollups.erase(generation, tally.parts())?;
        tables.grow_by(rollups.growth());
        tables.finish_without_journal()
    }
}

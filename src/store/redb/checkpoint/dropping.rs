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
    /// The key of the last conversation that was looked at. `None` if the last one of all was looked at.
    pub(super) last: Option<u64>,
}

impl Old {
    /// Searches for turns that were sealed before a moment, in conversations after this key.
    pub(super) fn find(tables: &ReadTables, after: Option<u64>, before: EpochMillis) -> Result<Self, Failure> {
        let mut old = Self::default();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (nth, row) in tables.conversations()?.range::<u64>((from, Bound::Unbounded))?.enumerate() {
            let (key, value) = row?;
            let key = key.value();
            if nth == CONVERSATIONS_AT_ONCE || old.turns >= TURNS_AT_ONCE {
                return Ok(old);
            }
            old.last = Some(key);
            // A damaged conversation keeps its turns until a repair.
            let Ok(record) = value.value().verify(&key).and_then(ConversationRecord::decode) else { continue };
            let mut turns = Vec::new();
            for row in tables.turns()?.range((key, 0)..=(key, u64::MAX))?.take(TURNS_AT_ONCE - old.turns) {
                let (place, value) = row?;
                let place = place.value();
                let Some(ordinal) = Ordinal::new(place.1) else { break };
                let turn = value.value().verify(&place).and_then(|bytes| record::decode_sealed(ordinal, bytes));
                match turn {
                    Ok(turn) if turn.sealed_at < before => turns.push(turn),
                    _ => break,
                }
            }
            if !turns.is_empty() {
                old.turns += turns.len();
                old.conversations.push((key, record, turns));
            }
        }
        old.last = None;
        Ok(old)
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

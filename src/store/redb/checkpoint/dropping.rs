//! Drops turns that are older than the operator wants to keep, a few at a time.
//!
//! The turns of a conversation are dropped in order from its first one, in the tables of the main file. What they have
//! added to the sums of reports moves to the sums of erased turns, so reports show the same as before. A note keeps what
//! the conversation's record says of them.
//!
//! A cost can be moved only if it can be computed again, and a sum only if it is in the tables. So nothing is dropped while
//! costs are by other prices than the present ones, or while the memtable has sums of turns that are in the tables.

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
    /// The key from which the next step searches. `None` if all conversations were searched.
    pub(super) next: Option<u64>,
}

impl Old {
    /// Searches for turns that were sealed before a moment, in conversations from this key on.
    pub(super) fn find(tables: &ReadTables, from: Option<u64>, before: EpochMillis) -> Result<Self, Failure> {
        let mut old = Self::default();
        for (nth, row) in tables.conversations()?.range(from.unwrap_or(0)..)?.enumerate() {
            let (key, value) = row?;
            let key = key.value();
            if nth == CONVERSATIONS_AT_ONCE {
                old.next = Some(key);
                return Ok(old);
            }
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
            if old.turns >= TURNS_AT_ONCE {
                // This conversation may have further old turns.
                old.next = Some(key);
                return Ok(old);
            }
        }
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
            turns.iter().for_each(|turn| sums.add(&tally.count_parts(turn, book)));
            tables.drop_turns(*key, record, turns, &sums)?;
            rollups.take_from_conversation(generation, *key, &sums)?;
        }
        rollups.erase(generation, tally.parts())?;
        tables.grow_by(rollups.growth());
        tables.finish_without_journal()
    }
}

//! Drops turns that are older than the operator wants to keep, a few at a time.
//!
//! The turns of a conversation are dropped in order from its first one, in the tables of the main file. What they have
//! added to the sums of reports moves to the sums of erased turns, so reports show the same as before. A note keeps what
//! the conversation's record says of them.
//!
//! A cost can be moved only if it can be computed again, and a sum only if it is in the tables. So nothing is dropped while
//! costs are by other prices than the present ones, or while the memtable has sums of turns that are in the tables. Nothing
//! is dropped while an export is being sent either.

use std::ops::Bound;
use std::sync::{Arc, MutexGuard, PoisonError};

use redb::WriteTransaction;

use super::Checkpoint;
use super::erasing::{BYTES_AT_ONCE, is_priced};
use crate::report::{ConversationSums, PriceBook};
use crate::store::contract::{DropError, DropTurns, DroppedTurns};
use crate::store::fault::Fault;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::WriteTables;
use crate::store::redb::unwind;
use crate::store::retention::{Moment, TrustedClock};
use crate::turn::{EpochMillis, Ordinal, RunningTime, StoredTurn};

/// The number of turns that one transaction drops, which takes some milliseconds.
const TURNS_AT_ONCE: usize = 250;

/// The number of conversations that one step looks at.
const CONVERSATIONS_AT_ONCE: usize = 1000;

impl Checkpoint {
    /// Drops some of the turns that are too old. Turns of the memtable are moved into the tables first. Like a flush in
    /// the background, stores a failure for the next commit too.
    pub(crate) fn drop_some(&self, question: &DropTurns, running: RunningTime) -> Result<DroppedTurns, DropError> {
        let _one_at_a_time = self.pause();
        self.failure().map_or(Ok(()), Err)?;
        if self.exports.is_any() {
            return Err(DropError::Exporting);
        }
        let now = Moment::new(question.now, running);
        unwind::caught_as_fault(|| self.move_and_drop(now, question.before())).unwrap_or_else(|cause| {
            *self.failure_of_background() = Some(cause.clone());
            Err(cause.into())
        })
    }

    fn move_and_drop(&self, now: Moment, before: EpochMillis) -> Result<Result<DroppedTurns, DropError>, Fault> {
        if self.has_to_move(before)? {
            self.flush_once()?;
            // The rest is left for the next step.
            if self.has_to_move(before)? {
                return Ok(Ok(DroppedTurns { turns: 0, is_done: false }));
            }
        }
        self.drop_once(now, before)
    }

    /// Returns whether a flush has to come before turns can be dropped that were sealed before a moment.
    fn has_to_move(&self, before: EpochMillis) -> Result<bool, Fault> {
        let is_first = self.dropped_after().is_none();
        self.slot.with(|files| {
            let memtable = files.memtable();
            let mut pieces = memtable.contents().present().filter(|_| is_first);
            let is_old = |record: &Arc<[u8]>| record::sealed_at_of(record).is_ok_and(|sealed_at| sealed_at < before);
            memtable.owes_sums()
                || pieces.any(|piece| piece.sealed_after(0).next().is_some_and(|(_, record)| is_old(record)))
        })
    }

    fn dropped_after(&self) -> MutexGuard<'_, Option<u64>> {
        self.dropped_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inner error says why no turns are dropped now.
    fn drop_once(&self, now: Moment, before: EpochMillis) -> Result<Result<DroppedTurns, DropError>, Fault> {
        let begun = self.slot.with(|files| -> Result<_, Failure> { Ok((files.read_tables()?, files.hasher())) });
        let (tables, hasher) = begun??;
        let mut after = self.dropped_after();
        let known = tables.meta()?.clock()?;
        let trusted =
            known.map_or_else(|| tables.last_sealing().map(|at| TrustedClock::since(at, now)), |of| Ok(Some(of)));
        let (clock, ahead) = TrustedClock::look(trusted?, now);
        if after.is_none() && Some(clock) != known {
            let txn = self.slot.with(Files::write_tables)??;
            WriteMeta::write(&txn)?.set_clock(clock)?;
            txn.commit().map_err(Failure::from)?;
        }
        let book = self.slot.book();
        if let Some(by) = ahead {
            *after = None;
            return Ok(Err(DropError::ClockAhead { by }));
        }
        if !is_priced(&tables, book.digest())? {
            *after = None;
            return Ok(Err(DropError::Repricing));
        }
        let old = Old::find(&tables, *after, before)?;
        if old.turns > 0 {
            let txn = self.slot.with(Files::write_tables)??;
            old.write(&txn, hasher, &**book)?;
            // From here on, reads of revisions look for dropped turns. If the commit fails, they find none.
            self.slot.with(Files::note_dropped)?;
            txn.commit().map_err(Failure::from)?;
        }
        *after = old.last.filter(|_| !old.is_all);
        Ok(Ok(DroppedTurns { turns: old.turns as u64, is_done: old.is_all }))
    }
}

/// The turns that one step drops.
#[derive(Debug, Default)]
struct Old {
    /// The old turns of some conversations, with the keys and the records of these.
    conversations: Vec<(u64, ConversationRecord, Vec<StoredTurn>)>,
    /// The number of these turns.
    turns: usize,
    /// The bytes of their records.
    bytes: usize,
    /// Whether all conversations have been looked at.
    is_all: bool,
    /// The key of the last conversation whose old turns are all among these.
    last: Option<u64>,
}

impl Old {
    /// Searches for turns that were sealed before a moment, in conversations after this key.
    fn find(tables: &ReadTables, after: Option<u64>, before: EpochMillis) -> Result<Self, Failure> {
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
            // If a turn, a row of the index or the note of dropped turns is damaged, the turns from there on stay until a
            // repair.
            let (Some(ordinal), Ok(bytes)) = (Ordinal::new(place.1), value.value().verify(&place)) else { break };
            // A page of an earlier moment has turns again.
            if turns.last().is_some_and(|last: &StoredTurn| last.ordinal >= ordinal) {
                break;
            }
            if record::sealed_at_of(bytes).map_or(true, |sealed_at| sealed_at >= before) {
                break;
            }
            if self.turns == TURNS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
                is_all = false;
                break;
            }
            let Ok(turn) = record::decode_sealed(ordinal, bytes) else { break };
            let has_sound_note = || !turns.is_empty() || !matches!(tables.dropped(key), Err(Failure::Record(_)));
            if !has_sound_note() || !tables.can_leave_index(key, turn.metrics.turn_id.as_str())? {
                break;
            }
            self.turns += 1;
            self.bytes += bytes.len();
            turns.push(turn);
        }
        if !turns.is_empty() {
            self.conversations.push((key, record, turns));
        }
        Ok(is_all)
    }

    /// Drops the turns.
    fn write(&self, txn: &WriteTransaction, hasher: TurnHasher, book: &dyn PriceBook) -> Result<(), Failure> {
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

//! Removes rows: those of erased conversations, and turns that are dropped because of their age.

use redb::{ReadableTable, TableHandle, WriteTransaction};

use super::{WriteTables, bytes_of_step_key};
use crate::report::ConversationSums;
use crate::store::contract::Life;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index;
use crate::store::redb::tables::read::{read_conversation, read_dropped};
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::row;
use crate::store::redb::tables::schema::{LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS};
use crate::turn::{ConversationId, Ordinal, StoredTurn};

impl WriteTables<'_> {
    /// Erases the life `life` of a conversation, if the tables have it: the id leads to nothing any more. The rows of its
    /// key are removed later, see [`Erasure`], which also says what `row` is.
    pub(crate) fn erase(&mut self, id: &ConversationId, life: Life, row: u64) -> Result<(), Failure> {
        let Some((key, _)) = self.find_key(id)? else { return Ok(()) };
        let record = match read_conversation(&self.conversations, key) {
            Ok(record) if record.life != life => return Ok(()),
            Err(Failure::Record(_)) => None,
            record => Some(record?),
        };
        let place = match &record {
            Some(record) => record.activity().map(|(moment, _)| moment),
            // The moment is unknown.
            None => self.place_of(id)?,
        };
        if let Some(moment) = place {
            let removed = self.activity.remove((moment, id.as_str()))?.map(|row| row.value().unverified().len());
            self.grow(0, removed.map_or(0, |bytes| size_of::<u64>() + id.as_str().len() + bytes));
        }
        let removed = self.keys.remove(id.as_str())?.map(|row| row.value().unverified().len());
        self.grow(0, removed.map_or(0, |bytes| id.as_str().len() + bytes));
        let removed = self.conversations.remove(key)?.map(|row| row.value().unverified().len());
        self.grow(0, removed.map_or(0, |bytes| size_of::<u64>() + bytes));
        let last = self.turns.range((key, 0)..=(key, u64::MAX))?.next_back().transpose()?;
        let last = last.map_or(0, |(place, _)| place.value().1);
        let sealed_turns = record.map_or(last, |record| record.sealed_turns);
        self.note_erased(key, sealed_turns)?;
        self.note_erasure(&Erasure { life, key, row })
    }

    /// Returns the moment in a conversation's row by activity. Reads all of these rows.
    fn place_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        for row in self.activity.iter()? {
            let (place, _) = row?;
            let (moment, of) = place.value();
            if of == id.as_str() {
                return Ok(Some(moment));
            }
        }
        Ok(None)
    }

    /// Notes that the conversation with this key was erased, which had this number of sealed turns.
    pub(crate) fn note_erased(&mut self, key: u64, sealed_turns: u64) -> Result<(), Failure> {
        self.fill(&sealed_turns.to_le_bytes());
        let before = self.erased.insert(key, row::seal(&key, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(size_of::<u64>() + self.value.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Notes that the rows of an erased conversation are still to be removed.
    pub(crate) fn note_erasure(&mut self, erasure: &Erasure) -> Result<(), Failure> {
        self.fill(&erasure.encode());
        let life = erasure.life.0;
        let before = self.erasures.insert(life, row::seal(&life, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(size_of::<u64>() + self.value.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Removes some open turns of an erased conversation and their steps, at most `limit` rows. Returns how many rows
    /// were removed.
    pub(crate) fn remove_open(&mut self, key: u64, limit: usize) -> Result<usize, Failure> {
        let mut steps = Vec::new();
        for row in self.open_steps.range((key, "", 0)..)?.take(limit) {
            let (place, row) = row?;
            let (of, turn_id, step) = place.value();
            if of != key {
                break;
            }
            steps.push((turn_id.to_owned(), step, bytes_of_step_key(&place.value()) + row.value().unverified().len()));
        }
        for (turn_id, step, bytes) in &steps {
            self.open_steps.remove((key, turn_id.as_str(), *step))?;
            self.grow(0, *bytes);
        }
        let mut turns = Vec::new();
        for row in self.open_turns.range((key, "")..)?.take(limit - steps.len()) {
            let (place, row) = row?;
            let (of, turn_id) = place.value();
            if of != key {
                break;
            }
            turns.push((turn_id.to_owned(), size_of::<u64>() + turn_id.len() + row.value().unverified().len()));
        }
        for (turn_id, bytes) in &turns {
            self.open_turns.remove((key, turn_id.as_str()))?;
            self.grow(0, *bytes);
        }
        Ok(steps.len() + turns.len())
    }

    /// Removes the first turns of an erased conversation, and calls `take` with each of them. A turn that cannot be read is
    /// an error. Stops after `limit` turns, or when their records have `bytes` bytes. Returns how many were removed, and
    /// whether these were the last ones.
    pub(crate) fn remove_turns(
        &mut self,
        key: u64,
        (limit, bytes): (usize, usize),
        mut take: impl FnMut(Result<StoredTurn, DamagedRecord>),
    ) -> Result<(usize, bool), Failure> {
        let (mut places, mut size) = (Vec::new(), 0);
        for row in self.turns.range((key, 0)..=(key, u64::MAX))? {
            if places.len() == limit || size >= bytes {
                break;
            }
            let (place, row) = row?;
            let ordinal = Ordinal::new(place.value().1).unwrap_or(Ordinal::after(0));
            let record = row.value().verify(&place.value());
            take(record.and_then(|record| record::decode_sealed(ordinal, record)));
            let bytes = 2 * size_of::<u64>() + row.value().unverified().len();
            size += bytes;
            places.push((place.value().1, bytes));
        }
        for (ordinal, bytes) in &places {
            self.turns.remove((key, *ordinal))?;
            self.grow(0, *bytes);
        }
        let is_all = self.turns.range((key, 0)..=(key, u64::MAX))?.next().is_none();
        Ok((places.len(), is_all))
    }

    /// Removes the first turns of a conversation, which were too old, and notes that. `turns` are the first ones that the
    /// tables have, in order. A conversation without another turn is not listed any more.
    pub(crate) fn drop_turns(
        &mut self,
        key: u64,
        record: &ConversationRecord,
        turns: &[StoredTurn],
        sums: &ConversationSums,
    ) -> Result<(), Failure> {
        let before = read_dropped(&self.dropped, key)?;
        let mut dropped = before.unwrap_or_else(|| Dropped::none_of(record));
        dropped.sums.add(sums);
        for turn in turns {
            let (id, ordinal) = (turn.metrics.turn_id.as_str(), turn.ordinal);
            let hash = |id: &str| self.hasher.hash(id);
            let was_indexed = index::remove(&mut self.index, &self.turns, key, hash, (id, ordinal))?;
            self.grow(0, if was_indexed { 3 * size_of::<u64>() } else { 0 });
            let removed = self.turns.remove((key, ordinal.get()))?.map(|row| row.value().unverified().len());
            self.grow(0, removed.map_or(0, |bytes| 2 * size_of::<u64>() + bytes));
            dropped.record.count_stored(turn);
        }
        self.fill(&dropped.encode()?);
        let before = self.dropped.insert(key, row::seal(&key, &mut self.value))?;
        let before = before.map_or(0, |row| size_of::<u64>() + row.value().unverified().len());
        self.grow(size_of::<u64>() + self.value.len(), before);
        if let Some(place) = record.activity().filter(|_| dropped.last() == record.sealed_turns) {
            let removed = self.activity.remove(place)?.map(|row| row.value().unverified().len());
            self.grow(0, removed.map_or(0, |bytes| size_of::<u64>() + place.1.len() + bytes));
        }
        Ok(())
    }

    /// Notes that a conversation never had its first turns here, if it has no note of dropped turns.
    pub(super) fn note_beginning(&mut self, key: u64, record: &ConversationRecord) -> Result<(), Failure> {
        if self.dropped.get(key)?.is_none() {
            self.fill(&Dropped::none_of(record).encode()?);
            self.dropped.insert(key, row::seal(&key, &mut self.value))?;
            self.grow(size_of::<u64>() + self.value.len(), 0);
        }
        Ok(())
    }

    /// Removes the note of a conversation's dropped turns, if there is one.
    pub(crate) fn forget_dropped(&mut self, key: u64) -> Result<(), Failure> {
        let removed = self.dropped.remove(key)?.map(|row| row.value().unverified().len());
        self.grow(0, removed.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Removes some rows of the index of an erased conversation, at most `limit`. Returns how many were removed.
    pub(crate) fn remove_index(&mut self, key: u64, limit: usize) -> Result<usize, Failure> {
        let rows = self.index.range((key, 0)..=(key, u64::MAX))?.take(limit);
        let rows = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, Failure>>()?;
        for place in &rows {
            self.index.remove(place)?;
            self.grow(0, 3 * size_of::<u64>());
        }
        Ok(rows.len())
    }

    /// Ends an erasure: all rows of the conversation are removed.
    pub(crate) fn end_erasure(&mut self, life: Life) -> Result<(), Failure> {
        let removed = self.erasures.remove(life.0)?.map(|row| row.value().unverified().len());
        self.grow(0, removed.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }
}

/// Removes some rows of an erased conversation that repairs have moved aside, at most `limit`. Returns how many were
/// removed.
pub(crate) fn remove_lost(txn: &WriteTransaction, key: u64, limit: usize) -> Result<usize, Failure> {
    // These tables exist only after a repair that needed them.
    let names: Vec<_> = txn.list_tables()?.map(|table| table.name().to_owned()).collect();
    let exists = |name| names.iter().any(|there| there == name);
    let mut removed = 0;
    if exists(LOST_TURNS.name()) {
        let mut lost = txn.open_table(LOST_TURNS)?;
        let rows = lost.range((key, 0)..=(key, u64::MAX))?.take(limit);
        let rows = rows.map(|row| Ok(row?.0.value())).collect::<Result<Vec<_>, Failure>>()?;
        for place in rows {
            lost.remove(place)?;
            removed += 1;
        }
    }
    if exists(LOST_OPEN_TURNS.name()) {
        let mut lost = txn.open_table(LOST_OPEN_TURNS)?;
        lost.retain(|(_, of, _), _| {
            let goes = of == key && removed < limit;
            removed += usize::from(goes);
            !goes
        })?;
    }
    if exists(LOST_OPEN_STEPS.name()) {
        let mut lost = txn.open_table(LOST_OPEN_STEPS)?;
        lost.retain(|(_, of, _, _), _| {
            let goes = of == key && removed < limit;
            removed += usize::from(goes);
            !goes
        })?;
    }
    Ok(removed)
}

use redb::{Database, ReadableTable, ReadableTableMetadata, Table, TableHandle, Value, WriteTransaction};

use super::failure::Failure;
use super::index::{self, TurnHasher};
use super::indexed::Indexed;
use super::journal_mark::JournalMark;
use super::meta::WriteMeta;
use super::read::{read_conversation, read_dropped, read_key, search_key};
use super::record;
use super::record::at_position::AtPosition;
use super::record::conversation::ConversationRecord;
use super::record::damaged::DamagedRecord;
use super::record::dropped::Dropped;
use super::record::erasure::Erasure;
use super::row::{self, Row};
use super::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, DROPPED, DroppedTurns, ERASED, ERASURES, Erased, Erasures, INDEX,
    KEYS, Keys, LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns,
    POSITIONS, Positions, StepKey, TURNS, Turns,
};
use crate::report::ConversationSums;
use crate::store::contract::Life;
use crate::turn::{ConversationId, Ordinal, StoredTurn};

/// Begins a transaction on a main file, whose commit returns when it is durable.
pub(crate) fn begin_write(tables: &Database) -> Result<WriteTransaction, Failure> {
    let mut txn = tables.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    // Without quick-repair, opening a large file after a crash reads the whole file: seconds instead of a millisecond.
    // It costs a second fsync, so the journal, which is a small file, does not use it.
    txn.set_quick_repair(true);
    Ok(txn)
}

/// The tables that commits fill, in a write transaction. Each row is written whole, so writing the same row again
/// changes nothing. The sums of reports are in `rollups`.
pub(crate) struct WriteTables<'txn> {
    meta: WriteMeta<'txn>,
    keys: Table<'txn, &'static str, Row<Keys>>,
    conversations: Table<'txn, u64, Row<Conversations>>,
    turns: Table<'txn, (u64, u64), Row<Turns>>,
    index: Table<'txn, (u64, u64), Indexed>,
    open_turns: Table<'txn, (u64, &'static str), Row<OpenTurns>>,
    open_steps: Table<'txn, StepKey, Row<OpenTurnSteps>>,
    positions: Table<'txn, u64, Row<Positions>>,
    activity: Table<'txn, (u64, &'static str), Row<Activity>>,
    erased: Table<'txn, u64, Row<Erased>>,
    erasures: Table<'txn, u64, Row<Erasures>>,
    dropped: Table<'txn, u64, Row<DroppedTurns>>,
    /// The value that is being written, with its checksum. The buffer is kept between rows to reuse its memory.
    value: Vec<u8>,
    hasher: TurnHasher,
    /// The key of the next new conversation.
    next_key: u64,
    /// The number of bytes by which the rows have grown.
    growth: i64,
}

impl<'txn> WriteTables<'txn> {
    pub(crate) fn open(txn: &'txn WriteTransaction, hasher: TurnHasher) -> Result<Self, Failure> {
        let meta = WriteMeta::write(txn)?;
        let next_key = meta.next_key()?;
        Ok(Self {
            meta,
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            open_steps: txn.open_table(OPEN_STEPS)?,
            positions: txn.open_table(POSITIONS)?,
            activity: txn.open_table(ACTIVITY)?,
            erased: txn.open_table(ERASED)?,
            erasures: txn.open_table(ERASURES)?,
            dropped: txn.open_table(DROPPED)?,
            value: Vec::new(),
            hasher,
            next_key,
            growth: 0,
        })
    }

    /// Returns the key of a conversation. A conversation without a key gets the next one.
    pub(crate) fn key_of(&mut self, id: &ConversationId) -> Result<u64, Failure> {
        let key = match self.find_key(id)? {
            Some((key, true)) => return Ok(key),
            Some((key, false)) => key,
            None => {
                let key = self.next_key;
                self.next_key = key.saturating_add(1);
                key
            }
        };
        let id = id.as_str();
        self.fill(&key.to_le_bytes());
        let before = self.keys.insert(id, row::seal(&id, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(id.len() + self.value.len(), before.map_or(0, |bytes| id.len() + bytes));
        Ok(key)
    }

    /// Returns the key of a conversation, if it has one, and whether the row with the key is sound.
    fn find_key(&self, id: &ConversationId) -> Result<Option<(u64, bool)>, Failure> {
        match read_key(&self.keys, id) {
            // This damage must not stop the checkpoint for all other conversations. A new key would separate the new
            // turns from earlier ones, so the old key is searched for.
            Err(Failure::Record(damaged)) => {
                let is_there = self.keys.get(id.as_str())?.is_some();
                match search_key(&self.conversations, &self.activity, id)? {
                    Some(key) => Ok(Some((key, false))),
                    None if is_there => Err(damaged.into()),
                    // The damaged row is that of another id.
                    None => Ok(None),
                }
            }
            key => Ok(key?.map(|key| (key, true))),
        }
    }

    /// Returns the key of this life of a conversation, also if it was erased and not all of its rows are removed yet.
    /// `None` if no row has this life.
    pub(crate) fn key_of_life(&mut self, id: &ConversationId, life: Life) -> Result<Option<u64>, Failure> {
        // Without an erasure, a conversation has only one life that is in the tables or on its way to them.
        if self.erasures.is_empty()? {
            return self.key_of(id).map(Some);
        }
        if let Some((key, _)) = self.find_key(id)? {
            match read_conversation(&self.conversations, key) {
                Ok(there) if there.life == life => return Ok(Some(key)),
                Err(Failure::Record(_)) => return Ok(Some(key)),
                Ok(_) => {}
                Err(failure) => return Err(failure),
            }
        }
        let Some(row) = self.erasures.get(life.0)? else { return Ok(None) };
        Ok(Some(Erasure::decode(life, row.value().verify(&life.0)?)?.key))
    }

    /// Erases the life `life` of a conversation, if the tables have it: the id leads to nothing any more. The rows of its
    /// key stay for now, see [`Erasure`], which also says what `row` is.
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

    /// Writes the record of a sealed turn.
    pub(crate) fn put_turn(&mut self, key: u64, ordinal: Ordinal, record: &[u8]) -> Result<(), Failure> {
        self.fill(record);
        let place = (key, ordinal.get());
        let before = self.turns.insert(place, row::seal(&place, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(2 * size_of::<u64>() + self.value.len(), before.map_or(0, |bytes| 2 * size_of::<u64>() + bytes));
        Ok(())
    }

    /// Adds a sealed turn to the index, and removes its head and its steps from the open turns.
    pub(crate) fn mark_sealed(&mut self, key: u64, turn_id: &str, ordinal: Ordinal) -> Result<(), Failure> {
        if index::insert(&mut self.index, key, self.hasher.hash(turn_id), ordinal.get())? {
            self.grow(3 * size_of::<u64>(), 0);
        }
        let open = self.open_turns.remove((key, turn_id))?.map(|row| row.value().unverified().len());
        if let Some(bytes) = open {
            self.grow(0, size_of::<u64>() + turn_id.len() + bytes);
            // Only a turn with a head can have steps.
            self.remove_open_steps(key, turn_id, 0)?;
        }
        Ok(())
    }

    /// Writes the head of an open turn with this number of steps. Removes the rows of further steps, which are left if
    /// the turn has begun anew.
    pub(crate) fn put_open_turn(
        &mut self,
        key: u64,
        turn_id: &str,
        head: &[u8],
        step_count: u32,
    ) -> Result<(), Failure> {
        let key_bytes = size_of::<u64>() + turn_id.len();
        self.fill(head);
        let place = (key, turn_id);
        let before = self.open_turns.insert(place, row::seal(&place, &mut self.value))?;
        let before = before.map(|row| {
            let row = row.value();
            let has_more = match row.verify(&place).and_then(record::step_count_of) {
                Ok((_, before)) => before > step_count,
                // The number of steps in the damaged head is unknown.
                Err(_) => true,
            };
            (row.unverified().len(), has_more)
        });
        self.grow(key_bytes + self.value.len(), before.map_or(0, |(bytes, _)| key_bytes + bytes));
        if before.is_some_and(|(_, has_more)| has_more) {
            self.remove_open_steps(key, turn_id, step_count)?;
        }
        Ok(())
    }

    /// Writes the record of a step of an open turn.
    pub(crate) fn put_open_step(&mut self, key: u64, turn_id: &str, place: u32, record: &[u8]) -> Result<(), Failure> {
        self.fill(record);
        let place = (key, turn_id, place);
        let key_bytes = bytes_of_step_key(&place);
        let before = self.open_steps.insert(place, row::seal(&place, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(key_bytes + self.value.len(), before.map_or(0, |bytes| key_bytes + bytes));
        Ok(())
    }

    /// Removes the steps of an open turn from this place on.
    fn remove_open_steps(&mut self, key: u64, turn_id: &str, from: u32) -> Result<(), Failure> {
        let mut removed = 0;
        self.open_steps.retain_in((key, turn_id, from)..=(key, turn_id, u32::MAX), |place, row| {
            removed += bytes_of_step_key(&place) + row.unverified().len();
            false
        })?;
        self.grow(0, removed);
        Ok(())
    }

    /// Writes the row of a position.
    pub(crate) fn put_position(&mut self, position: u64, at: &AtPosition) -> Result<(), Failure> {
        let mut record = at.encode()?;
        let before = self.positions.insert(position, row::seal(&position, &mut record))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(size_of::<u64>() + record.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Writes the record of a conversation, and its row by activity.
    pub(crate) fn put_conversation(&mut self, key: u64, conversation: &ConversationRecord) -> Result<(), Failure> {
        let mut record = conversation.encode()?;
        let before = self.conversations.insert(key, row::seal(&key, &mut record))?;
        let bytes = before.as_ref().map_or(0, |row| size_of::<u64>() + row.value().unverified().len());
        let before = before.and_then(|row| row.value().verify(&key).and_then(ConversationRecord::decode).ok());
        self.grow(size_of::<u64>() + record.len(), bytes);
        // A conversation whose turns were all dropped has no row by activity before its next turn.
        let has_new_turns = before.as_ref().map(|before| before.sealed_turns) != Some(conversation.sealed_turns);
        let (before, now) = (before.as_ref().and_then(ConversationRecord::activity), conversation.activity());
        if before == now && !has_new_turns {
            return Ok(());
        }
        let key_bytes = |(_, id): (u64, &str)| size_of::<u64>() + id.len();
        if let Some(before) = before {
            let removed = self.activity.remove(before)?.map(|row| row.value().unverified().len());
            self.grow(0, removed.map_or(0, |bytes| key_bytes(before) + bytes));
        }
        if let Some(now) = now {
            self.fill(&key.to_le_bytes());
            let replaced = self.activity.insert(now, row::seal(&now, &mut self.value))?;
            let replaced = replaced.map(|row| row.value().unverified().len());
            self.grow(key_bytes(now) + self.value.len(), replaced.map_or(0, |bytes| key_bytes(now) + bytes));
        }
        Ok(())
    }

    /// Returns the facts about the file.
    pub(crate) fn meta(&mut self) -> &mut WriteMeta<'txn> {
        &mut self.meta
    }

    /// Counts the growth of rows in other tables that the same transaction wrote.
    pub(crate) fn grow_by(&mut self, growth: i64) {
        self.growth = self.growth.saturating_add(growth);
    }

    /// Updates `meta`: the figures on the other tables, the mark of the newest row of the journal and, if `checkpoint`
    /// is set, the mark of the checkpoint.
    pub(crate) fn finish(mut self, checkpoint: Option<JournalMark>, newest: JournalMark) -> Result<(), Failure> {
        self.meta.note_newest(newest)?;
        checkpoint.map_or(Ok(()), |row| self.meta.advance_checkpoint(row))?;
        self.finish_without_journal()
    }

    /// Like [`WriteTables::finish`], for rows that did not come from the journal.
    pub(crate) fn finish_without_journal(mut self) -> Result<(), Failure> {
        self.meta.set_next_key(self.next_key)?;
        self.meta.add_live_bytes(self.growth)
    }

    /// Copies a value into the buffer in which it gets its checksum.
    fn fill(&mut self, value: &[u8]) {
        self.value.clear();
        self.value.extend_from_slice(value);
    }

    fn grow(&mut self, added: usize, removed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.growth = self.growth.saturating_add(signed(added)).saturating_sub(signed(removed));
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

fn bytes_of_step_key(place: &(u64, &str, u32)) -> usize {
    <(u64, &str, u32)>::as_bytes(place).len()
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase};
    use uuid::Uuid;

    use super::*;
    use crate::store::contract::{Life, StagedTurn, Version};
    use crate::store::redb::tables::meta::ReadMeta;
    use crate::store::redb::tables::record;
    use crate::store::redb::tables::record::open_turn::StagedRecords;
    use crate::store::redb::tables::schema::{Role, TableVisitor, count_live_bytes, make_tables, visit_tables};
    use crate::turn::{Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, TurnId, Usage};

    type Work<'a> = &'a dyn Fn(&mut WriteTables<'_>);

    fn in_memory() -> Database {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        WriteMeta::write(&txn).unwrap().stamp_main().unwrap();
        make_tables(&txn).unwrap();
        txn.commit().unwrap();
        database
    }

    /// Returns all rows of data, as bytes.
    fn rows(txn: &WriteTransaction) -> Vec<(String, Vec<u8>, Vec<u8>)> {
        struct Read<'a>(&'a WriteTransaction, Vec<(String, Vec<u8>, Vec<u8>)>);
        impl TableVisitor for Read<'_> {
            fn visit<K: redb::Key + 'static, V: redb::Value + 'static>(
                &mut self,
                definition: redb::TableDefinition<'static, K, V>,
                role: Role,
            ) -> Result<(), Failure> {
                if role == Role::Data {
                    for row in redb::ReadableTable::iter(&self.0.open_table(definition)?)? {
                        let (key, value) = row?;
                        let name = redb::TableHandle::name(&definition).to_owned();
                        let key = K::as_bytes(&key.value()).as_ref().to_vec();
                        self.1.push((name, key, V::as_bytes(&value.value()).as_ref().to_vec()));
                    }
                }
                Ok(())
            }
        }
        let mut read = Read(txn, Vec::new());
        visit_tables(&mut read).unwrap();
        read.1
    }

    /// Does the work twice, each time in a transaction. Asserts that the second time changes nothing, and that the
    /// noted live bytes are those of the rows. Returns the number of rows.
    fn twice(database: &Database, work: impl Fn(&mut WriteTables<'_>)) -> usize {
        let mut written: Vec<_> = Vec::new();
        for _ in 0..2 {
            let txn = begin_write(database).unwrap();
            let mut tables = WriteTables::open(&txn, TurnHasher::of(Uuid::from_u128(7))).unwrap();
            work(&mut tables);
            tables.finish(None, JournalMark::default()).unwrap();
            let counted = count_live_bytes(&txn).unwrap();
            written.push(rows(&txn));
            txn.commit().unwrap();
            assert_eq!(ReadMeta::of(database).unwrap().live_bytes().unwrap(), counted);
        }
        assert_eq!(written[0], written[1], "the second time has changed something");
        written[0].len()
    }

    fn id(name: &str) -> ConversationId {
        ConversationId::new(name).unwrap()
    }

    fn turn_id(name: &str) -> TurnId {
        TurnId::new(name).unwrap()
    }

    fn sealed(name: &str) -> Vec<u8> {
        let turn = OpenTurn::new(turn_id(name)).seal(&Done::because("stop"), EpochMillis::new(1));
        record::encode_sealed(&turn).unwrap()
    }

    fn open_turn(name: &str, at: u64) -> StagedRecords {
        let mut turn = OpenTurn::new(turn_id(name));
        for step_id in ["first", "second"].map(|id| Some(StepId::new(id).unwrap())) {
            turn.fold(&Progress::Usage { step_id, report: Usage::default().into(), is_final: false });
        }
        StagedRecords::encode(&StagedTurn { turn, last_event_at: RunningTime::new(at) }.into()).unwrap()
    }

    fn put_head(tables: &mut WriteTables<'_>, at: u64, step_count: u32) {
        tables.put_open_turn(1, "x", &open_turn("x", at).head, step_count).unwrap();
    }

    fn conversation(sealed_turns: u64, last_at: u64) -> ConversationRecord {
        ConversationRecord {
            life: Life(1),
            version: Version(sealed_turns + 1),
            sealed_turns,
            last_sealed_at: EpochMillis::new(last_at),
            last_at: EpochMillis::new(last_at),
            ..ConversationRecord::begin(id("a"))
        }
    }

    #[test]
    fn each_row_written_again_changes_nothing_and_the_live_bytes_are_those_of_the_rows() {
        let database = in_memory();
        let first = Ordinal::after(0);
        let second = Ordinal::after(1);
        let steps: [(&str, usize, Work<'_>); 15] = [
            ("a key", 1, &|tables| assert_eq!(tables.key_of(&id("a")).unwrap(), 1)),
            ("another key", 2, &|tables| assert_eq!(tables.key_of(&id("b")).unwrap(), 2)),
            ("an open turn", 3, &|tables| put_head(tables, 1, 2)),
            ("its steps", 5, &|tables| {
                for (place, record) in open_turn("x", 1).steps {
                    tables.put_open_step(1, "x", place, &record).unwrap();
                }
            }),
            ("a longer one", 5, &|tables| put_head(tables, 1 << 40, 2)),
            ("one with fewer steps", 4, &|tables| put_head(tables, 1, 1)),
            ("a conversation without a turn", 5, &|tables| tables.put_conversation(1, &conversation(0, 0)).unwrap()),
            ("a turn", 6, &|tables| tables.put_turn(1, first, &sealed("x")).unwrap()),
            ("an open turn is sealed", 5, &|tables| tables.mark_sealed(1, "x", first).unwrap()),
            ("a turn that was not open", 7, &|tables| {
                tables.put_turn(1, second, &sealed("y")).unwrap();
                tables.mark_sealed(1, "y", second).unwrap();
            }),
            ("a conversation with turns", 8, &|tables| tables.put_conversation(1, &conversation(2, 5)).unwrap()),
            ("and later activity", 8, &|tables| tables.put_conversation(1, &conversation(2, 900)).unwrap()),
            ("a position", 9, &|tables| {
                tables.put_position(1, &AtPosition::Sealed { key: 1, ordinal: first }).unwrap();
            }),
            ("an erased one in its place", 9, &|tables| tables.put_position(1, &AtPosition::Erased).unwrap()),
            ("the next position", 10, &|tables| {
                tables.put_position(2, &AtPosition::Sealed { key: 1, ordinal: second }).unwrap();
            }),
        ];
        for (what, expected, work) in steps {
            assert_eq!(twice(&database, work), expected, "{what}");
        }
        let txn = database.begin_read().unwrap();
        assert_eq!(redb::ReadableTableMetadata::len(&txn.open_table(OPEN_TURNS).unwrap()).unwrap(), 0);
        assert_eq!(redb::ReadableTableMetadata::len(&txn.open_table(OPEN_STEPS).unwrap()).unwrap(), 0);
    }

    #[test]
    fn a_key_is_given_once_and_the_marks_of_the_journal_are_written_with_the_rows() {
        let database = in_memory();
        let mark = |number| JournalMark { number, checksum: number + 100 };
        for (nth, checkpoint) in [(1, None), (2, Some(mark(1))), (3, None)] {
            let txn = begin_write(&database).unwrap();
            let mut tables = WriteTables::open(&txn, TurnHasher::of(Uuid::from_u128(7))).unwrap();
            assert_eq!(tables.key_of(&id(&format!("c{nth}"))).unwrap(), nth);
            assert_eq!(tables.key_of(&id("c1")).unwrap(), 1);
            tables.finish(checkpoint, mark(nth)).unwrap();
            txn.commit().unwrap();
            let meta = ReadMeta::of(&database).unwrap();
            let expected = if nth == 1 { JournalMark::default() } else { mark(1) };
            assert_eq!((meta.checkpoint().unwrap(), meta.newest().unwrap()), (expected, mark(nth)));
            assert_eq!(meta.next_key().unwrap(), nth + 1);
        }
    }

    #[test]
    fn a_damaged_row_of_the_keys_is_replaced_if_the_record_or_the_activity_tells_the_key() {
        for (has_record, has_turns, expected) in
            [(true, true, true), (true, false, true), (false, true, true), (false, false, false)]
        {
            let database = in_memory();
            let txn = begin_write(&database).unwrap();
            let mut tables = WriteTables::open(&txn, TurnHasher::of(Uuid::from_u128(7))).unwrap();
            assert_eq!(tables.key_of(&id("b")).unwrap(), 1);
            assert_eq!(tables.key_of(&id("a")).unwrap(), 2);
            tables.put_conversation(2, &conversation(u64::from(has_turns), 5)).unwrap();
            tables.keys.insert("a", row::Stored::as_it_is(&[1; 16])).unwrap();
            if !has_record {
                tables.conversations.remove(2).unwrap();
            }
            let found = tables.key_of(&id("a"));
            if expected {
                assert_eq!(found.unwrap(), 2);
            } else {
                assert!(matches!(found, Err(Failure::Record(_))));
            }
            assert_eq!(read_key(&tables.keys, &id("a")).is_ok(), expected, "the row is sound again");
        }
    }
}

//! Writes the tables of the main file.
//!
//! - `removal`: removes the rows of erased conversations and dropped turns.

pub(crate) mod removal;

use redb::{Database, ReadableTable, ReadableTableMetadata, Table, Value, WriteTransaction};

use crate::store::contract::Life;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::read::{read_conversation, read_key, search_key};
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::row::{self, Row};
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, DROPPED, DroppedTurns, ERASED, ERASURES, Erased, Erasures, INDEX,
    KEYS, Keys, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns, POSITIONS, Positions, StepKey, TURNS, Turns,
};
use crate::turn::{ConversationId, Ordinal};

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
        if conversation.begins_after > 0 {
            self.note_beginning(key, conversation)?;
        }
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

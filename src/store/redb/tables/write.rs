use redb::{Database, Table, WriteTransaction};

use super::failure::Failure;
use super::index::{self, TurnHasher};
use super::journal_mark::JournalMark;
use super::meta::WriteMeta;
use super::read::{read_key, search_key};
use super::record::at_position::AtPosition;
use super::record::conversation::Conversation;
use super::row::{self, Row};
use super::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, INDEX, KEYS, Keys, OPEN_TURNS, OpenTurns, POSITIONS, Positions,
    TURNS, Turns,
};
use crate::turn::{ConversationId, Ordinal, TurnId};

/// Begins a transaction on a main file, whose commit returns when it is durable.
pub(crate) fn begin_write(tables: &Database) -> Result<WriteTransaction, Failure> {
    let mut txn = tables.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    // Without it, opening a large file after a crash walks the whole of it: seconds instead of a millisecond. It costs
    // a second fsync, which is why the journal, a small file, goes without.
    txn.set_quick_repair(true);
    Ok(txn)
}

/// The tables by conversation, as one write transaction changes them. Each row is written whole, so that writing one
/// again that is there already changes nothing.
pub(crate) struct WriteTables<'txn> {
    meta: WriteMeta<'txn>,
    keys: Table<'txn, &'static str, Row<Keys>>,
    conversations: Table<'txn, u64, Row<Conversations>>,
    turns: Table<'txn, (u64, u64), Row<Turns>>,
    index: Table<'txn, (u64, u64), u64>,
    open_turns: Table<'txn, (u64, &'static str), Row<OpenTurns>>,
    positions: Table<'txn, u64, Row<Positions>>,
    activity: Table<'txn, (u64, &'static str), Row<Activity>>,
    /// A value and its checksum while it is written. Kept from row to row for its memory alone.
    value: Vec<u8>,
    hasher: TurnHasher,
    /// The key of the next new conversation.
    next_key: u64,
    /// By how many bytes the rows have grown.
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
            positions: txn.open_table(POSITIONS)?,
            activity: txn.open_table(ACTIVITY)?,
            value: Vec::new(),
            hasher,
            next_key,
            growth: 0,
        })
    }

    /// Returns the key of a conversation. One that has none gets the next.
    pub(crate) fn key_of(&mut self, id: &ConversationId) -> Result<u64, Failure> {
        let key = match read_key(&self.keys, id) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {
                let key = self.next_key;
                self.next_key = key.saturating_add(1);
                key
            }
            // The damage must not stop the checkpoint for all others. A new key would part the turns from earlier ones.
            Err(Failure::Record(damaged)) => search_key(&self.conversations, &self.activity, id)?.ok_or(damaged)?,
            Err(failure) => return Err(failure),
        };
        let id = id.as_str();
        self.fill(&key.to_le_bytes());
        let before = self.keys.insert(id, row::seal(&id, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(id.len() + self.value.len(), before.map_or(0, |bytes| id.len() + bytes));
        Ok(key)
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

    /// Adds a sealed turn to the index, and removes it from the open turns.
    pub(crate) fn mark_sealed(&mut self, key: u64, turn_id: &TurnId, ordinal: Ordinal) -> Result<(), Failure> {
        let turn_id = turn_id.as_str();
        if index::insert(&mut self.index, key, self.hasher.hash(turn_id), ordinal.get())? {
            self.grow(3 * size_of::<u64>(), 0);
        }
        let open = self.open_turns.remove((key, turn_id))?.map(|row| row.value().unverified().len());
        self.grow(0, open.map_or(0, |bytes| size_of::<u64>() + turn_id.len() + bytes));
        Ok(())
    }

    /// Writes the record of an open turn.
    pub(crate) fn put_open_turn(&mut self, key: u64, turn_id: &TurnId, record: &[u8]) -> Result<(), Failure> {
        let turn_id = turn_id.as_str();
        let key_bytes = size_of::<u64>() + turn_id.len();
        self.fill(record);
        let place = (key, turn_id);
        let before = self.open_turns.insert(place, row::seal(&place, &mut self.value))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(key_bytes + self.value.len(), before.map_or(0, |bytes| key_bytes + bytes));
        Ok(())
    }

    /// Writes what stands at a position.
    pub(crate) fn put_position(&mut self, position: u64, at: &AtPosition) -> Result<(), Failure> {
        let mut record = at.encode()?;
        let before = self.positions.insert(position, row::seal(&position, &mut record))?;
        let before = before.map(|row| row.value().unverified().len());
        self.grow(size_of::<u64>() + record.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Writes the record of a conversation, and its place by activity.
    pub(crate) fn put_conversation(&mut self, key: u64, conversation: &Conversation) -> Result<(), Failure> {
        let mut record = conversation.encode()?;
        let before = self.conversations.insert(key, row::seal(&key, &mut record))?;
        let bytes = before.as_ref().map_or(0, |row| size_of::<u64>() + row.value().unverified().len());
        let before = before.and_then(|row| row.value().verify(&key).and_then(Conversation::decode).ok());
        self.grow(size_of::<u64>() + record.len(), bytes);
        let (before, now) = (before.as_ref().and_then(Conversation::activity), conversation.activity());
        if before == now {
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

    /// Writes what the table `meta` says of the others and of the journal: its newest row, and the one up to which the
    /// tables hold everything, if that has changed.
    pub(crate) fn finish(mut self, checkpoint: Option<JournalMark>, newest: JournalMark) -> Result<(), Failure> {
        self.meta.set_next_key(self.next_key)?;
        self.meta.add_live_bytes(self.growth)?;
        self.meta.note_newest(newest)?;
        checkpoint.map_or(Ok(()), |row| self.meta.advance_checkpoint(row))
    }

    /// Puts what is to be written where it gets its checksum.
    fn fill(&mut self, value: &[u8]) {
        self.value.clear();
        self.value.extend_from_slice(value);
    }

    fn grow(&mut self, added: usize, removed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.growth = self.growth.saturating_add(signed(added)).saturating_sub(signed(removed));
    }
}

use redb::{Database, ReadableTable, Table, WriteTransaction};

use super::failure::Failure;
use super::index::{self, TurnHasher};
use super::meta::{META, META_CHECKPOINT, META_LIVE_BYTES, META_NEXT_KEY, read_number};
use super::record::at_position::AtPosition;
use super::record::conversation::Conversation;
use super::{ACTIVITY, CONVERSATIONS, INDEX, KEYS, OPEN_TURNS, POSITIONS, TURNS};
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
    meta: Table<'txn, &'static str, &'static [u8]>,
    keys: Table<'txn, &'static str, u64>,
    conversations: Table<'txn, u64, &'static [u8]>,
    turns: Table<'txn, (u64, u64), &'static [u8]>,
    index: Table<'txn, (u64, u64), u64>,
    open_turns: Table<'txn, (u64, &'static str), &'static [u8]>,
    positions: Table<'txn, u64, &'static [u8]>,
    activity: Table<'txn, (u64, &'static str), u64>,
    hasher: TurnHasher,
    /// The key of the next new conversation.
    next_key: u64,
    /// By how many bytes the rows have grown.
    growth: i64,
}

impl<'txn> WriteTables<'txn> {
    pub(crate) fn open(txn: &'txn WriteTransaction, hasher: TurnHasher) -> Result<Self, Failure> {
        let meta = txn.open_table(META)?;
        let next_key = read_number(&meta, META_NEXT_KEY)?;
        Ok(Self {
            meta,
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            positions: txn.open_table(POSITIONS)?,
            activity: txn.open_table(ACTIVITY)?,
            hasher,
            next_key,
            growth: 0,
        })
    }

    /// Returns the key of a conversation. One that has none gets the next.
    pub(crate) fn key_of(&mut self, id: &ConversationId) -> Result<u64, Failure> {
        let id = id.as_str();
        if let Some(key) = self.keys.get(id)?.map(|key| key.value()) {
            return Ok(key);
        }
        let key = self.next_key;
        self.next_key = key.saturating_add(1);
        self.keys.insert(id, key)?;
        self.grow(id.len() + size_of::<u64>(), 0);
        Ok(key)
    }

    /// Writes the record of a sealed turn.
    pub(crate) fn put_turn(&mut self, key: u64, ordinal: Ordinal, record: &[u8]) -> Result<(), Failure> {
        let before = self.turns.insert((key, ordinal.get()), record)?.map(|turn| turn.value().len());
        self.grow(2 * size_of::<u64>() + record.len(), before.map_or(0, |bytes| 2 * size_of::<u64>() + bytes));
        Ok(())
    }

    /// Adds a sealed turn to the index, and removes it from the open turns.
    pub(crate) fn mark_sealed(&mut self, key: u64, turn_id: &TurnId, ordinal: Ordinal) -> Result<(), Failure> {
        let turn_id = turn_id.as_str();
        if index::insert(&mut self.index, key, self.hasher.hash(turn_id), ordinal.get())? {
            self.grow(3 * size_of::<u64>(), 0);
        }
        let open = self.open_turns.remove((key, turn_id))?.map(|open| open.value().len());
        self.grow(0, open.map_or(0, |bytes| size_of::<u64>() + turn_id.len() + bytes));
        Ok(())
    }

    /// Writes the record of an open turn.
    pub(crate) fn put_open_turn(&mut self, key: u64, turn_id: &TurnId, record: &[u8]) -> Result<(), Failure> {
        let turn_id = turn_id.as_str();
        let key_bytes = size_of::<u64>() + turn_id.len();
        let before = self.open_turns.insert((key, turn_id), record)?.map(|open| open.value().len());
        self.grow(key_bytes + record.len(), before.map_or(0, |bytes| key_bytes + bytes));
        Ok(())
    }

    /// Writes what stands at a position.
    pub(crate) fn put_position(&mut self, position: u64, at: &AtPosition) -> Result<(), Failure> {
        let record = at.encode()?;
        let before = self.positions.insert(position, &*record)?.map(|before| before.value().len());
        self.grow(size_of::<u64>() + record.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(())
    }

    /// Writes the record of a conversation, and its place by activity.
    pub(crate) fn put_conversation(&mut self, key: u64, conversation: &Conversation) -> Result<(), Failure> {
        let record = conversation.encode()?;
        let before = self.conversations.insert(key, &*record)?.map(|before| before.value().to_vec());
        self.grow(size_of::<u64>() + record.len(), before.as_ref().map_or(0, |before| size_of::<u64>() + before.len()));
        let before = before.and_then(|before| Conversation::decode(&before).ok());
        let (before, now) = (before.as_ref().and_then(Conversation::activity), conversation.activity());
        if before == now {
            return Ok(());
        }
        let bytes = |(_, id): (u64, &str)| 2 * size_of::<u64>() + id.len();
        if let Some(before) = before
            && self.activity.remove(before)?.is_some()
        {
            self.grow(0, bytes(before));
        }
        if let Some(now) = now
            && self.activity.insert(now, key)?.is_none()
        {
            self.grow(bytes(now), 0);
        }
        Ok(())
    }

    /// Writes what the table `meta` says of the others, and the row of the journal up to which they hold everything, if
    /// that has changed.
    pub(crate) fn finish(mut self, checkpoint: Option<u64>) -> Result<(), Failure> {
        self.meta.insert(META_NEXT_KEY, self.next_key.to_le_bytes().as_slice())?;
        let live_bytes = read_number(&self.meta, META_LIVE_BYTES)?.saturating_add_signed(self.growth);
        self.meta.insert(META_LIVE_BYTES, live_bytes.to_le_bytes().as_slice())?;
        if let Some(row) = checkpoint {
            self.meta.insert(META_CHECKPOINT, row.to_le_bytes().as_slice())?;
        }
        Ok(())
    }

    fn grow(&mut self, added: usize, removed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.growth = self.growth.saturating_add(signed(added)).saturating_sub(signed(removed));
    }
}

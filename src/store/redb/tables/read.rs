//! The tables by conversation, as one read transaction sees them.

use std::cell::OnceCell;

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, Value};

use super::failure::Failure;
use super::index::{self, TurnHasher};
use super::record::damaged::DamagedRecord;
use super::record::{self, conversation::Conversation};
use super::{ACTIVITY, CONVERSATIONS, INDEX, KEYS, OPEN_TURNS, POSITIONS, TURNS};
use crate::turn::{ConversationId, Ordinal, StoredTurn, TurnId};

/// One consistent state of the tables, each of which is opened when it is first needed.
pub(crate) struct ReadTables {
    txn: ReadTransaction,
    hasher: TurnHasher,
    keys: Lazy<&'static str, u64>,
    conversations: Lazy<u64, &'static [u8]>,
    turns: Lazy<(u64, u64), &'static [u8]>,
    index: Lazy<(u64, u64), u64>,
    open_turns: Lazy<(u64, &'static str), &'static [u8]>,
    positions: Lazy<u64, &'static [u8]>,
    activity: Lazy<(u64, &'static str), u64>,
}

struct Lazy<K: Key + 'static, V: Value + 'static> {
    definition: TableDefinition<'static, K, V>,
    table: OnceCell<ReadOnlyTable<K, V>>,
}

impl<K: Key + 'static, V: Value + 'static> Lazy<K, V> {
    fn new(definition: TableDefinition<'static, K, V>) -> Self {
        Self { definition, table: OnceCell::new() }
    }

    fn of(&self, txn: &ReadTransaction) -> Result<&ReadOnlyTable<K, V>, Failure> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = txn.open_table(self.definition)?;
        Ok(self.table.get_or_init(|| table))
    }
}

impl ReadTables {
    pub(crate) fn new(txn: ReadTransaction, hasher: TurnHasher) -> Self {
        Self {
            txn,
            hasher,
            keys: Lazy::new(KEYS),
            conversations: Lazy::new(CONVERSATIONS),
            turns: Lazy::new(TURNS),
            index: Lazy::new(INDEX),
            open_turns: Lazy::new(OPEN_TURNS),
            positions: Lazy::new(POSITIONS),
            activity: Lazy::new(ACTIVITY),
        }
    }

    pub(crate) fn turns(&self) -> Result<&ReadOnlyTable<(u64, u64), &'static [u8]>, Failure> {
        self.turns.of(&self.txn)
    }

    pub(crate) fn open_turns(&self) -> Result<&ReadOnlyTable<(u64, &'static str), &'static [u8]>, Failure> {
        self.open_turns.of(&self.txn)
    }

    pub(crate) fn positions(&self) -> Result<&ReadOnlyTable<u64, &'static [u8]>, Failure> {
        self.positions.of(&self.txn)
    }

    pub(crate) fn activity(&self) -> Result<&ReadOnlyTable<(u64, &'static str), u64>, Failure> {
        self.activity.of(&self.txn)
    }

    /// The last position that the tables have; 0 if they have none.
    pub(crate) fn last_position(&self) -> Result<u64, Failure> {
        Ok(self.positions()?.last()?.map_or(0, |(position, _)| position.value()))
    }

    /// The key of a conversation that has one.
    pub(crate) fn key_of(&self, id: &ConversationId) -> Result<Option<u64>, Failure> {
        Ok(self.keys.of(&self.txn)?.get(id.as_str())?.map(|key| key.value()))
    }

    /// The record of the conversation of this key.
    pub(crate) fn conversation(&self, key: u64) -> Result<Conversation, Failure> {
        read_conversation(self.conversations.of(&self.txn)?, key)
    }

    /// A sealed turn.
    pub(crate) fn turn(&self, key: u64, ordinal: Ordinal) -> Result<StoredTurn, Failure> {
        let record = self.turns()?.get((key, ordinal.get()))?.ok_or_else(|| DamagedRecord::missing("sealed turn"))?;
        Ok(record::decode_sealed(ordinal, record.value())?)
    }

    /// The ordinal of a turn that is sealed.
    pub(crate) fn ordinal_of(&self, key: u64, turn_id: &TurnId) -> Result<Option<Ordinal>, Failure> {
        let hash = self.hasher.hash(turn_id.as_str());
        index::find(self.index.of(&self.txn)?, self.turns()?, key, hash, turn_id.as_str())
    }
}

/// The key and the record of a conversation.
pub(crate) fn find_conversation(
    keys: &impl ReadableTable<&'static str, u64>,
    conversations: &impl ReadableTable<u64, &'static [u8]>,
    id: &ConversationId,
) -> Result<Option<(u64, Conversation)>, Failure> {
    let Some(key) = keys.get(id.as_str())?.map(|key| key.value()) else { return Ok(None) };
    Ok(Some((key, read_conversation(conversations, key)?)))
}

/// The record of the conversation of this key.
pub(crate) fn read_conversation(
    conversations: &impl ReadableTable<u64, &'static [u8]>,
    key: u64,
) -> Result<Conversation, Failure> {
    let record = conversations.get(key)?.ok_or_else(|| DamagedRecord::missing("conversation"))?;
    Ok(Conversation::decode(record.value())?)
}

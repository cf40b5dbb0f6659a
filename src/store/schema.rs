//! The tables of the redb file. Nothing outside `store` knows a key.

use redb::{ReadTransaction, ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction};
use uuid::Uuid;

use super::record::{Conversation, DamagedRecord};
use crate::turn::ConversationId;

/// What the file says of itself: see the `META_` names.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// A conversation's id to its key: ids are long and stand in every key below, so each is interned once.
pub(super) const KEYS: TableDefinition<&str, u64> = TableDefinition::new("conversation_keys");
/// A conversation's key to its record.
pub(super) const CONVERSATIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("conversations");
/// (conversation, ordinal) to a sealed turn: a conversation's turns are one range, in order.
pub(super) const TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("turns");
/// (conversation, turn id) to the ordinal of a sealed turn: what makes sealing happen once.
pub(super) const ORDINALS: TableDefinition<(u64, &str), u64> = TableDefinition::new("turn_ordinals");
/// (conversation, turn id) to an open turn.
pub(super) const OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("open_turns");

/// (conversation, ordinal) to what a repair took out of [`TURNS`], or nothing where nothing was left. There only once a
/// repair was needed. An ordinal that stands here is not given again.
pub(super) const LOST_TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lost_turns");
/// (conversation, turn id) to what a repair took out of [`OPEN_TURNS`].
pub(super) const LOST_OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("lost_open_turns");

/// The format of the file, as a little-endian `u32`.
const META_FORMAT: &str = "format";
/// The id that the store drew when it was created, 16 bytes.
pub(super) const META_STORE_ID: &str = "store_id";
/// The key of the next new conversation, as a little-endian `u64`.
pub(super) const META_NEXT_KEY: &str = "next_conversation_key";
/// Overwritten to show that a durable write works.
pub(super) const META_WRITE_CHECK: &str = "write_check";

/// The format of file that this version writes, and the latest that it reads.
pub(super) const FORMAT: u32 = 1;

/// Why a transaction did not go through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Transaction(#[from] redb::TransactionError),
    #[error(transparent)]
    Commit(#[from] redb::CommitError),
    #[error(transparent)]
    Durability(#[from] redb::SetDurabilityError),
    #[error(transparent)]
    Database(#[from] redb::DatabaseError),
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    #[error("the store's own record `{0}` is missing or damaged")]
    Meta(&'static str),
}

impl Failure {
    /// Whether the database has had an error of the disk. It answers every later question with that until it is opened
    /// again.
    pub(super) fn is_of_the_disk(&self) -> bool {
        let (Self::Storage(error)
        | Self::Table(TableError::Storage(error))
        | Self::Transaction(redb::TransactionError::Storage(error))
        | Self::Commit(redb::CommitError::Storage(error))) = self
        else {
            return false;
        };
        matches!(error, StorageError::Io(_) | StorageError::PreviousIo)
    }
}

/// Whether the file is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// No table at all: a new file.
    Blank,
    /// Ours, of this format.
    Format(u32),
    /// A database, but of another program.
    Foreign,
}

pub(super) fn read_stamp(txn: &ReadTransaction) -> Result<Stamp, Failure> {
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) if txn.list_tables()?.next().is_none() => return Ok(Stamp::Blank),
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Stamp::Foreign),
    };
    let format = meta.get(META_FORMAT)?.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_le_bytes);
    Ok(format.map_or(Stamp::Foreign, Stamp::Format))
}

/// Makes a blank file ours.
pub(super) fn stamp(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    meta.insert(META_STORE_ID, Uuid::new_v4().as_bytes().as_slice())?;
    meta.insert(META_NEXT_KEY, 1u64.to_le_bytes().as_slice())?;
    // A reader opens them all; opening makes them.
    txn.open_table(KEYS)?;
    txn.open_table(CONVERSATIONS)?;
    txn.open_table(TURNS)?;
    txn.open_table(ORDINALS)?;
    txn.open_table(OPEN_TURNS)?;
    Ok(())
}

/// The key and the record of a conversation.
pub(super) fn find_conversation(
    keys: &impl ReadableTable<&'static str, u64>,
    conversations: &impl ReadableTable<u64, &'static [u8]>,
    id: &ConversationId,
) -> Result<Option<(u64, Conversation)>, Failure> {
    let Some(key) = keys.get(id.as_str())?.map(|key| key.value()) else { return Ok(None) };
    Ok(Some((key, read_conversation(conversations, key)?)))
}

/// The record of the conversation of this key.
pub(super) fn read_conversation(
    conversations: &impl ReadableTable<u64, &'static [u8]>,
    key: u64,
) -> Result<Conversation, Failure> {
    let record = conversations.get(key)?.ok_or_else(|| DamagedRecord::missing("conversation"))?;
    Ok(Conversation::decode(record.value())?)
}

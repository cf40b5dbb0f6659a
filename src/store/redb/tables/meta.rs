//! The tables of the two redb files. Nothing outside `store` knows a key.

use redb::{ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, TableError, WriteTransaction};
use uuid::Uuid;

use super::record::{Conversation, DamagedRecord};
use crate::turn::{ConversationId, RunningTime};

/// What the file says of itself: see the `META_` names. In both files.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

// The tables by conversation, in the store's main file.

/// A conversation's id to its key: ids are long and stand in every key below, so each is interned once.
pub(crate) const KEYS: TableDefinition<&str, u64> = TableDefinition::new("conversation_keys");
/// A conversation's key to its record.
pub(crate) const CONVERSATIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("conversations");
/// (conversation, ordinal) to a sealed turn: a conversation's turns are one range, in order.
pub(crate) const TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("turns");
/// (conversation, hash of a turn id) to the ordinal of a sealed turn: what makes sealing happen once. See `index`.
pub(crate) const INDEX: TableDefinition<(u64, u64), u64> = TableDefinition::new("turn_index");
/// (conversation, turn id) to an open turn.
pub(crate) const OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("open_turns");

/// (conversation, ordinal) to what a repair took out of [`TURNS`], or nothing where nothing was left. There only once a
/// repair was needed. An ordinal that stands here is not given again.
pub(crate) const LOST_TURNS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lost_turns");
/// (conversation, turn id) to what a repair took out of [`OPEN_TURNS`].
pub(crate) const LOST_OPEN_TURNS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("lost_open_turns");
/// The number of a journal's row to what a repair took out of it.
pub(crate) const LOST_ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("lost_journal_rows");

// The journal, in a file of its own.

/// A rising number to what one transaction made durable: some commits, in their order.
pub(crate) const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");

/// Main file: its format, as a little-endian `u32`.
const META_FORMAT: &str = "format";
/// Journal: the same, under a name of its own, so that neither file is taken for the other.
const META_JOURNAL_FORMAT: &str = "journal_format";
/// The id that the store drew when it was created, 16 bytes. The same in both files, which shows that they belong together.
pub(crate) const META_STORE_ID: &str = "store_id";
/// Main file: the key of the next new conversation, as a little-endian `u64`.
pub(crate) const META_NEXT_KEY: &str = "next_conversation_key";
/// Main file: the number of the journal's last row of which everything is in the tables, as a little-endian `u64`.
pub(crate) const META_CHECKPOINT: &str = "checkpoint";
/// Main file: the id of the journal that may hold what the tables do not, 16 bytes; not there if none does.
pub(crate) const META_JOURNAL: &str = "journal";
/// Journal: its id, drawn when it is made, 16 bytes.
pub(crate) const META_JOURNAL_ID: &str = "journal_id";
/// Main file: the bytes of all rows of the tables by conversation, keys and values, as a little-endian `u64`.
pub(crate) const META_LIVE_BYTES: &str = "live_bytes";
/// Both files: overwritten to show that a durable write works.
pub(crate) const META_WRITE_CHECK: &str = "write_check";

/// Both files: the running time in milliseconds, as a little-endian `u64`; absent before the first tick. The journal's
/// is never the earlier one.
const META_RUNNING_TIME: &str = "running_time";

/// The format of the files.
pub(crate) const FORMAT: u32 = 1;

/// One of the two files of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFile {
    /// The tables by conversation.
    Main,
    /// What commits append to.
    Journal,
}

impl StoreFile {
    /// The name of its format.
    fn format(self) -> &'static str {
        match self {
            Self::Main => META_FORMAT,
            Self::Journal => META_JOURNAL_FORMAT,
        }
    }
}

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
    Compaction(#[from] redb::CompactionError),
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    #[error("the store's own record `{0}` is missing or damaged")]
    Meta(&'static str),
}

impl Failure {
    /// Whether the database has had an error of the disk. It answers every later question with that until it is opened
    /// again.
    pub(crate) fn is_of_the_disk(&self) -> bool {
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

/// Whether a file is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// No table at all: a new file.
    Blank,
    /// Ours, of this format.
    Format(u32),
    /// A database, but of another program.
    Foreign,
}

pub(crate) fn read_stamp(txn: &ReadTransaction, file: StoreFile) -> Result<Stamp, Failure> {
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) if txn.list_tables()?.next().is_none() => return Ok(Stamp::Blank),
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Stamp::Foreign),
    };
    let format = meta.get(file.format())?.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_le_bytes);
    Ok(format.map_or(Stamp::Foreign, Stamp::Format))
}

/// Makes a blank file the main file of a new store.
pub(crate) fn stamp_tables(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    meta.insert(META_STORE_ID, Uuid::new_v4().as_bytes().as_slice())?;
    meta.insert(META_NEXT_KEY, 1u64.to_le_bytes().as_slice())?;
    meta.insert(META_CHECKPOINT, 0u64.to_le_bytes().as_slice())?;
    meta.insert(META_LIVE_BYTES, 0u64.to_le_bytes().as_slice())?;
    // A reader opens them; opening makes them.
    txn.open_table(KEYS)?;
    txn.open_table(CONVERSATIONS)?;
    txn.open_table(TURNS)?;
    txn.open_table(INDEX)?;
    txn.open_table(OPEN_TURNS)?;
    Ok(())
}

/// Makes a blank file the journal of a store.
pub(crate) fn stamp_journal(txn: &WriteTransaction, store_id: Uuid) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    meta.insert(META_JOURNAL_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    meta.insert(META_STORE_ID, store_id.as_bytes().as_slice())?;
    meta.insert(META_JOURNAL_ID, Uuid::new_v4().as_bytes().as_slice())?;
    txn.open_table(ROWS)?;
    Ok(())
}

/// One of the values of a known length that a file holds.
fn read_value<const N: usize>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<[u8; N], Failure> {
    let bytes = meta.get(name)?.and_then(|bytes| bytes.value().try_into().ok());
    bytes.ok_or(Failure::Meta(name))
}

/// One of the ids that a file holds.
pub(crate) fn read_id(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Uuid, Failure> {
    read_value(meta, name).map(Uuid::from_bytes)
}

/// The store's id, as a file names it.
pub(crate) fn read_store_id(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Uuid, Failure> {
    read_id(meta, META_STORE_ID)
}

/// One of the numbers that the main file holds.
pub(crate) fn read_number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<u64, Failure> {
    read_value(meta, name).map(u64::from_le_bytes)
}

/// Returns the running time that a file has.
pub(crate) fn read_running_time(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<RunningTime, Failure> {
    let is_known = meta.get(META_RUNNING_TIME)?.is_some();
    Ok(if is_known { RunningTime::new(read_number(meta, META_RUNNING_TIME)?) } else { RunningTime::default() })
}

/// Writes the running time.
pub(crate) fn write_running_time(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    running: RunningTime,
) -> Result<(), Failure> {
    meta.insert(META_RUNNING_TIME, running.get().to_le_bytes().as_slice())?;
    Ok(())
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

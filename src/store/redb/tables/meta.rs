//! The table `meta`, which both files have: what a file says of itself.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};
use uuid::Uuid;

use super::failure::Failure;
use super::store_file::StoreFile;
use super::{ACTIVITY, CONVERSATIONS, INDEX, KEYS, OPEN_TURNS, POSITIONS, ROWS, TURNS};
use crate::store::position::Lineage;
use crate::turn::RunningTime;

/// A name, one of the `META_` names, to its value.
pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Main file: its format, as a little-endian `u32`.
const META_FORMAT: &str = "format";
/// Journal: the same, under a name of its own, so that neither file is taken for the other.
const META_JOURNAL_FORMAT: &str = "journal_format";
/// The id that the store drew when it was created, 16 bytes. The same in both files, which shows that they belong
/// together.
pub(crate) const META_STORE_ID: &str = "store_id";
/// Main file: the store's lineage, 16 bytes. See [`Lineage`] for when it is drawn.
const META_LINEAGE: &str = "lineage";
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

/// The name of the format of a file.
fn format_name(file: StoreFile) -> &'static str {
    match file {
        StoreFile::Main => META_FORMAT,
        StoreFile::Journal => META_JOURNAL_FORMAT,
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
    let format = meta.get(format_name(file))?.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_le_bytes);
    Ok(format.map_or(Stamp::Foreign, Stamp::Format))
}

/// Makes a blank file the main file of a new store.
pub(crate) fn stamp_tables(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    meta.insert(META_FORMAT, FORMAT.to_le_bytes().as_slice())?;
    meta.insert(META_STORE_ID, Uuid::new_v4().as_bytes().as_slice())?;
    draw_lineage(&mut meta)?;
    meta.insert(META_NEXT_KEY, 1u64.to_le_bytes().as_slice())?;
    meta.insert(META_CHECKPOINT, 0u64.to_le_bytes().as_slice())?;
    meta.insert(META_LIVE_BYTES, 0u64.to_le_bytes().as_slice())?;
    // A reader opens them; opening makes them.
    txn.open_table(KEYS)?;
    txn.open_table(CONVERSATIONS)?;
    txn.open_table(TURNS)?;
    txn.open_table(INDEX)?;
    txn.open_table(OPEN_TURNS)?;
    txn.open_table(POSITIONS)?;
    txn.open_table(ACTIVITY)?;
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

/// The store's lineage, as the main file has it.
pub(crate) fn read_lineage(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Lineage, Failure> {
    read_id(meta, META_LINEAGE).map(Lineage)
}

/// Begins a new lineage: what is in the file is no longer what an earlier position or revision tells of.
pub(crate) fn draw_lineage(meta: &mut Table<'_, &'static str, &'static [u8]>) -> Result<(), Failure> {
    meta.insert(META_LINEAGE, Uuid::new_v4().as_bytes().as_slice())?;
    Ok(())
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

/// Writes a value so that a durable commit of it shows that writes work.
pub(crate) fn touch(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    let previous = meta.get(META_WRITE_CHECK)?.and_then(|bytes| bytes.value().try_into().ok());
    let count = previous.map_or(0, u64::from_le_bytes).wrapping_add(1);
    meta.insert(META_WRITE_CHECK, count.to_le_bytes().as_slice())?;
    Ok(())
}

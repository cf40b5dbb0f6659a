//! Files of earlier formats, made ones of this format.

use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction};

use super::index::{self, TurnHasher};
use super::schema::{
    self, CONVERSATIONS, Failure, INDEX, KEYS, META, META_CHECKPOINT, META_LIVE_BYTES, OPEN_TURNS, ORDINALS_V1, Stamp,
    StoreFile, TURNS, read_store_id,
};
use super::slot::begin_tables;

/// Brings a main file up to this format, in one transaction.
pub(super) fn to_this_format(tables: &Database) -> Result<(), Failure> {
    if schema::read_stamp(&tables.begin_read()?, StoreFile::Main)? != Stamp::Format(1) {
        return Ok(());
    }
    let txn = begin_tables(tables)?;
    from_1(&txn)?;
    Ok(txn.commit()?)
}

/// Format 1 had whole turn ids in the index, and no journal.
fn from_1(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    let hasher = TurnHasher::of(read_store_id(&meta)?);
    {
        let (ordinals, mut index) = (txn.open_table(ORDINALS_V1)?, txn.open_table(INDEX)?);
        for row in ordinals.iter()? {
            let (place, ordinal) = row?;
            let (key, turn_id) = place.value();
            index::insert(&mut index, key, hasher.hash(turn_id), ordinal.value())?;
        }
    }
    txn.delete_table(ORDINALS_V1)?;
    meta.insert(META_LIVE_BYTES, count_live_bytes(txn)?.to_le_bytes().as_slice())?;
    meta.insert(META_CHECKPOINT, 0u64.to_le_bytes().as_slice())?;
    schema::write_format(&mut meta)
}

/// The bytes of all rows of the tables by conversation.
pub(super) fn count_live_bytes(txn: &WriteTransaction) -> Result<u64, Failure> {
    Ok(row_bytes(txn, KEYS)?
        + row_bytes(txn, CONVERSATIONS)?
        + row_bytes(txn, TURNS)?
        + row_bytes(txn, INDEX)?
        + row_bytes(txn, OPEN_TURNS)?)
}

fn row_bytes<K: Key + 'static, V: Value + 'static>(
    txn: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<u64, Failure> {
    let mut bytes = 0;
    for row in txn.open_table(table)?.iter()? {
        let (key, value) = row?;
        bytes += K::as_bytes(&key.value()).as_ref().len() + V::as_bytes(&value.value()).as_ref().len();
    }
    Ok(bytes as u64)
}

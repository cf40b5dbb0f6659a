use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, TableError, Value, WriteTransaction};

use super::failure::Failure;
use super::meta::META;
use super::{
    ACTIVITY, CONVERSATIONS, INDEX, KEYS, LOST_OPEN_TURNS, LOST_ROWS, LOST_TURNS, OPEN_TURNS, POSITIONS, TURNS,
};

/// Copies every table of a main file. Written in the order of their keys, the rows fill their pages.
pub(crate) fn copy_tables(from: &ReadTransaction, to: &WriteTransaction) -> Result<(), Failure> {
    copy_table(from, to, META)?;
    copy_table(from, to, KEYS)?;
    copy_table(from, to, CONVERSATIONS)?;
    copy_table(from, to, TURNS)?;
    copy_table(from, to, INDEX)?;
    copy_table(from, to, OPEN_TURNS)?;
    copy_table(from, to, POSITIONS)?;
    copy_table(from, to, ACTIVITY)?;
    copy_table(from, to, LOST_TURNS)?;
    copy_table(from, to, LOST_OPEN_TURNS)?;
    copy_table(from, to, LOST_ROWS)
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), Failure> {
    let from = match from.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        opened => opened?,
    };
    let mut to = to.open_table(table)?;
    for row in from.iter()? {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}

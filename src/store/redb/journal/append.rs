use redb::{ReadableTable, WriteTransaction};

use super::entry::{Entry, encode_row};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::schema::ROWS;

/// How many rows that are no longer needed are dropped with each appended row: more than one, so that their number
/// falls, but few, so that no commit waits for it.
const TRIMMED_ROWS: usize = 8;

/// Appends a row in a transaction on the journal, and drops rows up to the row `trim`. Returns the size of the row.
pub(crate) fn append(txn: &WriteTransaction, entries: &[Entry], row: u64, trim: u64) -> Result<usize, Failure> {
    let mut rows = txn.open_table(ROWS)?;
    for _ in 0..TRIMMED_ROWS {
        if rows.first()?.is_none_or(|(first, _)| first.value() > trim) {
            break;
        }
        rows.pop_first()?;
    }
    let encoded = encode_row(entries)?;
    rows.insert(row, &*encoded)?;
    Ok(encoded.len())
}

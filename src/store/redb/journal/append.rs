use redb::{ReadableTable, WriteTransaction};

use super::chain::chain;
use super::entry::{Entry, encode_row};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::schema::ROWS;

/// The number of unneeded rows that are dropped with each appended row: more than one, so that their number falls, but
/// few, so that no commit waits for it.
const TRIMMED_ROWS: usize = 8;

/// Appends a row after the row `last` in a transaction on the journal, and drops rows up to the row `trim`. Returns the
/// new row and its size.
pub(crate) fn append(
    txn: &WriteTransaction,
    entries: &[Entry],
    last: JournalMark,
    trim: JournalMark,
) -> Result<(JournalMark, usize), Failure> {
    let mut rows = txn.open_table(ROWS)?;
    let mut dropped = None;
    for _ in 0..TRIMMED_ROWS {
        if rows.first()?.is_none_or(|(first, _)| first.value() > trim.number) {
            break;
        }
        let first = rows.pop_first()?;
        // The row's own checksum may be damaged, which does not matter: nobody needs the row any more.
        dropped = first.map(|(row, value)| match row.value() {
            number if number == trim.number => trim,
            number => JournalMark { number, checksum: value.value().checksum() },
        });
    }
    if let Some(dropped) = dropped {
        WriteMeta::write(txn)?.set_base(dropped)?;
    }
    let mut encoded = encode_row(entries)?;
    let number = last.number.saturating_add(1);
    let row = chain(last, &mut encoded);
    let mark = JournalMark { number, checksum: row.checksum() };
    let bytes = row.unverified().len();
    rows.insert(number, row)?;
    Ok((mark, bytes))
}

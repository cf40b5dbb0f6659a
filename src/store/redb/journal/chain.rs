//! The rows of the journal form a chain: each row has the checksum of the row before it.
//!
//! The checksum of a row also covers this link. So if a row is replaced or removed, the row after it does not fit, even
//! if the other row is sound by itself.

use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::{self, Rows, Stored};
use crate::store::redb::tables::schema::JournalRows;

/// The number of bytes that the link and the checksum add to a row.
pub(crate) const CHAIN_BYTES: usize = 2 * size_of::<u64>();

/// A row whose own checksum is right.
pub(crate) struct ChainedRow<'a> {
    /// The link: the checksum of the row before, when this row was written.
    pub(crate) previous: u64,
    pub(crate) entries: &'a [u8],
}

/// Turns encoded entries into the row after the row `last`.
pub(crate) fn chain(last: JournalMark, entries: &mut Vec<u8>) -> Stored<'_, JournalRows> {
    entries.extend_from_slice(&last.checksum.to_le_bytes());
    row::seal(&last.number.saturating_add(1), entries)
}

/// Reads the row of this number.
pub(crate) fn read_row(number: u64, stored: Stored<'_, JournalRows>) -> Result<ChainedRow<'_>, DamagedRecord> {
    let value = stored.verify(&number)?;
    let (entries, previous) =
        value.split_last_chunk().ok_or_else(|| DamagedRecord::new(JournalRows::WHAT, RecordFlaw::NoLink))?;
    Ok(ChainedRow { previous: u64::from_le_bytes(*previous), entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_with_its_link_and_only_under_its_number() {
        let mut bytes = b"entries".to_vec();
        let last = JournalMark { number: 7, checksum: 0x0102 };
        let stored = chain(last, &mut bytes).unverified();
        assert_eq!(stored.len(), b"entries".len() + CHAIN_BYTES);
        let read = |number| read_row(number, Stored::as_it_is(stored));
        let row = read(8).unwrap();
        assert_eq!((row.previous, row.entries), (0x0102, b"entries".as_slice()));
        assert!(read(7).is_err() && read(9).is_err());
        let mut other = b"entries".to_vec();
        let other = chain(JournalMark { checksum: 0x0103, ..last }, &mut other).checksum();
        assert_ne!(Stored::<JournalRows>::as_it_is(stored).checksum(), other, "the checksum does not cover the link");
    }
}

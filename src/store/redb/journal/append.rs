use redb::{ReadableTable, WriteTransaction};

use super::chain::chain;
use super::entry::{Entry, encode_row};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::schema::ROWS;

/// The maximum number of unneeded rows that are dropped with each appended row. It is more than one, so that the
/// journal shrinks, and small, so that commits are not slowed down.
const TRIMMED_ROWS: usize = 8;

/// Appends a row after the row `last` in a transaction on the journal, and drops some rows up to the row `trim`.
/// Returns the mark of the new row and its size in bytes.
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
        // The row's own checksum may be damaged, which does not matter: the row is not needed any more.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::files::open_files::Files;
    use crate::store::redb::journal::chain::read_row;
    use crate::store::redb::journal::entry::decode_row;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::turn::ConversationId;

    fn entry(nth: u64) -> Entry {
        let conversation = ConversationRecord::begin(ConversationId::new(format!("c{nth}")).unwrap());
        Entry { conversation, erased: None, key: None, position: nth + 1, sealed: Vec::new(), staged: Vec::new() }
    }

    /// Appends a row with one entry, in its own transaction.
    fn append_one(files: &Files, nth: u64, last: JournalMark, trim: JournalMark) -> JournalMark {
        let txn = files.write_journal().unwrap();
        let (mark, bytes) = append(&txn, &[entry(nth)], last, trim).unwrap();
        assert!(bytes > 20, "{bytes}");
        txn.commit().unwrap();
        mark
    }

    /// Returns the numbers of the rows that are left, and the base.
    fn left(files: &Files) -> (Vec<u64>, JournalMark) {
        let txn = files.write_journal().unwrap();
        let rows = txn.open_table(ROWS).unwrap();
        let numbers = rows.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        (numbers, WriteMeta::write(&txn).unwrap().base().unwrap())
    }

    #[test]
    fn a_row_follows_the_last_one_and_links_to_it() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let last = JournalMark { number: 41, checksum: 0xABCD };
        let first = append_one(&files, 0, last, JournalMark::default());
        let second = append_one(&files, 1, first, JournalMark::default());
        assert_eq!((first.number, second.number), (42, 43));
        let txn = files.write_journal().unwrap();
        let rows = txn.open_table(ROWS).unwrap();
        for (nth, before, mark) in [(0, last, first), (1, first, second)] {
            let stored = rows.get(mark.number).unwrap().unwrap();
            assert_eq!(stored.value().checksum(), mark.checksum);
            let row = read_row(mark.number, stored.value()).unwrap();
            assert_eq!(row.previous, before.checksum);
            let names: Vec<_> =
                decode_row(row.entries).unwrap().into_iter().map(|entry| entry.conversation.id).collect();
            assert_eq!(names, [ConversationId::new(format!("c{nth}")).unwrap()]);
        }
    }

    #[test]
    fn a_few_rows_up_to_the_checkpoint_are_dropped_each_time_and_the_base_is_the_last_of_them() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let mut marks = vec![JournalMark::default()];
        for nth in 0..12 {
            let last = marks[marks.len() - 1];
            marks.push(append_one(&files, nth, last, JournalMark::default()));
        }
        assert_eq!(left(&files), ((1..=12).collect(), JournalMark::default()));
        let dropped = TRIMMED_ROWS as u64;
        for (nth, first_left) in [(12, dropped + 1), (13, 11), (14, 11)] {
            let last = marks[marks.len() - 1];
            marks.push(append_one(&files, nth, last, marks[10]));
            let base = marks[usize::try_from(first_left).unwrap() - 1];
            assert_eq!(left(&files), ((first_left..=nth + 1).collect(), base));
        }
    }
}

//! Salvages the rows of a journal.
//!
//! A row that the walk has reached is of the latest commit. A row of a page of an unknown time may be of a commit that
//! never took place. So it counts only if the chain proves it: each row has the checksum of the row before it.

use std::collections::BTreeMap;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, Key as _, TableHandle, WriteTransaction};
use uuid::Uuid;

use super::pages::{Leaf, PageFile, Widths};
use super::walk::{Reached, Wanted, scan, walk};
use crate::store::redb::files::misfit::Misfit;
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::journal::chain::read_row;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{META, WriteMeta};
use crate::store::redb::tables::row::{CheckedKey as _, Rows, Stored};
use crate::store::redb::tables::schema::{JournalRows, ROWS};

/// What the main file says about its journal.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The ids that the store may have. Empty if the id is unknown.
    pub(super) store_ids: Vec<Uuid>,
    /// The id of the journal that the main file needs; `None` if it needs none or if the id is unknown.
    pub(super) journal_id: Option<Uuid>,
    /// Whether the main file may need a journal.
    pub(super) needs_journal: bool,
    /// The marks of the last row that the tables have and of the newest row that the main file has seen; `None` if they
    /// are unknown.
    pub(super) marks: Option<[JournalMark; 2]>,
}

impl Expected {
    pub(super) fn newest(&self) -> JournalMark {
        self.marks.map_or_else(JournalMark::default, |[_, newest]| newest)
    }
}

/// A salvaged journal, in memory.
pub(super) struct Rebuilt {
    pub(super) database: Database,
    /// The last row that is known, and whether the rows after it are lost, if there were any.
    pub(super) last: u64,
    pub(super) lacks_end: bool,
}

const OF_META: Widths = Widths { key: None, value: None };
const OF_ROWS: Widths = Widths { key: Some(size_of::<u64>()), value: None };

/// Returns the table of a journal with its rows.
pub(super) fn wanted_rows() -> Wanted {
    Wanted { name: JournalRows::NAME.to_owned(), widths: OF_ROWS }
}

type NumberedRows = BTreeMap<u64, Vec<u8>>;

/// Salvages the journal at this path. Returns an error if its sound pages say that it belongs to another main file.
pub(super) fn rebuild(path: &Path, file: &PageFile, expected: &Expected) -> Result<Rebuilt, OpenError> {
    let failed = |failure: Failure| failed(path, failure);
    let (mut facts, mut rows) = (BTreeMap::new(), NumberedRows::new());
    let wanted = [Wanted { name: META.name().to_owned(), widths: OF_META }, wanted_rows()];
    let reached = walk(file, &wanted, &mut |table, leaf, is_sound| {
        if table == JournalRows::NAME {
            // A damaged row of a sound page is kept: the replay reports it.
            take_rows(leaf, is_sound, |number, row| drop(rows.insert(number, row.to_vec())));
        } else if is_sound {
            facts.extend(leaf.entries().map(|(name, value)| (name.to_vec(), value.to_vec())));
        }
        Ok(())
    })
    .map_err(failed)?;
    let database = Builder::new().create_with_backend(InMemoryBackend::new());
    let database = database.map_err(|error| failed(error.into()))?;
    let txn = database.begin_write().map_err(|error| failed(error.into()))?;
    let mut meta = restored(&txn, &facts).map_err(failed)?;
    let (store_id, journal_id) = (meta.store_id().ok(), meta.journal_id().ok());
    let of_another = |cause| Err(OpenError::JournalOfAnother { path: path.to_owned(), cause, is_complete: false });
    if store_id.is_some_and(|id| !expected.store_ids.is_empty() && !expected.store_ids.contains(&id)) {
        return of_another(Misfit::OtherStore);
    }
    if journal_id.zip(expected.journal_id).is_some_and(|(id, expected)| id != expected) {
        return of_another(Misfit::OtherJournal);
    }
    let reached_to = rows.last_key_value().map_or(0, |(number, _)| *number);
    if reached.lacks(JournalRows::NAME) || reached_to < expected.newest().number {
        // Rows after those of the latest commit that is known count too, up to the row that the main file has seen.
        let after = if reached_to < expected.newest().number { reached_to } else { u64::MAX };
        let found = found(file, &reached, after).map_err(failed)?;
        join(&mut rows, &found, &expected.marks.unwrap_or_default());
    }
    for mark in expected.marks.into_iter().flatten() {
        let row = rows.get(&mark.number).map(|row| Stored::<JournalRows>::as_it_is(row));
        let row = row.filter(|row| row.verify(&mark.number).is_ok());
        if row.is_some_and(|row| row.checksum() != mark.checksum) {
            return of_another(Misfit::OtherRow(mark.number));
        }
    }
    let base = rows.first_key_value().map_or_else(JournalMark::default, |(number, row)| JournalMark {
        number: number.saturating_sub(1),
        checksum: read_row(*number, Stored::as_it_is(row)).map_or(0, |row| row.previous),
    });
    let last = rows.last_key_value().map_or(base.number, |(number, _)| *number);
    let stamped = match store_id {
        Some(_) => meta.set_base(base),
        None => meta.stamp_journal(expected.store_ids.first().copied().unwrap_or_default(), base),
    };
    stamped.map_err(failed)?;
    drop(meta);
    write(&txn, &rows).map_err(failed)?;
    txn.commit().map_err(|error| failed(error.into()))?;
    Ok(Rebuilt { database, last, lacks_end: reached.lacks_end(JournalRows::NAME) })
}

/// Writes the facts about a journal as its pages have them.
fn restored<'txn>(txn: &'txn WriteTransaction, facts: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<WriteMeta<'txn>, Failure> {
    let mut meta = WriteMeta::write(txn)?;
    for (name, value) in facts {
        if let Ok(name) = str::from_utf8(name) {
            let row = Stored::as_it_is(value);
            // A damaged fact counts as missing.
            if row.verify(&name).is_ok() {
                meta.restore(name, row)?;
            }
        }
    }
    Ok(meta)
}

fn take_rows(leaf: Leaf<'_>, is_sound: bool, mut take: impl FnMut(u64, &[u8])) {
    for (key, value) in leaf.entries().filter(|(key, _)| u64::is_valid(key)) {
        let number = <u64 as redb::Value>::from_bytes(key);
        if is_sound || Stored::<JournalRows>::as_it_is(value).verify(&number).is_ok() {
            take(number, value);
        }
    }
}

/// Returns the rows of the pages that the walk has not reached: all different ones of each number in the parts that the
/// walk could not reach, and of each number above `after`.
fn found(file: &PageFile, reached: &Reached, after: u64) -> Result<BTreeMap<u64, Vec<Vec<u8>>>, Failure> {
    let mut found = BTreeMap::<u64, Vec<Vec<u8>>>::new();
    scan(file, reached, |page| {
        let leaf = Leaf::of(page, OF_ROWS);
        take_rows(leaf, false, |number, row| {
            let is_lacking =
                number > after || reached.lacks_key(JournalRows::NAME, &number.to_le_bytes(), u64::compare);
            let rows = found.entry(number).or_default();
            if is_lacking && !rows.iter().any(|other| other == row) {
                rows.push(row.to_vec());
            }
        });
        Ok(leaf.end_beyond())
    })?;
    Ok(found)
}

/// Adds those found rows that the chain proves. `marks` are rows that are known to be of the journal.
fn join(rows: &mut NumberedRows, found: &BTreeMap<u64, Vec<Vec<u8>>>, marks: &[JournalMark]) {
    let checksum = |row: &[u8]| Stored::<JournalRows>::as_it_is(row).checksum();
    let previous = |number: u64, row: &[u8]| read_row(number, Stored::as_it_is(row)).ok().map(|row| row.previous);
    loop {
        let before = rows.len();
        // From the end: the next row, or a mark, says which row it must be.
        for (number, candidates) in found.iter().rev() {
            let next = number.checked_add(1).and_then(|next| previous(next, rows.get(&next)?));
            let marked = marks.iter().find(|mark| mark.number == *number).map(|mark| mark.checksum);
            let right = marked.or(next).and_then(|right| candidates.iter().find(|row| checksum(row) == right));
            if let Some(row) = right.filter(|_| !rows.contains_key(number)) {
                rows.insert(*number, row.clone());
            }
        }
        // From the beginning: a row must follow the row before it, and no other found row may do so.
        for (number, candidates) in found {
            let last = number.checked_sub(1).and_then(|before| Some(checksum(rows.get(&before)?)));
            let next = number.checked_add(1).and_then(|next| previous(next, rows.get(&next)?));
            let mut fitting = candidates.iter().filter(|row| {
                last.is_none_or(|last| previous(*number, row) == Some(last))
                    && next.is_none_or(|next| checksum(row) == next)
            });
            if let (Some(row), None, false) = (fitting.next(), fitting.next(), rows.contains_key(number)) {
                rows.insert(*number, row.clone());
            }
        }
        if rows.len() == before {
            return;
        }
    }
}

fn write(txn: &WriteTransaction, rows: &NumberedRows) -> Result<(), Failure> {
    let mut table = txn.open_table(ROWS)?;
    for (number, row) in rows {
        table.insert(number, Stored::as_it_is(row))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::journal::chain::chain;

    /// Returns a row of this number after a row with this checksum, and the mark of it.
    fn row(number: u64, content: &str, before: u64) -> (JournalMark, Vec<u8>) {
        let mut bytes = content.as_bytes().to_vec();
        let last = JournalMark { number: number - 1, checksum: before };
        let row = chain(last, &mut bytes);
        (JournalMark { number, checksum: row.checksum() }, row.unverified().to_vec())
    }

    #[test]
    fn a_row_of_an_unknown_time_counts_only_if_the_chain_proves_it() {
        let (first, first_row) = row(1, "one", 0);
        let (second, second_row) = row(2, "two", first.checksum);
        // The row 2 of a commit that never took place follows the row 1 as well.
        let (_, other) = row(2, "other", first.checksum);
        let (third, third_row) = row(3, "three", second.checksum);
        let joined = |reached: &[(u64, &Vec<u8>)], found: &[(u64, &[&Vec<u8>])], marks: &[JournalMark]| {
            let mut rows: NumberedRows = reached.iter().map(|(number, row)| (*number, (*row).clone())).collect();
            let found = found.iter().map(|(number, rows)| (*number, rows.iter().map(|row| (*row).clone()).collect()));
            join(&mut rows, &found.collect(), marks);
            rows.into_iter().collect::<Vec<_>>()
        };
        let both: &[&Vec<u8>] = &[&other, &second_row];
        let all = [(1, first_row.clone()), (2, second_row.clone()), (3, third_row.clone())];
        assert_eq!(joined(&[(1, &first_row), (3, &third_row)], &[(2, both)], &[]), all, "the next row names it");
        assert_eq!(joined(&[(1, &first_row)], &[(2, both), (3, &[&third_row])], &[third]), all, "a mark names it");
        assert_eq!(joined(&[(1, &first_row)], &[(2, both)], &[second]), all[..2]);
        assert_eq!(joined(&[(1, &first_row)], &[(2, both)], &[]), all[..1], "nothing says which of them is right");
        assert_eq!(joined(&[(1, &first_row)], &[(2, &[&second_row])], &[]), all[..2]);
        assert_eq!(joined(&[(1, &first_row), (3, &third_row)], &[(2, &[&other])], &[]).len(), 2, "it was exchanged");
    }
}

use std::path::Path;

use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable};
use uuid::Uuid;

use super::misfit::Misfit;
use super::open_error::{OpenError, failed};
use super::replay::{Replayed, replay};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{self, ReadMeta};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::row::Row;
use crate::store::redb::tables::schema::{JournalRows, ROWS};

/// The facts about the store that the main file has.
#[derive(Debug)]
pub(crate) struct StoreHeader {
    pub(crate) bond: Bond,
    /// The mark of the last row of the journal that the tables have in full.
    pub(crate) checkpoint: JournalMark,
    /// The mark of the newest row of the journal when the main file was last written.
    pub(crate) newest: JournalMark,
}

/// The ids and numbers that bind the two files to each other.
#[derive(Debug)]
pub(crate) struct Bond {
    pub(crate) store_id: Uuid,
    /// The id of the journal that may have changes which the tables lack. `None` if there is no such journal.
    pub(crate) journal_id: Option<Uuid>,
}

impl Bond {
    pub(super) fn of(tables: &Database) -> Result<Self, Failure> {
        let meta = ReadMeta::of(tables)?;
        Ok(Self { store_id: meta.store_id()?, journal_id: meta.bound_journal()? })
    }

    /// Returns an error if the journal does not belong to these tables.
    pub(super) fn check(&self, journal: &Database, path: &Path) -> Result<(), OpenError> {
        let read = || {
            let meta = ReadMeta::of(journal)?;
            Ok((meta.store_id()?, meta.journal_id()?))
        };
        let (store_id, journal_id) = read().map_err(|failure: Failure| failed(path, failure))?;
        if store_id != self.store_id {
            return Err(self.misfit(path, Misfit::OtherStore));
        }
        if self.journal_id.is_some_and(|id| id != journal_id) {
            return Err(self.misfit(path, Misfit::OtherJournal));
        }
        Ok(())
    }

    fn misfit(&self, path: &Path, cause: Misfit) -> OpenError {
        OpenError::JournalOfAnother { path: path.to_owned(), cause, is_complete: self.journal_id.is_none() }
    }
}

/// The range of the rows that a journal has.
struct JournalRange {
    base: JournalMark,
    /// The number of the last row; the number of the base if there are no rows.
    last: u64,
    rows: ReadOnlyTable<u64, Row<JournalRows>>,
}

impl JournalRange {
    fn of(journal: &Database) -> Result<Self, Failure> {
        let txn = journal.begin_read()?;
        let (base, rows) = (ReadMeta::read(&txn)?.base()?, txn.open_table(ROWS)?);
        let last = rows.last()?.map_or(base.number, |(row, _)| row.value());
        Ok(Self { base, last, rows })
    }

    /// Returns the mark (number and checksum) of the journal's row with this number. `None` if the row is damaged or
    /// missing: the replay reports that if the row is needed.
    fn sound_row(&self, number: u64) -> Result<Option<JournalMark>, Failure> {
        if number == self.base.number {
            return Ok(Some(self.base));
        }
        let row = self.rows.get(number)?;
        let row = row.as_ref().map(AccessGuard::value).filter(|row| row.verify(&number).is_ok());
        Ok(row.map(|row| JournalMark { number, checksum: row.checksum() }))
    }
}

impl StoreHeader {
    pub(crate) fn of(tables: &Database) -> Result<Self, Failure> {
        let meta = ReadMeta::of(tables)?;
        Ok(Self { bond: Bond::of(tables)?, checkpoint: meta.checkpoint()?, newest: meta.newest()? })
    }

    /// Returns an error if the main file has seen rows that this journal lacks.
    pub(super) fn refuse_shorter(&self, journal: &Database, path: &Path) -> Result<(), OpenError> {
        match JournalRange::of(journal) {
            Ok(range) if range.base.number <= self.checkpoint.number && range.last < self.newest.number => {
                let cause = Misfit::OlderJournal { last: range.last, newest: self.newest.number };
                Err(self.bond.misfit(path, cause))
            }
            // Anything else is found when the journal is replayed.
            _ => Ok(()),
        }
    }

    /// Returns whether the main file has seen rows that this journal lacks.
    pub(crate) fn has_seen_more(&self, journal: &Database) -> Result<bool, Failure> {
        Ok(JournalRange::of(journal)?.last < self.newest.number)
    }

    /// Reads the journal, if it belongs to these tables.
    pub(crate) fn replay(&self, tables: &Database, journal: &Database, path: &Path) -> Result<Replayed, OpenError> {
        let failed = |failure: Failure| failed(path, failure);
        self.bond.check(journal, path)?;
        let range = JournalRange::of(journal).map_err(failed)?;
        if let Some(cause) = self.misfit(&range).map_err(failed)? {
            return Err(self.bond.misfit(path, cause));
        }
        let txn = tables.begin_read().map_err(|error| failed(error.into()))?;
        let tables = ReadTables::new(txn, TurnHasher::of(self.bond.store_id));
        replay(journal, &tables, self.checkpoint).map_err(failed)
    }

    /// If the journal is older or newer than the main file, returns why. The journal must begin at the checkpoint or
    /// before it, and reach at least the newest row that the main file has seen. Both files must agree on these rows.
    fn misfit(&self, journal: &JournalRange) -> Result<Option<Misfit>, Failure> {
        let (checkpoint, newest, base) = (self.checkpoint.number, self.newest.number, journal.base.number);
        if checkpoint > newest {
            return Err(meta::newest_is_damaged());
        }
        if base > checkpoint {
            return Ok(Some(Misfit::OlderDatabase { base, checkpoint }));
        }
        if journal.last < newest {
            return Ok(Some(Misfit::OlderJournal { last: journal.last, newest }));
        }
        if self.bond.journal_id.is_none() && journal.last > checkpoint {
            return Ok(Some(Misfit::NotNeeded { first: checkpoint + 1, last: journal.last }));
        }
        for mark in [self.checkpoint, self.newest] {
            if journal.sound_row(mark.number)?.is_some_and(|row| row != mark) {
                return Ok(Some(Misfit::OtherRow(mark.number)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use redb::Builder;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::store::redb::files::stamp::{stamp_journal, stamp_main};
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::redb::tables::write::begin_write;

    fn written(write: impl FnOnce(&redb::WriteTransaction) -> Result<(), Failure>) -> Database {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        change(&database, write);
        database
    }

    fn change(database: &Database, write: impl FnOnce(&redb::WriteTransaction) -> Result<(), Failure>) {
        let txn = begin_write(database).unwrap();
        write(&txn).unwrap();
        txn.commit().unwrap();
    }

    fn main_and_journal() -> (Database, Database) {
        let main = written(stamp_main);
        let header = StoreHeader::of(&main).unwrap();
        let journal = written(|txn| stamp_journal(txn, &header));
        (main, journal)
    }

    fn replayed(main: &Database, journal: &Database) -> Result<Replayed, OpenError> {
        StoreHeader::of(main).unwrap().replay(main, journal, Path::new("journal"))
    }

    #[test]
    fn a_journal_is_read_only_beside_the_main_file_of_its_store() {
        let (main, journal) = main_and_journal();
        assert!(replayed(&main, &journal).is_ok());
        let (other_main, other_journal) = main_and_journal();
        for (main, journal) in [(&main, &other_journal), (&other_main, &journal)] {
            let refused = replayed(main, journal);
            assert!(matches!(refused, Err(OpenError::JournalOfAnother { cause: Misfit::OtherStore, .. })));
        }
        let store_id = ReadMeta::of(&main).unwrap().store_id().unwrap();
        let journal_id = ReadMeta::of(&journal).unwrap().journal_id().unwrap();
        change(&main, |txn| WriteMeta::write(txn)?.bind_journal(journal_id));
        assert!(replayed(&main, &journal).is_ok());
        let second = written(|txn| WriteMeta::write(txn)?.stamp_journal(store_id, JournalMark::default()));
        let refused = replayed(&main, &second);
        assert!(matches!(refused, Err(OpenError::JournalOfAnother { cause: Misfit::OtherJournal, .. })));
    }

    #[test]
    fn a_checkpoint_after_the_newest_row_is_damage_and_not_a_journal_of_another_time() {
        let (main, journal) = main_and_journal();
        let later = JournalMark { number: 3, checksum: 3 };
        let journal_id = ReadMeta::of(&journal).unwrap().journal_id().unwrap();
        change(&main, |txn| {
            let mut meta = WriteMeta::write(txn)?;
            meta.bind_journal(journal_id)?;
            meta.advance_checkpoint(later)
        });
        let Err(refused) = replayed(&main, &journal) else { panic!("it was read") };
        assert!(refused.to_string().contains("newest_row"), "{refused}");
    }
}

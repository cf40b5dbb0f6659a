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

/// What the main file says of the store.
#[derive(Debug)]
pub(crate) struct StoreHeader {
    pub(crate) bond: Bond,
    /// The last row of the journal of which everything is in the tables.
    pub(crate) checkpoint: JournalMark,
    /// The newest row of the journal when the main file was last written to.
    newest: JournalMark,
}

/// The ids and numbers that bind the two files to each other.
#[derive(Debug)]
pub(crate) struct Bond {
    pub(crate) store_id: Uuid,
    /// The journal that may hold what the tables do not, if one does.
    pub(crate) journal_id: Option<Uuid>,
}

impl Bond {
    pub(super) fn of(tables: &Database) -> Result<Self, Failure> {
        let meta = ReadMeta::of(tables)?;
        Ok(Self { store_id: meta.store_id()?, journal_id: meta.bound_journal()? })
    }

    /// Refuses a journal that is not that of these tables.
    pub(super) fn check(&self, journal: &Database, path: &Path) -> Result<(), OpenError> {
        let read = || {
            let meta = ReadMeta::of(journal)?;
            Ok((meta.store_id()?, meta.journal_id()?))
        };
        let (store_id, journal_id) = read().map_err(|failure: Failure| failed(path, failure))?;
        if store_id != self.store_id {
            return Err(of_another(path, Misfit::OtherStore));
        }
        if self.journal_id.is_some_and(|id| id != journal_id) {
            return Err(of_another(path, Misfit::OtherJournal));
        }
        Ok(())
    }
}

/// What rows a journal has.
struct JournalRange {
    base: JournalMark,
    /// The number of the last row; that of the base if there is none.
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

    /// The row of this number. A damaged or missing one is `None`: reading the rows tells it, if it is needed.
    fn sound_row(&self, number: u64) -> Result<Option<JournalMark>, Failure> {
        if number == self.base.number {
            return Ok(Some(self.base));
        }
        let row = self.rows.get(number)?;
        let row = row.as_ref().map(AccessGuard::value).filter(|row| row.verify(&number).is_ok());
        Ok(row.map(|row| JournalMark { number, checksum: row.checksum() }))
    }
}

fn of_another(path: &Path, cause: Misfit) -> OpenError {
    OpenError::JournalOfAnother { path: path.to_owned(), cause }
}

impl StoreHeader {
    pub(crate) fn of(tables: &Database) -> Result<Self, Failure> {
        let meta = ReadMeta::of(tables)?;
        Ok(Self { bond: Bond::of(tables)?, checkpoint: meta.checkpoint()?, newest: meta.newest()? })
    }

    /// Reads the journal, if it is that of these tables.
    pub(crate) fn replay(&self, tables: &Database, journal: &Database, path: &Path) -> Result<Replayed, OpenError> {
        let failed = |failure: Failure| failed(path, failure);
        self.bond.check(journal, path)?;
        let range = JournalRange::of(journal).map_err(failed)?;
        // First, as it has a remedy.
        if self.bond.journal_id.is_none() && range.last > self.checkpoint.number {
            return Err(of_another(path, Misfit::NotNeeded));
        }
        if let Some(cause) = self.misfit(&range).map_err(failed)? {
            return Err(of_another(path, cause));
        }
        let txn = tables.begin_read().map_err(|error| failed(error.into()))?;
        let tables = ReadTables::new(txn, TurnHasher::of(self.bond.store_id));
        replay(journal, &tables, self.checkpoint).map_err(failed)
    }

    /// How it shows that the journal is of another time than the main file, if it does. It has to begin at the
    /// checkpoint or before it and to reach as far as the main file has seen it, and both must mean the same rows.
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
        for mark in [self.checkpoint, self.newest] {
            if journal.sound_row(mark.number)?.is_some_and(|row| row != mark) {
                return Ok(Some(Misfit::OtherRow(mark.number)));
            }
        }
        Ok(None)
    }
}

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable};
use uuid::Uuid;

use super::open_error::{OpenError, failed};
use super::replay::{Replayed, replay};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::schema::ROWS;

/// What the main file says of the store.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) bond: Bond,
    pub(crate) checkpoint: u64,
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
            return Err(of_another(path, "it names another store"));
        }
        if self.journal_id.is_some_and(|id| id != journal_id) {
            return Err(of_another(path, "the database names another journal"));
        }
        Ok(())
    }
}

fn of_another(path: &Path, cause: &str) -> OpenError {
    OpenError::JournalOfAnother { path: path.to_owned(), cause: cause.into() }
}

impl Head {
    pub(crate) fn of(tables: &Database) -> Result<Self, Failure> {
        Ok(Self { bond: Bond::of(tables)?, checkpoint: ReadMeta::of(tables)?.checkpoint()? })
    }

    /// Reads the journal, if it is that of these tables.
    pub(crate) fn replay(&self, tables: &Database, journal: &Database, path: &Path) -> Result<Replayed, OpenError> {
        let failed = |failure: Failure| failed(path, failure);
        self.bond.check(journal, path)?;
        let last_row = || Ok(journal.begin_read()?.open_table(ROWS)?.last()?.map(|(row, _)| row.value()));
        let last_row: Option<u64> = last_row().map_err(failed)?;
        // A row of no more use is dropped with a later one, which stays.
        if last_row.is_some_and(|row| row < self.checkpoint) {
            return Err(of_another(path, "the database is of a later time"));
        }
        if self.bond.journal_id.is_none() && last_row.is_some_and(|row| row > self.checkpoint) {
            let cause = "the database has everything without it, as a backup does; move the journal away";
            return Err(of_another(path, cause));
        }
        let txn = tables.begin_read().map_err(|error| failed(error.into()))?;
        let tables = ReadTables::new(txn, TurnHasher::of(self.bond.store_id));
        replay(journal, &tables, self.checkpoint).map_err(failed)
    }
}

//! Makes blank databases files of a store, and refuses files of other programs and formats.

use std::path::Path;

use redb::{Database, WriteTransaction};

use super::header::StoreHeader;
use super::open_error::{OpenError, damaged, failed, of_other_format};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{FORMAT, ReadMeta, Stamp, WriteMeta};
use crate::store::redb::tables::schema::{ROWS, make_tables};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// Writes to a blank file what makes it a file of a store.
pub(super) type Stamping<'a> = &'a dyn Fn(&WriteTransaction) -> Result<(), Failure>;

/// Makes a blank file the main file of a new store.
pub(super) fn stamp_main(txn: &WriteTransaction) -> Result<(), Failure> {
    WriteMeta::write(txn)?.stamp_main()?;
    make_tables(txn)
}

/// Makes a blank file the journal of a store that has none so far.
pub(super) fn stamp_journal(txn: &WriteTransaction, header: &StoreHeader) -> Result<(), Failure> {
    WriteMeta::write(txn)?.stamp_journal(header.bond.store_id, header.checkpoint)?;
    txn.open_table(ROWS)?;
    Ok(())
}

/// Checks that the database is a file of a store. A blank database is made one.
pub(super) fn stamp(
    path: &Path,
    database: &Database,
    file: StoreFile,
    stamping: Stamping<'_>,
) -> Result<(), OpenError> {
    match Stamp::of(database, file).map_err(|failure| failed(path, failure))? {
        Stamp::Format(FORMAT) => Ok(()),
        Stamp::Format(found) => Err(of_other_format(path, found)),
        Stamp::Foreign => Err(OpenError::NotOurs { path: path.to_owned() }),
        Stamp::Blank => guarded(path, || initialise(database, stamping)),
    }
}

/// Returns an error if a fact about a file is damaged or missing. Only a repair may compute it anew.
pub(super) fn verify_facts(path: &Path, database: &Database, file: StoreFile) -> Result<(), OpenError> {
    ReadMeta::of(database).and_then(|meta| meta.verify(file)).map_err(|failure| failed(path, failure))
}

/// Writes to a database that is being opened, and turns a panic into an error. If the panic unwound into the drop of
/// the database, redb would panic once more.
pub(super) fn guarded(path: &Path, write: impl FnOnce() -> Result<(), Failure>) -> Result<(), OpenError> {
    match unwind::caught(write) {
        Ok(written) => written.map_err(|failure| failed(path, failure)),
        Err(panic) => Err(damaged(path, panic)),
    }
}

fn initialise(database: &Database, stamping: Stamping<'_>) -> Result<(), Failure> {
    let txn = begin_write(database)?;
    stamping(&txn)?;
    Ok(txn.commit()?)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase, TableDefinition};

    use super::*;

    fn blank() -> Database {
        Builder::new().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn stamp_as_main(database: &Database) -> Result<(), OpenError> {
        stamp(Path::new("main"), database, StoreFile::Main, &stamp_main)
    }

    #[test]
    fn a_blank_file_is_made_ours_once() {
        let database = blank();
        stamp_as_main(&database).unwrap();
        let store_id = || ReadMeta::of(&database).unwrap().store_id().unwrap();
        let first = store_id();
        stamp_as_main(&database).unwrap();
        assert_eq!(store_id(), first, "a file of ours is left as it is");
        let as_journal = stamp(Path::new("journal"), &database, StoreFile::Journal, &|_| Ok(()));
        assert!(matches!(as_journal, Err(OpenError::NotOurs { .. })), "a main file is no journal");
    }

    #[test]
    fn a_file_of_another_program_is_refused_and_unchanged() {
        let database = blank();
        let txn = database.begin_write().unwrap();
        txn.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
        txn.commit().unwrap();
        assert!(matches!(stamp_as_main(&database), Err(OpenError::NotOurs { .. })));
        assert_eq!(database.begin_read().unwrap().list_tables().unwrap().count(), 1);
    }

    #[test]
    fn a_panic_while_a_file_is_written_to_is_an_error_of_that_file() {
        let refused = guarded(Path::new("/srv/store"), || panic!("within the database")).unwrap_err();
        assert!(refused.to_string().contains("/srv/store"), "{refused}");
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    }
}

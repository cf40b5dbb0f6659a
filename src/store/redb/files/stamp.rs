//! Makes blank files ours, and refuses those of other programs and formats.

use std::path::Path;

use redb::{Database, WriteTransaction};

use super::header::StoreHeader;
use super::open_error::{OpenError, damaged, failed, of_other_format};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{FORMAT, Stamp, WriteMeta};
use crate::store::redb::tables::schema::{ROWS, make_tables};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// Makes a blank file one of ours.
pub(super) type Stamping<'a> = &'a dyn Fn(&WriteTransaction) -> Result<(), Failure>;

/// Makes a blank file the main file of a new store.
pub(super) fn stamp_main(txn: &WriteTransaction) -> Result<(), Failure> {
    WriteMeta::write(txn)?.stamp_main()?;
    make_tables(txn)
}

/// Makes a blank file the journal of a store that needs none so far.
pub(super) fn stamp_journal(txn: &WriteTransaction, header: &StoreHeader) -> Result<(), Failure> {
    WriteMeta::write(txn)?.stamp_journal(header.bond.store_id, header.checkpoint)?;
    txn.open_table(ROWS)?;
    Ok(())
}

/// Checks that the database is ours, and makes it so if it is blank.
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

/// Writes to a database that is being opened. A panic must not get as far as to drop it: it panics then once more.
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

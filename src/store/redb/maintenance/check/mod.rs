//! Verifies the files of a stopped store, and repairs everything that can be computed from its sealed turns.
//!
//! Invariants: a check changes no byte of the files. A repair is tried in memory first, and is one transaction.
//!
//! - `paths`: finds and opens the files, with or without changing them, and writes the journal into the tables.
//! - `inspect`: checks every row of the tables.
//! - `sums`: compares the sums of reports with the turns.
//! - `flaw`: what can be wrong with a row, or with the file.
//! - `report`: what a check found.
//! - `error`: why a check or a repair could not be made.
//! - `copy`: makes the copies of the files that a repair keeps.
//! - `repair`: makes the tables agree with the turns in them.
//! - `tests`: each kind of damage is found and repaired.
//! - `sums_tests`: each kind of damage to the sums of reports is found and repaired.

mod copy;
pub(crate) mod error;
pub(crate) mod flaw;
pub(super) mod inspect;
mod paths;
mod repair;
pub(crate) mod report;
mod sums;
#[cfg(test)]
mod sums_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, WriteTransaction};

use self::copy::{keep_copy, sync_directory};
use self::error::CheckError;
use self::flaw::Flaw;
use self::inspect::Inspection;
use self::paths::Paths;
use self::report::{CheckReport, Violation};
use crate::store::fault::Fault;
use crate::store::redb::files::file::remove;
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::files::path::has_content;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// Checks whether the pages of the database in this directory are sound, and whether its tables agree with each other.
/// The contents of the journal are checked as if they were in the tables.
///
/// No byte of the files changes. The bytes that redb writes when it opens the files stay in memory.
pub fn check(directory: &Path) -> Result<CheckReport, CheckError> {
    check_files(&Paths::existing(directory)?)
}

fn check_files(paths: &Paths) -> Result<CheckReport, CheckError> {
    let damaged = |cause: Fault| CheckReport {
        violations: vec![Violation::File(Flaw::Unreadable(cause))],
        ..CheckReport::default()
    };
    let (mut main, mut journal) = match paths.look() {
        Ok(looked) => looked,
        Err(OpenError::Damaged { cause, .. }) => return Ok(damaged(cause)),
        Err(error) => return Err(error.into()),
    };
    let mut whole = true;
    for database in std::iter::once(&mut main).chain(&mut journal) {
        match unwind::caught(|| database.check_integrity()) {
            Ok(Ok(sound)) => whole &= sound,
            Ok(Err(error)) => return Ok(damaged(Failure::from(error).into())),
            Err(panic) => return Ok(damaged(panic.into())),
        }
    }
    let inspected = unwind::caught(|| {
        let unmerged = paths.unmerged(&main, journal.as_ref())?;
        let report = write(&main, |txn| unmerged.write(txn)).and_then(|()| inspect(&main));
        report.map(|report| (unmerged.damaged, report)).map_err(|failure| failed(&paths.main, failure))
    });
    let (rows, mut report) = match inspected {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error @ OpenError::JournalOfAnother { .. })) => return Err(error.into()),
        Ok(Err(OpenError::Failed { cause, .. })) => return Ok(damaged(cause)),
        Ok(Err(error)) => return Ok(damaged(error.into())),
        Err(panic) => return Ok(damaged(panic.into())),
    };
    let rows = rows.into_iter().map(|row| Violation::Journal { row: row.number, flaw: row.flaw });
    report.violations.splice(0..0, rows);
    if !whole {
        report.violations.insert(0, Violation::File(Flaw::FreePages));
    }
    Ok(report)
}

fn write(database: &Database, work: impl FnOnce(&WriteTransaction) -> Result<(), Failure>) -> Result<(), Failure> {
    let txn = begin_write(database)?;
    work(&txn)?;
    Ok(txn.commit()?)
}

fn inspect(database: &Database) -> Result<CheckReport, Failure> {
    Inspection::of(&database.begin_read()?)
}

/// Repairs the database in this directory, by computing everything anew that follows from its sealed turns. Returns the
/// report before the repair. If there was a repair, also returns the path of the copy of the main file, and the report
/// after the repair. A copy of the journal is kept too.
///
/// A sound database, and a database whose damaged pages cannot be repaired, is neither changed nor copied. Then there
/// is no second report.
pub fn repair(directory: &Path) -> Result<(CheckReport, Option<(PathBuf, CheckReport)>), CheckError> {
    let paths = Paths::existing(directory)?;
    let before = check_files(&paths)?;
    if before.violations.is_empty() || !can_be_derived(&paths)? {
        return Ok((before, None));
    }
    if has_content(&paths.journal) {
        keep_copy(&paths.journal, sync_directory)?;
    }
    let copy = keep_copy(&paths.main, sync_directory)?;
    let derived = unwind::caught_as_fault(|| {
        derive(&paths, paths.open()?)?;
        // The main file no longer needs the journal.
        match remove(&paths.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::disk(error)),
            _ => Ok(()),
        }
    });
    match derived {
        Ok(()) => Ok((before, Some((copy, check_files(&paths)?)))),
        Err(cause) => Err(CheckError::Repair { cause, copy, before: Box::new(before) }),
    }
}

/// Tries the repair in memory. If damage makes the repair fail, it fails here, and the files do not change.
fn can_be_derived(paths: &Paths) -> Result<bool, CheckError> {
    match paths.look() {
        Ok(looked) => Ok(unwind::caught_as_fault(|| derive(paths, looked)).is_ok()),
        Err(OpenError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn derive(paths: &Paths, (mut main, mut journal): (Database, Option<Database>)) -> Result<(), Fault> {
    for database in std::iter::once(&mut main).chain(&mut journal) {
        database.check_integrity().map_err(Failure::from)?;
    }
    let unmerged = paths.unmerged(&main, journal.as_ref())?;
    // All is one transaction, since a killed process must not leave half of a repair.
    write(&main, |txn| unmerged.write(txn).and_then(|()| repair::derive(txn)))?;
    if let Some(journal) = journal {
        journal.close().map_err(Failure::from)?;
    }
    Ok(main.close().map_err(Failure::from)?)
}

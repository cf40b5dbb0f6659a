//! Verifies the files of a stopped store, and repairs what can be derived.
//!
//! Invariants: a check changes no byte of the files. A repair is tried in memory first, and is one transaction.
//!
//! - `paths`: finds and opens the files, with or without changing them, and writes the journal into the tables.
//! - `inspect`: looks at every row of the tables.
//! - `sums`: compares the sums of reports with the turns.
//! - `flaw`: what can be wrong with a row, or with the file.
//! - `report`: what a check found.
//! - `error`: why a check or a repair could not be made.
//! - `copy`: the copies that a repair keeps of the files.
//! - `repair`: makes the tables agree with the turns in them.
//! - `tests`: damage of each kind, found and repaired.
//! - `sums_tests`: the same of the sums of reports.

mod copy;
pub(crate) mod error;
pub(crate) mod flaw;
mod inspect;
mod paths;
mod repair;
pub(crate) mod report;
mod sums;
#[cfg(test)]
mod sums_tests;
#[cfg(test)]
mod tests;

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

/// Checks the database in this directory: that its pages are whole, and that its tables agree with each other. The
/// contents of the journal are checked as if they were in the tables.
///
/// No byte of the files changes. What redb wants to write as it opens them is kept in memory.
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

/// Repairs what can be derived in the database of this directory. Returns the report before the repair, and after it
/// the path of the copy that is kept of the file and a second report. A copy of the journal is kept likewise.
///
/// A sound database, and one whose pages are damaged and cannot be mended, is neither changed nor copied. Then there is
/// no second report.
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

/// Tries the repair in memory, so that a repair that the damage stops changes nothing.
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
    // One transaction: a process that is killed must not leave half of a repair.
    write(&main, |txn| unmerged.write(txn).and_then(|()| repair::derive(txn)))?;
    if let Some(journal) = journal {
        journal.close().map_err(Failure::from)?;
    }
    Ok(main.close().map_err(Failure::from)?)
}

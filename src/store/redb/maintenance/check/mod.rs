//! Verifies the files of a stopped store, and repairs everything that can be computed from its sealed turns.
//!
//! Invariants: a check changes no byte of the files. A repair of files with sound pages is tried in memory first, and
//! is one transaction. If pages are damaged, or if the result is not sound, `salvage` builds a new main file, which then
//! replaces the damaged one.
//!
//! - `paths`: finds and opens the files, with or without changing them, and writes the journal into the tables.
//! - `state`: distinguishes files with sound pages from files with damaged ones.
//! - `inspect`: checks every row of the tables.
//! - `sums`: compares the sums of reports with the turns.
//! - `facts`: the facts about the main file, and their mending.
//! - `flaw`: what can be wrong with a row, or with the file.
//! - `report`: what a check found.
//! - `error`: why a check or a repair could not be made.
//! - `salvage`: builds a new main file from what is left in damaged files.
//! - `copy`: makes the copies of the files that a repair keeps.
//! - `loss`: what a repair could not bring back.
//! - `lost`: the turns that repairs could not bring back.
//! - `repair`: makes the tables agree with the turns in them.
//! - `tests`: each kind of damage is found and repaired.
//! - `sums_tests`: each kind of damage to the sums of reports is found and repaired.

mod copy;
pub(crate) mod error;
mod facts;
pub(crate) mod flaw;
pub(in crate::store::redb::maintenance) mod inspect;
pub(crate) mod loss;
mod lost;
mod paths;
mod repair;
pub(crate) mod report;
mod salvage;
mod state;
mod sums;
#[cfg(test)]
mod sums_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, WriteTransaction};

use self::copy::{NotKept, keep_copy, sync_directory};
use self::error::CheckError;
use self::flaw::Flaw;
use self::inspect::Inspection;
use self::loss::Loss;
use self::lost::{lost_names, lost_open_turns, lost_ranges, lost_turns};
use self::paths::Paths;
use self::report::{CheckReport, Violation};
use self::salvage::source::{JournalSource, MainSource};
use self::salvage::{Salvaged, open_pages, salvage};
use self::state::State;
use crate::link;
use crate::store::fault::Fault;
use crate::store::redb::files::file::{remove, replace};
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::files::path::has_content;
use crate::store::redb::files::replay::DamagedRow;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// Checks whether the pages of the database in this directory are sound, and whether its tables agree with each other.
/// The contents of the journal are checked as if they were in the tables.
///
/// No byte of the files changes. The bytes that redb writes when it opens the files stay in memory.
pub fn check(directory: &Path) -> Result<CheckReport, CheckError> {
    check_files(&Paths::existing(directory)?)
}

/// Checks the files at these paths. A panic in the middle of the database is damage.
fn check_files(paths: &Paths) -> Result<CheckReport, CheckError> {
    unwind::caught(|| check_each(paths)).unwrap_or_else(|panic| Ok(of_unreadable(panic.into())))
}

fn of(violations: Vec<Violation>) -> CheckReport {
    CheckReport { violations, ..CheckReport::default() }
}

fn of_unreadable(cause: Fault) -> CheckReport {
    of(vec![Violation::File(Flaw::Unreadable(cause))])
}

fn check_each(paths: &Paths) -> Result<CheckReport, CheckError> {
    let damaged = of_unreadable;
    let (main, journal, whole) = match paths.states()? {
        (State::Damaged(cause), _) | (_, Some(State::Damaged(cause))) => return Ok(damaged(cause)),
        (State::Rowless(refused), _) | (_, Some(State::Rowless(refused))) => return Err(refused.into()),
        (State::Sound(main, of_main), Some(State::Sound(journal, of_journal))) => {
            (main, Some(journal), of_main && of_journal)
        }
        (State::Sound(main, whole), None) => (main, None, whole),
    };
    let facts = unwind::caught_as_fault(|| Ok(facts::unsound(&ReadMeta::of(&main)?)?));
    let facts = match facts {
        Ok(facts) => facts,
        Err(cause) => return Ok(damaged(cause)),
    };
    // A damaged fact may be the cause.
    let damaged = |cause| if facts.is_empty() { damaged(cause) } else { of(facts.clone()) };
    let inspected = unwind::caught(|| {
        let unmerged = paths.unmerged(&main, journal.as_deref())?;
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
    let flaws = rows.into_iter().flat_map(DamagedRow::flaws);
    let rows = flaws.map(|(row, flaw)| Violation::Journal { row, flaw });
    report.violations.splice(0..0, rows);
    // What the journal has can hide a damaged fact.
    let hidden: Vec<_> = facts.into_iter().filter(|fact| !report.violations.contains(fact)).collect();
    report.violations.splice(0..0, hidden);
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

/// Checks every row of the tables of a main file.
pub(in crate::store::redb::maintenance) fn inspect(database: &Database) -> Result<CheckReport, Failure> {
    Inspection::of(&database.begin_read()?)
}

/// Repairs the database in this directory, by computing everything anew that follows from its sealed turns. Returns the
/// report before the repair. If there was a repair, also returns the path of the copy of the main file, and the report
/// after the repair, which names what is lost. A copy of the journal is kept too.
///
/// If pages of a file are damaged, or if a database with sound pages would not be sound after that, a new main file is
/// built from everything that can be proved right. A sound database is neither changed nor copied, and there is no
/// second report.
pub fn repair(directory: &Path) -> Result<(CheckReport, Option<(PathBuf, CheckReport)>), CheckError> {
    let paths = Paths::existing(directory)?;
    let before = check_files(&paths)?;
    if before.violations.is_empty() {
        return Ok((before, None));
    }
    // The salvage reads the pages one by one. So a panic in the attempt to repair the files in place leads to it.
    let can = unwind::caught(|| can_be_derived(&paths)).unwrap_or(Ok(false));
    let salvaged = match can.and_then(|can| (!can).then(|| salvaged(&paths)).transpose()) {
        Ok(salvaged) => salvaged,
        Err(cause) => return Err(CheckError::NotRepaired { cause, before: Box::new(before) }),
    };
    let kept = keep_copies(&paths);
    if let (Err(_), Some(salvaged)) = (&kept, &salvaged) {
        let _ = remove(&salvaged.path);
    }
    let copy = match kept {
        Ok(copy) => copy,
        Err(NotKept { path, source }) => return Err(CheckError::Copy { path, source, before: Box::new(before) }),
    };
    let repaired = unwind::caught_as_fault(|| {
        let losses = if let Some(salvaged) = &salvaged {
            replace(&paths.main, &salvaged.path).map_err(Fault::disk)?;
            sync_directory(link::directory_of(&paths.main)).map_err(Fault::disk)?;
            salvaged.losses.clone()
        } else {
            let (mut main, mut journal) = paths.open()?;
            let losses = derive(&paths, &mut main, journal.as_mut())?;
            if let Some(journal) = journal {
                journal.close().map_err(Failure::from)?;
            }
            main.close().map_err(Failure::from)?;
            losses
        };
        // The main file no longer needs the journal.
        match remove(&paths.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::disk(error)),
            _ => Ok(losses),
        }
    });
    match repaired {
        Ok(losses) => Ok((before, Some((copy, CheckReport { losses, ..check_files(&paths)? })))),
        Err(cause) => Err(CheckError::Repair { cause, copy, before: Box::new(before) }),
    }
}

/// Keeps copies of both files, and returns the path of the copy of the main file.
fn keep_copies(paths: &Paths) -> Result<PathBuf, NotKept> {
    if has_content(&paths.journal) {
        keep_copy(&paths.journal, sync_directory)?;
    }
    keep_copy(&paths.main, sync_directory)
}

/// Builds a new main file from what is left in the files.
fn salvaged(paths: &Paths) -> Result<Salvaged, OpenError> {
    unwind::caught(|| salvage_each(paths)).unwrap_or_else(|panic| Err(failed(&paths.main, panic)))
}

fn salvage_each(paths: &Paths) -> Result<Salvaged, OpenError> {
    let (main, journal) = paths.states()?;
    let pages = |path: &Path| open_pages(path).map_err(OpenError::unreadable(path));
    let (main_pages, journal_pages, sound_main, sound_journal);
    let main = match main {
        State::Sound(main, _)
            if matches!(journal, Some(State::Damaged(_))) && has_sound_facts(&main, StoreFile::Main) =>
        {
            sound_main = main;
            MainSource::Sound(&sound_main)
        }
        // If both files have sound pages, the contents of the main file cannot be repaired in place. Its pages are read
        // one by one, so that nothing in them can stop the repair.
        state => {
            drop(state);
            main_pages = pages(&paths.main)?;
            MainSource::Damaged(&main_pages)
        }
    };
    let journal = match journal {
        None => JournalSource::Missing,
        Some(State::Sound(journal, _)) if has_sound_facts(&journal, StoreFile::Journal) => {
            sound_journal = journal;
            JournalSource::Sound(&sound_journal)
        }
        state => {
            drop(state);
            journal_pages = pages(&paths.journal)?;
            JournalSource::Damaged(&journal_pages)
        }
    };
    salvage([&paths.main, &paths.journal], &main, &journal)
}

fn has_sound_facts(database: &Database, file: StoreFile) -> bool {
    unwind::caught(|| ReadMeta::of(database).and_then(|meta| meta.verify(file)).is_ok()).unwrap_or(false)
}

/// Tries the repair in memory. If damage makes the repair fail, or if the tables are not sound after it, this is found
/// here, and the files do not change.
fn can_be_derived(paths: &Paths) -> Result<bool, OpenError> {
    let (State::Sound(mut main, _), journal) = paths.states()? else { return Ok(false) };
    let mut journal = match journal {
        Some(State::Sound(journal, _)) => Some(journal),
        Some(State::Damaged(_) | State::Rowless(_)) => return Ok(false),
        None => None,
    };
    if unwind::caught_as_fault(|| derive(paths, &mut main, journal.as_deref_mut())).is_err() {
        return Ok(false);
    }
    let inspected = unwind::caught_as_fault(|| Ok(inspect(&main)?));
    Ok(inspected.is_ok_and(|report| report.violations.is_empty()))
}

/// Repairs files with sound pages in place. Returns what is lost.
fn derive(paths: &Paths, main: &mut Database, mut journal: Option<&mut Database>) -> Result<Vec<Loss>, Fault> {
    main.check_integrity().map_err(Failure::from)?;
    if let Some(journal) = &mut journal {
        journal.check_integrity().map_err(Failure::from)?;
    }
    let unmerged = paths.unmerged(main, journal.as_deref())?;
    let mut losses = Vec::new();
    // All is one transaction, since a killed process must not leave half of a repair.
    write(main, |txn| {
        let before = lost_ranges(txn)?;
        facts::mend(txn)?;
        let repair = WriteMeta::write(txn)?.next_repair()?;
        unmerged.write(txn)?;
        repair::derive(txn)?;
        losses = lost_turns(txn, &before, &[])?;
        losses.extend(lost_names(txn, repair)?);
        losses.extend(lost_open_turns(txn, repair)?);
        let flaws = unmerged.damaged.into_iter().flat_map(DamagedRow::flaws);
        losses.extend(flaws.map(|(row, flaw)| Loss::of_row(row, flaw)));
        Ok(())
    })?;
    Ok(losses)
}

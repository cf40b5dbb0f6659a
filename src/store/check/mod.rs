//! Verifies the file of a store that is not running, and repairs what can be derived.

mod inspect;
mod repair;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase};

use super::location::{FILE_NAME, OpenError, explain, look_at};
use super::schema::Failure;
use super::unwind;
use inspect::Inspection;

/// Something in the file that must not be. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The file as a database is damaged.
    #[error("the file: {0}")]
    File(String),
    /// A conversation's own record, or its key.
    #[error("conversation {conversation}: {what}")]
    Conversation {
        /// Its id, or `#` and its key where that is all there is.
        conversation: String,
        /// What is wrong.
        what: String,
    },
    /// A sealed turn.
    #[error("turn {ordinal} of conversation {conversation}: {what}")]
    Turn {
        /// Its conversation.
        conversation: String,
        /// Its place.
        ordinal: u64,
        /// What is wrong.
        what: String,
    },
    /// The index from turn ids to ordinals.
    #[error("the index of turn {turn_id} of conversation {conversation}: {what}")]
    Index {
        /// The conversation.
        conversation: String,
        /// The turn.
        turn_id: String,
        /// What is wrong.
        what: String,
    },
    /// An open turn.
    #[error("open turn {turn_id} of conversation {conversation}: {what}")]
    OpenTurn {
        /// Its conversation.
        conversation: String,
        /// The turn.
        turn_id: String,
        /// What is wrong.
        what: String,
    },
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// All that is wrong.
    pub violations: Vec<Violation>,
    /// How many conversations there are.
    pub conversations: u64,
    /// How many sealed turns there are.
    pub sealed_turns: u64,
    /// How many open turns there are.
    pub open_turns: u64,
    /// How many turns earlier repairs took out, or noted as gone.
    pub lost_turns: u64,
}

/// Why a file could not be checked or repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It cannot be opened: it is missing, in use, of another program or of a later format.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is none.
    #[error("there is no database {path}")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is a file, and nothing in it.
    #[error("there is no database in {path}: the file is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The copy of what is to be repaired could not be made; nothing was changed.
    #[error("no copy of the database can be kept at {path}: {source}")]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The repair did not go through, though it did when it was tried in memory: the disk failed, or the file was taken
    /// meanwhile. The file may have changed; the copy is what it was.
    #[error("the repair failed: {cause}; the file as it was is kept as {copy}")]
    Repair {
        /// What went wrong.
        cause: String,
        /// The copy.
        copy: PathBuf,
        /// What was wrong before.
        before: CheckReport,
    },
}

/// Checks the database in this directory: that its pages are whole, and that what they hold agrees with itself.
///
/// No byte of the file changes. What the database wants to write as it opens is kept in memory.
pub fn check(directory: &Path) -> Result<CheckReport, CheckError> {
    check_file(&existing(directory)?)
}

fn existing(directory: &Path) -> Result<PathBuf, CheckError> {
    let path = directory.join(FILE_NAME);
    match fs::metadata(&path) {
        Ok(file) if file.is_file() && file.len() == 0 => Err(CheckError::Empty { path }),
        Ok(file) if file.is_file() => Ok(path),
        _ => Err(CheckError::Missing { path }),
    }
}

fn check_file(path: &Path) -> Result<CheckReport, CheckError> {
    let damaged = |what: String| CheckReport { violations: vec![Violation::File(what)], ..CheckReport::default() };
    let mut database = match look_at(&Builder::new(), path) {
        Ok(database) => database,
        Err(OpenError::Damaged { cause, .. }) => return Ok(damaged(cause)),
        Err(error) => return Err(error.into()),
    };
    let whole = match unwind::caught(|| database.check_integrity()) {
        Ok(Ok(whole)) => whole,
        Ok(Err(error)) => return Ok(damaged(error.to_string())),
        Err(panic) => return Ok(damaged(panic)),
    };
    let mut report = match unwind::caught(|| inspect(&database)) {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) => return Ok(damaged(failure.to_string())),
        Err(panic) => return Ok(damaged(panic)),
    };
    if !whole {
        report.violations.insert(0, Violation::File("its record of free pages is wrong".into()));
    }
    Ok(report)
}

fn inspect(database: &Database) -> Result<CheckReport, Failure> {
    Inspection::of(&database.begin_read()?)
}

/// Repairs the database in this directory as far as that can be derived, and gives what was wrong, what still is, and
/// where a copy of the file as it was is kept.
///
/// Nothing is changed and no copy made of a sound one, nor of one whose pages are damaged: those cannot be mended. Then
/// there is no second report.
pub fn repair(directory: &Path) -> Result<(CheckReport, Option<(PathBuf, CheckReport)>), CheckError> {
    let path = existing(directory)?;
    let before = check_file(&path)?;
    if before.violations.is_empty() || !can_be_derived(&path)? {
        return Ok((before, None));
    }
    let copy = keep_copy(&path, sync_directory)?;
    let derived = unwind::caught(|| {
        let database = Builder::new().open(&path).map_err(|error| explain(&path, &error).to_string())?;
        derive(database).map_err(|failure| failure.to_string())
    });
    match derived {
        Ok(Ok(())) => Ok((before, Some((copy, check_file(&path)?)))),
        Ok(Err(cause)) | Err(cause) => Err(CheckError::Repair { cause, copy, before }),
    }
}

/// Tries the repair in memory: one that the damage stops must not leave half of itself in the file.
fn can_be_derived(path: &Path) -> Result<bool, CheckError> {
    match look_at(&Builder::new(), path) {
        Ok(database) => Ok(matches!(unwind::caught(|| derive(database)), Ok(Ok(())))),
        Err(OpenError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn derive(mut database: Database) -> Result<(), Failure> {
    database.check_integrity()?;
    repair::derive(&database)?;
    Ok(database.close()?)
}

/// Makes the names in the directory durable.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Copies the file beside itself, under a name that is not taken. When this is done the copy and its name outlive a
/// power cut, so that the repair may begin.
fn keep_copy(path: &Path, sync_directory: impl Fn(&Path) -> io::Result<()>) -> Result<PathBuf, CheckError> {
    let mut number = 1u32;
    loop {
        let copy = path.with_extension(format!("redb.before-repair-{number}"));
        let made = File::options().write(true).create_new(true).open(&copy);
        let copied = made.and_then(|mut to| {
            io::copy(&mut File::open(path)?, &mut to)?;
            to.sync_all()?;
            copy.parent().map_or(Ok(()), &sync_directory)
        });
        match copied {
            Ok(()) => return Ok(copy),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => {
                // Half a copy is of no use to anyone.
                let _ = fs::remove_file(&copy);
                return Err(CheckError::Copy { path: copy, source });
            }
        }
    }
}

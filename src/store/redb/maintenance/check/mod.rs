//! Verifies the file of a store that is not running, and repairs what can be derived.

mod inspect;
mod repair;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase};

use crate::link;
use crate::store::redb::checkpoint::move_conversations;
use crate::store::redb::files::location::{Head, OpenError, explain, failed, has_content, look_at};
use crate::store::redb::files::replay::{DamagedRow, Replayed};
use crate::store::redb::files::slot::begin_tables;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{
    Failure, LOST_ROWS, META, META_JOURNAL, StoreFile, read_running_time, write_running_time,
};
use crate::store::redb::unwind;
use inspect::Inspection;

/// Something in the file that must not be. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The file as a database is damaged.
    #[error("the file: {0}")]
    File(String),
    /// A row of the journal.
    #[error("row {row} of the journal: {what}")]
    Journal {
        /// Its number.
        row: u64,
        /// What is wrong.
        what: String,
    },
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
    /// The index from turn ids to ordinals, which knows of an id only its hash.
    #[error("the index of conversation {conversation} at {hash:016x}: {what}")]
    Index {
        /// The conversation.
        conversation: String,
        /// Where in the index.
        hash: u64,
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
    /// How many turns earlier repairs took out of the tables, or noted as gone.
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
    #[error("the repair failed: {cause}; the file as it was is kept as {copy}, and so is its journal, if it had one")]
    Repair {
        /// What went wrong.
        cause: String,
        /// The copy.
        copy: PathBuf,
        /// What was wrong before.
        before: CheckReport,
    },
}

/// Checks the database in this directory: that its pages are whole, and that what they hold agrees with itself. What is
/// in its journal still is looked at where it belongs.
///
/// No byte of the files changes. What the database wants to write as it opens is kept in memory.
pub fn check(directory: &Path) -> Result<CheckReport, CheckError> {
    check_files(&Paths::existing(directory)?)
}

/// Where the files of a store are.
struct Paths {
    main: PathBuf,
    journal: PathBuf,
}

impl Paths {
    fn existing(directory: &Path) -> Result<Self, CheckError> {
        // If a path is a symbolic link, the repair works on the file that it leads to and puts the copy beside that
        // file.
        let [path, journal] = [StoreFile::Main, StoreFile::Journal].map(|file| {
            let path = directory.join(file.name());
            link::target(&path).unwrap_or(path)
        });
        match fs::metadata(&path) {
            Ok(file) if file.is_file() && file.len() == 0 => Err(CheckError::Empty { path }),
            Ok(file) if file.is_file() => Ok(Self { main: path, journal }),
            _ => Err(CheckError::Missing { path }),
        }
    }

    /// Opens the files without changing them. The journal may be missing, where it has nothing to say.
    fn look(&self) -> Result<(Database, Option<Database>), OpenError> {
        let main = look_at(&Builder::new(), &self.main, StoreFile::Main)?;
        let has_journal = has_content(&self.journal);
        let journal = has_journal.then(|| look_at(&Builder::new(), &self.journal, StoreFile::Journal));
        Ok((main, journal.transpose()?))
    }

    /// Opens the files to change them.
    fn open(&self) -> Result<(Database, Option<Database>), OpenError> {
        let open = |path: &Path| Builder::new().open(path).map_err(|error| explain(path, &error));
        let journal = has_content(&self.journal).then(|| open(&self.journal)).transpose()?;
        Ok((open(&self.main)?, journal))
    }

    /// Writes all of the journal into the main file, which then no longer needs the journal. Returns the damaged rows
    /// of the journal.
    fn merge(&self, main: &Database, journal: Option<&Database>) -> Result<Vec<DamagedRow>, OpenError> {
        let failed = |failure: Failure| failed(&self.main, &failure);
        let head = Head::of(main).map_err(failed)?;
        let mut damaged = Vec::new();
        let mut image = None;
        match journal {
            Some(journal) => {
                let Replayed { image: replayed, damaged: rows } = head.replay(main, journal, &self.journal)?;
                (image, damaged) = (Some(replayed), rows);
            }
            None if head.bond.journal_id.is_some() => {
                let why = "the whole journal is missing, and what was acknowledged last with it".to_owned();
                damaged.push(DamagedRow { number: head.checkpoint + 1, why, bytes: Vec::new() });
            }
            None => {}
        }
        let write = || {
            let txn = begin_tables(main)?;
            if let Some(image) = &image {
                let moving: Vec<_> = image.layers().all().cloned().collect();
                move_conversations(&txn, TurnHasher::of(head.bond.store_id), &moving, Some(image.last_row()))?;
            }
            let mut meta = txn.open_table(META)?;
            if let Some(journal) = journal {
                let running = read_running_time(&journal.begin_read()?.open_table(META)?)?;
                let running = running.max(read_running_time(&meta)?);
                write_running_time(&mut meta, running)?;
            }
            meta.remove(META_JOURNAL)?;
            drop(meta);
            for row in &damaged {
                txn.open_table(LOST_ROWS)?.insert(row.number, &*row.bytes)?;
            }
            Ok(txn.commit()?)
        };
        write().map_err(failed)?;
        Ok(damaged)
    }
}

fn check_files(paths: &Paths) -> Result<CheckReport, CheckError> {
    let damaged = |what: String| CheckReport { violations: vec![Violation::File(what)], ..CheckReport::default() };
    let (mut main, mut journal) = match paths.look() {
        Ok(looked) => looked,
        Err(OpenError::Damaged { cause, .. }) => return Ok(damaged(cause)),
        Err(error) => return Err(error.into()),
    };
    let mut whole = true;
    for database in std::iter::once(&mut main).chain(&mut journal) {
        match unwind::caught(|| database.check_integrity()) {
            Ok(Ok(sound)) => whole &= sound,
            Ok(Err(error)) => return Ok(damaged(error.to_string())),
            Err(panic) => return Ok(damaged(panic)),
        }
    }
    let inspected = unwind::caught(|| {
        let rows = paths.merge(&main, journal.as_ref())?;
        inspect(&main).map(|report| (rows, report)).map_err(|failure| failed(&paths.main, &failure))
    });
    let (rows, mut report) = match inspected {
        Ok(Ok(inspected)) => inspected,
        Ok(Err(error @ OpenError::JournalOfAnother { .. })) => return Err(error.into()),
        Ok(Err(OpenError::Failed { cause, .. })) => return Ok(damaged(cause)),
        Ok(Err(error)) => return Ok(damaged(error.to_string())),
        Err(panic) => return Ok(damaged(panic)),
    };
    let rows = rows.into_iter().map(|row| Violation::Journal { row: row.number, what: row.why });
    report.violations.splice(0..0, rows);
    if !whole {
        report.violations.insert(0, Violation::File("its record of free pages is wrong".into()));
    }
    Ok(report)
}

fn inspect(database: &Database) -> Result<CheckReport, Failure> {
    Inspection::of(&database.begin_read()?)
}

/// Repairs the database in this directory as far as that can be derived, and gives what was wrong, what still is, and
/// where a copy of the file as it was is kept; a copy of the journal is kept likewise.
///
/// Nothing is changed and no copy made of a sound one, nor of one whose pages are damaged: those cannot be mended. Then
/// there is no second report.
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
    let derived = unwind::caught(|| {
        let opened = paths.open().map_err(|error| error.to_string())?;
        derive(&paths, opened)?;
        // The main file says that it has no journal.
        match fs::remove_file(&paths.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    });
    match derived {
        Ok(Ok(())) => Ok((before, Some((copy, check_files(&paths)?)))),
        Ok(Err(cause)) | Err(cause) => Err(CheckError::Repair { cause, copy, before }),
    }
}

/// Tries the repair in memory: one that the damage stops must not leave half of itself in the file.
fn can_be_derived(paths: &Paths) -> Result<bool, CheckError> {
    match paths.look() {
        Ok(looked) => Ok(matches!(unwind::caught(|| derive(paths, looked)), Ok(Ok(())))),
        Err(OpenError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn derive(paths: &Paths, (mut main, mut journal): (Database, Option<Database>)) -> Result<(), String> {
    for database in std::iter::once(&mut main).chain(&mut journal) {
        database.check_integrity().map_err(|error| error.to_string())?;
    }
    paths.merge(&main, journal.as_ref()).map_err(|error| error.to_string())?;
    repair::derive(&main).map_err(|failure| failure.to_string())?;
    if let Some(journal) = journal {
        journal.close().map_err(|error| error.to_string())?;
    }
    main.close().map_err(|error| error.to_string())
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
        let copy = link::beside(path, &format!(".before-repair-{number}"));
        let made = File::options().write(true).create_new(true).open(&copy);
        let copied = made.and_then(|mut to| {
            io::copy(&mut File::open(path)?, &mut to)?;
            to.sync_all()?;
            sync_directory(link::directory_of(&copy))
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

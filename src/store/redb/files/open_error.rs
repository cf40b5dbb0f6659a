use std::io;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};

use super::misfit::Misfit;
use super::replay::RowFlaw;
use crate::link;
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::tables::failure::{Failure, is_damage};
use crate::store::redb::tables::meta::FORMAT;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made or written.
    #[error("the data directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path of the main file is a symbolic link whose target does not exist.
    #[error(
        "the database {path} is a symbolic link to {target}, which does not exist; bring that file back; for a new \
             database, remove the link"
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// The main file has no byte. All that it had is gone.
    #[error(
        "the database {path} is empty (0 bytes), so all that it had is gone; bring it back, or restore a backup; {}",
        if *.has_journal {
            "if there is none, `turn-metrics check --repair` builds a new one from what the journal beside it has"
        } else {
            "for a new database, remove the empty file"
        }
    )]
    MainEmpty {
        /// The main file.
        path: PathBuf,
        /// Whether a journal is beside it.
        has_journal: bool,
    },
    /// The main file is missing, and a journal is there, which a new store does not have.
    #[error(
        "the database {path} is missing, and its journal {journal} is there; bring the database back, or move the \
             journal away and restore a backup; without either, moving the journal away begins a new database"
    )]
    MainMissing {
        /// The path of the main file.
        path: PathBuf,
        /// The journal.
        journal: PathBuf,
    },
    /// Another process has the database open.
    #[error("the database {path} is in use by another process; stop that one, or choose another data directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a database of this program.
    #[error("the file {path} is no turn-metrics database; it was left as it is")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file has the format of another version.
    #[error("the database {path} is of format {found}; this version knows format {known}")]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The format that this version knows.
        known: u32,
    },
    /// The journal is missing, and with it the commits that were acknowledged since the last checkpoint.
    #[error(
        "the journal {path} is missing or empty, and turns that were acknowledged are in nothing else; bring it back, \
             or run `turn-metrics check --repair` to go on without them"
    )]
    JournalMissing {
        /// The path of the journal.
        path: PathBuf,
    },
    /// The path of the journal is a symbolic link whose target does not exist.
    #[error("the journal {path} is a symbolic link to {target}, which does not exist; {}", advice_on_link(*.is_needed))]
    JournalDangling {
        /// The link.
        path: PathBuf,
        /// The target.
        target: PathBuf,
        /// Whether the database needs the journal.
        is_needed: bool,
    },
    /// What is in the place of the journal is none: a directory, or a file that this program has not made.
    #[error("what is in the place of the journal, {path}, is no journal, and was left as it is; {}", advice_on_other(*.is_needed))]
    NoJournal {
        /// The path of the journal.
        path: PathBuf,
        /// Whether the database needs a journal.
        is_needed: bool,
    },
    /// The journal belongs to another store, or to another time of this store.
    #[error("the journal {path} does not belong to the database beside it: {cause}; {}", advice(*.cause, *.is_complete))]
    JournalOfAnother {
        /// The journal.
        path: PathBuf,
        /// Why the journal does not belong to the database.
        cause: Misfit,
        /// Whether the database needs no journal, as after an orderly stop or in a backup.
        is_complete: bool,
    },
    /// The file is not a sound database: reading it failed in a way that does not happen with an intact file.
    #[error("the database {path} is damaged: {}; `turn-metrics check` tells more", .cause.in_full())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: Fault,
    },
    /// A row of the journal is damaged.
    #[error("the journal {path} is damaged: row {row}: {flaw}; `turn-metrics check` tells more")]
    DamagedRow {
        /// The journal.
        path: PathBuf,
        /// The number of the first damaged row.
        row: u64,
        /// What is wrong with the row.
        flaw: RowFlaw,
    },
    /// The file cannot be opened for reading and writing.
    #[error("the file {path} cannot be read and written")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The database cannot be opened for another reason.
    #[error("the database {path} cannot be opened: {}", .cause.in_full())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: Fault,
    },
    /// The writer's thread cannot be started.
    #[error("the writer's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Returns what to do about a link in the place of the journal that leads to nothing.
fn advice_on_link(is_needed: bool) -> &'static str {
    if is_needed {
        "bring that file back, as turns that were acknowledged are in nothing else: perhaps its disk is not mounted; to go on \
         without these turns, remove the link and run `turn-metrics check --repair`"
    } else {
        "the database is complete without a journal, so remove the link, or make the directory of its target again"
    }
}

/// Returns what to do about a file that is no journal in the place of the journal.
fn advice_on_other(is_needed: bool) -> &'static str {
    if is_needed {
        "run `turn-metrics check --repair` first, which finds the rows of a journal that is only damaged; if it refuses the \
         file too, bring the journal back, as turns that were acknowledged are in nothing else, or move away what is in its \
         place and repair without these turns"
    } else {
        "the database is complete without a journal, so move away what is in its place"
    }
}

/// Returns what to do if the two files do not belong together.
fn advice(cause: Misfit, is_complete: bool) -> &'static str {
    if let (Misfit::OlderJournal { .. }, false) = (cause, is_complete) {
        "run `turn-metrics check --repair` first: if the journal is only damaged, it finds the rows; if it refuses the \
         journal too, bring back the journal that was beside the database, or restore a backup; do not move the journal \
         away, as all turns that only this journal has would be lost too"
    } else if is_complete {
        "the database is complete without a journal, as a backup and the file of a stopped server are; to go on with \
         it alone, move the journal away; to keep turns that only the journal has, bring back the database that was \
         beside the journal"
    } else {
        "bring back the two files that were beside each other, or move the journal away and restore a backup; if there \
         is none, move the journal away and run `turn-metrics check --repair` to go on without the turns that are in \
         neither file"
    }
}

impl OpenError {
    /// Returns the error of a journal whose path is a symbolic link to nothing. `None` if it is no such link.
    pub(crate) fn of_dangling_journal(path: &Path, is_needed: bool) -> Option<Self> {
        let target = link::target(path).ok().filter(|target| target != path && !target.exists())?;
        Some(Self::JournalDangling { path: path.to_owned(), target, is_needed })
    }

    /// Returns the error of a file that cannot be read.
    pub(crate) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Unreadable { path, source }
    }

    /// Returns this error as one of the journal: a file that this program has not made may be in its place.
    pub(crate) fn of_journal(self, is_needed: bool) -> Self {
        match self {
            Self::NotOurs { path } => Self::NoJournal { path, is_needed },
            other => other,
        }
    }

    /// Returns the error of a data directory that is missing because something else is in its place, such as a symbolic
    /// link whose target does not exist. `None` if nothing is in its place.
    pub(crate) fn of_missing(directory: &Path) -> Option<Self> {
        let obstacle = link::obstacle(directory)?;
        Some(Self::Directory { path: directory.to_owned(), source: io::Error::other(obstacle) })
    }
}

/// The fault has a text that anybody may see: it does not say where the database is.
impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        let because = |what| Self::new(FaultKind::Database, what);
        let fault = match &error {
            OpenError::Failed { cause, .. } => cause.clone(),
            OpenError::Directory { source, .. } => {
                Self::new(FaultKind::Disk, "the data directory cannot be used").of_io(source)
            }
            OpenError::Unreadable { source, .. } => {
                Self::new(FaultKind::Disk, "the database cannot be read").of_io(source)
            }
            OpenError::Thread(source) => because("a thread cannot be started").of_io(source),
            OpenError::Damaged { .. } => Self::new(FaultKind::Damaged, "the database is damaged"),
            OpenError::DamagedRow { row, .. } => {
                Self::new(FaultKind::Damaged, "a row of the journal is damaged").numbered(*row)
            }
            OpenError::Dangling { .. } => because("the database is a symbolic link to a file that does not exist"),
            OpenError::MainEmpty { .. } => because("the database is empty"),
            OpenError::MainMissing { .. } => because("the database is missing, and its journal is there"),
            OpenError::InUse { .. } => because("the database is in use by another process"),
            OpenError::NotOurs { .. } => because("the file is no turn-metrics database"),
            OpenError::OtherFormat { found, .. } => {
                because("the database is of another format").numbered((*found).into())
            }
            OpenError::JournalMissing { .. } => because("the journal is missing"),
            OpenError::JournalDangling { .. } => {
                because("the journal is a symbolic link to a file that does not exist")
            }
            OpenError::NoJournal { .. } => because("what is in the place of the journal is no journal"),
            OpenError::JournalOfAnother { .. } => because("the journal does not belong to the database"),
        };
        fault.caused_by(error)
    }
}

pub(crate) fn explain(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::NotOurs { path: path.to_owned() }
        }
        DatabaseError::Storage(StorageError::Corrupted(said)) => damaged(path, of_corruption(said)),
        DatabaseError::Storage(error) if is_damage(&error) => damaged(path, Failure::Storage(error)),
        other => failed(path, Failure::Database(other)),
    }
}

pub(crate) fn failed(path: &Path, cause: impl Into<Fault>) -> OpenError {
    OpenError::Failed { path: path.to_owned(), cause: cause.into() }
}

/// Returns the error of a file that is not a sound database: redb reports it, or panics when it reads the file.
pub(super) fn damaged(path: &Path, cause: impl Into<Fault>) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), cause: cause.into() }
}

/// Returns the fault of a database that redb reports as damaged.
fn of_corruption(said: String) -> Fault {
    Fault::new(FaultKind::Damaged, "the database is damaged").caused_by(said)
}

pub(super) fn of_other_format(path: &Path, found: u32) -> OpenError {
    OpenError::OtherFormat { path: path.to_owned(), found, known: FORMAT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_displayed_text_of_an_open_error_has_no_path_and_the_log_has_all() {
        let path = || PathBuf::from("/var/lib/secret/x y");
        let cause = || "something about /var/lib/secret".to_owned();
        let denied = || io::Error::from_raw_os_error(13);
        for (error, kind, told) in [
            (
                OpenError::Directory { path: path(), source: denied() },
                FaultKind::Disk,
                "the data directory cannot be used: Permission denied (os error 13)",
            ),
            (
                OpenError::Directory { path: path(), source: io::Error::other(cause()) },
                FaultKind::Disk,
                "the data directory cannot be used",
            ),
            (
                OpenError::Dangling { path: path(), target: path() },
                FaultKind::Database,
                "the database is a symbolic link to a file that does not exist",
            ),
            (OpenError::MainEmpty { path: path(), has_journal: true }, FaultKind::Database, "the database is empty"),
            (
                OpenError::MainMissing { path: path(), journal: path() },
                FaultKind::Database,
                "the database is missing, and its journal is there",
            ),
            (OpenError::InUse { path: path() }, FaultKind::Database, "the database is in use by another process"),
            (OpenError::NotOurs { path: path() }, FaultKind::Database, "the file is no turn-metrics database"),
            (of_other_format(&path(), 7), FaultKind::Database, "the database is of another format: 7"),
            (OpenError::JournalMissing { path: path() }, FaultKind::Database, "the journal is missing"),
            (
                OpenError::JournalOfAnother { path: path(), cause: Misfit::OtherStore, is_complete: true },
                FaultKind::Database,
                "the journal does not belong to the database",
            ),
            (damaged(&path(), of_corruption(cause())), FaultKind::Damaged, "the database is damaged"),
            (damaged(&path(), Fault::panicked(cause())), FaultKind::Damaged, "the database is damaged"),
            (
                OpenError::DamagedRow { path: path(), row: 7, flaw: RowFlaw::Exchanged },
                FaultKind::Damaged,
                "a row of the journal is damaged: 7",
            ),
            (
                OpenError::Unreadable { path: path(), source: denied() },
                FaultKind::Disk,
                "the database cannot be read: Permission denied (os error 13)",
            ),
            (failed(&path(), Fault::disk(io::Error::other(cause()))), FaultKind::Disk, "the disk failed"),
            (
                OpenError::Thread(io::Error::from_raw_os_error(11)),
                FaultKind::Database,
                "a thread cannot be started: Resource temporarily unavailable (os error 11)",
            ),
        ] {
            let said = error.to_string();
            let fault = Fault::from(error);
            assert_eq!((fault.kind(), &*fault.to_string()), (kind, told), "{said}");
            assert!(fault.in_full().starts_with(&said), "{}", fault.in_full());
        }
    }

    #[test]
    fn an_error_of_the_disk_is_told_by_its_code_however_deep_it_is() {
        let full = || StorageError::Io(io::Error::from_raw_os_error(28));
        let error = explain(Path::new("/srv/x"), DatabaseError::Storage(full()));
        assert_eq!(
            error.to_string(),
            "the database /srv/x cannot be opened: I/O error: No space left on device (os error 28)"
        );
        assert_eq!(Fault::from(error).to_string(), "the disk failed: No space left on device (os error 28)");
    }
}

use std::io;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};

use crate::link;
use crate::store::redb::tables::failure::Failure;
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
        /// What the system says.
        source: io::Error,
    },
    /// The path of the main file is a symbolic link whose target does not exist.
    #[error(
        "the database {path} is a symbolic link to {target}, which does not exist; restore that file, or make an empty \
             file there for a new database"
    )]
    Dangling {
        /// The link.
        path: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// Another process has the database open.
    #[error("the database {path} is in use by another process; stop that one, or choose another data directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
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
    /// The journal is gone, and with it what was acknowledged since the last checkpoint.
    #[error(
        "the journal {path} is missing, and turns that were acknowledged are in nothing else; bring it back, or run \
             `turn-metrics check --repair` to go on without them"
    )]
    JournalMissing {
        /// Where it was.
        path: PathBuf,
    },
    /// The journal is that of another store, or of another time of this one.
    #[error("the journal {path} does not belong to the database beside it: {cause}")]
    JournalOfAnother {
        /// The journal.
        path: PathBuf,
        /// How that shows.
        cause: String,
    },
    /// What the file holds is no sound database: reading it went wrong in a way that a whole file never does.
    #[error("the database {path} is damaged: {cause}; `turn-metrics check` tells more")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The file cannot be read.
    #[error("the database cannot be read: {0}")]
    Unreadable(io::Error),
    /// The database cannot be opened for another reason.
    #[error("the database {path} cannot be opened: {cause}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The writer's thread cannot be started.
    #[error("the writer's thread cannot be started: {0}")]
    Thread(io::Error),
}

impl OpenError {
    /// The error of a data directory that is missing because something else is in its place, such as a symbolic link
    /// whose target does not exist. `None` if nothing is.
    pub(crate) fn of_missing(directory: &Path) -> Option<Self> {
        let obstacle = link::obstacle(directory)?;
        Some(Self::Directory { path: directory.to_owned(), source: io::Error::other(obstacle) })
    }

    /// Why, for those who are not to learn where the database is.
    pub(crate) fn without_path(&self) -> String {
        match self {
            // An error that is not from the operating system may contain a path.
            Self::Directory { source, .. } if source.raw_os_error().is_none() => {
                "the data directory cannot be used".into()
            }
            Self::Directory { source, .. } => format!("the data directory cannot be used: {source}"),
            Self::Dangling { .. } => "the database is a symbolic link to a file that does not exist".into(),
            Self::InUse { .. } => "the database is in use by another process".into(),
            Self::NotOurs { .. } => "the file is no turn-metrics database".into(),
            Self::OtherFormat { found, known, .. } => {
                format!("the database is of format {found}; this version knows format {known}")
            }
            Self::JournalMissing { .. } => "the journal is missing".into(),
            Self::JournalOfAnother { cause, .. } => format!("the journal does not belong to the database: {cause}"),
            Self::Damaged { cause, .. } => format!("the database is damaged: {cause}"),
            Self::Unreadable(source) => format!("the database cannot be read: {source}"),
            Self::Failed { cause, .. } => format!("the database cannot be opened: {cause}"),
            Self::Thread(source) => format!("the writer's thread cannot be started: {source}"),
        }
    }
}

pub(crate) fn explain(path: &Path, error: &DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::NotOurs { path }
        }
        DatabaseError::Storage(StorageError::Corrupted(cause)) => OpenError::Damaged { path, cause: cause.clone() },
        other => OpenError::Failed { path, cause: other.to_string() },
    }
}

pub(crate) fn failed(path: &Path, failure: &Failure) -> OpenError {
    OpenError::Failed { path: path.to_owned(), cause: failure.to_string() }
}

pub(super) fn of_other_format(path: &Path, found: u32) -> OpenError {
    OpenError::OtherFormat { path: path.to_owned(), found, known: FORMAT }
}

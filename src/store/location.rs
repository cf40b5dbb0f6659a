use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError};

use super::overlay::Overlay;
use super::schema::{self, FORMAT, Failure, Stamp};
#[cfg(any(test, feature = "testing"))]
use super::storage::Storage;
use super::unwind;

/// The name of the database in the data directory.
pub(super) const FILE_NAME: &str = "turn-metrics.redb";

/// Where the store keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In a file of this directory, which is made if it is missing.
    Directory(PathBuf),
    /// In memory: gone when the store is closed.
    Memory,
    /// On a storage of the test's own, such as one that fails.
    #[cfg(any(test, feature = "testing"))]
    Storage(Storage),
}

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
    /// The file was written by a later version.
    #[error("the database {path} is of format {found}; this version knows formats up to {known}")]
    LaterFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// The latest format this version knows.
        known: u32,
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

impl Location {
    /// Opens the database; a new one is made ready first.
    pub(super) fn open(&self, cache_bytes: usize) -> Result<Database, OpenError> {
        // The database's own code panics on some damage. An open that does must not take the writer with it.
        unwind::caught(|| self.open_sound(cache_bytes))
            .unwrap_or_else(|cause| Err(OpenError::Damaged { path: self.path(), cause }))
    }

    fn open_sound(&self, cache_bytes: usize) -> Result<Database, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        let path = self.path();
        let opened = |database: Result<Database, DatabaseError>| database.map_err(|error| explain(&path, &error));
        let database = match self {
            Self::Directory(directory) => open_file(&builder, directory, &path)?,
            Self::Memory => opened(builder.create_with_backend(InMemoryBackend::new()))?,
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(storage) => opened(storage.open(&builder))?,
        };
        prepare(&path, &database)?;
        if let Self::Directory(directory) = self {
            sync_directory(directory)?;
        }
        Ok(database)
    }

    /// Opens the database again after a failure. It is never made anew: an empty one in the place of one that is gone
    /// would forget what was acknowledged, and go on as if nothing had been.
    pub(super) fn reopen(&self, cache_bytes: usize) -> Result<Database, OpenError> {
        let gone = |cause: &str| Err(OpenError::Failed { path: self.path(), cause: cause.into() });
        match self {
            Self::Directory(_) if !has_content(&self.path()) => gone("it is empty or missing, and was not before"),
            Self::Memory => gone("it went with the process's memory that held it"),
            _ => self.open(cache_bytes),
        }
    }

    /// The file, or what stands for it in messages.
    fn path(&self) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(FILE_NAME),
            Self::Memory => PathBuf::from("in memory"),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(_) => PathBuf::from("on a storage of a test"),
        }
    }
}

impl OpenError {
    /// Why, for those who are not to learn where the database is.
    pub(super) fn without_path(&self) -> String {
        match self {
            Self::Directory { source, .. } => format!("the data directory cannot be used: {source}"),
            Self::InUse { .. } => "the database is in use by another process".into(),
            Self::NotOurs { .. } => "the file is no turn-metrics database".into(),
            Self::LaterFormat { found, known, .. } => {
                format!("the database is of format {found}; this version knows formats up to {known}")
            }
            Self::Damaged { cause, .. } => format!("the database is damaged: {cause}"),
            Self::Unreadable(source) => format!("the database cannot be read: {source}"),
            Self::Failed { cause, .. } => format!("the database cannot be opened: {cause}"),
            Self::Thread(source) => format!("the writer's thread cannot be started: {source}"),
        }
    }
}

fn open_file(builder: &Builder, directory: &Path, path: &Path) -> Result<Database, OpenError> {
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(unusable)?;
    // An empty file is a new one too: it may have been made for us.
    if !has_content(path) {
        create_file(builder, directory, path)?;
    }
    // Before anything is written to it: a file that is not ours to use is left as it is.
    match look_at(builder, path) {
        Err(OpenError::Unreadable(source)) => return Err(unusable(source)),
        looked => drop(looked?),
    }
    match builder.open(path) {
        Err(DatabaseError::Storage(StorageError::Io(source))) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(unusable(source))
        }
        opened => opened.map_err(|error| explain(path, &error)),
    }
}

/// Opens the database without changing its file, whatever happens to it then.
pub(super) fn look_at(builder: &Builder, path: &Path) -> Result<Database, OpenError> {
    let overlay = Overlay::open(path).map_err(OpenError::Unreadable)?;
    let database = unwind::caught(|| builder.create_with_backend(overlay));
    let database = database.map_err(|cause| OpenError::Damaged { path: path.to_owned(), cause })?;
    let database = database.map_err(|error| explain(path, &error))?;
    let stamp = unwind::caught(|| read_stamp(&database));
    match stamp.map_err(|cause| OpenError::Damaged { path: path.to_owned(), cause })? {
        Ok(Stamp::Format(found)) if found > FORMAT => {
            Err(OpenError::LaterFormat { path: path.to_owned(), found, known: FORMAT })
        }
        Ok(Stamp::Foreign) => Err(OpenError::NotOurs { path: path.to_owned() }),
        Ok(_) => Ok(database),
        Err(failure) => Err(OpenError::Failed { path: path.to_owned(), cause: failure.to_string() }),
    }
}

fn read_stamp(database: &Database) -> Result<Stamp, Failure> {
    schema::read_stamp(&database.begin_read()?)
}

fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Makes a new database beside its place and moves it there when it is whole: a crash while the first pages are
/// written would leave a file that no program knows, and no start would get past it.
fn create_file(builder: &Builder, directory: &Path, path: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let unfinished = path.with_extension("redb.new");
    // One at a time, or the second would replace what the first is writing to. Where a directory cannot be locked
    // there is no more to be done; where it can, the lock goes with this handle.
    let lock = File::open(directory).map_err(unusable)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        return Err(OpenError::InUse { path: path.to_owned() });
    }
    // Whoever held the lock before us may have been quicker.
    if has_content(path) {
        return Ok(());
    }
    // What a creation left that was cut short.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
        _ => {}
    }
    let database = builder.create(&unfinished).map_err(|error| explain(path, &error))?;
    prepare(path, &database)?;
    database.close().map_err(|error| explain(path, &error))?;
    fs::rename(&unfinished, path).map_err(unusable)
}

pub(super) fn explain(path: &Path, error: &DatabaseError) -> OpenError {
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

/// Checks that the database is ours, and makes it so if it is blank.
fn prepare(path: &Path, database: &Database) -> Result<(), OpenError> {
    match read_stamp(database).map_err(|failure| failed(path, &failure))? {
        Stamp::Format(found) if found <= FORMAT => Ok(()),
        Stamp::Format(found) => Err(OpenError::LaterFormat { path: path.to_owned(), found, known: FORMAT }),
        Stamp::Foreign => Err(OpenError::NotOurs { path: path.to_owned() }),
        Stamp::Blank => initialise(database).map_err(|failure| failed(path, &failure)),
    }
}

fn failed(path: &Path, failure: &Failure) -> OpenError {
    OpenError::Failed { path: path.to_owned(), cause: failure.to_string() }
}

fn initialise(database: &Database) -> Result<(), Failure> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    schema::stamp(&txn)?;
    Ok(txn.commit()?)
}

/// Makes the file's name durable: without it a new file's synced content can be lost with its directory entry.
fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    let sync = |directory: &Path| File::open(directory).and_then(|directory| directory.sync_all());
    sync(directory).map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    // The directory may be new as well. Its parent need not be ours to read; then it was there before us.
    if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        let _ = sync(parent);
    }
    Ok(())
}

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, WriteTransaction};
use uuid::Uuid;

use super::overlay::Overlay;
use super::replay::{Replayed, replay};
use super::slot::{Files, begin_tables};
#[cfg(any(test, feature = "testing"))]
use super::storage::Storage;
use crate::link;
use crate::store::redb::maintenance::compact::{bytes, is_sparse};
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{
    self, FORMAT, Failure, META, META_CHECKPOINT, META_JOURNAL, META_JOURNAL_ID, ROWS, Stamp, StoreFile, read_id,
    read_number, read_store_id,
};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::unwind;

impl StoreFile {
    /// Its name in the data directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "turn-metrics.redb",
            Self::Journal => "turn-metrics.journal.redb",
        }
    }
}

/// Where the store keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In files of this directory, which is made if it is missing.
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

impl Location {
    /// Opens the files; new ones are made ready first.
    pub(crate) fn open(&self, cache_bytes: usize) -> Result<Files, OpenError> {
        // The database's own code panics on some damage. An open that does must not take the writer with it.
        unwind::caught(|| self.open_sound(cache_bytes))
            .unwrap_or_else(|cause| Err(OpenError::Damaged { path: self.path(StoreFile::Main), cause }))
    }

    fn open_sound(&self, cache_bytes: usize) -> Result<Files, OpenError> {
        let path = self.path(StoreFile::Main);
        let journal_path = self.path(StoreFile::Journal);
        if let Self::Directory(directory) = self {
            make_ready(directory, &path, &journal_path)?;
        }
        let tables = self.open_file(StoreFile::Main, cache_bytes)?;
        prepare(&path, &tables, StoreFile::Main, &meta::stamp_tables)?;
        let head = Head::of(&tables).map_err(|failure| failed(&path, &failure))?;
        // Of the journal nothing is read twice: what it holds is in the image.
        let journal = self.open_file(StoreFile::Journal, JOURNAL_CACHE_BYTES)?;
        prepare(&journal_path, &journal, StoreFile::Journal, &|txn| meta::stamp_journal(txn, head.bond.store_id))?;
        if let Self::Directory(directory) = self {
            sync_directory(directory)?;
            for target in [target(&path)?, target(&journal_path)?] {
                if target.parent() != Some(directory) {
                    sync_directory(link::directory_of(&target))?;
                }
            }
        }
        let Replayed { image, damaged } = head.replay(&tables, &journal, &journal_path)?;
        if let Some(row) = damaged.first() {
            let cause = format!("row {}: {}", row.number, row.why);
            return Err(OpenError::Damaged { path: journal_path, cause });
        }
        if head.bond.journal_id.is_none() {
            guarded(&path, || mark_journal(&tables, &journal))?;
        }
        Files::new(tables, journal, image, head.bond.store_id).map_err(|failure| failed(&path, &failure))
    }

    fn open_file(&self, file: StoreFile, cache_bytes: usize) -> Result<Database, OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        let path = self.path(file);
        let opened = match self {
            Self::Directory(directory) => match builder.open(&path) {
                Err(DatabaseError::Storage(StorageError::Io(source)))
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    return Err(OpenError::Directory { path: directory.clone(), source });
                }
                opened => opened,
            },
            Self::Memory => builder.create_with_backend(InMemoryBackend::new()),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(storage) => storage.open(&builder, file),
        };
        opened.map_err(|error| explain(&path, &error))
    }

    /// Opens the files again after a failure. They are never made anew: an empty one in the place of one that is gone
    /// would forget what was acknowledged, and go on as if nothing had been.
    pub(crate) fn reopen(&self, cache_bytes: usize) -> Result<Files, OpenError> {
        let path = self.path(StoreFile::Main);
        let gone = |cause: &str| Err(OpenError::Failed { path: path.clone(), cause: cause.into() });
        match self {
            Self::Directory(_) if !has_content(&path) => gone("it is empty or missing, and was not before"),
            Self::Memory => gone("it went with the process's memory that held it"),
            _ => self.open(cache_bytes),
        }
    }

    /// Closes files of which the tables hold everything, and does away with the journal: the main file alone is the
    /// store then.
    pub(crate) fn retire(&self, mut files: Files) -> Result<(), String> {
        // A panic must not unwind into the drop of the files: that would panic again.
        let retired = unwind::caught(|| files.retire_journal().map_err(|failure| failure.to_string()));
        let retired = retired.and_then(|retired| retired);
        if retired.is_ok() && is_sparse(self.main_bytes(), files.live_bytes().unwrap_or(u64::MAX)) {
            files.pack();
        }
        files.close();
        let removed = retired.and_then(|()| match self {
            Self::Directory(_) => remove_journal(&self.path(StoreFile::Journal)).map_err(|error| error.to_string()),
            _ => Ok(()),
        });
        removed.inspect_err(|error| {
            tracing::warn!(%error, "the journal could not be done away with; it is read when the store is opened");
        })
    }

    fn main_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => bytes(&self.path(StoreFile::Main)),
            _ => 0,
        }
    }

    /// The size of the files; 0 where there are none.
    pub(crate) fn file_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => self.main_bytes() + bytes(&self.path(StoreFile::Journal)),
            _ => 0,
        }
    }

    /// The file, or what stands for it in messages.
    fn path(&self, file: StoreFile) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(file.name()),
            Self::Memory => PathBuf::from("in memory"),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(_) => PathBuf::from("on a storage of a test"),
        }
    }
}

impl OpenError {
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

/// Makes a blank file one of ours.
type Stamping<'a> = &'a dyn Fn(&WriteTransaction) -> Result<(), Failure>;

/// For the pages of the journal's tree that each commit changes.
const JOURNAL_CACHE_BYTES: usize = 1024 * 1024;

/// What the main file says of the store.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) bond: Bond,
    pub(crate) checkpoint: u64,
}

/// The ids and numbers that bind the two files to each other.
#[derive(Debug)]
pub(crate) struct Bond {
    pub(crate) store_id: Uuid,
    /// The journal that may hold what the tables do not, if one does.
    pub(crate) journal_id: Option<Uuid>,
}

impl Bond {
    fn of(tables: &Database) -> Result<Self, Failure> {
        let meta = tables.begin_read()?.open_table(META)?;
        let has_journal = meta.get(META_JOURNAL)?.is_some();
        let journal_id = has_journal.then(|| read_id(&meta, META_JOURNAL)).transpose()?;
        Ok(Self { store_id: read_store_id(&meta)?, journal_id })
    }

    /// Refuses a journal that is not that of these tables.
    fn check(&self, journal: &Database, path: &Path) -> Result<(), OpenError> {
        let read = || {
            let meta = journal.begin_read()?.open_table(META)?;
            Ok((read_store_id(&meta)?, read_id(&meta, META_JOURNAL_ID)?))
        };
        let (store_id, journal_id) = read().map_err(|failure| failed(path, &failure))?;
        if store_id != self.store_id {
            return Err(of_another(path, "it names another store"));
        }
        if self.journal_id.is_some_and(|id| id != journal_id) {
            return Err(of_another(path, "the database names another journal"));
        }
        Ok(())
    }
}

fn of_another(path: &Path, cause: &str) -> OpenError {
    OpenError::JournalOfAnother { path: path.to_owned(), cause: cause.into() }
}

impl Head {
    pub(crate) fn of(tables: &Database) -> Result<Self, Failure> {
        let checkpoint = read_number(&tables.begin_read()?.open_table(META)?, META_CHECKPOINT)?;
        Ok(Self { bond: Bond::of(tables)?, checkpoint })
    }

    /// Reads the journal, if it is that of these tables.
    pub(crate) fn replay(&self, tables: &Database, journal: &Database, path: &Path) -> Result<Replayed, OpenError> {
        let failed = |failure: Failure| failed(path, &failure);
        self.bond.check(journal, path)?;
        let last_row = || Ok(journal.begin_read()?.open_table(ROWS)?.last()?.map(|(row, _)| row.value()));
        let last_row: Option<u64> = last_row().map_err(failed)?;
        // A row of no more use is dropped with a later one, which stays.
        if last_row.is_some_and(|row| row < self.checkpoint) {
            return Err(of_another(path, "the database is of a later time"));
        }
        if self.bond.journal_id.is_none() && last_row.is_some_and(|row| row > self.checkpoint) {
            let cause = "the database has everything without it, as a backup does; move the journal away";
            return Err(of_another(path, cause));
        }
        let txn = tables.begin_read().map_err(|error| failed(error.into()))?;
        let tables = ReadTables::new(txn, TurnHasher::of(self.bond.store_id));
        replay(journal, &tables, self.checkpoint).map_err(failed)
    }
}

/// Notes in the main file that the journal belongs to it from now on.
fn mark_journal(tables: &Database, journal: &Database) -> Result<(), Failure> {
    let id = read_id(&journal.begin_read()?.open_table(META)?, META_JOURNAL_ID)?;
    let txn = begin_tables(tables)?;
    txn.open_table(META)?.insert(META_JOURNAL, id.as_bytes().as_slice())?;
    Ok(txn.commit()?)
}

/// Sees to it that there are files in a directory that can be opened.
///
/// Before anything is written to one: a file that is not ours to use is left as it is, and so is the one beside it.
fn make_ready(directory: &Path, path: &Path, journal_path: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let look_at = |path: &Path, file| match look_at(&Builder::new(), path, file) {
        Err(OpenError::Unreadable(source)) => Err(unusable(source)),
        looked => looked,
    };
    link::create_directory(directory).map_err(unusable)?;
    // An empty file is a new one too: it may have been made for us.
    if !has_content(path) {
        if path.is_symlink() && !path.exists() {
            // The disk of the target may be missing, and an empty database must not replace the one on it.
            return Err(OpenError::Dangling { path: path.to_owned(), target: target(path)? });
        }
        create_file(path, StoreFile::Main, &meta::stamp_tables)?;
    }
    let tables = look_at(path, StoreFile::Main)?;
    let bond = Bond::of(&tables).map_err(|failure| failed(path, &failure))?;
    if has_content(journal_path) {
        return bond.check(&look_at(journal_path, StoreFile::Journal)?, journal_path);
    }
    if bond.journal_id.is_some() {
        return Err(OpenError::JournalMissing { path: journal_path.to_owned() });
    }
    create_file(journal_path, StoreFile::Journal, &|txn| meta::stamp_journal(txn, bond.store_id))
}

/// Opens the database without changing its file, whatever happens to it then.
pub(crate) fn look_at(builder: &Builder, path: &Path, file: StoreFile) -> Result<Database, OpenError> {
    let overlay = Overlay::open(path).map_err(OpenError::Unreadable)?;
    let database = unwind::caught(|| builder.create_with_backend(overlay));
    let database = database.map_err(|cause| OpenError::Damaged { path: path.to_owned(), cause })?;
    let database = database.map_err(|error| explain(path, &error))?;
    let stamp = unwind::caught(|| read_stamp(&database, file));
    match stamp.map_err(|cause| OpenError::Damaged { path: path.to_owned(), cause })? {
        Ok(Stamp::Format(found)) if found != FORMAT => Err(of_other_format(path, found)),
        Ok(Stamp::Foreign) => Err(OpenError::NotOurs { path: path.to_owned() }),
        Ok(_) => Ok(database),
        Err(failure) => Err(OpenError::Failed { path: path.to_owned(), cause: failure.to_string() }),
    }
}

fn of_other_format(path: &Path, found: u32) -> OpenError {
    OpenError::OtherFormat { path: path.to_owned(), found, known: FORMAT }
}

fn read_stamp(database: &Database, file: StoreFile) -> Result<Stamp, Failure> {
    meta::read_stamp(&database.begin_read()?, file)
}

pub(crate) fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Makes a new database beside its place and moves it there when it is whole: a crash while the first pages are
/// written would leave a file that no program knows, and no start would get past it.
fn create_file(path: &Path, file: StoreFile, stamp: Stamping<'_>) -> Result<(), OpenError> {
    let target = target(path)?;
    let directory = link::directory_of(&target);
    if path.is_symlink() && !directory.is_dir() {
        return Err(OpenError::Dangling { path: path.to_owned(), target });
    }
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let unfinished = link::beside(&target, ".new");
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
    let make = || {
        let database = Builder::new().create(&unfinished).map_err(|error| explain(path, &error))?;
        prepare(path, &database, file, stamp)?;
        database.close().map_err(|error| explain(path, &error))?;
        fs::rename(&unfinished, &target).map_err(unusable)
    };
    make().inspect_err(|_| {
        // The file is useless, and the disk may be full.
        let _ = fs::remove_file(&unfinished);
    })
}

/// Removes a journal that is no longer needed. If its path is a link, the link stays for the next journal.
fn remove_journal(path: &Path) -> Result<(), OpenError> {
    let target = target(path)?;
    fs::remove_file(&target)
        .map_err(|source| OpenError::Failed { path: path.to_owned(), cause: source.to_string() })?;
    sync_directory(link::directory_of(&target))
}

/// The file itself, if its path is a link.
fn target(path: &Path) -> Result<PathBuf, OpenError> {
    link::target(path).map_err(|source| OpenError::Failed { path: path.to_owned(), cause: source.to_string() })
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

/// Checks that the database is ours, and makes it so if it is blank.
fn prepare(path: &Path, database: &Database, file: StoreFile, stamp: Stamping<'_>) -> Result<(), OpenError> {
    match read_stamp(database, file).map_err(|failure| failed(path, &failure))? {
        Stamp::Format(FORMAT) => Ok(()),
        Stamp::Format(found) => Err(of_other_format(path, found)),
        Stamp::Foreign => Err(OpenError::NotOurs { path: path.to_owned() }),
        Stamp::Blank => guarded(path, || initialise(database, stamp)),
    }
}

/// Writes to a database that is being opened. A panic must not get as far as to drop it: it panics then once more.
fn guarded(path: &Path, write: impl FnOnce() -> Result<(), Failure>) -> Result<(), OpenError> {
    match unwind::caught(write) {
        Ok(written) => written.map_err(|failure| failed(path, &failure)),
        Err(cause) => Err(OpenError::Damaged { path: path.to_owned(), cause }),
    }
}

pub(crate) fn failed(path: &Path, failure: &Failure) -> OpenError {
    OpenError::Failed { path: path.to_owned(), cause: failure.to_string() }
}

fn initialise(database: &Database, stamp: Stamping<'_>) -> Result<(), Failure> {
    let txn = begin_tables(database)?;
    stamp(&txn)?;
    Ok(txn.commit()?)
}

/// Makes the file's name durable: without it a new file's synced content can be lost with its directory entry.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    let sync = |directory: &Path| File::open(directory).and_then(|directory| directory.sync_all());
    sync(directory).map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    // The directory may be new as well. Its parent need not be ours to read; then it was there before us.
    if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        let _ = sync(parent);
    }
    Ok(())
}

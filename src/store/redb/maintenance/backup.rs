//! A copy of everything, made while the store works on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};

use redb::{Builder, ReadTransaction};

use crate::link;
use crate::store::contract::{Backup, ReadError};
use crate::store::redb::checkpoint::transfer::Moving;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::memtable::Contents;
use crate::store::redb::memtable::order::Run;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::tables::copy::copy_tables;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{META, META_JOURNAL, draw_lineage, write_running_time};
use crate::store::redb::tables::read::find_conversation;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::tables::{CONVERSATIONS, KEYS};
use crate::turn::RunningTime;

/// The suffix of the file in which the copy is built. It stands beside the main file: no other place is known to be
/// ours and to have room.
const UNFINISHED: &str = ".backup";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Another one is being made.
    #[error("a backup is being made already")]
    Busy,
    /// The store is in memory: there is no place for a copy.
    #[error("the store is in memory, and no backup of it can be made")]
    InMemory,
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {0}")]
    Write(String),
}

/// Where copies are built, one at a time. Clones are the same place.
#[derive(Debug, Clone)]
pub(crate) struct Workshop {
    directory: Option<PathBuf>,
    taken: Arc<Mutex<()>>,
}

impl Workshop {
    pub(crate) fn of(location: &Location) -> Self {
        let directory = match location {
            Location::Directory(directory) => Some(directory.clone()),
            _ => None,
        };
        Self { directory, taken: Arc::default() }
    }

    /// Writes a main file that holds everything of the snapshot, and returns it. The file has no name any more, so it is
    /// gone when it is closed.
    pub(crate) fn build(
        &self,
        begin: impl FnOnce() -> Result<Snapshot, ReadError>,
        cache_bytes: usize,
    ) -> Result<Backup, BackupError> {
        let directory = self.directory.as_ref().ok_or(BackupError::InMemory)?;
        let _taken = match self.taken.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(BackupError::Busy),
            // Whoever panicked left a file at most, which is removed below.
            Err(TryLockError::Poisoned(taken)) => taken.into_inner(),
            Ok(taken) => taken,
        };
        let unwritable = |error: io::Error| BackupError::Write(error.to_string());
        let main = link::target(&directory.join(StoreFile::Main.name())).map_err(unwritable)?;
        let path = link::beside(&main, UNFINISHED);
        let built = remove(&path).map_err(unwritable).and_then(|()| {
            // As late as can be: what it sees cannot be overwritten while it lives, and the file grows.
            copy(begin()?, &path, cache_bytes).map_err(|failure| BackupError::Write(failure.to_string()))
        });
        let file = built.and_then(|()| File::open(&path).map_err(unwritable));
        let _ = remove(&path);
        let file = file?;
        let length = file.metadata().map_err(unwritable)?.len();
        Ok(Backup { bytes: Box::new(file), length })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One state of a store.
pub(crate) struct Snapshot {
    tables: ReadTransaction,
    contents: Contents,
    runs: Vec<Run>,
    last_row: u64,
    running: RunningTime,
    hasher: TurnHasher,
}

impl Snapshot {
    pub(crate) fn of(files: &Files) -> Result<Self, Failure> {
        let memtable = files.memtable();
        Ok(Self {
            tables: files.begin_read()?,
            contents: memtable.contents().clone(),
            runs: memtable.runs().cloned().collect(),
            last_row: memtable.last_row(),
            running: files.running_time(),
            hasher: files.hasher(),
        })
    }

    /// What the memtable holds, without what the tables do as well: it was moved there and is about to be dropped.
    fn not_in_tables(&self) -> Result<Vec<Arc<Piece>>, Failure> {
        let (keys, conversations) = (self.tables.open_table(KEYS)?, self.tables.open_table(CONVERSATIONS)?);
        let mut missing = Vec::new();
        for piece in self.contents.all() {
            let moved = match find_conversation(&keys, &conversations, &piece.conversation.id) {
                // What is moved has the whole of it.
                Err(Failure::Record(_)) => None,
                moved => moved?,
            };
            if moved.is_none_or(|(_, moved)| moved.version < piece.conversation.version) {
                missing.push(Arc::clone(piece));
            }
        }
        Ok(missing)
    }
}

/// Writes a main file that needs no journal.
fn copy(from: Snapshot, path: &Path, cache_bytes: usize) -> Result<(), Failure> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    let database = builder.create(path)?;
    let to = begin_write(&database)?;
    copy_tables(&from.tables, &to)?;
    let pieces = from.not_in_tables()?;
    Moving { pieces, runs: from.runs, checkpoint: Some(from.last_row) }.write(&to, from.hasher)?;
    let mut meta = to.open_table(META)?;
    write_running_time(&mut meta, from.running)?;
    // The store goes on without the copy, and the copy may go on without the store.
    draw_lineage(&mut meta)?;
    meta.remove(META_JOURNAL)?;
    drop(meta);
    to.commit()?;
    Ok(database.close()?)
}

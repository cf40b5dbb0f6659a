//! A backup: a copy of the whole store, made while the store is in use.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Builder, ReadTransaction};

use crate::link;
use crate::store::contract::{Backup, BackupError};
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::checkpoint::transfer::{Sums, Transfer};
use crate::store::redb::files::file::{self, create_database};
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::files::size::file_size;
use crate::store::redb::files::slot::Slot;
use crate::store::redb::files::unfinished::Unfinished;
use crate::store::redb::maintenance::check::inspect;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::order::Run;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::memtable::tally::{Lacking, Recent, Tally};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::read::find_conversation;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::{CONVERSATIONS, ERASURES, KEYS, Keys, copy_whole_tables};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;
use crate::turn::RunningTime;

/// Builds copies, one at a time: the next copy can be built after the last one is dropped. Clones share this limit.
#[derive(Debug, Clone)]
pub(crate) struct Workshop {
    directory: Option<PathBuf>,
    /// The bytes of the disk that a copy must leave free.
    reserve_bytes: u64,
    taken: Arc<AtomicBool>,
}

/// Marks that a copy is being built or is still in use. Dropping this allows the next copy.
#[derive(Debug)]
struct Taken(Arc<AtomicBool>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A finished copy. Its file has no name any more, so the system frees its space when this is dropped.
struct UnnamedCopy {
    file: File,
    _taken: Taken,
}

impl Read for UnnamedCopy {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.file.read(room)
    }
}

impl Workshop {
    pub(crate) fn of(location: &Location, reserve_bytes: usize) -> Self {
        let directory = match location {
            Location::Directory(directory) => Some(directory.clone()),
            _ => None,
        };
        Self { directory, reserve_bytes: reserve_bytes as u64, taken: Arc::default() }
    }

    /// Writes a main file with everything of the snapshot, and returns that file as a backup. The file has no name any
    /// more, so it is gone when it is closed.
    pub(crate) fn build(
        &self,
        begin: impl FnOnce() -> Result<Snapshot, Fault>,
        cache_bytes: usize,
    ) -> Result<Backup, BackupError> {
        let directory = self.directory.as_ref().ok_or(BackupError::InMemory)?;
        if self.taken.swap(true, Ordering::AcqRel) {
            return Err(BackupError::Busy);
        }
        let taken = Taken(Arc::clone(&self.taken));
        let unwritable = |error: io::Error| BackupError::Write(Fault::disk(error));
        let main = link::target(&directory.join(StoreFile::Main.name())).map_err(unwritable)?;
        // The copy is built beside the main file, because no other directory is known to belong to the store and to
        // have room.
        let path = Unfinished::Backup.beside(&main);
        self.check_room(&main)?;
        let built = remove(&path).map_err(unwritable).and_then(|()| {
            // The snapshot begins as late as possible: while it lives, redb cannot use the old pages again, and the
            // main file grows.
            let snapshot = begin().map_err(of_fault)?;
            // redb panics on some kinds of damage.
            unwind::caught_as_fault(|| Ok(copy(snapshot, &path, cache_bytes)?)).map_err(|fault| match fault.kind() {
                FaultKind::Damaged | FaultKind::Panicked => BackupError::Damaged(fault),
                _ => BackupError::Write(fault),
            })
        });
        let file = built.and_then(|()| File::open(&path).map_err(unwritable));
        let _ = remove(&path);
        let file = file?;
        let length = file.metadata().map_err(unwritable)?.len();
        Ok(Backup { bytes: Box::new(UnnamedCopy { file, _taken: taken }), length })
    }

    /// Returns an error if the disk could be too full for commits after the copy. A copy is about as large as the two
    /// files.
    fn check_room(&self, main: &Path) -> Result<(), BackupError> {
        let journal =
            self.directory.as_ref().map_or(0, |directory| file_size(&directory.join(StoreFile::Journal.name())));
        let (copy_bytes, reserve_bytes) = (file_size(main) + journal, self.reserve_bytes);
        match free_bytes(link::directory_of(main)) {
            Some(free_bytes) if free_bytes < copy_bytes.saturating_add(reserve_bytes) => {
                Err(BackupError::DiskNearlyFull { free_bytes, copy_bytes, reserve_bytes })
            }
            _ => Ok(()),
        }
    }
}

fn of_fault(fault: Fault) -> BackupError {
    if fault.kind() == FaultKind::Damaged { BackupError::Damaged(fault) } else { BackupError::Read(fault) }
}

/// Returns the free space of a directory's disk, if the system reports it.
fn free_bytes(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    None
}

fn remove(path: &Path) -> io::Result<()> {
    match file::remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One state of a store.
pub(crate) struct Snapshot {
    tables: ReadTransaction,
    pieces: Vec<Arc<Piece>>,
    runs: Vec<Run>,
    last_row: JournalMark,
    running: RunningTime,
    hasher: TurnHasher,
    /// The sums over the turns of the memtable.
    sums: Sums,
    /// The number of the last row of the journal in the immutable table.
    frozen_row: u64,
}

impl Snapshot {
    pub(crate) fn of(slot: &Slot) -> Result<Self, Fault> {
        slot.count(usize::MAX)?;
        let begin = |files: &Files, memtable: &Memtable| Ok((Self::begin(files, memtable)?, memtable.all_uncounted()));
        let take = |recent: &mut Recent, (begun, uncounted): (Self, _)| -> Result<_, Failure> {
            let lacking = Lacking::of(&ReadMeta::read(&begun.tables)?, begun.frozen_row)?;
            let sums = Sums { tally: recent.not_in(&lacking), digest: slot.book().digest(), ..begun.sums };
            Ok((Self { sums, ..begun }, uncounted, lacking))
        };
        let (mut snapshot, uncounted, lacking) = slot.with_sums(begin, take)???;
        // These turns were sealed after the others were counted.
        snapshot.sums.tally.absorb(Recent::of(&uncounted, &**slot.book()).not_in(&lacking));
        Ok(snapshot)
    }

    fn begin(files: &Files, memtable: &Memtable) -> Result<Self, Failure> {
        if memtable.keeps_rows() {
            return Err(DamagedRecord::new(Keys::WHAT, RecordFlaw::LackingInBackup).into());
        }
        Ok(Self {
            tables: files.begin_read()?,
            pieces: memtable.contents().all().cloned().collect(),
            runs: memtable.runs().cloned().collect(),
            last_row: memtable.last_row(),
            running: files.running_time(),
            hasher: files.hasher(),
            sums: Sums { tally: Tally::default(), digest: 0, rolled_up: memtable.rolled_up_at_last(), to: None },
            frozen_row: memtable.rolled_up_then().row,
        })
    }

    /// Returns the pieces of the memtable that are not in the tables. A piece that was just moved may be in both.
    fn not_in_tables(&self) -> Result<Vec<Arc<Piece>>, Failure> {
        let (keys, conversations) = (self.tables.open_table(KEYS)?, self.tables.open_table(CONVERSATIONS)?);
        let mut missing: Vec<Arc<Piece>> = Vec::new();
        let erasures = self.tables.open_table(ERASURES)?;
        for piece in &self.pieces {
            let (id, life) = (&piece.conversation.id, piece.conversation.life);
            if erasures.get(life.0)?.is_some() {
                // The piece was moved, and its life was erased in the tables since.
                continue;
            }
            let of_this_life = |other: &Arc<Piece>| other.conversation.id == *id && other.conversation.life == life;
            if piece.erased.is_some() || missing.last().is_some_and(of_this_life) {
                // An erasure may be moved twice: it erases the life that it names, and no other.
                missing.push(Arc::clone(piece));
                continue;
            }
            let moved = match find_conversation(&keys, &conversations, id) {
                // The conversation's record in the tables is damaged. The piece has a whole record, so it counts as
                // missing in the tables.
                Err(Failure::Record(_)) => None,
                moved => moved?,
            };
            let is_missing = moved.map_or(Ok(true), |(_, moved)| moved.is_before(&piece.conversation))?;
            if is_missing {
                missing.push(Arc::clone(piece));
            }
        }
        Ok(missing)
    }
}

/// Writes a main file that needs no journal. Returns an error if the tables that are copied are damaged: a copy has new
/// checksums of its pages, which would hide that bytes in them are wrong.
fn copy(from: Snapshot, path: &Path, cache_bytes: usize) -> Result<(), Failure> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    let database = create_database(&builder, path)?;
    let to = begin_write(&database)?;
    copy_whole_tables(&from.tables, &to)?;
    let pieces = from.not_in_tables()?;
    // While a transaction is open, the database that is copied grows by all that is written.
    drop(from.tables);
    let (last, sums) = (from.last_row, Some(from.sums));
    let transfer =
        Transfer { pieces, runs: from.runs, checkpoint: Some(last), newest: last, last_row: last.number, sums };
    transfer.write(&to, from.hasher)?;
    let mut meta = WriteMeta::write(&to)?;
    meta.set_running_time(from.running)?;
    // The store goes on after the copy, and the copy may be restored more than once. So each restored copy draws its
    // own lineage.
    meta.draw_lineage_when_opened()?;
    meta.release_journal(from.last_row)?;
    drop(meta);
    to.commit()?;
    // This verifies each row. A damaged row that a commit of the memtable has replaced is no damage.
    if !inspect(&database)?.violations.is_empty() {
        return Err(DamagedRecord::new("table", RecordFlaw::Disagrees).into());
    }
    Ok(database.close()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{Life, Version};
    use crate::store::redb::journal::entry::Entry;
    use crate::store::redb::memtable::Memtable;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::turn::ConversationId;

    #[test]
    fn a_piece_is_laid_over_the_tables_if_it_is_the_later_and_of_the_same_life() {
        let slot = Slot::new(Location::Memory.open(1 << 20).unwrap());
        let take = |life, version| {
            let begun = ConversationRecord::begin(ConversationId::new("c").unwrap());
            let conversation = ConversationRecord { life: Life(life), version: Version(version), ..begun };
            let (sealed, staged) = (Vec::new(), Vec::new());
            let entry = Entry { conversation, erased: None, key: None, position: 1, sealed, staged };
            let taken = slot.with(|files| {
                *files.memtable_mut() = Memtable::default();
                files.memtable_mut().take(entry)
            });
            taken.unwrap().unwrap();
        };
        let missing = || Snapshot::of(&slot).unwrap().not_in_tables().map(|pieces| pieces.len()).ok();
        take(1, 2);
        let pieces = slot.with(|files| files.memtable().contents().all().cloned().collect()).unwrap();
        let transfer = Transfer {
            pieces,
            runs: Vec::new(),
            checkpoint: None,
            newest: JournalMark::default(),
            last_row: 0,
            sums: None,
        };
        let (txn, hasher) = slot.with(|files| (files.write_tables().unwrap(), files.hasher())).unwrap();
        transfer.write(&txn, hasher).unwrap();
        txn.commit().unwrap();
        let of = |life, version| {
            take(life, version);
            missing()
        };
        assert_eq!([of(1, 1), of(1, 2), of(1, 3)], [Some(0), Some(0), Some(1)]);
        assert_eq!([of(2, 1), of(2, 3)], [None, None], "a piece of another life is laid over the tables");
    }
}

//! Compaction: makes the main file smaller, so that the disk gets back the space that the file does not need.
//!
//! redb uses free pages again, so removed rows do not make the file grow. But after a read that pinned many pages for a
//! while, such as a long backup under load, the file is larger than necessary. And pages into which rows of many
//! conversations were inserted are partly empty.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use redb::{Builder, Database, ReadableDatabase, ReadableTableMetadata};

use crate::link;
use crate::report::SharedPriceBook;
use crate::settings::StoreSettings;
use crate::store::fault::Fault;
use crate::store::redb::checkpoint::Checkpoint;
use crate::store::redb::files::file::{create_database, open_database, remove, replace};
use crate::store::redb::files::header::StoreHeader;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::look::look_at;
use crate::store::redb::files::open_error::{OpenError, explain, failed};
use crate::store::redb::files::path::{has_content, sync_directory};
use crate::store::redb::files::size::{file_size, pack};
use crate::store::redb::files::slot::Slot;
use crate::store::redb::files::unfinished::Unfinished;
use crate::store::redb::maintenance::check::check;
use crate::store::redb::maintenance::check::error::CheckError;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::schema::{ERASURES, copy_sound_tables};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// The result of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// The size of the main file and the journal before the compaction, in bytes.
    pub bytes_before: u64,
    /// The size of the main file after the compaction, in bytes. There is no journal then.
    pub bytes_after: u64,
}

/// Why there was no compaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// There is no database.
    #[error("there is no database {path}")]
    Missing {
        /// The path where it would be.
        path: PathBuf,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database is damaged. Nothing was changed.
    #[error(
        "the database {path} was not compacted, as it is damaged; `turn-metrics check` says where, and `turn-metrics check \
         --repair` saves what can be saved"
    )]
    Damaged {
        /// The main file.
        path: PathBuf,
    },
    /// The journal cannot be moved into the main file. Both files are as sound as before.
    #[error(
        "the database {path} was not compacted, as its journal could not be moved into it: {}", .cause.in_full()
    )]
    Journal {
        /// The main file.
        path: PathBuf,
        /// What went wrong.
        cause: Fault,
    },
    /// The new main file cannot be written, or cannot replace the old one. The old file is unchanged.
    #[error("the database {path} was not compacted, as the new file could not be written: {}", .cause.in_full())]
    Write {
        /// The main file.
        path: PathBuf,
        /// What went wrong.
        cause: Fault,
    },
}

/// Makes the database of a stopped store as small as it can be. The contents of the journal are moved into the main
/// file, and the rows of erased conversations are removed. Then all other rows are written to a new file, in the order of
/// their keys. The new file is made beside the old one, and replaces it when it is complete.
///
/// `book` has the prices of the store. The costs of erased turns stay in reports as they were. If the stored costs are
/// by other prices, all costs are computed anew first, as an opening of the store would do.
pub fn compact(directory: &Path, book: SharedPriceBook) -> Result<Compaction, CompactError> {
    let named = [StoreFile::Main, StoreFile::Journal].map(|file| directory.join(file.name()));
    // If a path is a symbolic link, the file that it leads to is replaced, and the link stays.
    let [path, journal] = named.map(|path| link::target(&path).unwrap_or(path));
    if let Err(source) = fs::metadata(&path)
        && !has_content(&journal)
    {
        return Err(match OpenError::of_missing(directory) {
            Some(obstacle) => obstacle.into(),
            None if source.kind() != io::ErrorKind::NotFound => OpenError::Unreadable { path, source }.into(),
            None => CompactError::Missing { path },
        });
    }
    // A copy has new checksums of its pages, which would hide that bytes in them are wrong.
    if has_content(&path) {
        match check(directory) {
            Ok(report) if report.violations.is_empty() => {}
            Ok(_) => return Err(CompactError::Damaged { path }),
            Err(CheckError::Open(error)) => return Err(error.into()),
            Err(_) => return Err(CompactError::Missing { path }),
        }
    }
    // The check has found no damage. Should the database panic all the same, it is damaged.
    unwind::caught(|| compact_sound(directory, &path, &journal, book))
        .unwrap_or_else(|_| Err(CompactError::Damaged { path: path.clone() }))
}

fn compact_sound(
    directory: &Path,
    path: &Path,
    journal: &Path,
    book: SharedPriceBook,
) -> Result<Compaction, CompactError> {
    let bytes_before = file_size(path) + file_size(journal);
    let location = Location::Directory(directory.to_owned());
    if !is_complete(path, journal)? {
        move_journal(&location, path, book)?;
    }
    let old = open_database(&Builder::new(), path).map_err(|error| explain(path, error))?;
    location.remove_unfinished();
    let unfinished = Unfinished::Compaction.beside(path);
    let replaced = unwind::caught_as_fault(|| Ok(write_anew(&old, &unfinished)?))
        .and_then(|()| replace(path, &unfinished).map_err(Fault::disk))
        .map_err(|cause| CompactError::Write { path: path.to_owned(), cause });
    if replaced.is_err() {
        let _ = remove(&unfinished);
    }
    replaced?;
    sync_directory(link::directory_of(path))?;
    Ok(Compaction { bytes_before, bytes_after: file_size(path) })
}

/// Returns whether the main file is the whole store and has nothing to erase. Then no journal is made, since a failure
/// could leave it.
fn is_complete(path: &Path, journal: &Path) -> Result<bool, OpenError> {
    if !has_content(path) || has_content(journal) {
        return Ok(false);
    }
    let main = look_at(&Builder::new(), path, StoreFile::Main)?;
    let header = StoreHeader::of(&main).map_err(|failure| failed(path, failure))?;
    let has_erasures = || -> Result<bool, Failure> { Ok(!main.begin_read()?.open_table(ERASURES)?.is_empty()?) };
    Ok(header.bond.journal_id.is_none() && !has_erasures().map_err(|failure| failed(path, failure))?)
}

/// Moves the contents of the journal into the main file, and removes the rows of erased conversations.
fn move_journal(location: &Location, path: &Path, book: SharedPriceBook) -> Result<(), CompactError> {
    let settings = StoreSettings::default();
    let slot = Arc::new(Slot::pricing(location.open(settings.redb.cache_bytes)?, book));
    let checkpoint = Checkpoint::new(slot, settings.redb.journal_bytes);
    // Closing the files in order moves everything into the main file.
    let emptied = checkpoint.move_all().and_then(|()| checkpoint.erase_all());
    emptied.and(checkpoint.close(location)).map_err(|cause| CompactError::Journal { path: path.to_owned(), cause })
}

fn write_anew(old: &Database, path: &Path) -> Result<(), Failure> {
    // Removes the file of an interrupted compaction.
    let _ = remove(path);
    let mut new = create_database(&Builder::new(), path)?;
    let txn = begin_write(&new)?;
    copy_sound_tables(&old.begin_read()?, &txn)?;
    txn.commit()?;
    pack(&mut new)?;
    Ok(new.close()?)
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use redb::TableDefinition;

    use super::*;
    use crate::report::NoPrices;
    use crate::store::RedbEngine;
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::{Commit, TurnRange, Version};
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId};

    const JUNK: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("junk");

    fn id() -> ConversationId {
        ConversationId::new("c").unwrap()
    }

    async fn commit(engine: &RedbEngine, version: u64) {
        let turn = OpenTurn::new(TurnId::new(format!("t{version}")).unwrap());
        let sealed = vec![turn.seal(&Done::because("stop"), EpochMillis::new(1))];
        let expected_version = Version(version);
        let commit =
            Commit { conversation_id: id(), expected_version, staged: Vec::new(), sealed, imported_from: None };
        engine.commit(commit).await.unwrap();
    }

    fn open(directory: &Path) -> RedbEngine {
        RedbEngine::open(Location::Directory(directory.to_owned()), &StoreSettings::default()).unwrap()
    }

    fn turns(engine: &RedbEngine) -> usize {
        engine.turns(&TurnRange::after(id(), 0, 99)).unwrap().len()
    }

    /// Leaves this many free pages in the main file, with the rows behind them.
    fn inflate(directory: &Path, pages: u64) {
        let database = Database::open(directory.join(StoreFile::Main.name())).unwrap();
        for fill in [true, false] {
            let txn = database.begin_write().unwrap();
            if fill {
                let mut junk = txn.open_table(JUNK).unwrap();
                (0..pages).for_each(|page| drop(junk.insert(page, [0; 4000].as_slice()).unwrap()));
                drop(junk);
                // The table `meta` is written again, so its pages are behind the others.
                WriteMeta::write(&txn).unwrap().touch().unwrap();
            } else {
                txn.delete_table(JUNK).unwrap();
            }
            txn.commit().unwrap();
        }
        database.close().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_packed_when_it_is_asked_for_and_by_an_orderly_stop_when_most_of_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let size = || file_size(&directory.path().join(StoreFile::Main.name()));
        let store = open(directory.path());
        commit(&store, 0).await;
        store.close().await;
        let small = size();

        inflate(directory.path(), 10_000);
        assert!(size() > 30_000_000, "{}", size());
        let store = open(directory.path());
        commit(&store, 1).await;
        store.close().await;
        assert!(size() < 2 * small, "{} bytes, before {small}", size());

        inflate(directory.path(), 1000);
        let store = open(directory.path());
        commit(&store, 2).await;
        drop(store);
        let compaction = loop {
            match compact(directory.path(), Arc::new(NoPrices)) {
                // The thread of the closed store still has the file open.
                Err(CompactError::Open(OpenError::InUse { .. })) => tokio::task::yield_now().await,
                done => break done.unwrap(),
            }
        };
        assert!(compaction.bytes_before > 4_000_000, "{compaction:?}");
        assert!(compaction.bytes_after < 2 * small && compaction.bytes_after == size(), "{compaction:?}");
        assert_eq!(check(directory.path()).unwrap().violations, []);
        let store = open(directory.path());
        assert_eq!(turns(&store), 3);
        let refused = compact(directory.path(), Arc::new(NoPrices)).unwrap_err();
        assert!(matches!(refused, CompactError::Open(OpenError::InUse { .. })), "{refused}");
    }

    #[test]
    fn a_compaction_makes_no_file_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(compact(directory.path(), Arc::new(NoPrices)), Err(CompactError::Missing { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_text_of_a_compact_error_has_its_cause() {
        let (path, full) = (|| PathBuf::from("/srv/x"), || Fault::disk(io::Error::from_raw_os_error(28)));
        for (error, why) in [
            (CompactError::Journal { path: path(), cause: full() }, "its journal could not be moved into it"),
            (CompactError::Write { path: path(), cause: full() }, "the new file could not be written"),
        ] {
            let expected =
                format!("the database /srv/x was not compacted, as {why}: No space left on device (os error 28)");
            assert_eq!(error.to_string(), expected);
        }
    }
}

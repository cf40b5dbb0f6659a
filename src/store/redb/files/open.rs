//! Opens the files of a store.

use std::io;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, StorageError};

use super::create::make_ready;
use super::file::open_watched;
use super::header::StoreHeader;
use super::in_place::InPlace;
use super::location::Location;
use super::open_error::{OpenError, damaged, explain, failed};
use super::open_files::{Extent, Files};
use super::path::{has_content, sync_directory, target};
use super::replay::Replayed;
use super::stamp::{guarded, stamp, stamp_journal, stamp_main, verify_facts};
use super::watch::Watch;
use super::write_back::write_back_file;
use crate::link;
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;

/// The cache of the journal. It has room for the pages that each commit changes.
const JOURNAL_CACHE_BYTES: usize = 1024 * 1024;

impl Location {
    /// Opens the files. Missing files are made first.
    pub(crate) fn open(&self, cache_bytes: usize) -> Result<Files, OpenError> {
        // redb panics on some kinds of damage. Such a panic must not end the writer's thread.
        unwind::caught(|| self.open_sound(cache_bytes))
            .unwrap_or_else(|panic| Err(damaged(&self.path(StoreFile::Main), panic)))
    }

    fn open_sound(&self, cache_bytes: usize) -> Result<Files, OpenError> {
        let path = self.path(StoreFile::Main);
        let journal_path = self.path(StoreFile::Journal);
        if let Self::Directory(directory) = self {
            make_ready(directory, &path, &journal_path)?;
        }
        let (tables, watch) = self.open_file(StoreFile::Main, cache_bytes)?;
        stamp(&path, &tables, StoreFile::Main, &stamp_main)?;
        // Before the first write, which would write the damaged facts again, into a page whose checksum fits.
        verify_facts(&path, &tables, StoreFile::Main)?;
        let header = StoreHeader::of(&tables).map_err(|failure| failed(&path, failure))?;
        // The lock on the main file keeps other processes away from the journal meanwhile.
        self.write_back_journal()?;
        // Each row of the journal is read only once, into the memtable, so a small cache is enough.
        let (journal, journal_watch) = self.open_file(StoreFile::Journal, JOURNAL_CACHE_BYTES)?;
        stamp(&journal_path, &journal, StoreFile::Journal, &|txn| stamp_journal(txn, &header))?;
        verify_facts(&journal_path, &journal, StoreFile::Journal)?;
        if let Self::Directory(directory) = self {
            sync_directory(directory)?;
            for target in [target(&path)?, target(&journal_path)?] {
                if target.parent() != Some(directory) {
                    sync_directory(link::directory_of(&target))?;
                }
            }
        }
        let Replayed { memtable, damaged, unplaced } = header.replay(&tables, &journal, &journal_path)?;
        if let Some(row) = damaged.into_iter().next() {
            return Err(OpenError::DamagedRow { path: journal_path, row: row.number, flaw: row.flaw });
        }
        if let Some(row) = unplaced.first() {
            let (rows, first) = (unplaced.len(), tracing::field::display(&row.flaw));
            tracing::warn!(
                rows,
                first,
                "a conversation is unavailable, and the journal grows; run `turn-metrics check`"
            );
        }
        if header.bond.journal_id.is_none() {
            guarded(&path, || bind_journal(&tables, &journal))?;
        }
        let in_place = InPlace::of(self, [watch, journal_watch])?;
        Files::new(tables, journal, memtable, header.bond.store_id, in_place).map_err(|failure| failed(&path, failure))
    }

    /// Makes the whole journal durable before its rows are used, because an earlier sync may have failed.
    ///
    /// The main file need not be written back: its commits have two phases, and each opening writes the page anew that
    /// says which commit is the latest.
    fn write_back_journal(&self) -> Result<(), OpenError> {
        let written = match self {
            Self::Directory(_) => write_back_file(&self.path(StoreFile::Journal)),
            Self::Memory => Ok(()),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(storage) => storage.write_back(StoreFile::Journal),
        };
        written.map_err(|source| self.unusable(StoreFile::Journal, source))
    }

    fn unusable(&self, file: StoreFile, source: io::Error) -> OpenError {
        match self {
            Self::Directory(directory) if source.kind() == io::ErrorKind::PermissionDenied => {
                OpenError::Directory { path: directory.clone(), source }
            }
            _ => failed(&self.path(file), Fault::disk(source)),
        }
    }

    fn open_file(&self, file: StoreFile, cache_bytes: usize) -> Result<(Database, Option<Arc<Watch>>), OpenError> {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        let path = self.path(file);
        let opened = match self {
            Self::Directory(_) => match open_watched(&builder, &path) {
                Err(DatabaseError::Storage(StorageError::Io(source)))
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    return Err(self.unusable(file, source));
                }
                opened => opened,
            },
            Self::Memory => builder.create_with_backend(InMemoryBackend::new()).map(|database| (database, None)),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(storage) => storage.open(&builder, file).map(|database| (database, None)),
        };
        opened.map_err(|error| explain(&path, error))
    }

    /// Opens the files again after a failure. Missing files are never created: an empty file in place of a lost file
    /// would hide that acknowledged commits are gone. For the same reason, files that do not have everything that was
    /// `acknowledged` are refused.
    pub(crate) fn reopen(&self, cache_bytes: usize, acknowledged: Option<Extent>) -> Result<Files, OpenError> {
        let path = self.path(StoreFile::Main);
        let refusal = |what| Err(failed(&path, Fault::new(FaultKind::Database, what)));
        match self {
            Self::Directory(_) if !has_content(&path) => {
                return refusal("the database is empty or missing, and was not before");
            }
            Self::Memory => return refusal("the database went with the memory that held it"),
            _ => {}
        }
        let files = self.open(cache_bytes)?;
        if acknowledged.is_some_and(|acknowledged| !files.extent().includes(acknowledged)) {
            files.close();
            return refusal(
                "the files lack turns that were acknowledged, so others are in their place; bring the former files \
                 back, or start the server again to go on with these",
            );
        }
        Ok(files)
    }
}

/// Notes in the main file that the journal belongs to it from now on.
fn bind_journal(tables: &Database, journal: &Database) -> Result<(), Failure> {
    let id = ReadMeta::of(journal)?.journal_id()?;
    let txn = begin_write(tables)?;
    WriteMeta::write(&txn)?.bind_journal(id)?;
    Ok(txn.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_gone_is_not_made_anew_when_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        location.open(1 << 20).unwrap().close();
        let lineage = |files: Files| {
            let lineage = files.lineage();
            files.close();
            lineage
        };
        let first = lineage(location.reopen(1 << 20, None).unwrap());
        assert_eq!(lineage(location.reopen(1 << 20, None).unwrap()), first);

        let path = location.path(StoreFile::Main);
        std::fs::remove_file(&path).unwrap();
        let refused = location.reopen(1 << 20, None).unwrap_err().to_string();
        assert!(refused.contains("empty or missing, and was not before"), "{refused}");
        assert!(!path.exists());
        assert!(Location::Memory.reopen(1 << 20, None).is_err(), "a store in memory cannot be opened again");
    }

    #[test]
    fn another_store_in_the_place_of_the_files_is_not_opened_again() {
        let [directory, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [location, other] = [&directory, &other].map(|directory| Location::Directory(directory.path().to_owned()));
        let [extent, of_other] = [&location, &other].map(|location| {
            let files = location.open(1 << 20).unwrap();
            let extent = files.extent();
            files.close();
            extent
        });
        location.reopen(1 << 20, Some(extent)).unwrap().close();
        let refused = location.reopen(1 << 20, Some(of_other)).unwrap_err().to_string();
        assert!(refused.contains("bring the former files back"), "{refused}");
        location.reopen(1 << 20, Some(extent)).unwrap().close();
    }
}

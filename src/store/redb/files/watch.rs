//! Notices that another program writes over a file which a store has open, or cuts it short.
//!
//! A program like `cp` leaves the name and the number of the file as they are. But redb writes the header of the file in
//! each commit, and no two commits write the same header. So the file is as the store left it only if it has the header that
//! the store wrote last, and is no shorter than the store made it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// The number of bytes that redb writes at the beginning of a file in each commit.
const HEADER_BYTES: usize = 320;

/// A file of a store, open for writing. It takes no write after another program has written over it.
#[derive(Debug)]
pub(crate) struct WatchedFile(Arc<Watch>);

/// Knows whether another program has written over an open file.
#[derive(Debug)]
pub(crate) struct Watch {
    file: FileBackend,
    /// The same file. Its length is found by a seek: asking the system for the times of a file makes its next sync slower
    /// (see `in_place`).
    sought: File,
    /// A look never waits for this lock, because a write may wait for the disk.
    written: RwLock<Written>,
    is_overwritten: AtomicBool,
}

/// What the store has written.
#[derive(Debug)]
struct Written {
    /// The length that the store has given the file.
    len: u64,
    /// The header that the store wrote last. `None` before its first write, and after one that failed.
    header: Option<[u8; HEADER_BYTES]>,
    /// Whether nothing was written since the last sync.
    is_synced: bool,
}

impl Watch {
    /// Looks at the file. Once another program has written over it, this is true for ever, as no page of the file can be
    /// trusted any more.
    pub(super) fn is_overwritten(&self) -> bool {
        if let Ok(written) = self.written.try_read() {
            self.look(&written);
        }
        // Otherwise another thread writes the header, and has looked at the file just before.
        self.is_overwritten.load(Ordering::Acquire)
    }

    fn look(&self, written: &Written) {
        let is_shorter = || (&self.sought).seek(SeekFrom::End(0)).is_ok_and(|len| len < written.len);
        let has_other_header = || {
            let mut found = [0; HEADER_BYTES];
            // If the disk cannot read it, nothing is known.
            written.header.is_some_and(|header| self.file.read(0, &mut found).is_ok() && found != header)
        };
        if is_shorter() || has_other_header() {
            self.is_overwritten.store(true, Ordering::Release);
        }
    }

    fn refuse_overwritten(&self) -> io::Result<()> {
        if self.is_overwritten.load(Ordering::Acquire) {
            return Err(io::Error::other("another program has written over the file"));
        }
        Ok(())
    }
}

impl WatchedFile {
    /// Opens a file that is not empty, and returns what watches it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Arc<Watch>)> {
        let file = File::options().read(true).write(true).open(path)?;
        let sought = File::open(path)?;
        let len = (&sought).seek(SeekFrom::End(0))?;
        if len == 0 {
            // redb would make a new database of it.
            return Err(io::ErrorKind::InvalidData.into());
        }
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        let written = RwLock::new(Written { len, header: None, is_synced: true });
        let watch = Arc::new(Watch { file, sought, written, is_overwritten: AtomicBool::new(false) });
        Ok((Self(Arc::clone(&watch)), watch))
    }
}

impl StorageBackend for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.0.written.write().unwrap_or_else(PoisonError::into_inner);
        self.0.look(&written);
        self.0.refuse_overwritten()?;
        // If this fails, the file may have either length.
        written.len = written.len.min(len);
        self.0.file.set_len(len)?;
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.written.write().unwrap_or_else(PoisonError::into_inner).is_synced = true;
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.0.written.write().unwrap_or_else(PoisonError::into_inner);
        let is_header = offset < HEADER_BYTES as u64;
        // A write of the header would hide that another program wrote a header, and a write at the end that it has cut the
        // file short. The first write of each commit is looked at too, so that few pages get into the other file.
        if is_header || written.is_synced || offset + data.len() as u64 >= written.len {
            self.0.look(&written);
        }
        self.0.refuse_overwritten()?;
        written.is_synced = false;
        if !is_header {
            drop(written);
            return self.0.file.write(offset, data);
        }
        written.header = None;
        self.0.file.write(offset, data)?;
        written.header = data.first_chunk().copied().filter(|_| offset == 0);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use redb::{Builder, Database, ReadableDatabase as _, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");

    fn insert(database: &Database, key: u64, bytes: usize) -> Result<(), redb::Error> {
        let txn = database.begin_write()?;
        txn.open_table(TABLE)?.insert(key, &*vec![1; bytes])?;
        Ok(txn.commit()?)
    }

    /// Returns a database with two rows, of which the returned copy has the first one.
    fn opened() -> (tempfile::TempDir, PathBuf, Database, Arc<Watch>, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        drop(Builder::new().create(&path).unwrap());
        let (file, watch) = WatchedFile::open(&path).unwrap();
        let database = Builder::new().create_with_backend(file).unwrap();
        insert(&database, 1, 9).unwrap();
        let copy = fs::read(&path).unwrap();
        insert(&database, 2, 9).unwrap();
        assert!(!watch.is_overwritten());
        (directory, path, database, watch, copy)
    }

    #[test]
    fn what_the_store_writes_itself_is_not_taken_for_another_program() {
        let (_directory, path, mut database, watch, _) = opened();
        for (key, bytes) in [(3, 5_000_000), (4, 1), (5, 20_000_000)] {
            insert(&database, key, bytes).unwrap();
            assert!(!watch.is_overwritten());
        }
        let large = fs::metadata(&path).unwrap().len();
        let txn = database.begin_write().unwrap();
        txn.delete_table(TABLE).unwrap();
        txn.commit().unwrap();
        while database.compact().unwrap() {}
        assert!(fs::metadata(&path).unwrap().len() < large, "the file did not become smaller");
        assert!(!watch.is_overwritten());
        database.close().unwrap();
        assert!(!watch.is_overwritten());
        assert!(Database::open(&path).unwrap().begin_read().is_ok());
    }

    #[test]
    fn a_file_that_was_written_over_takes_no_further_write() {
        type Overwrite = fn(&Path, &[u8]);
        let ways: [(Overwrite, &str); 4] = [
            (|path, copy| fs::write(path, copy).unwrap(), "by an earlier copy"),
            (|path, _| fs::write(path, "").unwrap(), "by nothing"),
            (|path, _| File::options().write(true).open(path).unwrap().set_len(8192).unwrap(), "cut short"),
            (|path, copy| fs::write(path, vec![7; copy.len()]).unwrap(), "by other bytes"),
        ];
        for (overwrite, way) in ways {
            for looks in [true, false] {
                let (_directory, path, database, watch, copy) = opened();
                overwrite(&path, &copy);
                let before = fs::read(&path).unwrap();
                if looks {
                    assert!(watch.is_overwritten(), "{way}");
                }
                assert!(insert(&database, 3, 9).is_err(), "{way}");
                assert!(watch.is_overwritten(), "{way}");
                let _ = database.close();
                assert!(fs::read(&path).unwrap() == before, "{way}: the other file was written to");
            }
        }
    }

    #[test]
    fn an_empty_file_is_no_database_and_stays_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        assert_eq!(WatchedFile::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}

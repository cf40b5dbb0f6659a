use std::ops::{Deref, DerefMut};
use std::path::Path;

use redb::{Builder, Database};

use super::open_error::{OpenError, damaged, explain, failed, of_other_format};
use super::overlay::Overlay;
use crate::store::redb::tables::meta::{FORMAT, Stamp};
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// A database that was opened without changing its file. Whatever is written to it stays in memory.
///
/// redb writes to a database when it is dropped, and panics on some kinds of damage. Such a panic ends in the drop of this.
#[derive(Debug)]
pub(crate) struct Looked(Option<Database>);

impl Looked {
    pub(crate) fn of(database: Database) -> Self {
        Self(Some(database))
    }
}

impl Deref for Looked {
    type Target = Database;

    #[expect(clippy::expect_used, reason = "cannot fail, as its message proves")]
    fn deref(&self) -> &Database {
        self.0.as_ref().expect("only the drop takes the database")
    }
}

impl DerefMut for Looked {
    #[expect(clippy::expect_used, reason = "cannot fail, as its message proves")]
    fn deref_mut(&mut self) -> &mut Database {
        self.0.as_mut().expect("only the drop takes the database")
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        let database = self.0.take();
        let _ = unwind::caught(|| drop(database));
    }
}

/// Opens the database without changing its file.
pub(crate) fn look_at(builder: &Builder, path: &Path, file: StoreFile) -> Result<Looked, OpenError> {
    let overlay = Overlay::open(path).map_err(OpenError::unreadable(path))?;
    let database = unwind::caught(|| builder.create_with_backend(overlay));
    let database = database.map_err(|panic| damaged(path, panic))?;
    let database = Looked::of(database.map_err(|error| explain(path, error))?);
    let stamp = unwind::caught(|| Stamp::of(&database, file));
    match stamp.map_err(|panic| damaged(path, panic))? {
        Ok(Stamp::Format(found)) if found != FORMAT => Err(of_other_format(path, found)),
        Ok(Stamp::Foreign) => Err(OpenError::NotOurs { path: path.to_owned() }),
        Ok(_) => Ok(database),
        Err(failure) => Err(failed(path, failure)),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::{fs, io};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::store::redb::files::stamp::stamp_main;
    use crate::store::redb::tables::meta::WriteMeta;
    use crate::store::redb::tables::write::begin_write;

    #[test]
    fn what_is_written_to_a_database_that_is_looked_at_never_reaches_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main");
        let database = Builder::new().create(&path).unwrap();
        let txn = begin_write(&database).unwrap();
        stamp_main(&txn).unwrap();
        txn.commit().unwrap();
        database.close().unwrap();
        let before = fs::read(&path).unwrap();

        let looked = look_at(&Builder::new(), &path, StoreFile::Main).unwrap();
        let txn = begin_write(&looked).unwrap();
        WriteMeta::write(&txn).unwrap().touch().unwrap();
        txn.commit().unwrap();
        drop(looked);
        assert!(fs::read(&path).unwrap() == before);

        let as_journal = look_at(&Builder::new(), &path, StoreFile::Journal);
        assert!(matches!(as_journal, Err(OpenError::NotOurs { .. })), "{as_journal:?}");
        let missing = look_at(&Builder::new(), &directory.path().join("missing"), StoreFile::Main);
        assert!(matches!(missing, Err(OpenError::Unreadable { .. })), "{missing:?}");
    }
    /// A backend whose writes panic from some moment on, as redb's own code does on some kinds of damage.
    #[derive(Debug)]
    struct Panicking(InMemoryBackend, Arc<AtomicBool>);

    impl StorageBackend for Panicking {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            assert!(!self.1.load(Ordering::Relaxed), "a write");
            self.0.write(offset, data)
        }
    }

    #[test]
    fn a_panic_of_the_drop_of_a_database_that_is_looked_at_ends_there() {
        let panicking = || {
            let panics = Arc::new(AtomicBool::new(false));
            let database =
                Builder::new().create_with_backend(Panicking(InMemoryBackend::new(), Arc::clone(&panics))).unwrap();
            let txn = begin_write(&database).unwrap();
            stamp_main(&txn).unwrap();
            txn.commit().unwrap();
            panics.store(true, Ordering::Relaxed);
            database
        };
        let database = panicking();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(database))).is_err(), "the control");
        drop(Looked::of(panicking()));
        let database = Looked::of(panicking());
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _database = database;
            panic!("of the work");
        }));
        assert_eq!(unwound.unwrap_err().downcast_ref::<&str>(), Some(&"of the work"));
    }
}

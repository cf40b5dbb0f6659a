use std::fmt;
use std::io;
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::write_back::write_back;
use crate::store::redb::tables::store_file::StoreFile;

/// A storage that a test defines, for the files of a store: in memory, failing, or losing unsynced writes.
///
/// When a store opens its files again, it finds them as they are on the storage at that time.
#[derive(Clone)]
pub struct Storage {
    open: Arc<Open>,
    write_back: Arc<WriteBack>,
}

type Open = dyn Fn(&Builder, StoreFile) -> Result<Database, DatabaseError> + Send + Sync;
type WriteBack = dyn Fn(StoreFile) -> io::Result<()> + Send + Sync;

impl Storage {
    /// Returns a storage that opens its files by calling `open`, which returns a new handle each time.
    pub fn new<B: StorageBackend>(open: impl Fn(StoreFile) -> B + Send + Sync + 'static) -> Self {
        let open = Arc::new(open);
        let backend = Arc::clone(&open);
        Self {
            open: Arc::new(move |builder, file| builder.create_with_backend(open(file))),
            write_back: Arc::new(move |file| write_back(&backend(file))),
        }
    }

    pub(crate) fn open(&self, builder: &Builder, file: StoreFile) -> Result<Database, DatabaseError> {
        (self.open)(builder, file)
    }

    pub(super) fn write_back(&self, file: StoreFile) -> io::Result<()> {
        (self.write_back)(file)
    }
}

/// A storage is equal only to its clones.
impl PartialEq for Storage {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open)
    }
}

impl Eq for Storage {}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

use std::path::PathBuf;

use super::size::file_size;
#[cfg(any(test, feature = "testing"))]
use super::storage::Storage;
use crate::store::redb::tables::store_file::StoreFile;

/// Where the store keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In files in this directory. A missing directory is made.
    Directory(PathBuf),
    /// In memory. The data is gone when the store is closed.
    Memory,
    /// On a storage that a test defines, such as a disk that fails.
    #[cfg(any(test, feature = "testing"))]
    Storage(Storage),
}

impl Location {
    pub(super) fn main_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => file_size(&self.path(StoreFile::Main)),
            _ => 0,
        }
    }

    /// Returns the size of both files; 0 if the store has no files.
    pub(crate) fn file_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => self.main_bytes() + file_size(&self.path(StoreFile::Journal)),
            _ => 0,
        }
    }

    /// Returns the path of the file, or a text that stands for it in messages.
    pub(super) fn path(&self, file: StoreFile) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(file.name()),
            Self::Memory => PathBuf::from("in memory"),
            #[cfg(any(test, feature = "testing"))]
            Self::Storage(_) => PathBuf::from("on a storage of a test"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_bytes_of_a_store_are_the_bytes_of_both_files_and_0_without_files() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        assert_eq!((location.main_bytes(), location.file_bytes()), (0, 0), "there are no files yet");
        fs::write(location.path(StoreFile::Main), [0; 5]).unwrap();
        fs::write(location.path(StoreFile::Journal), [0; 7]).unwrap();
        assert_eq!((location.main_bytes(), location.file_bytes()), (5, 12));
        assert_eq!(Location::Memory.file_bytes(), 0);
    }
}

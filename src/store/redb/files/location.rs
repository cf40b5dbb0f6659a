use std::path::PathBuf;

use super::size::file_size;
#[cfg(any(test, feature = "testing"))]
use super::storage::Storage;
use crate::store::redb::tables::store_file::StoreFile;

/// Where the store keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// In files of this directory, which is made if it is missing.
    Directory(PathBuf),
    /// In memory: gone when the store is closed.
    Memory,
    /// On a storage that a test makes, such as one that fails.
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

    /// The size of the files; 0 where there are none.
    pub(crate) fn file_bytes(&self) -> u64 {
        match self {
            Self::Directory(_) => self.main_bytes() + file_size(&self.path(StoreFile::Journal)),
            _ => 0,
        }
    }

    /// The path of the file, or its stand-in in messages.
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
    fn the_bytes_of_a_store_are_those_of_both_files_and_none_without_files() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        assert_eq!((location.main_bytes(), location.file_bytes()), (0, 0), "nothing is there yet");
        fs::write(location.path(StoreFile::Main), [0; 5]).unwrap();
        fs::write(location.path(StoreFile::Journal), [0; 7]).unwrap();
        assert_eq!((location.main_bytes(), location.file_bytes()), (5, 12));
        assert_eq!(Location::Memory.file_bytes(), 0);
    }
}

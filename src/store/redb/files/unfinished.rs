//! The names of files that are being written. A crash leaves such a file, and the next start removes it.

use std::io;
use std::path::{Path, PathBuf};

use super::file::remove;
use super::location::Location;
use super::path::target;
use crate::link;
use crate::store::redb::tables::store_file::StoreFile;

/// A kind of file that is not finished. Each stands beside the file that it is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// A new main file or journal.
    New,
    /// The copy that a backup sends.
    Backup,
    /// The file that replaces the main file after a compaction.
    Compaction,
    /// The copy of a file that a repair keeps.
    KeptCopy,
    /// The main file that a repair builds from damaged files.
    Salvage,
}

impl Unfinished {
    const ALL: [Self; 5] = [Self::New, Self::Backup, Self::Compaction, Self::KeptCopy, Self::Salvage];

    /// Returns the path of the unfinished file that is made for `file`. A person gives no file of their own such a
    /// name.
    pub(crate) fn beside(self, file: &Path) -> PathBuf {
        link::beside(
            file,
            match self {
                Self::New => ".unfinished-new",
                Self::Backup => ".unfinished-backup",
                Self::Compaction => ".unfinished-compaction",
                Self::KeptCopy => ".unfinished-copy",
                Self::Salvage => ".unfinished-repair",
            },
        )
    }
}

impl Location {
    /// Removes what was left unfinished when a process was killed. Call this while the main file is open, and nothing
    /// else in this process works on the files: the lock on the main file keeps other processes away.
    pub(crate) fn remove_unfinished(&self) {
        if !matches!(self, Self::Directory(_)) {
            return;
        }
        for file in [StoreFile::Main, StoreFile::Journal] {
            let Ok(target) = target(&self.path(file)) else { continue };
            for unfinished in Unfinished::ALL.map(|unfinished| unfinished.beside(&target)) {
                let path = unfinished.display();
                match remove(&unfinished) {
                    Ok(()) => tracing::info!(%path, "an unfinished file of an interrupted operation was removed"),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(%path, %error, "an unfinished file could not be removed"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unfinished_files_are_removed_beside_the_files_themselves_and_no_others() {
        let [directory, far] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let location = Location::Directory(directory.path().to_owned());
        let main = far.path().join("main");
        #[cfg(unix)]
        std::os::unix::fs::symlink(&main, location.path(StoreFile::Main)).unwrap();
        #[cfg(not(unix))]
        let main = location.path(StoreFile::Main);
        let journal = location.path(StoreFile::Journal);
        let left = [&main, &journal].map(|file| Unfinished::ALL.map(|unfinished| unfinished.beside(file)));
        let others = [".backup", ".new", ".compact", ".before-repair-1", ".unfinished", ".unfinished-backup-1"];
        let others = [&main, &journal].map(|file| others.map(|suffix| link::beside(file, suffix)));
        for path in left.iter().flatten().chain(others.iter().flatten()) {
            fs::write(path, "x").unwrap();
        }
        location.remove_unfinished();
        assert!(left.iter().flatten().all(|path| !path.exists()));
        assert!(others.iter().flatten().all(|path| path.exists()));
        location.remove_unfinished();
    }
}

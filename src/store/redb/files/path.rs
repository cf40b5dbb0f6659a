//! Paths of the files: symbolic links, empty files, and file names that survive a power cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::open_error::{OpenError, failed};
use crate::link;
use crate::store::fault::Fault;

/// Returns the path of the file itself, if `path` is a symbolic link to it.
pub(super) fn target(path: &Path) -> Result<PathBuf, OpenError> {
    link::target(path).map_err(|source| failed(path, Fault::disk(source)))
}

pub(crate) fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// Makes the names of the directory's files durable. Otherwise a power cut may remove the name of a new file, and its
/// synced content with it.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    let sync = |directory: &Path| File::open(directory).and_then(|directory| directory.sync_all());
    sync(directory).map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    // The directory may be new as well, so its parent is synced too. If the parent cannot be read, this process has not
    // made the directory.
    if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        let _ = sync(parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_byte_has_no_content_and_a_directory_that_cannot_be_synced_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(!has_content(&path), "the file is missing");
        fs::write(&path, "").unwrap();
        assert!(!has_content(&path), "the file is empty");
        fs::write(&path, "x").unwrap();
        assert!(has_content(&path));

        sync_directory(directory.path()).unwrap();
        let missing = directory.path().join("missing");
        let refused = sync_directory(&missing).unwrap_err();
        assert!(matches!(&refused, OpenError::Directory { path, .. } if *path == missing), "{refused:?}");
    }
}

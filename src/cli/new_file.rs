use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::link;

/// A file that gets its name only when its contents are complete and on the disk.
pub(super) struct NewFile {
    /// The name as the user gave it.
    name: PathBuf,
    /// The file itself, if the name is a link.
    target: PathBuf,
    unfinished: NamedTempFile,
    replaces: bool,
}

/// The reason why a file was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewFileError {
    /// A file of that name exists.
    #[error("{0} exists; give --force to replace it")]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Makes the unfinished file for `target`, and removes those for it that killed processes left. A process holds a lock
/// on its unfinished file.
fn begin_unfinished(directory: &Path, target: &Path) -> io::Result<NamedTempFile> {
    let prefix = format!(".{}.unfinished-", target.file_name().unwrap_or_default().to_string_lossy());
    for entry in fs::read_dir(directory)?.flatten() {
        let is_left = |path: &Path| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_string_lossy().starts_with(&prefix) && is_left(&entry.path()) {
            // If it cannot be removed, it is in nobody's way.
            drop(fs::remove_file(entry.path()));
        }
    }
    let unfinished = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory)?;
    // A file system without locks is no reason to write nothing.
    drop(unfinished.as_file().try_lock());
    Ok(unfinished)
}

impl NewFile {
    /// Begins a file. `replaces` says whether a file of that name may be replaced.
    pub(super) fn begin(name: &Path, replaces: bool) -> Result<Self, NewFileError> {
        let unwritable = |source| NewFileError::Write { path: name.to_owned(), source };
        // Check this first, so that no server works in vain. It is checked again when the file gets its name.
        match fs::metadata(name) {
            Ok(there) if there.is_dir() => return Err(unwritable(io::Error::other("it is a directory"))),
            Ok(there) if !there.is_file() => return Err(unwritable(io::Error::other("it is a device or a pipe"))),
            Ok(_) if !replaces => return Err(NewFileError::Exists(name.to_owned())),
            _ => {}
        }
        // If the name is a link, replace the file that it leads to, and keep the link.
        let target = link::target(name).map_err(unwritable)?;
        let directory = link::directory_of(&target);
        // Check the directory first, so that the error names it and not the temporary file.
        fs::read_dir(directory).map_err(unwritable)?;
        let unfinished = begin_unfinished(directory, &target).map_err(|error| unwritable(error.kind().into()))?;
        Ok(Self { name: name.to_owned(), target, unfinished, replaces })
    }

    /// Returns the file, to write its contents.
    pub(super) fn contents(&mut self) -> &mut File {
        self.unfinished.as_file_mut()
    }

    /// Returns the error about a failed write.
    pub(super) fn unwritable(&self, source: io::Error) -> NewFileError {
        NewFileError::Write { path: self.name.clone(), source }
    }

    /// Syncs the contents, gives the file its name, and syncs the directory.
    pub(super) fn finish(self) -> Result<(), NewFileError> {
        let Self { name, target, unfinished, replaces } = self;
        let unwritable = |source| NewFileError::Write { path: name.clone(), source };
        unfinished.as_file().sync_all().map_err(unwritable)?;
        let named = if replaces { unfinished.persist(&target) } else { unfinished.persist_noclobber(&target) };
        named.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => NewFileError::Exists(name.clone()),
            _ => unwritable(error.error),
        })?;
        File::open(link::directory_of(&target)).and_then(|directory| directory.sync_all()).map_err(unwritable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_process_writes_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("copy");
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let left = directory.path().join(".copy.unfinished-left");
        let of_another = directory.path().join(".other.unfinished-left");
        for path in [&left, &of_another] {
            fs::write(path, "").unwrap();
        }
        let other = NewFile::begin(&name, true).unwrap();
        assert!(!left.exists() && of_another.exists());
        let running = names();
        assert!(running.iter().any(|name| name.starts_with(".copy.unfinished-")), "{running:?}");
        NewFile::begin(&name, false).unwrap().finish().unwrap();
        let finished = [running, vec!["copy".to_owned()]].concat();
        assert_eq!(names(), finished);
        other.finish().unwrap();
        assert_eq!(names(), [".other.unfinished-left", "copy"]);
    }
}

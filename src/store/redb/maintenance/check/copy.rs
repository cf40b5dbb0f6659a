use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::link;
use crate::store::redb::files::file::{self, remove, rename};
use crate::store::redb::files::unfinished::Unfinished;

/// Why a copy was not kept.
#[derive(Debug)]
pub(super) struct NotKept {
    /// The path of the copy.
    pub(super) path: PathBuf,
    /// The error of the system.
    pub(super) source: io::Error,
}

/// Makes the names in the directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Copies a file to a free name beside it. The copy gets that name when it is whole. When this returns, the copy and
/// its name survive a power cut, so the repair may begin.
pub(super) fn keep_copy(path: &Path, sync_directory: impl Fn(&Path) -> io::Result<()>) -> Result<PathBuf, NotKept> {
    let unfinished = Unfinished::KeptCopy.beside(path);
    // Removes the copy of an interrupted repair.
    let _ = remove(&unfinished);
    let named = |number: u32| link::beside(path, &format!(".before-repair-{number}"));
    let mut number = 1;
    while fs::symlink_metadata(named(number)).is_ok() {
        number += 1;
    }
    let copy = named(number);
    let copied = file::copy(path, &unfinished).and_then(|()| rename(&unfinished, &copy));
    let kept = copied.and_then(|()| sync_directory(link::directory_of(&copy)));
    match kept {
        Ok(()) => Ok(copy),
        Err(source) => {
            // A partial copy is useless.
            let _ = (remove(&unfinished), remove(&copy));
            Err(NotKept { path: copy, source })
        }
    }
}

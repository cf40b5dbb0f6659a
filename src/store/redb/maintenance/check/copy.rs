use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::CheckError;
use crate::{link, private_file};

/// Makes the names in the directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Copies a file to a free name beside it. When this returns, the copy and its name survive a power cut, so the repair
/// may begin.
pub(super) fn keep_copy(path: &Path, sync_directory: impl Fn(&Path) -> io::Result<()>) -> Result<PathBuf, CheckError> {
    let mut number = 1u32;
    loop {
        let copy = link::beside(path, &format!(".before-repair-{number}"));
        let made = private_file::options().write(true).create_new(true).open(&copy);
        let copied = made.and_then(|mut to| {
            io::copy(&mut File::open(path)?, &mut to)?;
            to.sync_all()?;
            sync_directory(link::directory_of(&copy))
        });
        match copied {
            Ok(()) => return Ok(copy),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => {
                // A partial copy is useless.
                let _ = fs::remove_file(&copy);
                return Err(CheckError::Copy { path: copy, source });
            }
        }
    }
}

//! The operations that change a file or its name. A test can let the process or the power end at each of them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError};

#[cfg(test)]
use super::doom;
use super::watch::{Watch, WatchedFile};
use crate::private_file;

/// Opens the database in this file.
pub(crate) fn open_database(builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
    #[cfg(test)]
    if doom::is_planned() {
        return builder.create_with_backend(doom::Doomed::open(path)?);
    }
    builder.open(path)
}

/// Like [`open_database`]. Also returns what notices that another program writes over the file.
pub(super) fn open_watched(builder: &Builder, path: &Path) -> Result<(Database, Option<Arc<Watch>>), DatabaseError> {
    #[cfg(test)]
    if doom::is_planned() {
        return Ok((builder.create_with_backend(doom::Doomed::open(path)?)?, None));
    }
    let (file, watch) = WatchedFile::open(path)?;
    Ok((builder.create_with_backend(file)?, Some(watch)))
}

/// Makes a database in this file, if it has none.
pub(crate) fn create_database(builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
    #[cfg(test)]
    if doom::is_planned() {
        return builder.create_with_backend(doom::Doomed::open(path)?);
    }
    // redb would make a file that others may read.
    private_file::options().read(true).write(true).create(true).truncate(false).open(path)?;
    builder.create(path)
}

/// Copies a file to a new file, and syncs the copy.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = private_file::options().write(true).create_new(true).open(to)?;
    #[cfg(test)]
    if doom::is_planned() {
        // Half of the copy may be all that is left of it.
        let half = source.metadata()?.len() / 2;
        doom::change()?;
        io::copy(&mut io::Read::take(&mut source, half), &mut copy)?;
        doom::change()?;
    }
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    doom::change()?;
    fs::remove_file(path)
}

/// Renames a file. It replaces another file of that name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    doom::change()?;
    fs::rename(from, to)
}

/// Replaces a file by another one, which takes over its permissions. An operator may have chosen them, for example so that a
/// group can read the file.
pub(crate) fn replace(path: &Path, by: &Path) -> io::Result<()> {
    fs::set_permissions(by, fs::metadata(path)?.permissions())?;
    rename(by, path)
}

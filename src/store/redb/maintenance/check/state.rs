use std::io;
use std::path::Path;

use redb::{Builder, Database};

use super::salvage::{Pages, examine, open_pages};
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::files::look::look_at;
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// What a look at a file shows.
pub(super) enum State {
    /// The pages of the file are sound. The flag says whether its list of free pages is right too. Whatever is written
    /// to the database stays in memory.
    Sound(Database, bool),
    /// The file is one of a store, and pages of it are damaged.
    Damaged(Fault),
}

impl State {
    /// Looks at a file without changing it. Returns an error if the file is not one of a store, or cannot be read.
    pub(super) fn of(path: &Path, file: StoreFile) -> Result<Self, OpenError> {
        let refused = match look_at(&Builder::new(), path, file) {
            Ok(database) => match integrity(database) {
                Some((database, true)) => return Ok(Self::Sound(database, true)),
                // If the latest commit cannot be read, redb goes back to the one before it.
                Some((database, false)) => {
                    if of_pages(path)? == Pages::Damaged {
                        close(database);
                        return Ok(Self::Damaged(damage(file)));
                    }
                    return Ok(Self::Sound(database, false));
                }
                None => return Ok(Self::Damaged(damage(file))),
            },
            Err(error @ (OpenError::InUse { .. } | OpenError::Unreadable(_) | OpenError::Directory { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        match (of_pages(path)?, refused) {
            (Pages::Damaged, _) | (Pages::Sound, OpenError::Damaged { .. }) => Ok(Self::Damaged(damage(file))),
            // The file's own record of its format is damaged.
            (Pages::Sound, OpenError::Failed { cause, .. }) if cause.kind() == FaultKind::Damaged => {
                Ok(Self::Damaged(cause))
            }
            (_, refused) => Err(refused),
        }
    }
}

/// Checks the pages of a database. `None` if they are damaged.
fn integrity(mut database: Database) -> Option<(Database, bool)> {
    if let Ok(Ok(is_whole)) = unwind::caught(|| database.check_integrity()) {
        return Some((database, is_whole));
    }
    close(database);
    None
}

/// Closes a database that may have panicked. Closing it may panic once more.
pub(super) fn close(database: Database) {
    let _ = unwind::caught(|| drop(database));
}

fn of_pages(path: &Path) -> Result<Pages, OpenError> {
    let disk = |error: io::Error| failed(path, Fault::disk(error));
    let pages = open_pages(path).map_err(disk)?;
    examine(&pages).map_err(|failure: Failure| failed(path, failure))
}

fn damage(file: StoreFile) -> Fault {
    let what = match file {
        StoreFile::Main => "pages of the main file are damaged",
        StoreFile::Journal => "pages of the journal are damaged",
    };
    Fault::new(FaultKind::Damaged, what)
}

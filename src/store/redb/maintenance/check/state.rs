use std::io;
use std::path::Path;

use redb::Builder;

use super::salvage::{Pages, examine, open_pages};
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::files::look::{Looked, look_at};
use crate::store::redb::files::open_error::{OpenError, failed};
use crate::store::redb::files::path::has_content;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

/// What a look at a file shows.
pub(super) enum State {
    /// The pages of the file are sound. The flag says whether its list of free pages is right too. Whatever is written
    /// to the database stays in memory.
    Sound(Looked, bool),
    /// The file is one of a store, and pages of it are damaged.
    Damaged(Fault),
    /// The file is a damaged database without a row of a store. The error says so.
    Rowless(OpenError),
}

impl State {
    /// Looks at a file without changing it. Returns an error if the file is not one of a store, or cannot be read.
    pub(super) fn of(path: &Path, file: StoreFile) -> Result<Self, OpenError> {
        if !has_content(path) {
            return Ok(Self::Rowless(OpenError::MainEmpty { path: path.to_owned(), has_journal: false }));
        }
        let refused = match look_at(&Builder::new(), path, file) {
            Ok(database) => match integrity(database) {
                // If the latest commit is damaged, redb goes back to the commit before it, as it does after a crash.
                Some(_) if file == StoreFile::Journal && of_pages(path)? == Pages::Flipped => {
                    return Ok(Self::Damaged(damage(file)));
                }
                Some((database, true)) => return Ok(Self::Sound(database, true)),
                // If the latest commit cannot be read, redb goes back to the one before it.
                Some((database, false)) => {
                    if let Pages::Damaged | Pages::Flipped = of_pages(path)? {
                        return Ok(Self::Damaged(damage(file)));
                    }
                    return Ok(Self::Sound(database, false));
                }
                None => return Ok(Self::Damaged(damage(file))),
            },
            Err(error @ (OpenError::InUse { .. } | OpenError::Unreadable { .. } | OpenError::Directory { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        match (of_pages(path)?, refused) {
            (Pages::Damaged | Pages::Flipped, _) | (Pages::Sound, OpenError::Damaged { .. }) => {
                Ok(Self::Damaged(damage(file)))
            }
            (Pages::Foreign, OpenError::Damaged { .. }) => {
                let what =
                    "it is damaged, and no row of a store is left in it; bring the file back, or restore a backup";
                Ok(Self::Rowless(failed(path, Fault::new(FaultKind::Damaged, what))))
            }
            // The file's own record of its format is damaged.
            (Pages::Sound, OpenError::Failed { cause, .. }) if cause.kind() == FaultKind::Damaged => {
                Ok(Self::Damaged(cause))
            }
            (_, refused) => Err(refused),
        }
    }
}

/// Checks the pages of a database. `None` if they are damaged.
fn integrity(mut database: Looked) -> Option<(Looked, bool)> {
    let is_whole = unwind::caught(|| database.check_integrity()).ok()?.ok()?;
    Some((database, is_whole))
}

fn of_pages(path: &Path) -> Result<Pages, OpenError> {
    let disk = |error: io::Error| failed(path, Fault::disk(error));
    let pages = open_pages(path).map_err(disk)?;
    examine(&pages).map_err(|failure: Failure| failed(path, failure))
}

/// Returns the state of a journal that lacks rows which the main file has seen. If a page of its latest commit is damaged,
/// redb has gone back to an earlier commit. Otherwise it is an older copy, which is not repaired.
pub(super) fn of_shorter(path: &Path, journal: State) -> Result<State, OpenError> {
    Ok(if of_pages(path)? == Pages::Sound { journal } else { State::Damaged(damage(StoreFile::Journal)) })
}

pub(super) fn damage(file: StoreFile) -> Fault {
    let what = match file {
        StoreFile::Main => "pages of the main file are damaged",
        StoreFile::Journal => "pages of the journal are damaged",
    };
    Fault::new(FaultKind::Damaged, what)
}

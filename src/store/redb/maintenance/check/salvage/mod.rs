//! Salvage: builds a new main file from everything in damaged files that can be proved right.
//!
//! Words:
//! - A page is *reached* if the checksums of the pointers from the header down lead to it. Its rows are those of the
//!   latest commit. A single flipped bit in such a page is flipped back: no other page has the checksum.
//! - A row is *found* if its page is not reached and its own checksum fits. redb never overwrites a page that is in
//!   use, so a file has many pages of earlier commits, and even of transactions that were never committed. A found row
//!   counts only in the parts of its table that could not be reached.
//!
//! Invariants: no byte of the damaged files changes. A row is taken only if a checksum proves it. What is lost is
//! named. What was erased stays erased, unless the erasure was in a lost row of the journal only. No ordinal is given
//! twice.
//!
//! - `pages`: the layout of redb's pages, their checksums, and flipping a bit back.
//! - `walk`: reaches the pages of the latest commit, and reads all other pages.
//! - `rows`: recognizes the rows of a main file.
//! - `choose`: chooses among found rows.
//! - `journal`: salvages the rows of a journal.
//! - `source`: the files from which a new one is built.
//! - `build`: builds the new main file.
//! - `tests`: repairs of damaged files: what they save, and which losses they name.

mod build;
mod choose;
mod journal;
mod pages;
mod rows;
pub(super) mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use self::pages::PageFile;
use self::rows::has_rows;
use self::source::{JournalSource, MainSource};
use self::walk::disk;
use super::loss::Loss;
use crate::store::redb::files::file::remove;
use crate::store::redb::files::open_error::OpenError;
use crate::store::redb::files::unfinished::Unfinished;
use crate::store::redb::tables::failure::Failure;

/// A new main file, complete and closed, under a name of its own.
pub(super) struct Salvaged {
    pub(super) path: PathBuf,
    /// What could not be brought back.
    pub(super) losses: Vec<Loss>,
}

/// Builds a new main file beside the damaged one. The damaged files do not change.
pub(super) fn salvage(
    paths: [&Path; 2],
    main: &MainSource<'_>,
    journal: &JournalSource<'_>,
) -> Result<Salvaged, OpenError> {
    let path = Unfinished::Salvage.beside(paths[0]);
    // Removes the file of an interrupted repair.
    let _ = remove(&path);
    match build::build(paths, &path, main, journal) {
        Ok(losses) => Ok(Salvaged { path, losses }),
        Err(error) => {
            let _ = remove(&path);
            Err(error)
        }
    }
}

/// Opens a file page by page. The file stays locked until this is dropped.
pub(super) fn open_pages(path: &Path) -> io::Result<PageFile> {
    PageFile::open(path)
}

/// What the pages of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// The file begins as a file of redb does, and every page that the latest commit leads to has its checksum.
    Sound,
    /// Flipped bits are all that is wrong with the latest commit. So it was complete, and no crash has cut it short.
    Flipped,
    /// A page is damaged, and the file has rows of a store.
    Damaged,
    /// The file has no row of a store.
    Foreign,
}

/// Reads all pages of a file that the latest commit leads to, also those of redb's own tables. If one of them is damaged,
/// searches for rows of a store.
pub(super) fn examine(file: &PageFile) -> Result<Pages, Failure> {
    let reaches_all = walk::reaches_all(file)? && file.has_magic().map_err(disk)?;
    Ok(match (reaches_all, file.has_mended()) {
        (true, false) => Pages::Sound,
        _ if !has_rows(file)? => Pages::Foreign,
        (true, true) => Pages::Flipped,
        (false, _) => Pages::Damaged,
    })
}

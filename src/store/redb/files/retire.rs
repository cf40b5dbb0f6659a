use std::path::Path;

use super::file::remove;
use super::in_place::Displaced;
use super::location::Location;
use super::open_error::{OpenError, failed};
use super::open_files::Files;
use super::path::{sync_directory, target};
use super::size::is_sparse;
use crate::link;
use crate::store::fault::Fault;
use crate::store::redb::tables::store_file::StoreFile;
use crate::store::redb::unwind;

impl Location {
    /// Removes the journal and closes the files. Then the main file alone is the store. Call this only if the tables
    /// have the contents of the journal.
    ///
    /// If the main file is not in its place, or not as the store left it, the journal may be all that is left of the store,
    /// so it stays as it is. So does a file that another program has made of the journal.
    pub(crate) fn retire(&self, mut files: Files) -> Result<(), Fault> {
        let displaced = files.in_place().displaced();
        if let Some(Displaced::Main | Displaced::Both | Displaced::OverwrittenMain) = displaced {
            let cause = files.in_place().check();
            files.close();
            return cause.inspect_err(|fault| tracing::warn!(%fault, "the journal is left as it is"));
        }
        // A panic must not unwind into the drop of the files: that would panic again.
        let retired = unwind::caught_as_fault(|| {
            files.release_journal()?;
            if displaced == Some(Displaced::OverwrittenJournal) {
                tracing::warn!("everything is in the main file now; move the file in the place of the journal away");
                return Ok(());
            }
            Ok(files.empty_journal()?)
        });
        if retired.is_ok() && is_sparse(self.main_bytes(), files.live_bytes().unwrap_or(u64::MAX)) {
            files.pack();
        }
        files.close();
        let removed = retired.and_then(|()| match self {
            // Another file in the journal's place is not ours to remove.
            Self::Directory(_) if displaced.is_none() => Ok(remove_journal(&self.path(StoreFile::Journal))?),
            _ => Ok(()),
        });
        removed.inspect_err(|fault| {
            tracing::warn!(error = fault.in_full(), "the journal could not be removed; the next opening reads it");
        })
    }
}

/// Removes a journal that is no longer needed. If its path is a link, the link stays for the next journal.
fn remove_journal(path: &Path) -> Result<(), OpenError> {
    let target = target(path)?;
    remove(&target).map_err(|source| failed(path, Fault::disk(source)))?;
    sync_directory(link::directory_of(&target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_file_alone_is_the_store_after_it_was_retired() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let files = location.open(1 << 20).unwrap();
        let lineage = files.lineage();
        assert!(location.path(StoreFile::Journal).exists());
        location.retire(files).unwrap();
        assert!(!location.path(StoreFile::Journal).exists());
        let files = location.open(1 << 20).unwrap();
        assert_eq!(files.lineage(), lineage, "the lineage changed with the new journal");
        files.close();
    }

    #[test]
    fn a_journal_that_cannot_be_removed_is_told_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let refused = remove_journal(&directory.path().join("journal")).unwrap_err();
        assert!(refused.to_string().contains("journal"), "{refused}");
    }
}

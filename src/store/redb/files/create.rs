//! Makes the files of a store.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use redb::Builder;

use super::file::{create_database, remove, rename};
use super::header::StoreHeader;
use super::look::look_at;
use super::open_error::{OpenError, explain, failed};
use super::path::{has_content, sync_directory, target};
use super::stamp::{Stamping, stamp, stamp_journal, stamp_main, verify_facts};
use super::unfinished::Unfinished;
use crate::link;
use crate::store::redb::tables::store_file::StoreFile;

/// Makes sure that a directory has files that can be opened.
///
/// Both files are inspected before either is written: if one of them is not ours, both are left as they are.
pub(super) fn make_ready(directory: &Path, path: &Path, journal_path: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let look_at = |path: &Path, file| look_at(&Builder::new(), path, file);
    link::create_directory(directory).map_err(unusable)?;
    // The journal is looked for first, because another process may be creating the files. It creates the journal last.
    let has_journal = has_content(journal_path);
    if !has_content(path) {
        // A new database in the place of a lost one would hide that everything in it is gone.
        if path.exists() {
            return Err(OpenError::MainEmpty { path: path.to_owned(), has_journal });
        }
        if path.is_symlink() {
            // The disk of the target may be missing.
            return Err(OpenError::Dangling { path: path.to_owned(), target: target(path)? });
        }
        if has_journal {
            return Err(OpenError::MainMissing { path: path.to_owned(), journal: journal_path.to_owned() });
        }
        create_file(path, StoreFile::Main, &stamp_main)?;
    }
    let tables = look_at(path, StoreFile::Main)?;
    verify_facts(path, &tables, StoreFile::Main)?;
    let header = StoreHeader::of(&tables).map_err(|failure| failed(path, failure))?;
    let is_needed = header.bond.journal_id.is_some();
    if journal_path.is_dir() {
        return Err(OpenError::NoJournal { path: journal_path.to_owned(), is_needed });
    }
    if has_content(journal_path) {
        let journal = look_at(journal_path, StoreFile::Journal);
        let journal = journal.map_err(|refused| refused.of_journal(is_needed))?;
        header.bond.check(&journal, journal_path)?;
        // Opening a damaged journal for writing would make it the older copy that it looks like.
        return header.refuse_shorter(&journal, journal_path);
    }
    if is_needed {
        let missing = OpenError::JournalMissing { path: journal_path.to_owned() };
        return Err(OpenError::of_dangling_journal(journal_path, is_needed).unwrap_or(missing));
    }
    create_file(journal_path, StoreFile::Journal, &|txn| stamp_journal(txn, &header)).map_err(|refused| match refused {
        OpenError::Dangling { path, target } => OpenError::JournalDangling { path, target, is_needed },
        refused => refused,
    })
}

/// Makes a new database in a temporary file, and renames it when it is complete. A crash while the first pages are
/// written would otherwise leave a file that no program recognizes, and every later start would fail.
fn create_file(path: &Path, file: StoreFile, stamping: Stamping<'_>) -> Result<(), OpenError> {
    let target = target(path)?;
    let directory = link::directory_of(&target);
    if path.is_symlink() && !directory.is_dir() {
        return Err(OpenError::Dangling { path: path.to_owned(), target });
    }
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let unfinished = Unfinished::New.beside(&target);
    // Only one process at a time may create the file, or a second one would replace the temporary file of the first. If
    // the directory cannot be locked, the file is created without the lock. The lock ends with this handle.
    let lock = File::open(directory).map_err(unusable)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        return Err(OpenError::InUse { path: path.to_owned() });
    }
    // Another process that held the lock before may have created the file.
    if has_content(path) {
        return Ok(());
    }
    // Removes the temporary file of a creation that was cut short.
    match remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
        _ => {}
    }
    let make = || {
        let database = create_database(&Builder::new(), &unfinished).map_err(|error| explain(path, error))?;
        stamp(path, &database, file, stamping)?;
        database.close().map_err(|error| explain(path, error))?;
        rename(&unfinished, &target).map_err(unusable)?;
        // Otherwise a power cut could leave the journal, which is created after the main file, without the main file.
        sync_directory(directory)
    };
    make().inspect_err(|_| {
        // The file is useless, and the disk may be full.
        let _ = remove(&unfinished);
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::redb::files::stamp::stamp_main;

    #[test]
    fn a_file_is_made_beside_its_place_by_one_at_a_time_over_what_an_interrupted_creation_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(StoreFile::Main.name());
        let unfinished = Unfinished::New.beside(&path);
        fs::write(&unfinished, "cut short").unwrap();

        let other = File::open(directory.path()).unwrap();
        other.lock().unwrap();
        let refused = create_file(&path, StoreFile::Main, &stamp_main);
        assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
        assert_eq!(fs::read(&unfinished).unwrap(), b"cut short", "another process may be writing this file");
        drop(other);

        let full = || Err(redb::StorageError::Io(io::ErrorKind::StorageFull.into()).into());
        assert!(create_file(&path, StoreFile::Main, &|_| full()).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "an incomplete file was not removed");

        create_file(&path, StoreFile::Main, &stamp_main).unwrap();
        assert!(look_at(&Builder::new(), &path, StoreFile::Main).is_ok() && !unfinished.exists());
        let made = fs::read(&path).unwrap();
        create_file(&path, StoreFile::Main, &stamp_main).unwrap();
        assert!(fs::read(&path).unwrap() == made, "an existing file was made anew");
    }

    #[test]
    fn a_main_file_that_needs_a_journal_is_not_given_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let [path, journal] = [StoreFile::Main, StoreFile::Journal].map(|file| directory.path().join(file.name()));
        create_file(&path, StoreFile::Main, &|txn| {
            stamp_main(txn)?;
            crate::store::redb::tables::meta::WriteMeta::write(txn)?.bind_journal(uuid::Uuid::from_u128(7))
        })
        .unwrap();
        let refused = make_ready(directory.path(), &path, &journal);
        assert!(matches!(refused, Err(OpenError::JournalMissing { .. })), "{refused:?}");
        assert!(!journal.exists());
    }

    #[test]
    fn a_lost_main_file_is_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let [path, journal] = [StoreFile::Main, StoreFile::Journal].map(|file| directory.path().join(file.name()));
        let refused = || make_ready(directory.path(), &path, &journal).unwrap_err();
        fs::write(&path, "").unwrap();
        assert!(matches!(refused(), OpenError::MainEmpty { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::remove_file(&path).unwrap();
        fs::write(&journal, "with turns").unwrap();
        assert!(matches!(refused(), OpenError::MainMissing { .. }));
        assert!(!path.exists());
        // A journal without a byte has no turns.
        fs::write(&journal, "").unwrap();
        make_ready(directory.path(), &path, &journal).unwrap();
        assert!(has_content(&path) && has_content(&journal));
    }
}

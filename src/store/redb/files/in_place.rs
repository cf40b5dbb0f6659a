//! Whether the files that a store has open are still the files that their names lead to, and as the store left them.
//!
//! A process can go on writing to a file that was removed or moved away. Everything that it writes then is gone when it
//! ends, so nothing may be acknowledged. The same holds for a file that another program has written over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::location::Location;
use super::open_error::{OpenError, failed};
use super::watch::Watch;
use crate::link;
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::tables::store_file::StoreFile;

/// The names of the open files, and which file each name led to when it was opened. Empty for files without names.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    main: Option<NamedFile>,
    journal: Option<NamedFile>,
    /// Whether the log has the latest finding: that a file is gone.
    is_told: AtomicBool,
}

#[derive(Debug)]
struct NamedFile {
    path: PathBuf,
    identity: Identity,
    /// The file and its directory, open. They are found even if the way to them can no longer be searched.
    #[cfg(unix)]
    file: fs::File,
    #[cfg(unix)]
    directory: Option<fs::File>,
    watch: Option<Arc<Watch>>,
}

/// Which of the files is not where it was opened, or was written over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Displaced {
    Main,
    Journal,
    Both,
    /// Another program has written over the main file, or has cut it short.
    OverwrittenMain,
    /// The same happened to the journal.
    OverwrittenJournal,
}

/// The numbers of the device and of the file on it. The system gives them to no other file while the file is open.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

/// Since Linux 6.13, a file whose times were asked for gets a more exact time with its next write, and the next sync has to
/// write that time too. So only the file's number is asked for: otherwise each commit would take a quarter longer.
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> io::Result<Identity> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    use rustix::io::Errno;

    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(file) => Ok((makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino)),
        // An old kernel or a container does not have the call, or the name cannot be looked up.
        Err(Errno::NOSYS | Errno::PERM) => identity_of_metadata(path),
        Err(error) => Err(error.into()),
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
use identity_of_metadata as identity;

#[cfg(unix)]
fn identity_of_metadata(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// On other systems, a file in use can neither be removed nor replaced, or only its absence can be seen.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(drop)
}

impl NamedFile {
    fn of(path: PathBuf, watch: Option<Arc<Watch>>) -> Result<Self, OpenError> {
        let unusable = |source| failed(&path, Fault::disk(source));
        let identity = identity(&path).map_err(unusable)?;
        #[cfg(unix)]
        let file = fs::File::open(&path).map_err(unusable)?;
        // Without the directory, a file whose name cannot be looked up counts as gone.
        #[cfg(unix)]
        let directory = fs::File::open(link::directory_of(&path)).ok();
        Ok(Self {
            path,
            identity,
            #[cfg(unix)]
            file,
            #[cfg(unix)]
            directory,
            watch,
        })
    }

    fn is_overwritten(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_overwritten())
    }

    /// Symbolic links are followed, so a link that leads elsewhere is noticed too.
    fn is_displaced(&self) -> bool {
        match identity(&self.path) {
            Ok(identity) => identity != self.identity,
            Err(error) => self.is_displaced_after(&error),
        }
    }

    /// Returns whether the file is gone, as far as a failed look-up of its name and the open file show.
    #[cfg(unix)]
    fn is_displaced_after(&self, error: &io::Error) -> bool {
        use std::os::unix::fs::MetadataExt;

        use rustix::io::Errno;

        let is_removed = || self.file.metadata().is_ok_and(|file| file.nlink() == 0);
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP | Errno::NAMETOOLONG) => true,
            // The file may have been moved away meanwhile, so the name must be found from its directory.
            Some(Errno::ACCESS | Errno::PERM) => is_removed() || !self.is_in_its_directory(),
            // The disk fails, or the system lacks memory or descriptors. If the disk fails, writes fail.
            _ => is_removed(),
        }
    }

    #[cfg(not(unix))]
    fn is_displaced_after(&self, error: &io::Error) -> bool {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle
        )
    }

    /// Returns whether the file has its name in the directory in which it was opened, and the directory was not removed.
    #[cfg(unix)]
    fn is_in_its_directory(&self) -> bool {
        let (Some(directory), Some(name)) = (&self.directory, self.path.file_name()) else { return false };
        // In a directory that cannot be searched itself, nothing can be verified.
        rustix::fs::statat(directory, name, rustix::fs::AtFlags::empty())
            .is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity)
    }
}

impl InPlace {
    /// Notes which files the names lead to. Call this right after both files were opened. The watches are those of the main
    /// file and of the journal.
    pub(super) fn of(location: &Location, [main, journal]: [Option<Arc<Watch>>; 2]) -> Result<Self, OpenError> {
        if !matches!(location, Location::Directory(_)) {
            return Ok(Self::default());
        }
        let named = |file, watch| NamedFile::of(location.path(file), watch).map(Some);
        let (main, journal) = (named(StoreFile::Main, main)?, named(StoreFile::Journal, journal)?);
        Ok(Self { main, journal, is_told: AtomicBool::new(false) })
    }

    /// Asks the system which files the names lead to now, and looks at the headers of the files. This takes some
    /// microseconds.
    pub(crate) fn displaced(&self) -> Option<Displaced> {
        let overwritten = self.overwritten();
        if overwritten == Some(Displaced::OverwrittenMain) {
            return overwritten;
        }
        let is_displaced = |file: &Option<NamedFile>| file.as_ref().is_some_and(NamedFile::is_displaced);
        match (is_displaced(&self.main), is_displaced(&self.journal)) {
            (false, false) => overwritten,
            (true, false) => Some(Displaced::Main),
            (false, true) => Some(Displaced::Journal),
            (true, true) => Some(Displaced::Both),
        }
    }

    /// Returns which of the files another program has written over. The files must not be closed then: what the journal
    /// had may be in memory only.
    pub(crate) fn overwritten(&self) -> Option<Displaced> {
        let is_overwritten = |file: &Option<NamedFile>| file.as_ref().is_some_and(NamedFile::is_overwritten);
        if is_overwritten(&self.main) {
            return Some(Displaced::OverwrittenMain);
        }
        is_overwritten(&self.journal).then_some(Displaced::OverwrittenJournal)
    }

    /// Like [`InPlace::displaced`], as a fault. Logs when a file is gone or back.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let displaced = self.displaced();
        if self.is_told.swap(displaced.is_some(), Ordering::Relaxed) != displaced.is_some() {
            if let Some(displaced) = displaced {
                tracing::error!(cause = %displaced.fault(), "nothing is acknowledged any more");
            } else {
                tracing::info!("the files of the store are in place again");
            }
        }
        displaced.map_or(Ok(()), |displaced| Err(displaced.fault()))
    }
}

impl Displaced {
    fn fault(self) -> Fault {
        Fault::new(
            FaultKind::Database,
            match self {
                Self::Main => {
                    "the database file turn-metrics.redb was removed, moved or replaced while the server has it open; move \
                 it back; if it is lost, save its contents with `turn-metrics backup` before you stop the server"
                }
                Self::Journal => {
                    "the file turn-metrics.journal.redb was removed, moved or replaced while the server has it open; move \
                 it back; or stop the server with SIGTERM, which saves everything in turn-metrics.redb, move away what is \
                 in the place of the journal, and start the server again"
                }
                Self::Both => {
                    "the data directory or both files in it were removed, moved or replaced while the server has them \
                 open; move them back; if they are lost, make the directory again and save their contents with \
                 `turn-metrics backup` before you stop the server"
                }
                Self::OverwrittenMain => {
                    "another program has written over the database file turn-metrics.redb, or has cut it short, while the \
                 server has it open; before you stop the server, try `turn-metrics backup`, which refuses what it cannot \
                 verify; then keep copies of both files, and restore that or an earlier backup; if there is none, \
                 `turn-metrics check --repair` saves what is left"
                }
                Self::OverwrittenJournal => {
                    "another program has written over the file turn-metrics.journal.redb, or has cut it short, while the \
                 server has it open; stop the server with SIGTERM, which saves everything in turn-metrics.redb, move the \
                 journal away, and start the server again"
                }
            },
        )
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Returns a directory `data` with the files of an open store, and these files.
    fn opened() -> (tempfile::TempDir, PathBuf, InPlace) {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let location = Location::Directory(data.clone());
        for file in [StoreFile::Main, StoreFile::Journal] {
            fs::write(location.path(file), "x").unwrap();
        }
        let in_place = InPlace::of(&location, [None, None]).unwrap();
        assert_eq!(in_place.displaced(), None);
        (directory, data, in_place)
    }

    #[test]
    fn a_file_that_was_moved_or_replaced_is_named_until_it_is_back() {
        for (file, displaced) in [(StoreFile::Main, Displaced::Main), (StoreFile::Journal, Displaced::Journal)] {
            let (directory, data, in_place) = opened();
            let (path, away) = (data.join(file.name()), directory.path().join("away"));
            fs::rename(&path, &away).unwrap();
            assert_eq!(in_place.displaced(), Some(displaced));
            assert!(in_place.check().unwrap_err().to_string().contains(file.name()));
            fs::copy(&away, &path).unwrap();
            assert_eq!(in_place.displaced(), Some(displaced), "a copy has the place of the file");
            fs::rename(&away, &path).unwrap();
            assert_eq!(in_place.check(), Ok(()));
        }
    }

    #[test]
    fn another_directory_in_the_place_of_the_files_is_noticed_even_behind_a_link() {
        let (directory, data, in_place) = opened();
        let away = directory.path().join("away");
        fs::rename(&data, &away).unwrap();
        assert_eq!(in_place.displaced(), Some(Displaced::Both));
        fs::write(&data, "a file in the place of the directory").unwrap();
        assert_eq!(in_place.displaced(), Some(Displaced::Both));
        fs::remove_file(&data).unwrap();
        symlink(&away, &data).unwrap();
        assert_eq!(in_place.displaced(), None, "the link leads to the same files");
        let copy = directory.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for file in [StoreFile::Main, StoreFile::Journal] {
            fs::copy(away.join(file.name()), copy.join(file.name())).unwrap();
        }
        fs::remove_file(&data).unwrap();
        symlink(&copy, &data).unwrap();
        assert_eq!(in_place.displaced(), Some(Displaced::Both));
    }

    #[test]
    fn a_name_that_can_no_longer_be_looked_up_leads_to_no_file() {
        let (directory, data, _) = opened();
        let linked = directory.path().join("linked");
        symlink(&data, &linked).unwrap();
        let in_place = InPlace::of(&Location::Directory(linked.clone()), [None, None]).unwrap();
        fs::remove_file(&linked).unwrap();
        symlink(&linked, &linked).unwrap();
        assert_eq!(in_place.displaced(), Some(Displaced::Both), "a link that leads to itself");
        fs::remove_file(&linked).unwrap();
        symlink(&data, &linked).unwrap();
        assert_eq!(in_place.displaced(), None);
    }

    #[test]
    fn a_file_behind_a_directory_that_cannot_be_searched_is_there_only_if_that_can_be_seen() {
        // The super-user can search every directory, so the errors are made up.
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        let (forbidden, failing) = (error(rustix::io::Errno::ACCESS), error(rustix::io::Errno::IO));
        let (directory, data, in_place) = opened();
        let main = in_place.main.as_ref().unwrap();
        let is_displaced = || [&forbidden, &failing].map(|error| main.is_displaced_after(error));
        assert_eq!(is_displaced(), [false, false], "its directory still has it");
        let (path, away) = (data.join(StoreFile::Main.name()), directory.path().join("away"));
        fs::rename(&path, &away).unwrap();
        assert_eq!(is_displaced(), [true, false], "it was moved away, which a failing disk does not show");
        fs::copy(&away, &path).unwrap();
        assert_eq!(is_displaced(), [true, false], "another file has its name");
        fs::remove_file(&away).unwrap();
        assert_eq!(is_displaced(), [true, true], "the open file has no name any more");
    }

    #[test]
    fn files_without_names_are_always_in_place() {
        assert_eq!(InPlace::of(&Location::Memory, [None, None]).unwrap().check(), Ok(()));
    }
}

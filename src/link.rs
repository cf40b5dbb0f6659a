//! Symbolic links on the path to a file or a directory.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::private_file;

/// The maximum number of links to follow: the limit of Linux.
const MAX_LINKS: usize = 40;

/// The reason why a directory cannot be created or found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    #[error("{} is a symbolic link to {}, which does not exist", link.display(), target.display())]
    Dangling { link: PathBuf, target: PathBuf },
    #[error("{} is a symbolic link that leads back to itself", .0.display())]
    Circular(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NoDirectory(PathBuf),
}

/// Returns the path to which the symbolic links at the end of `path` lead, or `path` itself if it is no link. The
/// target need not exist.
///
/// To replace a file, create the new one beside the target and rename it to the target. Renaming it to the link would
/// replace the link and leave the old file where it is.
pub(crate) fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::symlink_metadata(&target) {
            Ok(file) if file.is_symlink() => {
                let link = fs::read_link(&target)?;
                // A relative link starts at the directory that contains the link.
                target = target.parent().unwrap_or(Path::new("")).join(link);
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(target),
        }
    }
    Err(io::Error::other(Obstacle::Circular(path.to_owned())))
}

/// Returns the directory of a file in a form that the system can open: `.` if the path has no directory.
pub(crate) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// Returns the path of a file beside this one, with a suffix appended to the name.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(suffix);
    name.into()
}

/// Creates a directory and its missing parents. If something else is in their place, the error names it.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    private_file::create_directory(path).map_err(|error| match obstacle(path) {
        Some(obstacle) => io::Error::new(error.kind(), obstacle),
        None => error,
    })
}

/// Finds what is in the place of a directory. The system's error only says that a file exists, or that none does.
pub(crate) fn obstacle(path: &Path) -> Option<Obstacle> {
    let nearest = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok())?;
    match fs::metadata(nearest) {
        Ok(file) => (!file.is_dir()).then(|| Obstacle::NoDirectory(nearest.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let target = target(nearest).ok()?;
            Some(Obstacle::Dangling { link: nearest.to_owned(), target })
        }
        // The link exists, but its target cannot be reached.
        Err(_) => target(nearest).is_err().then(|| Obstacle::Circular(nearest.to_owned())),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_their_end_even_if_the_target_does_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("far")).unwrap();
        fs::write(at("far/file"), "").unwrap();
        symlink("far/file", at("relative")).unwrap();
        symlink(at("relative"), at("twice")).unwrap();
        symlink("../nothing", at("far/dangling")).unwrap();
        symlink("far/dangling", at("dangling")).unwrap();
        for (name, end) in [
            ("far/file", "far/file"),
            ("nothing", "nothing"),
            ("nowhere/nothing", "nowhere/nothing"),
            ("relative", "far/file"),
            ("twice", "far/file"),
            ("dangling", "far/../nothing"),
        ] {
            assert_eq!(target(&at(name)).unwrap(), at(end), "{name}");
        }
    }

    #[test]
    fn circular_links_are_reported() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        symlink(&a, &b).unwrap();
        symlink(&b, &a).unwrap();
        assert_eq!(target(&a).unwrap_err().to_string(), Obstacle::Circular(a.clone()).to_string());
        assert_eq!(obstacle(&a.join("x")), Some(Obstacle::Circular(a)));
    }

    #[test]
    fn the_error_names_what_is_in_the_place_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("file", at("to_file")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        for (name, told) in [
            ("file", Obstacle::NoDirectory(at("file"))),
            ("file/x/y", Obstacle::NoDirectory(at("file"))),
            ("to_file", Obstacle::NoDirectory(at("to_file"))),
            ("dangling", Obstacle::Dangling { link: at("dangling"), target: at("nothing") }),
            ("dangling/x/y", Obstacle::Dangling { link: at("dangling"), target: at("nothing") }),
        ] {
            assert_eq!(create_directory(&at(name)).unwrap_err().to_string(), told.to_string(), "{name}");
        }
        fs::create_dir(at("far")).unwrap();
        symlink("far", at("near")).unwrap();
        create_directory(&at("near/x/y")).unwrap();
        create_directory(&at("near")).unwrap();
        assert!(at("far/x/y").is_dir());
    }

    #[test]
    fn the_directory_of_a_bare_file_name_is_the_current_one() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/file")), Path::new("a"));
        assert_eq!(beside(Path::new("a/file.redb"), ".new"), Path::new("a/file.redb.new"));
    }
}

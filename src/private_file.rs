//! Creates files and directories that only their owner may read, because their contents are private.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::Path;

/// Returns options to open a file. If the file is created, only its owner may read and write it. An existing file keeps
/// its permissions.
pub(crate) fn options() -> OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        let mut options = OpenOptions::new();
        options.mode(0o600);
        options
    }
    #[cfg(not(unix))]
    OpenOptions::new()
}

/// Creates a directory and its missing parents. Only their owner may use the created ones.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;

        builder.mode(0o700);
    }
    builder.recursive(true).create(path)
}

/// Creates a directory for temporary files, whose name begins with `prefix`. Only its owner may use it. Dropping the value
/// removes the directory.
#[cfg(feature = "server")]
pub(crate) fn temporary_directory(prefix: &str) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        builder.permissions(std::fs::Permissions::from_mode(0o700));
    }
    builder.tempdir()
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn created_files_are_private_and_existing_files_keep_their_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        create_directory(&at("a/b")).unwrap();
        options().write(true).create(true).open(at("a/file")).unwrap();
        assert_eq!([mode("a"), mode("a/b"), mode("a/file")], [0o700, 0o700, 0o600]);
        for (name, shared) in [("a", 0o755), ("a/file", 0o644)] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(shared)).unwrap();
        }
        create_directory(&at("a")).unwrap();
        options().write(true).create(true).open(at("a/file")).unwrap();
        assert_eq!([mode("a"), mode("a/file")], [0o755, 0o644]);
    }
}

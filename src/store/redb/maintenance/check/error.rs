use std::io;
use std::path::PathBuf;

use super::report::CheckReport;
use crate::store::fault::Fault;
use crate::store::redb::files::open_error::OpenError;

/// Why a file could not be checked or repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The file cannot be opened: it is missing, in use, of another program or of another format.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file is missing.
    #[error("there is no database {path}")]
    Missing {
        /// The path where the file would be.
        path: PathBuf,
    },
    /// The file is empty.
    #[error("there is no database in {path}: the file is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The copy of the damaged files could not be made before the repair. Nothing was changed.
    #[error("the damaged files were not repaired, and are as before: no copy of them can be kept at {path}: {source}")]
    Copy {
        /// The path of the copy.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
        /// The report of the check before the repair.
        before: Box<CheckReport>,
    },
    /// The damaged files cannot be repaired: they do not belong together, or the disk is full. Nothing was changed.
    #[error("the damaged files were not repaired, and are as before: {cause}")]
    NotRepaired {
        /// Why they cannot be repaired.
        cause: OpenError,
        /// The report of the check before the repair.
        before: Box<CheckReport>,
    },
    /// The repair failed, though it succeeded in memory before: the disk failed, or another process took the file. The
    /// file may have changed. The copy has the file as it was before.
    #[error(
        "the repair failed: {}; the file as it was is kept as {copy}, and so is its journal, if it had one",
        .cause.in_full()
    )]
    Repair {
        /// What went wrong.
        cause: Fault,
        /// The path of the copy.
        copy: PathBuf,
        /// The report of the check before the repair.
        before: Box<CheckReport>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_that_failed_is_told_with_its_cause_and_the_copy() {
        let cause = Fault::disk(io::Error::other("cannot write /srv/x"));
        let error = CheckError::Repair { cause, copy: "/srv/copy".into(), before: Box::default() };
        assert_eq!(
            error.to_string(),
            "the repair failed: cannot write /srv/x; the file as it was is kept as /srv/copy, and so is its journal, if it \
             had one"
        );
    }
}

use std::io;

use redb::{StorageError, TableError};

use super::record::damaged::DamagedRecord;
use crate::store::fault::{Fault, FaultKind};

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Transaction(#[from] redb::TransactionError),
    #[error(transparent)]
    Commit(#[from] redb::CommitError),
    #[error(transparent)]
    Durability(#[from] redb::SetDurabilityError),
    #[error(transparent)]
    Database(#[from] redb::DatabaseError),
    #[error(transparent)]
    Compaction(#[from] redb::CompactionError),
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    /// The value of this name in the table `meta` is missing or damaged.
    #[error("the store's own record `{0}` is missing or damaged")]
    Meta(&'static str),
}

impl Failure {
    /// Returns whether the failure is an I/O error. After one, redb fails every call until the database is opened
    /// again.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        matches!(self.storage(), Some(StorageError::Io(_) | StorageError::PreviousIo))
    }

    /// Returns whether this call met an I/O error itself. An opened database has one such error at most: all later calls
    /// fail because of it.
    pub(crate) fn is_first_of_the_disk(&self) -> bool {
        matches!(self.storage(), Some(StorageError::Io(_))) && !self.is_damage()
    }

    /// Returns whether the failure says nothing about the contents of the file: the disk failed, or the database was
    /// closed meanwhile, perhaps after a panic. The same call may succeed once the database is open again.
    pub(crate) fn may_pass(&self) -> bool {
        let passing = matches!(
            self.storage(),
            Some(StorageError::DatabaseClosed | StorageError::LockPoisoned(_) | StorageError::Backend(_))
        );
        passing || self.is_of_the_disk() && !self.is_damage()
    }

    /// Returns whether a page of the file is damaged. A file of the present format has all tables, each of the right
    /// type, so if one is not as expected, the page that lists the tables is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        match (self, self.storage()) {
            (_, Some(error)) => is_damage(error),
            (Self::Table(error), None) => !matches!(error, TableError::TableAlreadyOpen(..)),
            _ => false,
        }
    }

    fn storage(&self) -> Option<&StorageError> {
        match self {
            Self::Storage(error)
            | Self::Table(TableError::Storage(error))
            | Self::Transaction(redb::TransactionError::Storage(error))
            | Self::Commit(redb::CommitError::Storage(error))
            | Self::Database(redb::DatabaseError::Storage(error))
            | Self::Compaction(redb::CompactionError::Storage(error)) => Some(error),
            _ => None,
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let fault = match (&failure, failure.storage()) {
            (_, Some(error)) => of_storage(error),
            (Failure::Record(damaged), _) => damaged.fault(),
            (Failure::Meta(name), _) => {
                Self::new(FaultKind::Damaged, "a record of the store's own is missing or damaged").about(name)
            }
            _ if failure.is_damage() => Self::new(FaultKind::Damaged, "the database is damaged"),
            _ => Self::new(FaultKind::Database, "the database failed"),
        };
        fault.caused_by(failure)
    }
}

/// Returns whether the error comes from damage. An address beyond the end of the file is in a damaged page.
pub(crate) fn is_damage(error: &StorageError) -> bool {
    match error {
        StorageError::Corrupted(_) => true,
        StorageError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

fn of_storage(error: &StorageError) -> Fault {
    let (kind, what) = match error {
        error if is_damage(error) => (FaultKind::Damaged, "the database is damaged"),
        StorageError::Io(error) => return Fault::new(FaultKind::Disk, "the disk failed").of_io(error),
        StorageError::PreviousIo => (FaultKind::Disk, "the disk failed earlier"),
        StorageError::ValueTooLarge(_) => (FaultKind::Database, "a value is too large for the database"),
        StorageError::DatabaseClosed => (FaultKind::Database, "the database was closed meanwhile"),
        StorageError::LockPoisoned(_) => (FaultKind::Panicked, "the database's code panicked"),
        _ => (FaultKind::Database, "the database failed"),
    };
    Fault::new(kind, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::tables::record::damaged::RecordFlaw;

    #[test]
    fn the_displayed_text_of_a_database_error_has_no_path_and_the_log_has_all() {
        let secret = || "/var/lib/secret/x y".to_owned();
        let at = std::panic::Location::caller();
        let storage = |error| Failure::Storage(error);
        for (failure, kind, told) in [
            (storage(StorageError::Io(io::Error::other(secret()))), FaultKind::Disk, "the disk failed"),
            (
                storage(StorageError::Io(io::Error::from_raw_os_error(30))),
                FaultKind::Disk,
                "the disk failed: Read-only file system (os error 30)",
            ),
            (
                storage(StorageError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, secret()))),
                FaultKind::Damaged,
                "the database is damaged",
            ),
            (storage(StorageError::PreviousIo), FaultKind::Disk, "the disk failed earlier"),
            (storage(StorageError::Corrupted(secret())), FaultKind::Damaged, "the database is damaged"),
            (storage(StorageError::ValueTooLarge(1)), FaultKind::Database, "a value is too large for the database"),
            (storage(StorageError::DatabaseClosed), FaultKind::Database, "the database was closed meanwhile"),
            (storage(StorageError::LockPoisoned(at)), FaultKind::Panicked, "the database's code panicked"),
            (storage(StorageError::Backend(secret().into())), FaultKind::Database, "the database failed"),
            (
                TableError::Storage(StorageError::Corrupted(secret())).into(),
                FaultKind::Damaged,
                "the database is damaged",
            ),
            (TableError::TableDoesNotExist(secret()).into(), FaultKind::Damaged, "the database is damaged"),
            (redb::DatabaseError::DatabaseAlreadyOpen.into(), FaultKind::Database, "the database failed"),
            (
                DamagedRecord::new("turn", RecordFlaw::Checksum).into(),
                FaultKind::Damaged,
                "a stored record cannot be read: turn",
            ),
            (
                Failure::Meta("checkpoint"),
                FaultKind::Damaged,
                "a record of the store's own is missing or damaged: checkpoint",
            ),
        ] {
            let (said, may_pass) = (failure.to_string(), failure.may_pass());
            let fault = Fault::from(failure);
            assert_eq!((fault.kind(), &*fault.to_string()), (kind, told), "{said}");
            assert_eq!(fault.in_full(), said);
            let passing = ["the disk failed", "the database was closed", "the database's code panicked"];
            let is_of_a_backend = said.contains("secret") && kind == FaultKind::Database;
            assert_eq!(may_pass, passing.iter().any(|told_so| told.starts_with(told_so)) || is_of_a_backend, "{said}");
        }
    }
}

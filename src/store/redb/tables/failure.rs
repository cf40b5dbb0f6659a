use redb::{StorageError, TableError};

use super::record::damaged::DamagedRecord;

/// Why a transaction did not go through.
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
    #[error("the store's own record `{0}` is missing or damaged")]
    Meta(&'static str),
}

impl Failure {
    /// Whether the database has had an error of the disk. It answers every later question with that until it is opened
    /// again.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        let (Self::Storage(error)
        | Self::Table(TableError::Storage(error))
        | Self::Transaction(redb::TransactionError::Storage(error))
        | Self::Commit(redb::CommitError::Storage(error))) = self
        else {
            return false;
        };
        matches!(error, StorageError::Io(_) | StorageError::PreviousIo)
    }
}

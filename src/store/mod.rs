//! The store: what it is asked and answers, and the redb engine that keeps it.

mod contract;
mod redb;

pub use self::contract::{
    Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleBefore, StaleTurn,
    StoreSizes, TurnOutcome, TurnRange, Version,
};
pub use self::redb::files::location::Location;
pub use self::redb::files::open_error::OpenError;
#[cfg(any(test, feature = "testing"))]
pub use self::redb::files::storage::Storage;
pub use self::redb::maintenance::backup::BackupError;
pub use self::redb::maintenance::check::error::CheckError;
pub use self::redb::maintenance::check::report::{CheckReport, Violation};
pub use self::redb::maintenance::check::{check, repair};
pub use self::redb::maintenance::compact::{CompactError, Compaction, compact};
pub use self::redb::tables::store_file::StoreFile;

pub(crate) use self::redb::engine::RedbEngine;
pub(crate) use self::redb::writer::state::WriterState;

//! The store: what it is asked and answers, and the redb engine that keeps it.

mod append;
mod backup;
mod check;
mod checkpoint;
mod commit;
mod compact;
mod engine;
mod entry;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
mod image;
mod index;
mod intake;
mod job;
mod location;
#[cfg(test)]
mod model_tests;
mod overlay;
#[cfg(test)]
mod overload_tests;
mod pace;
mod read;
mod record;
mod replay;
mod schema;
mod slot;
#[cfg(any(test, feature = "testing"))]
mod storage;
mod tables;
#[cfg(test)]
mod tests;
mod unwind;
mod write;
mod writer;

pub use backup::BackupError;
pub use check::{CheckError, CheckReport, Violation, check, repair};
pub use commit::{
    Backup, Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleBefore, StaleTurn,
    StoreSizes, TurnOutcome, TurnRange, Version,
};

pub use compact::{CompactError, Compaction, compact};
pub use location::{Location, OpenError};
pub use schema::StoreFile;
#[cfg(any(test, feature = "testing"))]
pub use storage::Storage;

pub(crate) use engine::Engine;
pub(crate) use writer::WriterState;

//! The store: what it is asked and answers, and the redb engine that keeps it.

mod backup;
mod check;
mod commit;
mod engine;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
mod location;
#[cfg(test)]
mod model_tests;
mod overlay;
mod read;
mod record;
mod schema;
mod slot;
#[cfg(any(test, feature = "testing"))]
mod storage;
#[cfg(test)]
mod tests;
mod unwind;
mod write;
mod writer;

pub use backup::BackupError;
pub use check::{CheckError, CheckReport, Violation, check, repair};
pub use commit::{
    Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleTurn, TurnOutcome,
    TurnRange, Version,
};

pub use location::{Location, OpenError};
#[cfg(any(test, feature = "testing"))]
pub use storage::Storage;

pub(crate) use engine::Engine;
pub(crate) use writer::WriterState;

//! The store: what it is asked and answers, and the redb engine that keeps it.

mod commit;
mod engine;
#[cfg(test)]
mod faults;
mod location;
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

pub use commit::{
    Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleTurn, TurnOutcome,
    TurnRange, Version,
};

pub use location::{Location, OpenError};
#[cfg(any(test, feature = "testing"))]
pub use storage::Storage;

pub(crate) use engine::Engine;
pub(crate) use writer::WriterState;

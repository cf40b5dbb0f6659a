//! The store: what it is asked and answers, and the redb engine that keeps it.

mod commit;
mod engine;
mod location;
mod read;
mod record;
mod schema;
mod slot;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use commit::{
    Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleTurn, TurnOutcome,
    TurnRange, Version,
};

pub use location::{Location, OpenError};

pub(crate) use engine::Engine;
pub(crate) use writer::WriterState;

//! The store: what it is asked and answers, and the redb engine that keeps it.

mod commit;

pub use commit::{
    Commit, CommitError, Committed, ConversationState, ReadError, Revision, StagedTurn, StaleTurn, TurnOutcome,
    TurnRange, Version,
};

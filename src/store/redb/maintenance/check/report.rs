use super::flaw::Flaw;
use crate::store::redb::files::replay::RowFlaw;

/// A violation of the rules of the file. Displays as one line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The file as a database is damaged.
    #[error("the file: {0}")]
    File(Flaw),
    /// A row of the journal.
    #[error("row {row} of the journal: {flaw}")]
    Journal {
        /// Its number.
        row: u64,
        /// What is wrong.
        flaw: RowFlaw,
    },
    /// A conversation's own record, or its key.
    #[error("conversation {conversation}: {flaw}")]
    Conversation {
        /// Its id, or `#` and its key where that is all there is.
        conversation: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A sealed turn.
    #[error("turn {ordinal} of conversation {conversation}: {flaw}")]
    Turn {
        /// Its conversation.
        conversation: String,
        /// Its place.
        ordinal: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The index from turn ids to ordinals, which knows of an id only its hash.
    #[error("the index of conversation {conversation} at {hash:016x}: {flaw}")]
    Index {
        /// The conversation.
        conversation: String,
        /// Where in the index.
        hash: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// An open turn.
    #[error("open turn {turn_id} of conversation {conversation}: {flaw}")]
    OpenTurn {
        /// Its conversation.
        conversation: String,
        /// The turn.
        turn_id: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// Sums of reports.
    #[error("the sums of reports, {rows}: {flaw}")]
    Sums {
        /// Which of them.
        rows: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The order of all turns.
    #[error("position {position}: {flaw}")]
    Position {
        /// The place in it.
        position: u64,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckReport {
    /// All that is wrong.
    pub violations: Vec<Violation>,
    /// How many conversations there are.
    pub conversations: u64,
    /// How many sealed turns there are.
    pub sealed_turns: u64,
    /// How many open turns there are.
    pub open_turns: u64,
    /// How many turns earlier repairs moved aside or noted as missing.
    pub lost_turns: u64,
}

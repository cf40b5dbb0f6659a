use super::flaw::Flaw;
use super::loss::Loss;
use crate::store::redb::files::replay::RowFlaw;

/// A broken invariant of the files, with its place. Displays as one line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The file as a whole is damaged.
    #[error("the file: {0}")]
    File(Flaw),
    /// A row of the journal.
    #[error("row {row} of the journal: {flaw}")]
    Journal {
        /// The number of the row.
        row: u64,
        /// What is wrong.
        flaw: RowFlaw,
    },
    /// A conversation's own record, or its key.
    #[error("conversation {conversation}: {flaw}")]
    Conversation {
        /// The id of the conversation, or `#` and its key if the id is unknown.
        conversation: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A sealed turn.
    #[error("turn {ordinal} of conversation {conversation}: {flaw}")]
    Turn {
        /// The conversation of the turn.
        conversation: String,
        /// The ordinal of the turn.
        ordinal: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The index from hashes of turn ids to ordinals.
    #[error("the index of conversation {conversation} at {hash:016x}: {flaw}")]
    Index {
        /// The conversation.
        conversation: String,
        /// The hash in the key of the row.
        hash: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// An open turn.
    #[error("open turn {turn_id} of conversation {conversation}: {flaw}")]
    OpenTurn {
        /// The conversation of the turn.
        conversation: String,
        /// The turn.
        turn_id: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// Sums of reports.
    #[error("the sums of reports, {rows}: {flaw}")]
    Sums {
        /// A text that names the rows.
        rows: String,
        /// What is wrong.
        flaw: Flaw,
    },
    /// What a scrub of the running store found. A repair mends the damage, if it is still there, and removes the
    /// finding.
    #[error("a scrub found {finding}")]
    Found {
        /// The finding.
        finding: String,
    },
    /// The order of all turns.
    #[error("position {position}: {flaw}")]
    Position {
        /// The position.
        position: u64,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckReport {
    /// All violations that were found.
    pub violations: Vec<Violation>,
    /// The number of conversations.
    pub conversations: u64,
    /// The number of sealed turns.
    pub sealed_turns: u64,
    /// The number of open turns.
    pub open_turns: u64,
    /// After a repair: what it could not bring back.
    pub losses: Vec<Loss>,
    /// The number of turns that earlier repairs moved aside or noted as missing.
    pub lost_turns: u64,
}

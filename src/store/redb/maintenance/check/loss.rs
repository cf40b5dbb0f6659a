use crate::store::redb::files::replay::RowFlaw;

/// Something that a repair could not bring back. Displays as one line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Sealed turns. Their ordinals are not given again.
    #[error("{} of conversation {conversation}", range("turn", *first, *last))]
    Turns {
        /// The id of the conversation, or `#` and its key if the id is lost too.
        conversation: String,
        /// The ordinal of the first of them.
        first: u64,
        /// The ordinal of the last of them.
        last: u64,
    },
    /// The name of a conversation. It led to the turns of another conversation, so the turns of the two cannot be told apart.
    #[error("the name of conversation {conversation}, which led to the turns of conversation {of}")]
    Name {
        /// The id of the conversation that is gone.
        conversation: String,
        /// The conversation that has the turns.
        of: String,
    },
    /// An open turn. It begins anew with its next event.
    #[error("open turn {turn_id} of conversation {conversation}")]
    OpenTurn {
        /// The id of the conversation, or `#` and its key if the id is lost too.
        conversation: String,
        /// The turn.
        turn_id: String,
    },
    /// The latest events of an open turn, if it had any that are missing. The open turn was found in a page that may be
    /// of an earlier time.
    #[error("open turn {turn_id} of conversation {conversation}: it is kept, and its latest events may be lost")]
    LatestEvents {
        /// The conversation of the turn.
        conversation: String,
        /// The turn.
        turn_id: String,
    },
    /// Open turns without a name: pages that had heads of open turns, or the keys of such rows, may be damaged.
    #[error("open turns whose heads were damaged, if there were others than those that are kept or named")]
    UnknownOpenTurns,
    /// Sealed turns without a name: pages of each table that names a turn are damaged.
    #[error("turns that no row names any more, if there were any")]
    UnknownTurns,
    /// Notes that turns were dropped because of their age. They were in a damaged page. Without its note, a dropped turn is
    /// named as lost or comes back, and reports may then count it twice.
    #[error(
        "notes of turns dropped because of their age, if there were any: such turns may be named as lost, or be back and \
         counted twice by reports"
    )]
    NotesOfDroppedTurns,
    /// Sums of turns that were erased or dropped, which reports include. They were in a damaged page.
    #[error(
        "sums of turns that were erased, or dropped because of their age, if any were in damaged pages: reports may lack \
         such turns"
    )]
    SumsOfErasedTurns,
    /// Notes of sums that were imported. They were in a damaged page. Without its note, a line with sums adds them again if it
    /// is imported again.
    #[error("notes of imported sums, if there were any: importing the same lines again adds their sums again")]
    NotesOfImportedSums,
    /// Rows of the journal, with everything that was committed in them.
    #[error(
        "{} of the journal, with all their commits; conversations that are not named may have lost turns in them, and one \
         that was erased in them may be back",
        range("row", *first, *last)
    )]
    JournalRows {
        /// The number of the first of them.
        first: u64,
        /// The number of the last of them.
        last: u64,
    },
    /// The commits of a row of the journal that can be read and do not follow what was salvaged.
    #[error("commits in row {row} of the journal: {flaw}")]
    Commits {
        /// The number of the row.
        row: u64,
        /// Why the commits do not follow.
        flaw: RowFlaw,
    },
    /// The end of the journal is damaged, so it is unknown whether there were further rows.
    #[error(
        "rows of the journal after row {last}, if there were any; conversations that are not named may have lost turns in \
         them, and one that was erased in them may be back"
    )]
    JournalEnd {
        /// The number of the last row that is known.
        last: u64,
    },
}

impl Loss {
    /// Returns the loss of a row of the journal, or of commits in it, that a replay has left out.
    pub(super) fn of_row(number: u64, flaw: RowFlaw) -> Self {
        match flaw {
            RowFlaw::Missing { next } => Self::JournalRows { first: number, last: next - 1 },
            RowFlaw::Record(_) => Self::JournalRows { first: number, last: number },
            RowFlaw::NoJournal => Self::JournalEnd { last: number - 1 },
            flaw => Self::Commits { row: number, flaw },
        }
    }
}

fn range(what: &str, first: u64, last: u64) -> String {
    if first == last { format!("{what} {first}") } else { format!("{what}s {first} to {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_line_that_names_a_range() {
        let conversation = || "c".to_owned();
        for (loss, told) in [
            (Loss::Turns { conversation: conversation(), first: 3, last: 3 }, "turn 3 of conversation c"),
            (Loss::Turns { conversation: "#7".into(), first: 3, last: 9 }, "turns 3 to 9 of conversation #7"),
            (Loss::OpenTurn { conversation: conversation(), turn_id: "t".into() }, "open turn t of conversation c"),
            (
                Loss::Name { conversation: conversation(), of: "d".into() },
                "the name of conversation c, which led to the turns of conversation d",
            ),
            (
                Loss::SumsOfErasedTurns,
                "sums of turns that were erased, or dropped because of their age, if any were in damaged pages: reports may \
                 lack such turns",
            ),
            (
                Loss::JournalRows { first: 2, last: 4 },
                "rows 2 to 4 of the journal, with all their commits; conversations that are not named may have lost turns in \
                 them, and one that was erased in them may be back",
            ),
            (
                Loss::JournalEnd { last: 4 },
                "rows of the journal after row 4, if there were any; conversations that are not named may have lost turns in \
                 them, and one that was erased in them may be back",
            ),
        ] {
            assert_eq!(loss.to_string(), told);
        }
    }
}

/// Why a journal does not belong to the database beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// The journal belongs to another store.
    #[error("it names another store")]
    OtherStore,
    /// The database belongs to another journal by now.
    #[error("the database names another journal")]
    OtherJournal,
    /// The database says that it needs no journal, and the journal has rows that it lacks.
    #[error("it has the rows {first} to {last}, which the database never had")]
    NotNeeded {
        /// The first row of the journal that the database does not have.
        first: u64,
        /// The last row of the journal.
        last: u64,
    },
    /// Rows that the database does not have yet were dropped from the journal.
    #[error(
        "it begins after row {base}, and the database has everything up to row {checkpoint} only: the database is an \
         older copy"
    )]
    OlderDatabase {
        /// The last row that was dropped from the journal.
        base: u64,
        /// The last row that the database has in full.
        checkpoint: u64,
    },
    /// The database has seen rows that the journal does not have.
    #[error("it ends with row {last}, and the database has seen row {newest}: it is an older copy")]
    OlderJournal {
        /// The last row of the journal.
        last: u64,
        /// The newest row that the database has seen.
        newest: u64,
    },
    /// The two files have diverged: each knows a row of this number, but the rows differ.
    #[error("its row {0} is another than the database has seen")]
    OtherRow(u64),
}

/// One of the two files of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFile {
    /// The main file, with the tables.
    Main,
    /// The journal, to which commits append.
    Journal,
}

impl StoreFile {
    /// Returns the name of the file in the data directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "turn-metrics.redb",
            Self::Journal => "turn-metrics.journal.redb",
        }
    }
}

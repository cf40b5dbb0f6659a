/// One of the two files of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFile {
    /// The tables by conversation.
    Main,
    /// What commits append to.
    Journal,
}

impl StoreFile {
    /// Its name in the data directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "turn-metrics.redb",
            Self::Journal => "turn-metrics.journal.redb",
        }
    }
}

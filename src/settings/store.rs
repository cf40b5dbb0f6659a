use super::section::section;

section! {
    /// Sizes of the store.
    pub struct StoreSettings in "store" {
        /// Commits that wait to be written. Past it: 503, to be sent again. Commits that would wait too long are refused
        /// sooner. At least 128, as for `max_active_conversations`.
        queue_commits: usize = 20_000, work_up_to(10_000_000);

        /// Commits made durable by one fsync; fewer if they seal many turns. More are faster until their writes outweigh
        /// the fsync.
        batch_commits: usize = 1024, 1..=1_000_000;

        sections {
            /// What is of the embedded engine alone.
            redb: RedbSettings;
        }
    }
}

section! {
    /// Sizes of the embedded engine, which keeps a store in two redb files.
    pub struct RedbSettings in "store.redb" {
        /// Bytes of the database cached in memory (4 MiB): what is above the rows. The system caches its file besides.
        cache_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes that are durable in the journal and not in the tables yet, there and in memory (20 MiB): some 50,000
        /// turns. At half of it the checkpoint begins, from six tenths on commits are slowed down, and at all of it they
        /// may be refused. With more, the checkpoint moves more turns of a conversation at once, and a start after a crash
        /// takes longer.
        journal_bytes: usize = 20 * 1024 * 1024, BYTES;

        /// Bytes of the disk that a backup leaves free for commits (256 MiB). It is refused if the copy, which is built
        /// beside the database, might leave less.
        backup_reserve_bytes: usize = 256 * 1024 * 1024, BYTES;
    }
}

#[cfg(test)]
impl StoreSettings {
    /// The defaults, with another size of the journal.
    pub(crate) fn with_journal_bytes(journal_bytes: usize) -> Self {
        Self { redb: RedbSettings { journal_bytes, ..RedbSettings::default() }, ..Self::default() }
    }

    /// The defaults without a cache, so that every read goes to the file.
    pub(crate) fn without_cache() -> Self {
        Self { redb: RedbSettings { cache_bytes: 0, ..RedbSettings::default() }, ..Self::default() }
    }
}

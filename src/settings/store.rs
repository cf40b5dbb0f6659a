use super::section::section;

section! {
    /// Sizes of the store.
    pub struct StoreSettings in "store" {
        /// Commits that wait to be written. Beyond it requests get 503 and should be sent again. Commits that would
        /// wait too long are refused sooner. At least 128, as for `max_active_conversations`.
        queue_commits: usize = 20_000, work_up_to(10_000_000);

        /// Commits made durable by one fsync; fewer if they seal many turns. A larger batch is faster until its writes
        /// take longer than the fsync.
        batch_commits: usize = 1024, 1..=1_000_000;

        /// Bytes of one commit (16 MiB), which is what events change at once in one conversation. A turn
        /// in it counts at most 256 bytes, each of its steps likewise, and their texts count too. Beyond it the answer is 422, because sending the
        /// same again would not help. The defaults leave room for all that one commit can become.
        max_commit_bytes: usize = 16 * 1024 * 1024, 4 * 1024 * 1024..=1 << 30;

        sections {
            /// The settings of the embedded engine alone.
            redb: RedbSettings;
        }
    }
}

section! {
    /// Sizes of the embedded engine, which keeps a store in two redb files.
    pub struct RedbSettings in "store.redb" {
        /// Bytes of the database cached in memory (4 MiB), meant for the inner pages of its trees. The operating system
        /// caches the file as well.
        cache_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes in the journal that are not in the tables yet (20 MiB), some 50,000 turns; as many are held in memory.
        /// At half of it the checkpoint begins, from six tenths on commits are slowed down, and at the limit they may
        /// be refused. With a higher limit, the checkpoint moves more turns of a conversation at once, and a start
        /// after a crash takes longer.
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

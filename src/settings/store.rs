use std::time::Duration;

use super::section::section;

section! {
    /// Sizes of the store.
    pub struct StoreSettings in "store" {
        /// Commits that wait to be written. Requests beyond this get 503 and should be sent again. Commits that would
        /// wait too long are refused sooner. At least 128, as for `max_active_conversations`.
        queue_commits: usize = 20_000, work_up_to(10_000_000);

        /// Commits made durable by one fsync; fewer if they seal many turns. A larger batch is faster until its writes
        /// take longer than the fsync.
        batch_commits: usize = 1024, 1..=1_000_000;

        /// Bytes of one commit (16 MiB): the changes that events make to one conversation at once. A turn in a commit
        /// counts its texts and at most 256 bytes, and so does each of its steps. For a larger commit the answer is
        /// 422, because sending the same events again would not help. With the defaults, all open turns of a
        /// conversation fit into one commit.
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
        /// Bytes of the database cached in memory (8 MiB). The cache is meant for the inner pages of the database's
        /// trees, and for the pages that the checkpoint is changing, which take up to half of it. The operating system
        /// caches the file as well.
        cache_bytes: usize = 8 * 1024 * 1024, BYTES;

        /// Bytes in the journal that are not in the tables yet (20 MiB), some 50,000 turns. The same changes are held
        /// in memory too, where they take up to about as many bytes. At half of this size the checkpoint begins. From
        /// six tenths on, commits are slowed down, and at the full size they may be refused. With a larger size, the
        /// checkpoint moves more turns of a conversation at once, and a start after a crash takes longer.
        journal_bytes: usize = 20 * 1024 * 1024, BYTES;

        /// Bytes on the disk that a backup must leave free for commits (256 MiB). The copy is built beside the
        /// database, and the backup is refused if the copy might leave less.
        backup_reserve_bytes: usize = 256 * 1024 * 1024, BYTES;

        /// Bytes of rows that the scrub reads in a second (1 MiB); 0 turns it off. The scrub reads all rows of the
        /// store again and again, and compares turns with the index, the lists and the positions that lead to them. So
        /// it finds damage that no read has met yet. It does not compare the sums of reports with the turns, as
        /// `turn-metrics check` does. A pass over 1 GiB takes 17 minutes, and the next pass begins an hour later.
        scrub_bytes_per_second: usize = 1024 * 1024, 0..=1 << 40;

        /// How long after the start the first scrub begins (1m), so that the start is not slower.
        scrub_after: Duration = Duration::from_mins(1);
    }
}

#[cfg(test)]
impl StoreSettings {
    /// Returns the defaults with another size of the journal.
    pub(crate) fn with_journal_bytes(journal_bytes: usize) -> Self {
        Self { redb: RedbSettings { journal_bytes, ..RedbSettings::default() }, ..Self::default() }
    }

    /// Returns the defaults without a cache, so that every read goes to the file.
    pub(crate) fn without_cache() -> Self {
        Self { redb: RedbSettings { cache_bytes: 0, ..RedbSettings::default() }, ..Self::default() }
    }
}

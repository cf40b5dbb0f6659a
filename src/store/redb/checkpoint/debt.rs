//! How many bytes the checkpoint has to move before the memtable takes in further commits. Pure.

/// Returns how many bytes the checkpoint has to move after a memtable of this size took in `taken_bytes`. None if the
/// size is below six tenths of the limit; from there the number rises to twice `taken_bytes` at the limit. At some size
/// in between, commits come in as fast as the checkpoint moves them.
pub(crate) fn owed(size: usize, limit: usize, taken_bytes: usize) -> u64 {
    // The checkpoint begins to move at five tenths of the limit. Below six tenths, no commit waits for it.
    let begin = limit / 10 * 6;
    let range = limit.saturating_sub(begin).max(1);
    let over = size.saturating_sub(begin).min(range);
    let owed = taken_bytes as u128 * 2 * over as u128 / range as u128;
    u64::try_from(owed).unwrap_or(u64::MAX)
}

/// How many of the bytes that the checkpoint has moved are used up by the batches so far.
///
/// A flush moves more than a small batch owes. What it moved beyond that is left for the next batches, up to a limit:
/// otherwise each small batch would wait for the end of a flush of its own.
#[derive(Debug, Default)]
pub(crate) struct Account {
    used: u64,
}

impl Account {
    /// Returns how many bytes the checkpoint must have moved in total before a batch that owes this many bytes.
    pub(crate) fn due(&self, owed: u64) -> u64 {
        self.used.saturating_add(owed)
    }

    /// Notes a batch that owed this many bytes and has waited for them. `moved` is what the checkpoint has moved by now. What
    /// is left of it for the next batches is at most `most_left`. The wait may have been too short; then nothing is left, and
    /// the rest is forgiven, as the memtable is fuller by it and the next batch owes more.
    pub(crate) fn settle(&mut self, owed: u64, moved: u64, most_left: u64) {
        self.used = self.due(owed).clamp(moved.saturating_sub(most_left), moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flush_moved_is_left_for_the_next_batches_up_to_a_limit() {
        let mut account = Account::default();
        // A flush of 400 bytes pays for four batches.
        for due in [100, 200, 300, 400, 500] {
            assert_eq!(account.due(100), due);
            account.settle(100, 400, 400);
        }
        // What was moved while nothing was owed is not left without a limit, and what was not moved in time is forgiven.
        account.settle(0, 9000, 400);
        assert_eq!(account.due(0), 8600);
        account.settle(1000, 9000, 400);
        assert_eq!(account.due(0), 9000);
    }

    #[test]
    fn a_fuller_memtable_owes_more_and_at_its_limit_twice_what_it_took_in() {
        let owed = |percent: usize| owed(percent * 1000, 100_000, 50);
        assert_eq!([0, 50, 60, 70, 80, 90, 100, 300].map(owed), [0, 0, 0, 25, 50, 75, 100, 100]);
        assert_eq!(super::owed(7, 0, 50), 100, "a memtable with a limit of 0");
    }

    /// Simulates a memtable that takes in a batch, after the checkpoint has moved what it owes, again and again. Returns the
    /// largest size.
    fn largest_size(limit: usize, taken_a_batch: usize, moved_a_flush: usize) -> usize {
        let (mut size, mut largest, mut moved, mut account) = (0, 0, 0, Account::default());
        for _ in 0..10_000 {
            size += taken_a_batch;
            largest = largest.max(size);
            let owed = owed(size, limit, taken_a_batch);
            let until = usize::try_from(account.due(owed)).unwrap();
            // A commit waits at most as long as four flushes take.
            for _ in 0..4 {
                if moved >= until {
                    break;
                }
                moved += moved_a_flush;
                size = size.saturating_sub(moved_a_flush);
            }
            account.settle(owed, moved as u64, moved_a_flush as u64);
        }
        largest
    }

    #[test]
    fn a_memtable_does_not_get_full_if_the_checkpoint_moves_in_a_pause_what_a_batch_adds() {
        for (taken, moved) in [(400, 130), (400, 400), (50, 130), (1, 500)] {
            let largest = largest_size(20_000, taken, moved);
            assert!(largest <= 20_000, "{largest}, taken {taken}, moved {moved}");
        }
        assert!(largest_size(20_000, 400, 90) > 20_000, "a checkpoint that is too slow must let the memtable get full");
    }
}

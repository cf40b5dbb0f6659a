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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuller_memtable_owes_more_and_at_its_limit_twice_what_it_took_in() {
        let owed = |percent: usize| owed(percent * 1000, 100_000, 50);
        assert_eq!([0, 50, 60, 70, 80, 90, 100, 300].map(owed), [0, 0, 0, 25, 50, 75, 100, 100]);
        assert_eq!(super::owed(7, 0, 50), 100, "a memtable with a limit of 0");
    }

    /// Simulates a memtable that takes in a batch and then moves what it owes, again and again. Returns the largest
    /// size.
    fn largest_size(limit: usize, taken_a_batch: usize, moved_a_flush: usize) -> usize {
        let (mut size, mut largest, mut moved) = (0, 0, 0);
        for _ in 0..10_000 {
            size += taken_a_batch;
            largest = largest.max(size);
            let until = moved + usize::try_from(owed(size, limit, taken_a_batch)).unwrap();
            // A commit waits at most as long as four flushes take.
            for _ in 0..4 {
                if moved >= until {
                    break;
                }
                moved += moved_a_flush;
                size = size.saturating_sub(moved_a_flush);
            }
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

//! How many bytes a flush of the checkpoint moves. Pure: durations are passed in.

use std::time::Duration;

/// The bytes that one flush of the checkpoint moves, derived from how long earlier flushes took.
#[derive(Debug)]
pub(crate) struct FlushSize(usize);

impl FlushSize {
    /// The target duration of a flush, its fsync included: a caller that waits for the checkpoint waits for the end of
    /// a flush.
    const TARGET: Duration = Duration::from_millis(12);
    /// Some hundred turns. A smaller flush is hardly faster, because its fsync takes as long, and many small flushes
    /// take more time in total.
    const MIN_BYTES: usize = 128 * 1024;
    const MAX_BYTES: usize = 512 * 1024;

    pub(crate) fn bytes(&self) -> usize {
        self.0
    }

    /// Adapts the size to the duration of a flush. A flush that was slow by chance at most halves the next flush.
    pub(crate) fn learn(&mut self, moved_bytes: usize, took: Duration) {
        // The last flush of a memtable's table may be small. Its duration says little about a flush of full size.
        if moved_bytes < self.0 / 2 {
            return;
        }
        let aimed = moved_bytes as u128 * Self::TARGET.as_nanos() / took.as_nanos().max(1);
        let aimed = usize::try_from(aimed).unwrap_or(usize::MAX);
        self.0 = aimed.clamp(self.0 / 2, self.0 * 2).clamp(Self::MIN_BYTES, Self::MAX_BYTES);
    }
}

impl Default for FlushSize {
    fn default() -> Self {
        Self(Self::MIN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_size_of_flushes_adapts_to_what_can_be_moved_in_the_target_time() {
        let mut size = FlushSize::default();
        // A disk that takes a millisecond for 24 KiB.
        for _ in 0..10 {
            let bytes = size.bytes();
            size.learn(bytes, MS * u32::try_from(bytes / 1024).unwrap() / 24);
        }
        let kib = size.bytes() / 1024;
        assert!((280..=296).contains(&kib), "{kib} KiB take {} ms", kib / 24);
    }

    #[test]
    fn a_flush_is_bounded_whatever_it_took() {
        let mut size = FlushSize::default();
        for took in [Duration::ZERO, MS, MS * 5000] {
            for _ in 0..20 {
                let before = size.bytes();
                size.learn(before, took);
                assert!(size.bytes() >= before / 2 && size.bytes() <= before * 2, "{before} to {}", size.bytes());
                assert!((FlushSize::MIN_BYTES..=FlushSize::MAX_BYTES).contains(&size.bytes()));
            }
        }
        assert_eq!(size.bytes(), FlushSize::MIN_BYTES);
    }

    #[test]
    fn the_short_last_flush_of_a_table_changes_nothing() {
        let mut size = FlushSize::default();
        size.learn(size.bytes(), MS * 6);
        let before = size.bytes();
        size.learn(before / 2 - 1, MS * 5000);
        assert_eq!(size.bytes(), before);
    }
}

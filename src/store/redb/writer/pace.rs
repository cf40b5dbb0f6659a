//! How many commits a batch takes, how many may wait, and how long to pause for the checkpoint. Pure: durations are
//! passed in.

use std::time::Duration;

use crate::settings::TURNS_AT_ONCE;

/// The bytes that a turn adds to the memtable, averaged over about half of the memtable's limit. The first turn of each
/// conversation in the active table adds more than later ones, so an average over one batch would make pauses long in a
/// new table and short in an old one.
#[derive(Debug)]
pub(crate) struct Growth {
    each_bytes: usize,
    window_bytes: usize,
}

impl Growth {
    pub(crate) fn new(limit: usize) -> Self {
        Self { each_bytes: 0, window_bytes: limit / 2 }
    }

    /// Updates the average with a batch.
    pub(crate) fn learn(&mut self, turns: usize, bytes: usize) {
        let latest = bytes / turns.max(1);
        if self.each_bytes == 0 {
            self.each_bytes = latest;
        }
        let (window, weight) = (self.window_bytes as u128, bytes as u128);
        let each = (self.each_bytes as u128 * window + latest as u128 * weight) / (window + weight).max(1);
        self.each_bytes = usize::try_from(each).unwrap_or(usize::MAX);
    }

    /// Returns the bytes that this many turns are expected to add.
    pub(crate) fn of(&self, turns: usize) -> usize {
        turns.saturating_mul(self.each_bytes)
    }
}

/// The maximum number of turns in a batch, derived from how long the work on earlier batches took.
#[derive(Debug)]
pub(crate) struct BatchSize {
    /// The average time of the work on one turn, without the fsync, which every batch needs once.
    each: Duration,
}

impl BatchSize {
    /// The target duration of the work on one batch. A commit that just missed a batch then waits for the rest of that
    /// batch, and not for the work on all queued commits.
    const TARGET: Duration = Duration::from_millis(9);
    /// The target duration while batches also wait for the checkpoint.
    const TARGET_WHEN_BEHIND: Duration = Duration::from_millis(5);
    /// The minimum number of turns, so many that the time of the fsync is small for each turn. A smaller batch takes
    /// hardly less time, because of its fsync.
    pub(crate) const MIN_TURNS: usize = 256;

    /// Updates the average with a batch.
    pub(crate) fn learn(&mut self, turns: usize, took: Duration) {
        if turns >= Self::MIN_TURNS {
            self.each = smoothed(self.each, took, turns);
        }
    }

    /// Returns the maximum number of turns in a batch. `is_behind` says whether the checkpoint has fallen behind.
    pub(crate) fn turns(&self, is_behind: bool) -> usize {
        times(self.each, if is_behind { Self::TARGET_WHEN_BEHIND } else { Self::TARGET }).max(Self::MIN_TURNS)
    }

    /// Returns whether the writer ends a batch after this many turns and this much time, and leaves the other jobs to
    /// the next batch. A small batch is never cut, because each batch costs an fsync.
    pub(crate) fn is_cut(turns: usize, took: Duration, is_behind: bool) -> bool {
        let target = if is_behind { Self::TARGET_WHEN_BEHIND } else { Self::TARGET };
        turns >= Self::MIN_TURNS && took >= target * 4 / 3
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { each: Duration::from_micros(10) }
    }
}

/// The maximum number of turns in unanswered commits, derived from how long earlier commits took.
#[derive(Debug)]
pub(crate) struct Capacity {
    /// The average time of one turn in a large batch: the work, the wait for the checkpoint, and the journal's fsync.
    /// Of the fsync only the time of a healthy disk counts, since a slow fsync is no reason to refuse commits that
    /// would share it.
    each: Duration,
}

impl Capacity {
    /// The longest time that the last of these turns should wait.
    const TARGET: Duration = Duration::from_millis(20);
    /// The minimum number of turns, however slow the store is.
    const MIN_TURNS: usize = TURNS_AT_ONCE;

    /// Updates the average with a batch.
    pub(crate) fn learn(&mut self, turns: usize, took: Duration, append_took: Duration) {
        if turns >= BatchSize::MIN_TURNS {
            self.each = smoothed(self.each, took.saturating_sub(beyond_healthy(append_took)), turns);
        }
    }

    pub(crate) fn turns(&self) -> usize {
        times(self.each, Self::TARGET).max(Self::MIN_TURNS)
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { each: Duration::from_micros(20) }
    }
}

/// Returns the part of an append's time that exceeds the time of a healthy disk.
pub(crate) fn beyond_healthy(append_took: Duration) -> Duration {
    const HEALTHY: Duration = Duration::from_millis(10);
    append_took.saturating_sub(HEALTHY)
}

/// The maximum time that a small commit with a reserved place may wait for its batch while the store is overloaded,
/// however long the last write took.
pub(crate) const LONGEST_RESERVED: Duration = Duration::from_millis(25);

/// The longest time that a commit of an overloaded store may wait for its batch; after that the commit is refused. The
/// aim is that on a healthy disk an accepted commit is answered within 50 ms. Its own batch is assumed to take as long
/// as the last one, and half as long again, because that guess is often too low.
pub(crate) fn longest_queueing(last_write: Duration) -> Duration {
    const ALL: Duration = Duration::from_millis(34);
    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(20);
    ALL.saturating_sub(last_write * 3 / 2).clamp(MIN, MAX)
}

/// Returns the moving average of the time of one turn.
fn smoothed(before: Duration, took: Duration, turns: usize) -> Duration {
    (before * 7 + took / u32::try_from(turns).unwrap_or(u32::MAX)) / 8
}

/// Returns how many times `each` fits into `into`.
fn times(each: Duration, into: Duration) -> usize {
    usize::try_from(into.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX)
}

/// Returns the longest wait for the checkpoint before a batch, while the memtable has room. A commit that just missed a
/// batch waits for the write of that batch, for this pause, and for the write of its own batch. Both writes are
/// expected to take as long as the last one.
pub(crate) fn longest_pause(last_write: Duration) -> Duration {
    const ALL: Duration = Duration::from_millis(14);
    const MIN: Duration = Duration::from_millis(2);
    ALL.saturating_sub(last_write * 2).max(MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_bytes_of_a_turn_are_averaged_over_many_batches() {
        let mut growth = Growth::new(20 << 20);
        growth.learn(400, 400 * 280);
        let before = growth.of(1);
        growth.learn(400, 400 * 780);
        assert!(before == 280 && growth.of(1) - before < 30, "{before}, then {}", growth.of(1));
        let mut growth = Growth::new(20 << 20);
        for _ in 0..400 {
            growth.learn(1, 100_000);
        }
        assert!(growth.of(1) > 95_000, "large turns are learned while a few tables fill: {}", growth.of(1));
    }

    #[test]
    fn a_batch_has_as_many_turns_as_can_be_worked_on_in_its_time() {
        let mut size = BatchSize::default();
        (0..99).for_each(|_| size.learn(400, MS * 4));
        assert!((895..=905).contains(&size.turns(false)), "{}", size.turns(false));
        assert!((495..=505).contains(&size.turns(true)), "{}", size.turns(true));
        (0..99).for_each(|_| size.learn(400, MS * 600));
        assert_eq!(size.turns(false), BatchSize::MIN_TURNS);
        (0..99).for_each(|_| size.learn(BatchSize::MIN_TURNS - 1, Duration::ZERO));
        assert_eq!(size.turns(false), BatchSize::MIN_TURNS, "a small batch must not change the average");
    }

    #[test]
    fn a_batch_that_takes_too_long_is_cut_unless_few_turns_are_done() {
        let is_cut = |turns, millis, is_behind| BatchSize::is_cut(turns, MS * millis, is_behind);
        assert_eq!([11, 12].map(|millis| is_cut(256, millis, false)), [false, true]);
        assert_eq!([6, 7].map(|millis| is_cut(256, millis, true)), [false, true]);
        assert!(!is_cut(255, 1000, true));
    }

    #[test]
    fn as_many_turns_may_wait_as_are_done_in_time_but_never_fewer_than_the_minimum() {
        let mut capacity = Capacity::default();
        assert!(capacity.turns() >= 1000);
        (0..99).for_each(|_| capacity.learn(1000, MS * 10, MS));
        assert!((1960..=2040).contains(&capacity.turns()), "{}", capacity.turns());
        (0..99).for_each(|_| capacity.learn(1000, MS * 1000, MS * 990));
        assert!((960..=1040).contains(&capacity.turns()), "a slow disk counts as a healthy one: {}", capacity.turns());
        (0..99).for_each(|_| capacity.learn(1000, MS * 1000, MS));
        assert_eq!(capacity.turns(), Capacity::MIN_TURNS);
    }

    #[test]
    fn a_commit_is_given_up_while_its_batch_can_still_be_written_in_time() {
        assert_eq!(
            [0, 8, 10, 14, 500].map(|write| longest_queueing(MS * write)),
            [20, 20, 19, 13, 10].map(|ms| MS * ms)
        );
        assert_eq!([3, 10, 90].map(|append| beyond_healthy(MS * append)), [0, 0, 80].map(|ms| MS * ms));
    }

    #[test]
    fn a_pause_leaves_time_to_write_the_batch_and_the_one_before() {
        assert_eq!([0, 4, 6, 19, 500].map(|write| longest_pause(MS * write)), [14, 6, 2, 2, 2].map(|ms| MS * ms));
    }
}

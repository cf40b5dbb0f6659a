//! Bounds the number of turns in unanswered commits, and knows how long each of these commits has waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts the turns of queued commits that are not answered yet.
#[derive(Debug)]
pub(super) struct Intake {
    unanswered: AtomicUsize,
    most: AtomicUsize,
    /// The time that waiting does not count, in total.
    excused_nanos: AtomicU64,
}

impl Intake {
    pub(super) fn new(most: usize) -> Self {
        Self { unanswered: AtomicUsize::new(0), most: AtomicUsize::new(most), excused_nanos: AtomicU64::new(0) }
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The number of turns in unanswered commits.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Takes this much off the waiting time of every unanswered commit.
    pub(super) fn excuse(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.excused_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn excused(&self) -> Duration {
        Duration::from_nanos(self.excused_nanos.load(Ordering::Relaxed))
    }

    /// Reserves a place for a commit of this many turns, or returns `None` if the limit is reached. The last commit may
    /// exceed the limit, so that a commit of any size gets through.
    pub(super) fn place(self: &Arc<Self>, turns: usize) -> Option<Place> {
        let most = self.most.load(Ordering::Relaxed);
        let before = self.unanswered.fetch_add(turns, Ordering::Relaxed);
        // If the limit is reached, dropping `place` subtracts the turns again.
        let since = Instant::now();
        let place =
            Place { intake: Arc::clone(self), turns, since: since.checked_sub(self.excused()).unwrap_or(since) };
        (before < most).then_some(place)
    }
}

/// One commit that is not answered yet.
#[derive(Debug)]
pub(super) struct Place {
    intake: Arc<Intake>,
    turns: usize,
    /// When the wait began, less the time that was excused before.
    since: Instant,
}

impl Place {
    pub(super) fn turns(&self) -> usize {
        self.turns
    }

    /// How long the commit has waited, without the time that is excused.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since).saturating_sub(self.intake.excused())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.intake.unanswered.fetch_sub(self.turns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_place_while_less_is_unanswered_than_may_be() {
        let intake = Arc::new(Intake::new(3));
        let first = intake.place(2).unwrap();
        let large = intake.place(1000).unwrap();
        assert!(intake.place(1).is_none());
        assert!(intake.place(1).is_none(), "what was refused counts no longer, but what was not does");
        drop(large);
        let second = intake.place(1).unwrap();
        assert!(intake.place(1).is_none());
        intake.set_most(4);
        let _third = intake.place(1).unwrap();
        drop((first, second));
        assert!(intake.place(2).is_some());
    }

    #[test]
    fn waiting_does_not_count_what_is_excused_after_it_began() {
        const SECOND: Duration = Duration::from_secs(1);
        let intake = Arc::new(Intake::new(9));
        intake.excuse(SECOND);
        let place = intake.place(1).unwrap();
        let later = place.since + SECOND * 11;
        assert_eq!(place.waited(later), SECOND * 10);
        intake.excuse(SECOND * 4);
        assert_eq!(place.waited(later), SECOND * 6);
        intake.excuse(SECOND * 40);
        assert_eq!(place.waited(later), Duration::ZERO);
    }
}

//! Bounds the number of turns in unanswered commits, and measures how long each of these commits has waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts the turns of commits that are not answered yet.
#[derive(Debug)]
pub(crate) struct Admission {
    unanswered: AtomicUsize,
    most: AtomicUsize,
    /// The total time that does not count as waiting.
    excused_nanos: AtomicU64,
}

impl Admission {
    pub(crate) fn new(most: usize) -> Self {
        Self { unanswered: AtomicUsize::new(0), most: AtomicUsize::new(most), excused_nanos: AtomicU64::new(0) }
    }

    /// The number of turns in unanswered commits.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Excuses this time: it does not count as waiting for any commit that is unanswered now.
    pub(crate) fn excuse(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.excused_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn excused(&self) -> Duration {
        Duration::from_nanos(self.excused_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Returns a permit for a commit of this many turns, or `None` if the limit is reached. A commit is admitted if the
    /// turns before it are below the limit, even if its own turns exceed the limit, so that a commit of any size can be
    /// admitted.
    pub(crate) fn admit(self: &Arc<Self>, turns: usize) -> Option<Permit> {
        let most = self.most.load(Ordering::Relaxed);
        let before = self.unanswered.fetch_add(turns, Ordering::Relaxed);
        // If the limit is reached, dropping `permit` subtracts the turns again.
        let now = Instant::now();
        let since = now.checked_sub(self.excused()).unwrap_or(now);
        let permit = Permit { admission: Arc::clone(self), turns, since };
        (before < most).then_some(permit)
    }
}

/// One commit that is not answered yet.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    turns: usize,
    /// The moment at which the wait began, less all time that was excused before that moment.
    since: Instant,
}

impl Permit {
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }

    /// Returns how long the commit has waited, without the excused time.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since).saturating_sub(self.admission.excused())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.unanswered.fetch_sub(self.turns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_given_while_fewer_turns_are_unanswered_than_the_limit() {
        let admission = Arc::new(Admission::new(3));
        let first = admission.admit(2).unwrap();
        let large = admission.admit(1000).unwrap();
        assert!(admission.admit(1).is_none());
        assert!(admission.admit(1).is_none(), "refused turns must not count, and admitted ones must");
        drop(large);
        let second = admission.admit(1).unwrap();
        assert!(admission.admit(1).is_none());
        admission.set_most(4);
        let _third = admission.admit(1).unwrap();
        drop((first, second));
        assert!(admission.admit(2).is_some());
    }

    #[test]
    fn time_that_is_excused_does_not_count_as_waiting() {
        const SECOND: Duration = Duration::from_secs(1);
        let admission = Arc::new(Admission::new(9));
        admission.excuse(SECOND);
        let permit = admission.admit(1).unwrap();
        let later = permit.since + SECOND * 11;
        assert_eq!(permit.waited(later), SECOND * 10);
        admission.excuse(SECOND * 4);
        assert_eq!(permit.waited(later), SECOND * 6);
        admission.excuse(SECOND * 40);
        assert_eq!(permit.waited(later), Duration::ZERO);
    }
}

//! Bounds the number of turns in unanswered commits, and measures how long each of these commits has waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts the turns of commits that are not answered yet.
#[derive(Debug)]
pub(crate) struct Admission {
    unanswered: AtomicUsize,
    /// The number of turns in small commits that have reserved places. These turns do not count in `unanswered`.
    reserved: AtomicUsize,
    most: AtomicUsize,
    /// The total time that does not count as waiting.
    excused_nanos: AtomicU64,
}

impl Admission {
    /// The maximum number of turns in small commits that have reserved places. These turns take some milliseconds of
    /// work.
    pub(crate) const RESERVED_TURNS: usize = 64;

    /// The maximum number of turns and of bytes in a small commit. A client that sends each turn at once stays within
    /// both limits.
    const SMALL_TURNS: usize = 4;
    const SMALL_BYTES: usize = 16 * 1024;

    /// Returns whether a commit with this number of turns and bytes is small.
    pub(crate) fn is_small(turns: usize, bytes: usize) -> bool {
        turns <= Self::SMALL_TURNS && bytes <= Self::SMALL_BYTES
    }

    pub(crate) fn new(most: usize) -> Self {
        Self {
            unanswered: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
            excused_nanos: AtomicU64::new(0),
        }
    }

    /// Returns the number of turns in unanswered commits that have no reserved places.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns the number of turns in all unanswered commits.
    pub(crate) fn all_unanswered(&self) -> usize {
        self.unanswered() + self.reserved.load(Ordering::Relaxed)
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
        let permit = self.permit(turns, false);
        (before < most).then_some(permit)
    }

    /// Returns a permit for a small commit. A few small commits have reserved places, so that they are served while
    /// larger ones are more than the store can take. Clients who send little send small commits. Half of the places are
    /// for commits of a single turn, because a large request for many conversations makes small commits too.
    pub(crate) fn admit_small(self: &Arc<Self>, turns: usize) -> Option<Permit> {
        let before = self.reserved.fetch_add(turns, Ordering::Relaxed);
        let permit = self.permit(turns, true);
        let most = if turns <= 1 { Self::RESERVED_TURNS } else { Self::RESERVED_TURNS / 2 };
        if before + turns <= most {
            return Some(permit);
        }
        drop(permit);
        self.admit(turns)
    }

    fn permit(self: &Arc<Self>, turns: usize, is_reserved: bool) -> Permit {
        let now = Instant::now();
        let since = now.checked_sub(self.excused()).unwrap_or(now);
        Permit { admission: Arc::clone(self), turns, since, is_reserved }
    }
}

/// One commit that is not answered yet.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    turns: usize,
    /// The moment at which the wait began, less all time that was excused before that moment.
    since: Instant,
    /// Whether the commit is small and has a reserved place.
    is_reserved: bool,
}

impl Permit {
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Returns how long the commit has waited, without the excused time.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since).saturating_sub(self.admission.excused())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counter = if self.is_reserved { &self.admission.reserved } else { &self.admission.unanswered };
        counter.fetch_sub(self.turns, Ordering::Relaxed);
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
    fn a_few_small_commits_have_places_of_their_own() {
        assert_eq!(
            [(1, 10), (4, 16 * 1024), (5, 10), (1, 16 * 1024 + 1)]
                .map(|(turns, bytes)| { Admission::is_small(turns, bytes) }),
            [true, true, false, false]
        );
        let admission = Arc::new(Admission::new(3));
        let large = admission.admit(1000).unwrap();
        let mut small: Vec<_> = (0..Admission::RESERVED_TURNS / 8).map(|_| admission.admit_small(4).unwrap()).collect();
        assert!(admission.admit_small(2).is_none(), "the other places are for single turns");
        small.extend((0..Admission::RESERVED_TURNS / 2).map(|_| admission.admit_small(1).unwrap()));
        assert!(small.iter().all(Permit::is_reserved));
        assert_eq!(admission.unanswered(), 1000);
        assert!(admission.admit_small(1).is_none(), "there are no more of those places, and no others");
        drop(large);
        assert!(!admission.admit_small(1).unwrap().is_reserved(), "there are others");
        small.pop();
        assert!(admission.admit_small(1).unwrap().is_reserved());
        drop(small);
        assert_eq!((admission.unanswered(), admission.reserved.load(Ordering::Relaxed)), (0, 0));
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

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Stopwatch};
use crate::turn::EpochMillis;

/// A clock and a stopwatch that advance together when a test moves them. The clock alone can be set to another moment,
/// like the clock of a computer. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use turn_metrics::clock::{Clock, Stopwatch};
/// use turn_metrics::testing::TestClock;
///
/// let clock = TestClock::at(1000);
/// clock.advance(Duration::from_micros(2500));
/// assert_eq!(clock.now().get(), 1002);
/// assert_eq!(clock.elapsed(), Duration::from_micros(2500));
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    /// The clock's time minus the stopwatch's, in milliseconds.
    begin: Arc<AtomicI64>,
    /// The stopwatch's time in nanoseconds.
    elapsed: Arc<AtomicU64>,
}

impl TestClock {
    /// A clock that shows `now`, in milliseconds since 1970.
    pub fn at(now: u64) -> Self {
        let clock = Self { begin: Arc::default(), elapsed: Arc::default() };
        clock.set(now);
        clock
    }

    /// Sets the clock to this moment, forward or back. The stopwatch is not affected.
    pub fn set(&self, now: u64) {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.begin.store(now.saturating_sub(self.elapsed_ms()), Ordering::SeqCst);
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.elapsed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> EpochMillis {
        let now = self.begin.load(Ordering::SeqCst).saturating_add(self.elapsed_ms());
        EpochMillis::new(u64::try_from(now).unwrap_or_default())
    }
}

impl Stopwatch for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed.load(Ordering::SeqCst))
    }
}

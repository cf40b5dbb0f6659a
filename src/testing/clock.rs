use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Stopwatch};
use crate::turn::EpochMillis;

/// A clock and a stopwatch that stand still until they are moved, together. Clones show the same time.
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
    begin: EpochMillis,
    /// In nanoseconds.
    elapsed: Arc<AtomicU64>,
}

impl TestClock {
    /// A clock that shows `now`, in milliseconds since 1970.
    pub fn at(now: u64) -> Self {
        Self { begin: EpochMillis::new(now), elapsed: Arc::default() }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.elapsed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> EpochMillis {
        let elapsed_ms = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        EpochMillis::new(self.begin.get().saturating_add(elapsed_ms))
    }
}

impl Stopwatch for TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed.load(Ordering::SeqCst))
    }
}

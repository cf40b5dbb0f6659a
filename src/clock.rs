//! Clocks and stopwatches, injected so that tests and embedders can set them: one for moments, one for durations. And the
//! time zone of the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use crate::report::Zone;
use crate::turn::{EpochMillis, RunningTime};

/// Returns the time zone of the system, or UTC if the system names none.
pub fn system_time_zone() -> Zone {
    let named = |zone: TimeZone| {
        let name = zone.iana_name().filter(|name| *name != "Etc/Unknown")?;
        Zone::named(name).ok()
    };
    TimeZone::try_system().ok().and_then(named).unwrap_or(Zone::UTC)
}

/// A source of the current time of day.
pub trait Clock: Send + Sync + 'static {
    /// The current moment.
    fn now(&self) -> EpochMillis;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The computer's own clock. Somebody may set it while the program runs, so no duration is measured with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the rest of the crate calls this function instead")]
    fn now(&self) -> EpochMillis {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EpochMillis::new(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that shows the running time that the store last confirmed. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct RunningClock(Arc<AtomicU64>);

impl RunningClock {
    /// Returns a clock that shows `running` until it is advanced.
    pub fn at(running: RunningTime) -> Self {
        Self(Arc::new(AtomicU64::new(running.get())))
    }

    /// Returns the running time.
    pub fn now(&self) -> RunningTime {
        RunningTime::new(self.0.load(Ordering::Acquire))
    }

    /// Advances the clock; it never goes back.
    pub fn advance_to(&self, running: RunningTime) {
        self.0.fetch_max(running.get(), Ordering::AcqRel);
    }
}

/// A source of durations.
pub trait Stopwatch: Send + Sync + 'static {
    /// Returns the time since a fixed moment. It is never less than at an earlier call.
    fn elapsed(&self) -> Duration;
}

/// A shared stopwatch.
pub type SharedStopwatch = Arc<dyn Stopwatch>;

/// The computer's own monotonic clock. Its fixed moment is the creation of this value.
#[derive(Debug, Clone, Copy)]
pub struct SystemStopwatch(Instant);

impl Default for SystemStopwatch {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Stopwatch for SystemStopwatch {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_the_system_has_a_name_by_which_it_is_found() {
        let system = system_time_zone();
        assert_eq!(Zone::named(system.name()), Ok(system));
    }
}

use std::time::Duration;

/// The time that the service has run, over all its starts, in whole milliseconds. The ages of open turns are measured
/// in this time.
///
/// The running time does not grow while the service does not run. So no turn ages while the host sleeps or the service
/// is down, or because the wall clock jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunningTime(u64);

impl RunningTime {
    /// Returns a running time of this many milliseconds.
    pub fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the time in milliseconds.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the running time `time` later, in whole milliseconds.
    #[must_use]
    pub fn saturating_add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(millis(time)))
    }

    /// Returns the running time `time` earlier, at least 0.
    #[must_use]
    pub fn saturating_sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(millis(time)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

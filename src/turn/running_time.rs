use std::time::Duration;

/// How long the service has run, over all its starts, in whole milliseconds. Ages of open turns are measured by it.
///
/// It stands still while the service does not run, so a host that slept, a wall clock that jumped or a service that was
/// down makes no turn older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunningTime(u64);

impl RunningTime {
    /// So many milliseconds of running.
    pub fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// The time in milliseconds.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The time after running for so much longer, in whole milliseconds.
    #[must_use]
    pub fn saturating_add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(millis(time)))
    }

    /// The time so much earlier, at least 0.
    #[must_use]
    pub fn saturating_sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(millis(time)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

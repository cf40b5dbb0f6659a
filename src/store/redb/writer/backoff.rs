use std::time::Duration;

/// How long the writer waits before it opens a failed store again; doubled each time, up to the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Backoff {
    /// Short enough for a passing failure, and rare enough later not to burden a lasting one.
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
}

impl Backoff {
    pub(super) fn after(self, wait: Duration) -> Duration {
        wait.saturating_mul(2).min(self.longest)
    }
}

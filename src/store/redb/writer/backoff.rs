use std::time::Duration;

/// How long the writer waits before it opens a failed store again. The wait doubles after each failed attempt, up to
/// the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Backoff {
    /// The first wait is short, for a failure that passes. The longest wait is long enough that attempts during a
    /// lasting failure cost little.
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
}

impl Backoff {
    pub(super) fn after(self, wait: Duration) -> Duration {
        wait.saturating_mul(2).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_the_longest() {
        let backoff = Backoff::default();
        let waits = std::iter::successors(Some(backoff.first), |wait| Some(backoff.after(*wait)));
        let waits: Vec<_> = waits.take(9).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after(Duration::MAX), backoff.longest);
    }
}

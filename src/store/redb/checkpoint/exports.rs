use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The longest time for which an export keeps turns from being dropped. A client that reads so slowly, or a stream that
/// does not end, must not keep old turns for ever.
const MAX_HOLD: Duration = Duration::from_hours(6);

/// The exports that are being sent.
#[derive(Debug, Default)]
pub(super) struct Exports(Mutex<Vec<(Weak<()>, Instant)>>);

impl Exports {
    /// Begins an export. It ends when the returned value is dropped, or after some hours.
    pub(super) fn begin(&self) -> Arc<()> {
        self.begin_for(MAX_HOLD)
    }

    fn begin_for(&self, at_most: Duration) -> Arc<()> {
        let hold = Arc::new(());
        let mut exports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exports.push((Arc::downgrade(&hold), Instant::now() + at_most));
        hold
    }

    /// Returns whether an export is being sent.
    pub(super) fn is_any(&self) -> bool {
        let now = Instant::now();
        let mut exports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exports.retain(|(hold, until)| hold.strong_count() > 0 && now < *until);
        !exports.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_ends_with_its_hold_and_after_a_time_at_the_latest() {
        let exports = Exports::default();
        assert!(!exports.is_any());
        let long = exports.begin_for(Duration::from_hours(1));
        let other = exports.begin_for(Duration::from_hours(1));
        drop(long);
        assert!(exports.is_any());
        drop(other);
        assert!(!exports.is_any());
        let _endless = exports.begin_for(Duration::ZERO);
        assert!(!exports.is_any());
    }
}

//! How much work a directory has, as its senders see it.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of messages that a directory has not answered yet. Senders can see it, so that they refuse work before
/// they have read it.
///
/// Clones show the same number.
#[derive(Debug, Clone)]
pub struct Load {
    in_flight: Arc<AtomicUsize>,
    limit: usize,
}

impl Load {
    /// Returns the load of a directory that has no message yet and accepts at most `limit` messages at one time.
    pub fn new(limit: usize) -> Self {
        Self { in_flight: Arc::default(), limit }
    }

    /// Returns how many messages to conversations are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Returns whether the directory would refuse one more message.
    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.limit
    }

    pub(super) fn add(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shows_what_the_directory_adds_and_removes() {
        let load = Load::new(2);
        let shown = load.clone();
        for (in_flight, is_full) in [(1, false), (2, true)] {
            load.add();
            assert_eq!((shown.in_flight(), shown.is_full()), (in_flight, is_full));
        }
        load.remove();
        assert!(!shown.is_full());
    }
}

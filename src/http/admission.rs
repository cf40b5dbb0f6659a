use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of posted bodies that may still be taken in, over all requests of the process.
///
/// Nobody waits for it: a request that does not fit is refused, and its client comes again.
#[derive(Debug, Clone)]
pub(super) struct ByteBudget(Arc<AtomicUsize>);

impl ByteBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Sets `bytes` aside until the reservation is dropped; `None` if so many are not left.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// Whether so many bytes could be set aside now; they are not.
    pub(super) fn has(&self, bytes: usize) -> bool {
        self.0.load(Ordering::Acquire) >= bytes
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// Bytes that are set aside for one request.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: ByteBudget,
    bytes: usize,
}

impl Reservation {
    /// Makes the reservation at least `bytes`; `false`, with nothing changed, if so many are not left.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        let granted = self.budget.take(missing);
        if granted {
            self.bytes += missing;
        }
        granted
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_budget_is_given_out() {
        let budget = ByteBudget::new(10);
        let mut six = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none());
        let four = budget.reserve(4).unwrap();
        assert!(!six.grow_to(7), "nothing is left");
        drop(four);
        assert!(six.grow_to(7));
        assert!(six.grow_to(3), "less than it has already");
        assert!(budget.reserve(4).is_none());
        assert!(budget.reserve(3).is_some());
    }

    #[test]
    fn what_was_reserved_comes_back() {
        let budget = ByteBudget::new(10);
        let mut reservation = budget.reserve(1).unwrap();
        assert!(reservation.grow_to(10));
        drop(reservation);
        assert!(budget.reserve(10).is_some());
    }
}

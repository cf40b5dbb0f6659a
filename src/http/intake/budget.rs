use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bodies up to this size count as small. A kernel posts a few turns at once, which take less.
const SMALL_BYTES: usize = 64 * 1024;

/// The maximum number of bytes of posted bodies that are held at one time, over all requests of the process.
///
/// No request waits for the budget. A request that does not fit is refused, and its client sends it again.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget {
    left: Arc<AtomicUsize>,
    total: usize,
}

impl ByteBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)), total: bytes }
    }

    /// Sets `bytes` aside until the reservation is dropped.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<Reservation, Denied> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Returns how many bytes are set apart for small bodies. So large bodies that arrive slowly leave room for small
    /// ones.
    fn share_of_small(&self) -> usize {
        self.total / 8
    }

    /// Takes bytes for a reservation that will have this size. Returns whether there were enough.
    fn take(&self, bytes: usize, size: usize) -> bool {
        let kept = if size <= SMALL_BYTES { 0 } else { self.share_of_small() };
        let take = |left: usize| left.checked_sub(bytes).filter(|left| *left >= kept);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }
}

/// The reason why a reservation was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Too few bytes are free at the moment.
    Exhausted,
    /// The request needs more bytes than it could get even if nothing else were held.
    TooLarge,
}

/// Bytes that are set aside for one request.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: ByteBudget,
    bytes: usize,
}

impl Reservation {
    /// Returns the size of the reservation.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the size of the reservation. On an error, the reservation keeps its size.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Denied> {
        if bytes > self.budget.total || bytes > SMALL_BYTES && bytes > self.budget.total - self.budget.share_of_small()
        {
            return Err(Denied::TooLarge);
        }
        if bytes < self.bytes {
            self.budget.left.fetch_add(self.bytes - bytes, Ordering::AcqRel);
        } else if !self.budget.take(bytes - self.bytes, bytes) {
            return Err(Denied::Exhausted);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_budget_is_given_out() {
        let budget = ByteBudget::new(10);
        let mut six = budget.reserve(6).unwrap();
        assert_eq!(budget.reserve(5).unwrap_err(), Denied::Exhausted);
        let four = budget.reserve(4).unwrap();
        assert_eq!(six.resize(7), Err(Denied::Exhausted), "nothing is left");
        drop(four);
        assert_eq!(six.resize(7), Ok(()));
        assert!(budget.reserve(4).is_err());
        assert_eq!(six.resize(3), Ok(()));
        assert!(budget.reserve(7).is_ok());
        assert!(budget.reserve(8).is_err());
        assert_eq!(six.resize(11), Err(Denied::TooLarge));
        assert_eq!(budget.reserve(11).unwrap_err(), Denied::TooLarge);
    }

    #[test]
    fn large_bodies_leave_a_share_to_small_ones() {
        let budget = ByteBudget::new(80 * SMALL_BYTES);
        let mut large = budget.reserve(60 * SMALL_BYTES).unwrap();
        assert_eq!(large.resize(70 * SMALL_BYTES + 1), Err(Denied::TooLarge));
        assert_eq!(large.resize(70 * SMALL_BYTES), Ok(()));
        assert_eq!(budget.reserve(SMALL_BYTES + 1).unwrap_err(), Denied::Exhausted);
        let small: Vec<_> = (0..10).map(|_| budget.reserve(SMALL_BYTES).unwrap()).collect();
        assert_eq!(budget.reserve(1).unwrap_err(), Denied::Exhausted);
        drop(small);
        assert!(budget.reserve(SMALL_BYTES).is_ok());
    }

    #[test]
    fn a_dropped_reservation_returns_its_bytes() {
        let budget = ByteBudget::new(10);
        let mut reservation = budget.reserve(1).unwrap();
        reservation.resize(10).unwrap();
        drop(reservation);
        assert!(budget.reserve(10).is_ok());
    }
}

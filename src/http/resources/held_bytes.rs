use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes of an answer that each connection may hold without a share of the budget. A list of short turns as JSON
/// fits.
pub(crate) const FREE_BYTES: usize = 64 * 1024;

/// The unit in which the budget counts.
const UNIT_BYTES: usize = 1024;

/// The maximum number of bytes of answers that are held at one time until clients read them, over all requests of the
/// process.
#[derive(Debug, Clone)]
pub(crate) struct ReadBudget {
    units: Arc<Semaphore>,
    total: usize,
}

/// A share of the budget for the bytes of one answer. Dropping it returns the share.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes(Option<OwnedSemaphorePermit>);

impl ReadBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(total)), total }
    }

    /// Returns the number of units for an answer of this length. An answer that is larger than the whole budget takes
    /// all of the budget, so no other answer is held beside it.
    fn units(&self, bytes: usize) -> u32 {
        let units = if bytes <= FREE_BYTES { 0 } else { bytes.div_ceil(UNIT_BYTES).min(self.total) };
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Returns whether these bytes fit into the budget when no other answer is held.
    pub(crate) fn is_enough_for(&self, bytes: usize) -> bool {
        bytes <= FREE_BYTES || bytes.div_ceil(UNIT_BYTES) <= self.total
    }

    /// Returns whether a share is as large as the one for an answer of this length.
    pub(crate) fn is_covered_by(&self, held: &HeldBytes, bytes: usize) -> bool {
        held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) >= self.units(bytes) as usize
    }

    /// Takes a share for these bytes, if there is room for them now.
    pub(crate) fn try_hold(&self, bytes: usize) -> Option<HeldBytes> {
        match self.units(bytes) {
            0 => Some(HeldBytes(None)),
            units => Some(HeldBytes(Some(Arc::clone(&self.units).try_acquire_many_owned(units).ok()?))),
        }
    }

    /// Waits until there is room for these bytes, and takes a share for them.
    pub(crate) async fn hold(&self, bytes: usize) -> HeldBytes {
        match self.units(bytes) {
            0 => HeldBytes(None),
            // The semaphore is never closed.
            units => HeldBytes(Arc::clone(&self.units).acquire_many_owned(units).await.ok()),
        }
    }
}

impl HeldBytes {
    /// Returns whether this is no share of the budget at all.
    pub(crate) fn is_free(&self) -> bool {
        self.0.is_none()
    }

    /// Returns how many bytes may be held with this share.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(FREE_BYTES, |permit| permit.num_permits() * UNIT_BYTES)
    }

    /// Returns to the budget what an answer of this length does not need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let Some(permit) = &mut self.0 else { return };
        let kept = if bytes <= FREE_BYTES { 0 } else { bytes.div_ceil(UNIT_BYTES) };
        drop(permit.split(permit.num_permits().saturating_sub(kept)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 2 * FREE_BYTES;

    #[test]
    fn large_answers_share_the_budget_and_small_ones_take_nothing() {
        let budget = ReadBudget::new(2 * LARGE);
        let first = budget.try_hold(LARGE).unwrap();
        let second = budget.try_hold(LARGE).unwrap();
        assert!(budget.try_hold(LARGE).is_none());
        assert!(budget.try_hold(FREE_BYTES).unwrap().is_free());
        drop(first);
        assert!(budget.try_hold(LARGE).is_some());
        drop(second);
    }

    #[test]
    fn an_answer_returns_the_share_that_it_does_not_need() {
        let budget = ReadBudget::new(4 * LARGE);
        let mut held = budget.try_hold(4 * LARGE).unwrap();
        assert!(budget.try_hold(LARGE).is_none());
        held.shrink(LARGE);
        let other = budget.try_hold(2 * LARGE).unwrap();
        held.shrink(1);
        assert!(budget.try_hold(2 * LARGE).is_some());
        drop(other);
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_budget_waits_until_it_is_the_only_one() {
        let budget = ReadBudget::new(2 * LARGE);
        let held = budget.try_hold(LARGE).unwrap();
        let waiting = budget.hold(100 * LARGE);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(held);
        let all = waiting.await;
        assert!(budget.try_hold(LARGE).is_none());
        drop(all);
        assert!(budget.try_hold(LARGE).is_some());
    }
}

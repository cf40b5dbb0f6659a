use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes of its answer that each connection may hold without asking: one list of short turns, as JSON.
pub(crate) const FREE_BYTES: usize = 128 * 1024;

/// The unit in which the budget is counted.
const UNIT_BYTES: usize = 1024;

/// The bytes of answers that may be held at one time until clients read them, over all requests of the process.
#[derive(Debug, Clone)]
pub(crate) struct ReadBudget {
    units: Arc<Semaphore>,
    total: usize,
}

/// Bytes of an answer that are held in memory, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes(Option<OwnedSemaphorePermit>);

impl ReadBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(total)), total }
    }

    /// The number of units that an answer of this length takes. One that is larger than the whole budget takes all of
    /// it, and so is the only one.
    fn units(&self, bytes: usize) -> u32 {
        let units = if bytes <= FREE_BYTES { 0 } else { bytes.div_ceil(UNIT_BYTES).min(self.total) };
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// Whether these bytes fit into the budget when nobody holds any of it.
    pub(crate) fn is_enough_for(&self, bytes: usize) -> bool {
        bytes <= FREE_BYTES || bytes.div_ceil(UNIT_BYTES) <= self.total
    }

    /// Holds these bytes if there is room for them now.
    pub(crate) fn try_hold(&self, bytes: usize) -> Option<HeldBytes> {
        match self.units(bytes) {
            0 => Some(HeldBytes(None)),
            units => Some(HeldBytes(Some(Arc::clone(&self.units).try_acquire_many_owned(units).ok()?))),
        }
    }

    /// Holds these bytes as soon as there is room for them.
    pub(crate) async fn hold(&self, bytes: usize) -> HeldBytes {
        match self.units(bytes) {
            0 => HeldBytes(None),
            // Nobody closes the semaphore.
            units => HeldBytes(Arc::clone(&self.units).acquire_many_owned(units).await.ok()),
        }
    }
}

impl HeldBytes {
    /// Whether anything was taken from the budget.
    pub(crate) fn is_free(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes that may be held with this.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(FREE_BYTES, |permit| permit.num_permits() * UNIT_BYTES)
    }

    /// Gives back what an answer of this length does not take.
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
    fn what_an_answer_turns_out_not_to_take_comes_back() {
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

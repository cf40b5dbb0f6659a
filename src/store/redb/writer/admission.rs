//! Bounds the number of turns in unanswered commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the turns of queued commits that are not answered yet.
#[derive(Debug)]
pub(crate) struct Admission {
    unanswered: AtomicUsize,
    most: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(most: usize) -> Self {
        Self { unanswered: AtomicUsize::new(0), most: AtomicUsize::new(most) }
    }

    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Returns a permit for a commit of this many turns, or `None` if the limit is reached. The last commit may
    /// exceed the limit, so that a commit of any size gets through.
    pub(crate) fn admit(self: &Arc<Self>, turns: usize) -> Option<Permit> {
        let most = self.most.load(Ordering::Relaxed);
        let before = self.unanswered.fetch_add(turns, Ordering::Relaxed);
        // If the limit is reached, dropping `permit` subtracts the turns again.
        let permit = Permit { admission: Arc::clone(self), turns };
        (before < most).then_some(permit)
    }
}

/// One commit that is not answered yet.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    turns: usize,
}

impl Permit {
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.unanswered.fetch_sub(self.turns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_permit_while_less_is_unanswered_than_may_be() {
        let admission = Arc::new(Admission::new(3));
        let first = admission.admit(2).unwrap();
        let large = admission.admit(1000).unwrap();
        assert!(admission.admit(1).is_none());
        assert!(admission.admit(1).is_none(), "what was refused counts no longer, but what was not does");
        drop(large);
        let second = admission.admit(1).unwrap();
        assert!(admission.admit(1).is_none());
        admission.set_most(4);
        let _third = admission.admit(1).unwrap();
        drop((first, second));
        assert!(admission.admit(2).is_some());
    }
}

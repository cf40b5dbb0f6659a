//! Bounds the number of turns in unanswered commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the turns of queued commits that are not answered yet.
#[derive(Debug)]
pub(crate) struct Intake {
    unanswered: AtomicUsize,
    most: AtomicUsize,
}

impl Intake {
    pub(crate) fn new(most: usize) -> Self {
        Self { unanswered: AtomicUsize::new(0), most: AtomicUsize::new(most) }
    }

    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Reserves a place for a commit of this many turns, or returns `None` if the limit is reached. The last commit may
    /// exceed the limit, so that a commit of any size gets through.
    pub(crate) fn place(self: &Arc<Self>, turns: usize) -> Option<Place> {
        let most = self.most.load(Ordering::Relaxed);
        let before = self.unanswered.fetch_add(turns, Ordering::Relaxed);
        // If the limit is reached, dropping `place` subtracts the turns again.
        let place = Place { intake: Arc::clone(self), turns };
        (before < most).then_some(place)
    }
}

/// One commit that is not answered yet.
#[derive(Debug)]
pub(crate) struct Place {
    intake: Arc<Intake>,
    turns: usize,
}

impl Place {
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.intake.unanswered.fetch_sub(self.turns, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_place_while_less_is_unanswered_than_may_be() {
        let intake = Arc::new(Intake::new(3));
        let first = intake.place(2).unwrap();
        let large = intake.place(1000).unwrap();
        assert!(intake.place(1).is_none());
        assert!(intake.place(1).is_none(), "what was refused counts no longer, but what was not does");
        drop(large);
        let second = intake.place(1).unwrap();
        assert!(intake.place(1).is_none());
        intake.set_most(4);
        let _third = intake.place(1).unwrap();
        drop((first, second));
        assert!(intake.place(2).is_some());
    }
}

//! The durable state of a conversation, as far as its actor knows it. Pure.

use std::collections::HashMap;

use crate::store::{StagedChange, StagedTurn, Version};
use crate::turn::{EpochMillis, Ordinal, TurnId};

/// The durable state of a conversation, as far as its actor knows it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) version: Version,
    pub(super) turns: KnownTurns,
}

/// The durable state of a conversation's turns, as far as its actor knows it.
#[derive(Debug, Default)]
pub(super) struct KnownTurns {
    pub(super) open: OpenTurns,
    /// The sealed turns that the actor has asked the store about.
    pub(super) sealed: HashMap<TurnId, Ordinal>,
    /// When the latest turn was sealed.
    pub(super) last_sealed_at: EpochMillis,
}

/// How many turns are open, and the sum of their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    pub(super) turns: usize,
    pub(super) bytes: usize,
}

impl Extent {
    pub(super) fn add(&mut self, turn_bytes: usize) {
        self.turns += 1;
        self.bytes += turn_bytes;
    }

    pub(super) fn remove(&mut self, turn_bytes: usize) {
        self.turns -= 1;
        self.bytes -= turn_bytes;
    }

    pub(super) fn resize(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes - before + after;
    }
}

/// The open turns of a conversation by their ids. Their number and the sum of their bytes are kept as running counts,
/// so checking a limit does not go through the turns.
#[derive(Debug, Default)]
pub(super) struct OpenTurns {
    turns: HashMap<TurnId, StagedTurn>,
    extent: Extent,
}

impl OpenTurns {
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    pub(super) fn get(&self, id: &TurnId) -> Option<&StagedTurn> {
        self.turns.get(id)
    }

    pub(super) fn contains(&self, id: &TurnId) -> bool {
        self.turns.contains_key(id)
    }

    pub(super) fn insert(&mut self, staged: StagedTurn) {
        self.remove(&staged.turn.id);
        self.extent.add(staged.turn.bytes());
        self.turns.insert(staged.turn.id.clone(), staged);
    }

    pub(super) fn remove(&mut self, id: &TurnId) -> Option<StagedTurn> {
        let removed = self.turns.remove(id)?;
        self.extent.remove(removed.turn.bytes());
        Some(removed)
    }

    /// Applies a change of a turn that has become durable.
    pub(super) fn change(&mut self, change: &StagedChange) {
        let before = self.remove(&change.turn_id);
        self.insert(StagedTurn::after(before, change));
    }
}

impl FromIterator<StagedTurn> for OpenTurns {
    fn from_iter<I: IntoIterator<Item = StagedTurn>>(turns: I) -> Self {
        let mut open = Self::default();
        turns.into_iter().for_each(|staged| open.insert(staged));
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{OpenStep, OpenTurn, RunningTime, StepId};

    #[test]
    fn the_number_and_the_bytes_of_open_turns_are_kept_with_each_change() {
        let id = |nth: u32| TurnId::new(format!("turn-{nth}")).unwrap();
        let staged = |nth| StagedTurn { turn: OpenTurn::new(id(nth)), last_event_at: RunningTime::new(u64::from(nth)) };
        let counted = |open: &OpenTurns| {
            let bytes = open.turns.values().map(|staged| staged.turn.bytes()).sum();
            Extent { turns: open.turns.len(), bytes }
        };
        let mut open: OpenTurns = (0..9).chain(3..6).map(staged).collect();
        assert_eq!((open.extent(), open.extent().turns), (counted(&open), 9));
        let step = |nth: u32| (nth, OpenStep::new(StepId::new(format!("step-{nth}")).unwrap()));
        for (nth, step_count) in [(4, 7), (20, 3), (4, 2)] {
            let steps = (0..step_count).map(step).collect();
            open.change(&StagedChange { step_count, steps, ..staged(nth).into() });
            assert_eq!(open.extent(), counted(&open));
        }
        assert!(open.remove(&id(4)).is_some() && open.remove(&id(4)).is_none());
        assert_eq!((open.extent(), open.extent().turns), (counted(&open), 9));
    }
}

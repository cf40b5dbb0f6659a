//! The one oracle of the tests: what a commit does, said as plainly as it can be and apart from the commit rule.
//!
//! It keeps whole turns and looks at them, where the rule has counters and look-ups. Nothing of it may be built on
//! [`rule`](super::rule), which is tested against it, as the engine is.

use std::collections::BTreeMap;

use super::{Commit, CommitError, Committed, StagedChange, StagedTurn, TurnOutcome, Version};
use crate::turn::{OpenTurn, Ordinal, StoredTurn, TurnId};

/// What a store must hold of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Oracle {
    pub(super) version: Version,
    pub(super) sealed: Vec<StoredTurn>,
    pub(super) open: BTreeMap<TurnId, StagedTurn>,
}

impl Oracle {
    pub(super) fn ordinal_of(&self, turn_id: &TurnId) -> Option<Ordinal> {
        self.sealed.iter().find(|turn| turn.metrics.turn_id == *turn_id).map(|turn| turn.ordinal)
    }

    /// Does what the commit asks, and answers as the store must.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
        if commit.expected_version != self.version {
            return Err(CommitError::Conflict { expected: commit.expected_version, actual: self.version });
        }
        let mut outcomes = Vec::new();
        for change in &commit.staged {
            let id = change.turn_id.clone();
            let outcome = if let Some(ordinal) = self.ordinal_of(&id) {
                TurnOutcome::Duplicate(ordinal)
            } else {
                let before = self.open.remove(&id);
                self.open.insert(id.clone(), changed(before, change));
                TurnOutcome::Staged
            };
            outcomes.push((id, outcome));
        }
        for sealed in &commit.sealed {
            let id = sealed.metrics.turn_id.clone();
            let outcome = if let Some(ordinal) = self.ordinal_of(&id) {
                TurnOutcome::Duplicate(ordinal)
            } else {
                let ordinal = Ordinal::after(self.sealed.len() as u64);
                self.open.remove(&id);
                let mut turn = sealed.clone().at(ordinal);
                turn.sealed_at = self.sealed.last().map_or(turn.sealed_at, |last| turn.sealed_at.max(last.sealed_at));
                self.sealed.push(turn);
                TurnOutcome::Sealed(ordinal)
            };
            outcomes.push((id, outcome));
        }
        if outcomes.iter().any(|(_, outcome)| !matches!(outcome, TurnOutcome::Duplicate(_))) {
            self.version.0 += 1;
        }
        Ok(Committed { version: self.version, outcomes })
    }
}

/// Returns the turn after a change: each step is as in the change, or else as before.
fn changed(before: Option<StagedTurn>, change: &StagedChange) -> StagedTurn {
    let before: Vec<_> = before.map_or_else(Vec::new, |before| before.turn.steps.to_vec());
    let mut steps: BTreeMap<_, _> = (0..).zip(before).collect();
    steps.extend(change.steps.iter().cloned());
    steps.retain(|place, _| *place < change.step_count);
    let turn = OpenTurn { id: change.turn_id.clone(), head: change.head.clone(), steps: steps.into_values().collect() };
    StagedTurn { turn, last_event_at: change.last_event_at }
}

/// Returns the change from the staged turn to the next one: the steps that differ, and no other.
pub(super) fn change(before: Option<&StagedTurn>, after: StagedTurn) -> StagedChange {
    let mut change = StagedChange::from(after);
    let before = before.map_or(&[][..], |before| &before.turn.steps);
    change.steps.retain(|(place, step)| before.get(*place as usize) != Some(step));
    change
}

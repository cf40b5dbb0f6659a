//! The one oracle of the tests: what a commit does, said as plainly as it can be and apart from the commit rule.
//!
//! It keeps whole turns and looks at them, where the rule has counters and look-ups. Nothing of it may be built on
//! [`rule`](super::rule), which is tested against it, as the engine is.

use std::collections::BTreeMap;

use super::{Commit, CommitError, Committed, StagedTurn, TurnOutcome, Version};
use crate::turn::{Ordinal, StoredTurn, TurnId};

/// What a store must know of a conversation.
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
        for staged in &commit.staged {
            let id = staged.turn.id.clone();
            let outcome = if let Some(ordinal) = self.ordinal_of(&id) {
                TurnOutcome::Duplicate(ordinal)
            } else {
                self.open.insert(id.clone(), staged.clone());
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

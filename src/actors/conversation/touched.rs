//! The turns that a draft has changed or looked at. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::open_change::OpenChange;
use crate::store::StagedChange;
use crate::turn::{SealedTurn, TurnId};

/// The turns that a draft has changed or looked at.
///
/// A batch may touch a hundred thousand turns. So only a commit goes through all of them; every other function looks a
/// turn up by its id. Tests count the look-ups.
#[derive(Debug, Default)]
pub(super) struct TouchedTurns {
    /// The states of the turns, sorted by id, so that the order in a commit depends on the ids alone.
    states: BTreeMap<TurnId, TurnState>,
    /// The sealed turns in the order in which they were sealed. The store seals them in this order.
    sealed: Vec<TurnId>,
    /// How many turns were looked up so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

#[derive(Debug)]
pub(super) enum TurnState {
    Open(Box<OpenChange>),
    Sealed(Box<SealedTurn>),
    /// The turn was sealed before, and this draft does not change it.
    SealedBefore,
}

impl TouchedTurns {
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn get(&self, id: &TurnId) -> Option<&TurnState> {
        #[cfg(test)]
        self.looks.update(|looks| looks + 1);
        self.states.get(id)
    }

    /// Returns the state of a turn. If the turn was not touched yet, `first` returns the state to begin with.
    pub(super) fn touch(&mut self, id: &TurnId, first: impl FnOnce() -> TurnState) -> &mut TurnState {
        #[cfg(test)]
        self.looks.update(|looks| looks + 1);
        match self.states.entry(id.clone()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(first()),
        }
    }

    pub(super) fn seal(&mut self, sealed: SealedTurn) {
        #[cfg(test)]
        self.looks.update(|looks| looks + 1);
        let id = sealed.metrics.turn_id.clone();
        self.sealed.push(id.clone());
        self.states.insert(id, TurnState::Sealed(Box::new(sealed)));
    }

    /// Adds the changes of a later trial.
    pub(super) fn extend(&mut self, later: Self) {
        #[cfg(test)]
        self.looks.update(|looks| looks + later.len());
        for (id, state) in later.states {
            match (self.states.get_mut(&id), state) {
                (Some(TurnState::Open(earlier)), TurnState::Open(later)) => earlier.extend(*later),
                // For the trial, a turn that this draft has sealed counts as sealed before.
                (Some(_), TurnState::SealedBefore) => {}
                (_, state) => drop(self.states.insert(id, state)),
            }
        }
        self.sealed.extend(later.sealed);
    }

    /// Returns the staged turns in the order of their ids, and the sealed turns in the order in which they were sealed.
    pub(super) fn into_parts(self) -> (Vec<StagedChange>, Vec<SealedTurn>) {
        let Self { mut states, sealed, .. } = self;
        let sealed = sealed.iter().filter_map(|id| match states.remove(id)? {
            TurnState::Sealed(sealed) => Some(*sealed),
            TurnState::Open(_) | TurnState::SealedBefore => None,
        });
        let sealed = sealed.collect();
        let staged = states.into_iter().filter_map(|(id, state)| match state {
            TurnState::Open(change) => Some(change.staged(id)),
            TurnState::Sealed(_) | TurnState::SealedBefore => None,
        });
        (staged.collect(), sealed)
    }

    #[cfg(test)]
    pub(super) fn looks(&self) -> usize {
        self.looks.get()
    }
}

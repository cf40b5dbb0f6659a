//! The turns that a draft has touched. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::open_change::OpenChange;
use crate::store::StagedChange;
use crate::turn::{SealedTurn, TurnId};

/// The turns that a draft has touched.
///
/// A batch may touch a hundred thousand, so nothing but a commit goes through them: all else looks one up. Tests count
/// that.
#[derive(Debug, Default)]
pub(super) struct TouchedTurns {
    /// By id, so that a commit lists them in an order that depends on nothing else.
    states: BTreeMap<TurnId, TurnState>,
    /// The sealed ones in the order in which they were, which becomes their order in the store.
    sealed: Vec<TurnId>,
    /// How many turns were looked at so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

#[derive(Debug)]
pub(super) enum TurnState {
    Open(Box<OpenChange>),
    Sealed(Box<SealedTurn>),
    /// It was before, and is left alone.
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

    /// The state of a turn, which `first` returns for one that was not touched yet.
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

    /// Takes in what a later trial made of turns.
    pub(super) fn extend(&mut self, later: Self) {
        #[cfg(test)]
        self.looks.update(|looks| looks + later.len());
        for (id, state) in later.states {
            match (self.states.get_mut(&id), state) {
                (Some(TurnState::Open(earlier)), TurnState::Open(later)) => earlier.extend(*later),
                // To the trial, a turn that these sealed was sealed before.
                (Some(_), TurnState::SealedBefore) => {}
                (_, state) => drop(self.states.insert(id, state)),
            }
        }
        self.sealed.extend(later.sealed);
    }

    /// What a commit has of them: the staged ones by their ids, and the sealed ones in their order.
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

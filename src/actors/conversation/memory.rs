//! Bounds the open turns that all conversations of a directory hold in memory.
//!
//! A conversation that is working holds a [`Permit`] for the bytes of its open turns. A conversation at rest has open
//! turns and no work. It leaves its state here. When other conversations need the room, the state of the conversation
//! that has rested longest is dropped first; the next event of that conversation loads it again from the store. If
//! dropping states makes too little room, a conversation waits in a queue for its permit. A conversation that waits
//! holds nothing that cannot be dropped, so the working conversations can always finish.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::known::Known;

/// The memory for open turns. Clones share it.
#[derive(Clone)]
pub(in crate::actors) struct Memory {
    limit: usize,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The bytes of all permits, including those of conversations at rest.
    used: usize,
    /// What each conversation at rest knows, and the bytes of its permit. The conversation that has rested longest
    /// comes first.
    resting: BTreeMap<u64, (Known, usize)>,
    resting_bytes: usize,
    last_rest: u64,
    waiting: VecDeque<(usize, oneshot::Sender<Permit>)>,
}

/// The right of a conversation to hold this many bytes of open turns in memory.
pub(super) struct Permit {
    memory: Memory,
    bytes: usize,
}

/// A claim to the state that a conversation left here when it went to rest. Dropping the claim drops the state.
pub(super) struct Rest {
    memory: Memory,
    nth: u64,
}

impl Memory {
    pub(in crate::actors) fn new(limit: usize) -> Self {
        let (resting, waiting) = (BTreeMap::new(), VecDeque::new());
        let state = State { used: 0, resting, resting_bytes: 0, last_rest: 0, waiting };
        Self { limit, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves to a permit for this many bytes, or for the whole limit if that is less. Permits are granted in the
    /// order of the requests.
    pub(super) fn permit(&self, bytes: usize) -> oneshot::Receiver<Permit> {
        let (reply, permit) = oneshot::channel();
        self.state().waiting.push_back((self.most(bytes), reply));
        self.serve();
        permit
    }

    /// Returns this number of bytes, or the limit if that is less.
    pub(super) fn most(&self, bytes: usize) -> usize {
        bytes.min(self.limit)
    }

    /// Grants permits to the conversations in the queue while there is room.
    fn serve(&self) {
        loop {
            let mut state = self.state();
            let Some((bytes, reply)) = state.waiting.front() else { return };
            let (bytes, is_gone) = (*bytes, reply.is_closed());
            if !is_gone && !state.make_room(bytes, self.limit) {
                return;
            }
            let Some((_, reply)) = state.waiting.pop_front() else { return };
            if !is_gone {
                state.used += bytes;
                // If the receiver has been dropped since, the permit is dropped here. That takes the lock, so release
                // it first.
                drop(state);
                let _ = reply.send(Permit { memory: self.clone(), bytes });
            }
        }
    }

    /// Stores what a conversation knows while it is at rest.
    pub(super) fn rest(&self, known: Known, mut permit: Permit) -> Rest {
        let mut state = self.state();
        state.last_rest += 1;
        let nth = state.last_rest;
        // The resting entry takes over the bytes of the permit.
        let bytes = std::mem::take(&mut permit.bytes);
        state.resting.insert(nth, (known, bytes));
        state.resting_bytes += bytes;
        drop(state);
        self.serve();
        Rest { memory: self.clone(), nth }
    }

    /// Returns the bytes that are held, and how many conversations wait for a permit.
    #[cfg(test)]
    pub(in crate::actors) fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.used, state.waiting.len())
    }
}

impl State {
    /// Drops the states of resting conversations until there is room for this many more bytes. If dropping all of them
    /// would not be enough, drops none. Returns whether there is room.
    fn make_room(&mut self, bytes: usize, limit: usize) -> bool {
        if self.used - self.resting_bytes + bytes > limit {
            return false;
        }
        while self.used + bytes > limit {
            let Some((_, (_, freed))) = self.resting.pop_first() else { return false };
            self.used -= freed;
            self.resting_bytes -= freed;
        }
        true
    }

    /// Removes a conversation from those at rest. Its bytes still count as used.
    fn take(&mut self, nth: u64) -> Option<(Known, usize)> {
        let (known, bytes) = self.resting.remove(&nth)?;
        self.resting_bytes -= bytes;
        Some((known, bytes))
    }
}

impl Permit {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Changes the size of the permit to this many bytes. A permit can grow only if there is room and nobody waits;
    /// otherwise this returns `false` and changes nothing.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let fits = {
            let mut state = self.memory.state();
            more == 0 || (state.waiting.is_empty() && state.make_room(more, self.memory.limit))
        };
        if fits {
            self.force(bytes);
        }
        fits
    }

    /// Changes the size of the permit to this many bytes, even if there is no room. A conversation needs this if its
    /// open turns exceed a limit that was lowered.
    pub(super) fn force(&mut self, bytes: usize) {
        {
            let mut state = self.memory.state();
            state.used = state.used - self.bytes + bytes;
        }
        let is_less = bytes < self.bytes;
        self.bytes = bytes;
        if is_less {
            self.memory.serve();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.state().used -= self.bytes;
            self.memory.serve();
        }
    }
}

impl Rest {
    /// Ends the rest and returns the state. `None` if the state was dropped in the meantime.
    pub(super) fn end(self) -> Option<(Known, Permit)> {
        let (known, bytes) = self.memory.state().take(self.nth)?;
        Some((known, Permit { memory: self.memory.clone(), bytes }))
    }

    /// Calls `look` with what the conversation knows, unless that was dropped in the meantime.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> Option<T> {
        self.memory.state().resting.get(&self.nth).map(|(known, _)| look(known))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        let Some((known, bytes)) = state.take(self.nth) else { return };
        state.used -= bytes;
        drop(state);
        drop(known);
        self.memory.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;

    fn known(version: u64) -> Known {
        Known { version: Version(version), ..Known::default() }
    }

    fn now(mut permit: oneshot::Receiver<Permit>) -> Permit {
        permit.try_recv().unwrap()
    }

    #[test]
    fn the_conversation_that_has_rested_longest_is_forgotten_first_and_one_that_works_never() {
        let memory = Memory::new(100);
        let working = now(memory.permit(30));
        let rests: Vec<_> = (0..3).map(|nth| memory.rest(known(nth), now(memory.permit(20)))).collect();
        let [first, second, third] = <[Rest; 3]>::try_from(rests).ok().unwrap();
        assert_eq!(first.look(|known| known.version), Some(Version(0)));
        // The first conversation has worked again since it rested, so the state of the second one is dropped.
        let (again, permit) = first.end().unwrap();
        let first = memory.rest(again, permit);
        let large = now(memory.permit(25));
        assert_eq!(memory.held(), (30 + 20 + 20 + 25, 0));
        assert!(second.end().is_none());
        assert_eq!(first.end().unwrap().0.version, Version(0));
        assert_eq!(memory.held(), (30 + 20 + 25, 0), "what ended its rest and was dropped holds nothing");
        assert_eq!(third.look(|known| known.version), Some(Version(2)));
        drop((working, large, third));
        assert_eq!(memory.held(), (0, 0));
    }

    #[test]
    fn permits_are_given_in_order_as_there_is_room() {
        let memory = Memory::new(100);
        let first = now(memory.permit(60));
        let mut large = memory.permit(1000);
        let mut small = memory.permit(10);
        assert!(large.try_recv().is_err() && small.try_recv().is_err(), "the small one does not overtake");
        drop(first);
        let large = now(large);
        assert_eq!(memory.held(), (100, 1), "nobody has more than there is");
        drop(memory.permit(10));
        drop(large);
        let small = now(small);
        assert_eq!(memory.held(), (10, 0), "who went away got nothing");
        drop(small);
    }

    #[test]
    fn a_permit_grows_where_there_is_room_and_nobody_waits() {
        let memory = Memory::new(100);
        let mut permit = now(memory.permit(10));
        let rest = memory.rest(known(1), now(memory.permit(50)));
        assert!(permit.resize(60), "what rests makes room");
        assert!(rest.end().is_none());
        assert!(!permit.resize(101));
        let waiting = memory.permit(50);
        assert!(!permit.resize(61), "another one waits");
        assert!(permit.resize(50));
        drop(now(waiting));
        permit.force(170);
        assert_eq!(memory.held(), (170, 0));
        drop(permit);
        assert_eq!(memory.held(), (0, 0));
    }
}

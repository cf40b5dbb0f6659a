//! Bounds the open turns that all conversations of a directory hold in memory.
//!
//! A conversation with work holds a [`Permit`] for the bytes of its open turns. At rest it leaves them here, where the
//! conversation that has rested longest is the first to be forgotten when others need the room; it is loaded
//! again with its next event. Where that makes no room, a conversation waits its turn. One that waits holds nothing that
//! cannot be forgotten, so those that work always come to their end.

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
    /// The bytes of all permits, those of resting conversations included.
    used: usize,
    /// What conversations at rest know, and the bytes of their permits. The one that rests longest comes first.
    resting: BTreeMap<u64, (Known, usize)>,
    resting_bytes: usize,
    last_rest: u64,
    waiting: VecDeque<(usize, oneshot::Sender<Permit>)>,
}

/// The right to hold this many bytes of open turns.
pub(super) struct Permit {
    memory: Memory,
    bytes: usize,
}

/// A claim to what a conversation left here at rest. Dropping it forgets that.
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

    /// Resolves to a permit for this many bytes, or for all there are if that is fewer. Permits are given in the order in
    /// which they were asked for.
    pub(super) fn permit(&self, bytes: usize) -> oneshot::Receiver<Permit> {
        let (reply, permit) = oneshot::channel();
        self.state().waiting.push_back((self.most(bytes), reply));
        self.serve();
        permit
    }

    /// This many bytes, or all there are if that is fewer.
    pub(super) fn most(&self, bytes: usize) -> usize {
        bytes.min(self.limit)
    }

    /// Gives permits to those that wait, as far as there is room.
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
                // If the receiver has gone away since, the permit is dropped here, which takes the lock.
                drop(state);
                let _ = reply.send(Permit { memory: self.clone(), bytes });
            }
        }
    }

    /// Leaves here what a conversation knows that has nothing to do.
    pub(super) fn rest(&self, known: Known, mut permit: Permit) -> Rest {
        let mut state = self.state();
        state.last_rest += 1;
        let nth = state.last_rest;
        // The bytes go from the permit to the entry.
        let bytes = std::mem::take(&mut permit.bytes);
        state.resting.insert(nth, (known, bytes));
        state.resting_bytes += bytes;
        drop(state);
        self.serve();
        Rest { memory: self.clone(), nth }
    }

    /// The bytes that are held, and how many conversations wait.
    #[cfg(test)]
    pub(in crate::actors) fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.used, state.waiting.len())
    }
}

impl State {
    /// Forgets resting conversations until there is room for this many bytes more. If all of them together are too few,
    /// it forgets none. Returns whether there is room.
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

    /// Ends a rest. The bytes stay used.
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

    /// Makes it a permit for this many bytes. A permit that has to grow may do so where there is room and nobody waits;
    /// if not, this returns `false` and changes nothing.
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

    /// Makes it a permit for this many bytes, whether there is room or not: for a conversation whose open turns are
    /// larger than its limit, which was lowered.
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
    /// Ends the rest. `None` if the conversation was forgotten meanwhile.
    pub(super) fn end(self) -> Option<(Known, Permit)> {
        let (known, bytes) = self.memory.state().take(self.nth)?;
        Some((known, Permit { memory: self.memory.clone(), bytes }))
    }

    /// Looks at what the conversation knows, if that is still there.
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
        // The first one has worked again since, so the second one goes.
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

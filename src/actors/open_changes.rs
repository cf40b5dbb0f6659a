//! Which open turns have changed, for those who show turns while they are worked on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;

use crate::turn::{ConversationId, TurnId};

/// The maximum number of changed turns that a watch collects for those who watch all conversations. Further changes are
/// left out until the collected ones are taken.
const MAX_TURNS: usize = 16 * 1024;

/// The watches on open turns. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The number of watches. While it is 0, a change costs nothing but a look at it.
    count: AtomicUsize,
    watches: Mutex<Vec<Arc<Mutex<Watched>>>>,
}

/// Collects which open turns have changed, and not how: the present state of a turn is in the store.
///
/// A turn that changes often is collected once, so a watch takes little memory and a change never waits.
#[derive(Debug)]
pub(crate) struct OpenWatch {
    watches: Watches,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// How many watch all conversations.
    all: usize,
    /// How many watch a conversation by its id.
    by_id: HashMap<ConversationId, usize>,
    changed: ChangedTurns,
    /// The number of turns in `changed`.
    turns: usize,
}

/// The open turns that have changed, by conversation, in the order of the first change.
pub(crate) type ChangedTurns = IndexMap<ConversationId, HashSet<TurnId>>;

impl Watches {
    pub(super) fn watch(&self) -> OpenWatch {
        let watched = Arc::<Mutex<Watched>>::default();
        let mut all = lock(&self.0.watches);
        all.push(Arc::clone(&watched));
        self.0.count.store(all.len(), Ordering::Release);
        OpenWatch { watches: self.clone(), watched }
    }

    /// Notes that open turns of a conversation have changed. `turns` is only called if there is a watch.
    pub(super) fn note<'a, T>(&self, conversation_id: &ConversationId, turns: impl Fn() -> T)
    where
        T: Iterator<Item = &'a TurnId>,
    {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return;
        }
        for watched in lock(&self.0.watches).iter() {
            lock(watched).note(conversation_id, turns());
        }
    }
}

impl Watched {
    fn note<'a>(&mut self, id: &ConversationId, turns: impl Iterator<Item = &'a TurnId>) {
        let by_id = self.by_id.contains_key(id);
        for turn in turns {
            if by_id || (self.all > 0 && self.turns < MAX_TURNS) {
                let changed = match self.changed.get_mut(id) {
                    Some(changed) => changed,
                    None => self.changed.entry(id.clone()).or_default(),
                };
                if !changed.contains(turn) {
                    changed.insert(turn.clone());
                    self.turns += 1;
                }
            }
        }
    }
}

impl OpenWatch {
    /// Collects changes in this conversation from now on; `None` stands for all conversations. Each call needs a call
    /// of [`Self::leave`].
    pub(crate) fn enter(&self, conversation_id: Option<&ConversationId>) {
        let mut watched = lock(&self.watched);
        match conversation_id {
            Some(id) => *watched.by_id.entry(id.clone()).or_default() += 1,
            None => watched.all += 1,
        }
    }

    /// Ends what a call of [`Self::enter`] began.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn leave(&self, conversation_id: Option<&ConversationId>) {
        let mut watched = lock(&self.watched);
        match conversation_id {
            Some(id) => {
                if let Some(count) = watched.by_id.get_mut(id) {
                    *count -= 1;
                    if *count == 0 {
                        watched.by_id.remove(id);
                    }
                }
            }
            None => watched.all = watched.all.saturating_sub(1),
        }
    }

    /// Takes the changes that were collected.
    pub(crate) fn take(&self) -> ChangedTurns {
        let mut watched = lock(&self.watched);
        watched.turns = 0;
        std::mem::take(&mut watched.changed)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let shared = &self.watches.0;
        let mut all = lock(&shared.watches);
        all.retain(|watched| !Arc::ptr_eq(watched, &self.watched));
        shared.count.store(all.len(), Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ConversationId {
        ConversationId::new(text).unwrap()
    }

    fn note(watches: &Watches, conversation: &str, turns: &[&str]) {
        let turns: Vec<_> = turns.iter().map(|turn| TurnId::new(*turn).unwrap()).collect();
        watches.note(&id(conversation), || turns.iter());
    }

    fn taken(watch: &OpenWatch) -> Vec<String> {
        let mut taken: Vec<_> =
            watch.take().iter().flat_map(|(id, turns)| turns.iter().map(move |turn| format!("{id}/{turn}"))).collect();
        taken.sort();
        taken
    }

    #[test]
    fn each_watch_collects_each_changed_turn_once_until_it_is_taken() {
        let watches = Watches::default();
        watches.note(&id("c"), || -> std::iter::Empty<&TurnId> { panic!("nobody watches") });
        let (one, other) = (watches.watch(), watches.watch());
        one.enter(None);
        other.enter(None);
        for _ in 0..3 {
            note(&watches, "c", &["t", "u"]);
        }
        note(&watches, "d", &["t"]);
        assert_eq!(taken(&one), ["c/t", "c/u", "d/t"]);
        assert_eq!(taken(&one), [""; 0]);
        note(&watches, "c", &["t"]);
        assert_eq!(taken(&one), ["c/t"]);
        assert_eq!(taken(&other), ["c/t", "c/u", "d/t"]);
        drop((one, other));
        watches.note(&id("c"), || -> std::iter::Empty<&TurnId> { panic!("nobody watches any more") });
    }

    #[test]
    fn a_watch_collects_only_what_somebody_has_entered_for() {
        let watches = Watches::default();
        let watch = watches.watch();
        let change = || {
            note(&watches, "c", &["t"]);
            note(&watches, "d", &["t"]);
            taken(&watch)
        };
        assert_eq!(change(), [""; 0]);
        watch.enter(Some(&id("c")));
        watch.enter(Some(&id("c")));
        assert_eq!(change(), ["c/t"]);
        watch.enter(None);
        assert_eq!(change(), ["c/t", "d/t"]);
        watch.leave(None);
        watch.leave(Some(&id("c")));
        assert_eq!(change(), ["c/t"], "one is left");
        watch.leave(Some(&id("c")));
        assert_eq!(change(), [""; 0]);
    }

    #[test]
    fn the_changes_of_all_conversations_are_bounded_and_those_of_a_chosen_one_are_not_left_out() {
        let watches = Watches::default();
        let watch = watches.watch();
        watch.enter(None);
        watch.enter(Some(&id("chosen")));
        for n in 0..MAX_TURNS + 10 {
            note(&watches, &format!("c{n}"), &["t"]);
        }
        note(&watches, "chosen", &["t"]);
        let changed = watch.take();
        assert_eq!(changed.len(), MAX_TURNS + 1);
        assert!(changed.contains_key(&id("chosen")));
        note(&watches, "c", &["t"]);
        assert_eq!(taken(&watch), ["c/t"], "there is room again");
    }
}

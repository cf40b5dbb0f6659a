use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::turn::ConversationId;

/// The maximum number of warnings that are remembered. Beyond it, the oldest is forgotten and may be logged again.
const MAX_REMEMBERED: usize = 4096;

/// The warnings that were logged: of each conversation every kind once, however often its actor is retired. Clones share
/// them. They are kept in memory, so each process logs a warning anew.
#[derive(Clone, Default)]
pub(in crate::actors) struct LoggedWarnings(Arc<Mutex<Remembered>>);

#[derive(Default)]
struct Remembered {
    all: HashSet<Logged>,
    /// The oldest comes first.
    in_order: VecDeque<Logged>,
}

type Logged = (ConversationId, &'static str);

impl LoggedWarnings {
    /// Remembers a kind of warning about a conversation. Returns whether it was not remembered before.
    pub(super) fn add(&self, id: &ConversationId, kind: &'static str) -> bool {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { all, in_order } = &mut *remembered;
        let logged = (id.clone(), kind);
        if !all.insert(logged.clone()) {
            return false;
        }
        in_order.push_back(logged);
        if in_order.len() > MAX_REMEMBERED
            && let Some(oldest) = in_order.pop_front()
        {
            all.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_once_a_conversation_and_the_oldest_is_forgotten() {
        let logged = LoggedWarnings::default();
        let id = |nth: usize| ConversationId::new(nth.to_string()).unwrap();
        assert!(logged.add(&id(0), "one") && logged.add(&id(0), "another"));
        assert!(!logged.clone().add(&id(0), "one"));
        for nth in 1..MAX_REMEMBERED {
            assert!(logged.add(&id(nth), "one"));
        }
        assert!(!logged.add(&id(0), "another") && !logged.add(&id(MAX_REMEMBERED - 1), "one"));
        assert!(logged.add(&id(0), "one"), "it was the oldest");
        let remembered = logged.0.lock().unwrap();
        assert_eq!((remembered.all.len(), remembered.in_order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}

//! Remembers which warnings were logged, so that none is logged again and again.
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexSet;

use crate::turn::ConversationId;

/// The maximum number of remembered warnings. Beyond it, the oldest is forgotten and may be logged again.
const MAX_REMEMBERED: usize = 4096;

/// The warnings that were logged. Each kind of warning is logged once for a conversation, however often its actor is
/// retired. Clones share the warnings. They are kept in memory only, so a new process logs a warning again.
#[derive(Clone, Default)]
pub(in crate::actors) struct LoggedWarnings(Arc<Mutex<IndexSet<(ConversationId, &'static str)>>>);

impl LoggedWarnings {
    /// Remembers a kind of warning about a conversation. Returns whether it is new, so that it has to be logged.
    pub(super) fn add(&self, id: &ConversationId, kind: &'static str) -> bool {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = remembered.insert((id.clone(), kind));
        if remembered.len() > MAX_REMEMBERED {
            remembered.shift_remove_index(0);
        }
        is_new
    }

    /// Forgets the warnings about a conversation.
    pub(in crate::actors) fn forget(&self, id: &ConversationId) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|(of, _)| of != id);
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
        assert_eq!(logged.0.lock().unwrap().len(), MAX_REMEMBERED);
        logged.forget(&id(0));
        assert!(logged.add(&id(0), "one") && !logged.add(&id(MAX_REMEMBERED - 1), "one"));
    }
}

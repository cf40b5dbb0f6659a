use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use lru::LruCache;

use crate::store::Revision;
use crate::turn::ConversationId;

/// A body may take at most one part in this many of the cache, so that it does not drive out the others.
const SHARE: usize = 16;

/// The approximate size of an entry without its id and its body.
const ENTRY_BYTES: usize = 256;

/// Keeps the bodies of the latest answers. A body is sent again as long as the conversation has the same turns, and is
/// the beginning of the next body when it has more.
///
/// All workers share one cache, since the connections of a client are spread over them. The lock is held only to look
/// up or replace one entry.
#[derive(Clone)]
pub(crate) struct BodyCache {
    kept: Arc<Mutex<Kept>>,
    max_bytes: usize,
}

struct Kept {
    bodies: LruCache<ConversationId, Body>,
    /// The size of all entries.
    bytes: usize,
}

/// A body with all turns of the revision, none left out.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) revision: Revision,
    pub(crate) bytes: Bytes,
}

impl BodyCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let kept = Kept { bodies: LruCache::unbounded(), bytes: 0 };
        Self { kept: Arc::new(Mutex::new(kept)), max_bytes }
    }

    /// The most bytes of a body that is kept.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.max_bytes / SHARE
    }

    /// Returns the latest body of the conversation. All later bodies of the same life begin with its turns.
    pub(crate) fn find(&self, id: &ConversationId) -> Option<Body> {
        self.lock().bodies.get(id).cloned()
    }

    /// Keeps a body, unless it is too large or older than the one that is kept.
    pub(crate) fn keep(&self, id: ConversationId, body: Body) {
        if body.bytes.len() > self.max_body_bytes() {
            return;
        }
        let mut kept = self.lock();
        if kept.bodies.peek(&id).is_some_and(|known| known.is_later_than(&body)) {
            return;
        }
        kept.bytes += weight(&id, &body);
        if let Some((id, body)) = kept.bodies.push(id, body) {
            kept.bytes -= weight(&id, &body);
        }
        while kept.bytes > self.max_bytes
            && let Some((id, body)) = kept.bodies.pop_lru()
        {
            kept.bytes -= weight(&id, &body);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock panics half way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    fn is_later_than(&self, other: &Self) -> bool {
        let (revision, other) = (&self.revision, &other.revision);
        revision.is_of_the_same_life(other) && revision.sealed_turns > other.sealed_turns
    }
}

fn weight(id: &ConversationId, body: &Body) -> usize {
    id.as_str().len() + body.bytes.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::{Life, Lineage};

    fn id(id: &str) -> ConversationId {
        ConversationId::new(id).unwrap()
    }

    fn revision(lineage: u128, life: u64, sealed_turns: u64) -> Revision {
        Revision::new(Lineage(Uuid::from_u128(lineage)), Life(life), sealed_turns)
    }

    fn body(sealed_turns: u64, len: usize) -> Body {
        Body { revision: revision(7, 5, sealed_turns), bytes: vec![b'x'; len].into() }
    }

    fn turns(cache: &BodyCache, of: &str) -> Option<u64> {
        cache.find(&id(of)).map(|body| body.revision.sealed_turns)
    }

    #[test]
    fn those_asked_for_least_lately_go_when_the_memory_is_full() {
        let cache = BodyCache::new(SHARE * 1000);
        // The ids and entries take room too, so that fewer fit than bodies alone would.
        for n in 0..SHARE - 3 {
            cache.keep(id(&n.to_string()), body(1, 1000));
        }
        let there: Vec<_> = (0..SHARE).filter(|n| turns(&cache, &n.to_string()).is_some()).collect();
        assert_eq!(there, (1..SHARE - 3).collect::<Vec<_>>());
        assert!(cache.find(&id("1")).is_some());
        cache.keep(id("another"), body(1, 1000));
        assert_eq!((turns(&cache, "1"), turns(&cache, "2")), (Some(1), None));
        assert!(cache.lock().bytes <= SHARE * 1000);
    }

    #[test]
    fn what_is_counted_is_what_is_there() {
        let cache = BodyCache::new(100_000);
        for n in 0..1000 {
            let name = (n % 50).to_string();
            cache.keep(id(&name), body(n, 7 * usize::try_from(n).unwrap() % 5000));
            let kept = cache.lock();
            assert_eq!(kept.bytes, kept.bodies.iter().map(|(id, body)| weight(id, body)).sum::<usize>());
            assert!(kept.bytes <= 100_000);
        }
    }

    #[test]
    fn a_body_over_its_share_is_not_kept_and_drives_nothing_out() {
        let cache = BodyCache::new(SHARE * 1000);
        cache.keep(id("small"), body(1, 1));
        cache.keep(id("large"), body(1, 1001));
        assert_eq!((turns(&cache, "small"), turns(&cache, "large")), (Some(1), None));
    }

    #[test]
    fn an_older_body_does_not_take_the_place_of_a_newer_one_but_that_of_another_store_or_life() {
        let cache = BodyCache::new(100_000);
        for (sealed_turns, kept) in [(2, 2), (1, 2), (3, 3)] {
            cache.keep(id("c"), body(sealed_turns, 10));
            assert_eq!(turns(&cache, "c"), Some(kept));
        }
        for (lineage, life) in [(8, 5), (7, 6)] {
            cache.keep(id("c"), body(3, 10));
            cache.keep(id("c"), Body { revision: revision(lineage, life, 1), ..body(1, 1) });
            assert_eq!(turns(&cache, "c"), Some(1));
        }
    }
}

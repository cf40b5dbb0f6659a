use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use lru::LruCache;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::store::Revision;
use crate::turn::ConversationId;

/// One body may take at most 1/16 of the cache, so that it does not drive out all others.
const SHARE: usize = 16;

/// The approximate size of an entry without its id and its body.
const ENTRY_BYTES: usize = 256;

/// An LRU cache of whole response bodies. A cached body is sent again while the conversation has the same turns. It is
/// extended when the conversation has more turns.
///
/// All workers share one cache, because the connections of a client are spread over the workers. The lock is held only
/// to look up or replace one entry.
#[derive(Clone)]
pub(crate) struct BodyCache {
    entries: Arc<Mutex<Entries>>,
    max_bytes: usize,
}

struct Entries {
    bodies: LruCache<ConversationId, CachedBody>,
    /// The size of all entries in bytes.
    bytes: usize,
    /// How many times a body was to be dropped.
    removals: u64,
}

/// A body that contains all turns of the revision.
#[derive(Clone)]
pub(crate) struct CachedBody {
    pub(crate) revision: Revision,
    pub(crate) bytes: Bytes,
}

impl BodyCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let entries = Entries { bodies: LruCache::unbounded(), bytes: 0, removals: 0 };
        Self { entries: Arc::new(Mutex::new(entries)), max_bytes }
    }

    /// Returns the maximum size of a body that is cached.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.max_bytes / SHARE
    }

    /// Returns the latest cached body of the conversation. Later bodies of the same life of the conversation begin with
    /// the same turns.
    pub(crate) fn get(&self, id: &ConversationId) -> Option<CachedBody> {
        self.lock().bodies.get(id).cloned()
    }

    /// Returns how many bodies were dropped so far, see [`Self::put`].
    pub(crate) fn removals(&self) -> u64 {
        self.lock().removals
    }

    /// Caches a body, unless it is too large or older than the cached one. `removals` is the number of removals when the
    /// reading of the body began. If there were others since, the body is not cached, as its conversation may be erased.
    pub(crate) fn put(&self, id: ConversationId, body: CachedBody, removals: u64) {
        if body.bytes.len() > self.max_body_bytes() {
            return;
        }
        let mut entries = self.lock();
        if entries.removals != removals {
            return;
        }
        if entries.bodies.peek(&id).is_some_and(|known| known.is_later_than(&body)) {
            return;
        }
        entries.bytes += weight(&id, &body);
        if let Some((id, body)) = entries.bodies.push(id, body) {
            entries.bytes -= weight(&id, &body);
        }
        while entries.bytes > self.max_bytes
            && let Some((id, body)) = entries.bodies.pop_lru()
        {
            entries.bytes -= weight(&id, &body);
        }
    }

    /// Drops the cached body of a conversation.
    pub(crate) fn remove(&self, id: &ConversationId) {
        let mut entries = self.lock();
        entries.removals += 1;
        if let Some(body) = entries.bodies.pop(id) {
            entries.bytes -= weight(id, &body);
        }
    }

    /// Drops the cached body of each conversation that is erased from now on. An actor's message can erase one too, without
    /// a request to this API.
    pub(crate) async fn follow(self, mut erased: Receiver<ConversationId>) {
        loop {
            match erased.recv().await {
                Ok(id) => self.remove(&id),
                // Too many were erased to know which.
                Err(RecvError::Lagged(_)) => self.clear(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn clear(&self) {
        let mut entries = self.lock();
        entries.removals += 1;
        entries.bodies.clear();
        entries.bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No code that holds the lock can panic halfway, so a poisoned lock does no harm.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedBody {
    fn is_later_than(&self, other: &Self) -> bool {
        let (revision, other) = (&self.revision, &other.revision);
        revision.is_of_the_same_life(other) && revision.sealed_turns > other.sealed_turns
    }
}

fn weight(id: &ConversationId, body: &CachedBody) -> usize {
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

    fn body(sealed_turns: u64, len: usize) -> CachedBody {
        CachedBody { revision: revision(7, 5, sealed_turns), bytes: vec![b'x'; len].into() }
    }

    fn turns(cache: &BodyCache, of: &str) -> Option<u64> {
        cache.get(&id(of)).map(|body| body.revision.sealed_turns)
    }

    #[actix_web::test]
    async fn bodies_of_erased_conversations_are_dropped_and_all_if_too_many_were_erased_to_know_which() {
        let cache = BodyCache::new(SHARE * 1000);
        let put = |name: &str| cache.put(id(name), body(1, 10), cache.removals());
        ["a", "b"].into_iter().for_each(put);
        let (erased, erasures) = tokio::sync::broadcast::channel(2);
        erased.send(id("a")).unwrap();
        drop(erased);
        cache.clone().follow(erasures).await;
        assert_eq!((turns(&cache, "a"), turns(&cache, "b")), (None, Some(1)));
        let (erased, erasures) = tokio::sync::broadcast::channel(2);
        for name in ["x", "y", "z"] {
            erased.send(id(name)).unwrap();
        }
        drop(erased);
        cache.clone().follow(erasures).await;
        assert_eq!(turns(&cache, "b"), None);
    }

    #[test]
    fn the_least_recently_read_bodies_are_dropped_when_the_memory_is_full() {
        let cache = BodyCache::new(SHARE * 1000);
        // The ids and the entries take room too, so fewer bodies fit than their own sizes would allow.
        for n in 0..SHARE - 3 {
            cache.put(id(&n.to_string()), body(1, 1000), cache.removals());
        }
        let there: Vec<_> = (0..SHARE).filter(|n| turns(&cache, &n.to_string()).is_some()).collect();
        assert_eq!(there, (1..SHARE - 3).collect::<Vec<_>>());
        assert!(cache.get(&id("1")).is_some());
        cache.put(id("another"), body(1, 1000), cache.removals());
        assert_eq!((turns(&cache, "1"), turns(&cache, "2")), (Some(1), None));
        assert!(cache.lock().bytes <= SHARE * 1000);
    }

    #[test]
    fn the_counted_size_is_the_size_of_the_entries() {
        let cache = BodyCache::new(100_000);
        for n in 0..1000 {
            let name = (n % 50).to_string();
            cache.put(id(&name), body(n, 7 * usize::try_from(n).unwrap() % 5000), cache.removals());
            let entries = cache.lock();
            assert_eq!(entries.bytes, entries.bodies.iter().map(|(id, body)| weight(id, body)).sum::<usize>());
            assert!(entries.bytes <= 100_000);
        }
    }

    #[test]
    fn a_body_over_its_share_is_not_cached_and_drives_nothing_out() {
        let cache = BodyCache::new(SHARE * 1000);
        cache.put(id("small"), body(1, 1), cache.removals());
        cache.put(id("large"), body(1, 1001), cache.removals());
        assert_eq!((turns(&cache, "small"), turns(&cache, "large")), (Some(1), None));
    }

    #[test]
    fn an_older_body_does_not_take_the_place_of_a_newer_one_but_that_of_another_store_or_life() {
        let cache = BodyCache::new(100_000);
        for (sealed_turns, kept) in [(2, 2), (1, 2), (3, 3)] {
            cache.put(id("c"), body(sealed_turns, 10), cache.removals());
            assert_eq!(turns(&cache, "c"), Some(kept));
        }
        for (lineage, life) in [(8, 5), (7, 6)] {
            cache.put(id("c"), body(3, 10), cache.removals());
            cache.put(id("c"), CachedBody { revision: revision(lineage, life, 1), ..body(1, 1) }, cache.removals());
            assert_eq!(turns(&cache, "c"), Some(1));
        }
    }

    #[test]
    fn a_body_that_was_read_before_a_removal_is_not_cached_after_it() {
        let cache = BodyCache::new(100_000);
        let before = cache.removals();
        cache.remove(&id("c"));
        cache.put(id("c"), body(1, 1), before);
        assert!(cache.get(&id("c")).is_none());
        cache.put(id("c"), body(1, 1), cache.removals());
        assert!(cache.get(&id("c")).is_some());
    }
}

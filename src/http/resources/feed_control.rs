use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};

use crate::settings::HttpSettings;

/// How many readers may read a page of the store at one time. Pages are read on few threads, on which other questions
/// wait too.
const READING_AT_ONCE: usize = 2;

/// What the readers of all workers share. Clones share it too.
#[derive(Debug, Clone)]
pub(crate) struct FeedControl {
    readers: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    showing: Arc<Semaphore>,
    ended: Arc<watch::Sender<bool>>,
}

/// The place of one reader among all readers. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ReaderPlace {
    _place: OwnedSemaphorePermit,
}

impl FeedControl {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        // The other connections are left for requests.
        let most = settings.max_feed_readers.min((settings.max_connections / 2).max(1)).min(Semaphore::MAX_PERMITS);
        Self {
            readers: Arc::new(Semaphore::new(most)),
            reading: Arc::new(Semaphore::new(READING_AT_ONCE)),
            showing: Arc::new(Semaphore::new(1)),
            ended: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Takes a place for a reader, if there is one.
    pub(crate) fn enter(&self) -> Option<ReaderPlace> {
        Some(ReaderPlace { _place: Arc::clone(&self.readers).try_acquire_owned().ok()? })
    }

    /// Waits until this reader may read a page of the store. The semaphore is never closed, so a permit always comes.
    pub(crate) async fn may_read(&self) -> Option<SemaphorePermit<'_>> {
        self.reading.acquire().await.ok()
    }

    /// Waits until this hub may read open turns to show them. Hubs do not wait for readers. The semaphore is never closed,
    /// so a permit always comes.
    pub(crate) async fn may_show(&self) -> Option<SemaphorePermit<'_>> {
        self.showing.acquire().await.ok()
    }

    /// Ends all streams, also those that begin later.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Returns a receiver that sees whether all streams are to end.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_limited_and_leave_half_of_the_connections_to_others() {
        for (max_connections, max_feed_readers, most) in [(100, 3, 3), (10, 100, 5), (1, 100, 1), (1, 1, 1)] {
            let settings = HttpSettings { max_connections, max_feed_readers, ..HttpSettings::default() };
            let control = FeedControl::new(&settings);
            let mut places: Vec<_> = std::iter::from_fn(|| control.enter()).collect();
            assert_eq!(places.len(), most);
            places.pop();
            assert!(control.enter().is_some(), "the place of a reader that has left is free");
        }
    }
}

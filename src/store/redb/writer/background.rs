use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::store::redb::checkpoint::Checkpoint;

/// The handle of a thread that runs flushes while they are worthwhile, adds turns to the filter, counts turns, computes
/// all costs anew if the prices have changed, and removes the rows of erased conversations. The thread ends when the
/// handle is dropped.
#[derive(Debug)]
pub(crate) struct Background(SyncSender<()>);

impl Background {
    pub(crate) fn start(checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        let (wakes, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into());
        thread.spawn(move || {
            while woken.recv().is_ok() {
                checkpoint.learn_turns();
                loop {
                    while checkpoint.is_worthwhile() && checkpoint.flush_in_background() {}
                    while checkpoint.count_turns() {}
                    if !checkpoint.reprice_in_background() && !checkpoint.erase_in_background() {
                        break;
                    }
                }
            }
        })?;
        let background = Self(wakes);
        // There may be something to do before the first commit.
        background.wake();
        Ok(background)
    }

    /// A handle whose wake-ups are ignored.
    #[cfg(test)]
    pub(crate) fn by_hand() -> Self {
        Self(sync_channel(1).0)
    }

    /// Wakes the thread, so that it checks whether there is something to do.
    pub(crate) fn wake(&self) {
        // If the channel is full, the thread was woken before and has not checked yet. It will.
        let _ = self.0.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::StoreSettings;
    use crate::store::redb::engine::RedbEngine;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::files::slot::Slot;
    use crate::store::{Commit, Version};
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId};

    /// Returns a store with two turns in the tables. An opening adds only one of them to the filter.
    async fn two_turns() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let store = RedbEngine::open(location, &StoreSettings::default()).unwrap();
        let sealed = ["a", "b"]
            .map(|id| OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1)));
        let conversation_id = ConversationId::new("c").unwrap();
        let commit =
            Commit { conversation_id, expected_version: Version(0), staged: Vec::new(), sealed: sealed.into() };
        store.commit(commit).await.unwrap();
        store.close().await;
        directory
    }

    #[tokio::test]
    async fn the_thread_works_once_it_is_woken_and_ends_when_its_handle_is_dropped() {
        let directory = two_turns().await;
        let files = Location::Directory(directory.path().to_owned()).open(1 << 20).unwrap();
        let filter = files.filter();
        let checkpoint = Arc::new(Checkpoint::new(Arc::new(Slot::new(files)), 1 << 20));
        let ended = Arc::downgrade(&checkpoint);
        let background = Background::start(checkpoint).unwrap();
        assert!(!filter.is_complete(), "the thread worked without being woken");
        // The test wakes the thread more often than it can check. No call waits for the thread.
        (0..9).for_each(|_| background.wake());
        while !filter.is_complete() {
            std::thread::yield_now();
        }
        drop(background);
        while ended.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}

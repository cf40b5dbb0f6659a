use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::store::redb::checkpoint::Checkpoint;

/// A thread that runs flushes while they are worthwhile, and derives costs anew if they are by other prices. It ends when this is dropped.
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
                    if !checkpoint.reprice_in_background() {
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

    /// Has it look whether there is something to do.
    pub(crate) fn wake(&self) {
        // One that was woken before and has not looked yet will look.
        let _ = self.0.try_send(());
    }
}

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::store::redb::checkpoint::Checkpoint;

/// How often the thread notes the newest row of the journal in the main file, and checks that the files are in place.
/// A note costs two fsyncs. If an older journal is restored beside the main file, only the rows of this time can be
/// missing unnoticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The handle of a thread that runs flushes while they are worthwhile, adds turns to the filter, computes all costs anew
/// if the prices have changed, and removes the rows of erased conversations. Every few seconds it also looks after the
/// files. Another thread counts turns meanwhile: a flush waits for the disk most of the time. The threads end when the
/// handle is dropped.
#[derive(Debug)]
pub(crate) struct Background(SyncSender<()>);

impl Background {
    pub(crate) fn start(checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        Self::start_looking_every(LOOK_INTERVAL, checkpoint)
    }

    fn start_looking_every(interval: Duration, checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        let counts = start_counting(Arc::clone(&checkpoint))?;
        let (wakes, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into());
        thread.spawn(move || {
            let mut next_look = Instant::now();
            loop {
                match woken.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if Instant::now() >= next_look {
                    checkpoint.check_in_place();
                    checkpoint.note_newest_in_background();
                    next_look = Instant::now() + interval;
                }
                checkpoint.learn_turns();
                loop {
                    count_meanwhile(&checkpoint, &counts);
                    while checkpoint.is_worthwhile() && checkpoint.flush_in_background() {
                        count_meanwhile(&checkpoint, &counts);
                    }
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

/// Starts the thread that counts turns. It counts when it gets something, and ends when the sender is dropped.
fn start_counting(checkpoint: Arc<Checkpoint>) -> io::Result<SyncSender<()>> {
    let (counts, asked) = sync_channel(1);
    let thread = std::thread::Builder::new().name("store-counts".into());
    thread.spawn(move || {
        while asked.recv().is_ok() {
            while checkpoint.count_turns() {}
        }
    })?;
    Ok(counts)
}

/// Lets the other thread count turns if there are many.
fn count_meanwhile(checkpoint: &Checkpoint, counts: &SyncSender<()>) {
    if checkpoint.has_turns_to_count() {
        // If the channel is full, the thread has not begun yet.
        let _ = counts.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::StoreSettings;
    use crate::store::redb::engine::RedbEngine;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::files::open_files::Files;
    use crate::store::redb::files::slot::Slot;
    use crate::store::redb::tables::journal_mark::JournalMark;
    use crate::store::redb::tables::meta::ReadMeta;
    use crate::store::redb::writer::backoff::Backoff;
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
        let commit = Commit {
            conversation_id,
            expected_version: Version(0),
            staged: Vec::new(),
            sealed: sealed.into(),
            imported_from: None,
        };
        store.commit(commit).await.unwrap();
        store.close().await;
        directory
    }

    #[test]
    fn the_newest_row_is_noted_in_the_tables_again_and_again() {
        let slot = Arc::new(Slot::new(Location::Memory.open(1 << 20).unwrap()));
        let checkpoint = Arc::new(Checkpoint::new(Arc::clone(&slot), 1 << 20));
        let _background = Background::start_looking_every(Duration::ZERO, checkpoint).unwrap();
        for number in 1..=3 {
            let newest = JournalMark { number, checksum: number };
            slot.with(|files| files.memtable_mut().took_row(newest, 1)).unwrap();
            let noted = |files: &Files| ReadMeta::read(&files.begin_read().unwrap()).unwrap().newest().unwrap();
            while slot.with(noted).unwrap() != newest {
                std::thread::yield_now();
            }
        }
    }

    #[tokio::test]
    async fn the_thread_works_once_it_is_woken_and_ends_when_its_handle_is_dropped() {
        let directory = two_turns().await;
        let files = Location::Directory(directory.path().to_owned()).open(1 << 20).unwrap();
        let filter = files.filter();
        let checkpoint = Arc::new(Checkpoint::new(Arc::new(Slot::new(files)), 1 << 20));
        let ended = Arc::downgrade(&checkpoint);
        let background = Background::start(checkpoint).unwrap();
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

    #[tokio::test]
    async fn many_turns_are_counted_without_a_flush_or_a_report() {
        let (store, mut writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        writer.checkpoint_in_background().unwrap();
        let checkpoint = Arc::clone(writer.checkpoint());
        let thread = std::thread::spawn(move || writer.run());
        let mut version = 0;
        let mut bytes = 0;
        while bytes < 1 << 20 {
            // Ids of 256 bytes: few turns have many bytes.
            let turns = (0..100).map(|nth| OpenTurn::new(TurnId::new(format!("{version:0>200}-{nth:0>55}")).unwrap()));
            let sealed: Vec<_> = turns.map(|turn| turn.seal(&Done::because("stop"), EpochMillis::new(1))).collect();
            bytes += sealed.len() * 256;
            let commit = Commit {
                conversation_id: ConversationId::new("c").unwrap(),
                expected_version: Version(version),
                staged: Vec::new(),
                sealed,
                imported_from: None,
            };
            store.commit(commit).await.unwrap();
            version += 1;
        }
        assert!(!checkpoint.is_worthwhile(), "it would be flushed, which counts too");
        while checkpoint.has_turns_to_count() {
            std::thread::yield_now();
        }
        store.close().await;
        thread.join().unwrap();
    }
}

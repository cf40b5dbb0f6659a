//! The checkpoint: moves the contents of the memtable into the tables, a few pieces at a time.
//!
//! Each flush is one transaction on the tables. It moves whole pieces, each with the version that its conversation has
//! after the piece. So a crash leaves each conversation in the tables as it was after some commit, and the next opening
//! skips the commits of the journal up to that version. The size of a flush is adapted to how long earlier flushes
//! took, so that no caller waits long for a flush.
//!
//! - `flush_size`: how much a flush moves. Pure.
//! - `erasing`: removes the rows of erased conversations.
//! - `dropping`: drops old turns.
//! - `exporting`: keeps turns from being dropped while an export is being sent.
//! - `exports`: the exports that are being sent.
//! - `importing`: takes in sums of erased turns of other stores.
//! - `debt`: how much a flush has to move before the memtable takes in more. Pure.
//! - `repricing`: computes all costs anew after the prices have changed.
//! - `repricing_tests`: stores that are opened with other prices than before.
//! - `transfer`: writes pieces and the order of their turns to the tables.

pub(crate) mod debt;
mod dropping;
mod erasing;
mod exporting;
mod exports;
pub(crate) mod flush_size;
mod importing;
mod repricing;
#[cfg(test)]
mod repricing_tests;
pub(crate) mod transfer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::debt::owed;
use self::exports::Exports;
use self::flush_size::FlushSize;
use self::repricing::Step;
use self::transfer::{Sums, Transfer};
use crate::store::fault::Fault;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::{Files, learn_turns};
use crate::store::redb::files::slot::Slot;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::piece::PIECE_BYTES;
use crate::store::redb::memtable::piece::Piece;
use crate::store::redb::memtable::tally::{CONVERSATIONS_FOR_A_LABEL, Recent, Tally, TallyKey};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::Keys;
use crate::store::redb::unwind;
use crate::turn::{ConversationId, EpochMillis};

/// The minimum number of flushes that move a full memtable.
const FLUSHES: usize = 24;

/// Runs the flushes of the checkpoint, one at a time. Several threads may ask for a flush.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    slot: Arc<Slot>,
    /// The approximate number of bytes that the memtable may take in memory.
    limit: usize,
    /// A thread holds this lock while it waits for the lock `flush`. Without it, a thread that runs one flush after
    /// another would nearly always take `flush` again before a waiting thread wakes up.
    next: Mutex<()>,
    flush: Mutex<()>,
    progress: Mutex<FlushProgress>,
    /// Notified when a flush has ended or failed.
    progressed: Condvar,
    /// Why a step in the background failed, if one has failed since the store was opened: a flush, counting,
    /// repricing, erasing or dropping.
    failure: Mutex<Option<Fault>>,
    /// Whether all stored costs are known to be computed by the present price book. The price book does not change
    /// while the files are open.
    is_priced: AtomicBool,
    /// Whether rows of erased conversations may be left that can be removed.
    may_erase: AtomicBool,
    /// The key of the last conversation whose old turns were searched for; `None` if the next search begins with the first
    /// one.
    dropped_after: Mutex<Option<u64>>,
    exports: Exports,
}

#[derive(Debug, Default)]
struct FlushProgress {
    /// The bytes that flushes have moved since the checkpoint was created.
    moved_bytes: u64,
    flush_size: FlushSize,
}

impl Checkpoint {
    pub(crate) fn new(slot: Arc<Slot>, limit: usize) -> Self {
        Self {
            slot,
            limit,
            next: Mutex::default(),
            flush: Mutex::default(),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            failure: Mutex::default(),
            is_priced: AtomicBool::new(false),
            may_erase: AtomicBool::new(true),
            dropped_after: Mutex::default(),
            exports: Exports::default(),
        }
    }

    /// Returns the size at which a piece of the memtable is full. Since a flush moves whole pieces, small pieces allow
    /// small flushes.
    pub(crate) fn piece_bytes(&self) -> usize {
        PIECE_BYTES.min(self.limit / FLUSHES)
    }

    /// Returns the sums of how many conversations one flush adds to those of the tables.
    fn conversations_summed_at_once(&self) -> usize {
        CONVERSATIONS_SUMMED_AT_ONCE.min(self.limit / BYTES_FOR_A_CONVERSATION).max(1)
    }

    /// Waits for the running flush to end. No other flush starts until the guard is dropped.
    pub(crate) fn pause(&self) -> MutexGuard<'_, ()> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the memtable is over its limit, so that no commit can be taken in before a flush.
    pub(crate) fn is_due(&self) -> bool {
        let is_due = |files: &Files| {
            let memtable = files.memtable();
            // An empty memtable may be over its limit because it keeps damaged rows of the journal, but a flush cannot
            // move them.
            memtable.size() > self.limit && !memtable.is_empty()
        };
        self.slot.with(is_due).unwrap_or(false)
    }

    /// Returns whether the memtable has enough data for a flush in the background.
    pub(crate) fn is_worthwhile(&self) -> bool {
        let is_worthwhile = self.slot.with(|files| {
            let memtable = files.memtable();
            !memtable.is_empty() && (memtable.has_immutable() || memtable.size() >= self.limit / 2)
        });
        is_worthwhile.unwrap_or(false) && self.failure_of_background().is_none()
    }

    /// Returns the bytes that flushes have moved so far, as measured in the memtable, and the bytes that the next flush
    /// moves.
    pub(crate) fn moved_bytes(&self) -> (u64, u64) {
        let progress = self.progress();
        (progress.moved_bytes, progress.flush_size.bytes() as u64)
    }

    /// Returns whether the memtable is so full that commits are slowed down.
    pub(crate) fn is_behind(&self) -> bool {
        self.owed_bytes(self.limit) > 0
    }

    /// Returns how many bytes must be moved because this many bytes were taken in. The number depends on how full the
    /// memtable is.
    pub(crate) fn owed_bytes(&self, taken_bytes: usize) -> u64 {
        let size = self.slot.with(|files| files.memtable().size()).unwrap_or_default();
        owed(size, self.limit, taken_bytes)
    }

    /// Waits until the total of moved bytes reaches `moved_bytes`, until `at_most` has passed, or until there is no
    /// flush to run in the background.
    pub(crate) fn wait_until_moved(&self, moved_bytes: u64, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut progress = self.progress();
        while progress.moved_bytes < moved_bytes && self.is_worthwhile() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            progress = self.progressed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the memtable has room, or until as many bytes were moved as a full flush has: that makes room in a
    /// memtable that has just become full. Stops when `is_interrupted` returns that something else is to be done, which
    /// it is asked every millisecond. Returns whether the memtable has room.
    pub(crate) fn wait_for_room(&self, mut is_interrupted: impl FnMut() -> bool) -> bool {
        let mut progress = self.progress();
        let enough = progress.moved_bytes + progress.flush_size.bytes() as u64;
        let deadline = Instant::now() + MAX_WAIT_FOR_ROOM;
        while self.is_due() {
            let is_over = progress.moved_bytes >= enough || Instant::now() >= deadline;
            if is_over || !self.is_worthwhile() || is_interrupted() {
                return false;
            }
            let wait = self.progressed.wait_timeout(progress, Duration::from_millis(1));
            progress = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Returns the bytes that small commits may add to a memtable that has no room for other commits.
    pub(crate) fn reserve_bytes(&self) -> usize {
        self.limit / 16
    }

    fn progress(&self) -> MutexGuard<'_, FlushProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves some pieces. If there is no immutable table, the active table becomes the immutable one first. After an
    /// `Err` the outcome is unknown.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.pause();
        unwind::caught_as_fault(|| self.flush_once())
    }

    /// Background variant of [`Checkpoint::flush`]: stores a failure for the next commit, and returns whether the flush
    /// succeeded. After a failure no flush runs until the store was closed, as the outcome of the flush is unknown.
    pub(crate) fn flush_in_background(&self) -> bool {
        let _one_at_a_time = self.pause();
        let taken = unwind::caught_as_fault(|| self.flush_once());
        let is_taken = taken.is_ok();
        if let Err(cause) = taken {
            *self.failure_of_background() = Some(cause);
        }
        // A waiting thread holds this lock while it checks its condition, so it cannot miss the notification.
        drop(self.progress());
        self.progressed.notify_all();
        is_taken
    }

    /// Adds some of the turns that were sealed before the opening to the filter, unless the filter has all of them
    /// already.
    pub(crate) fn learn_turns(&self) {
        let begun = self.slot.with(|files| files.filter().is_learning().then(|| (files.filter(), files.read_tables())));
        if let Ok(Some((filter, tables))) = begun {
            learn_turns(&filter, tables, ROWS_LEARNED_AT_ONCE);
        }
    }

    /// Notes the newest row of the journal in the tables. Like a flush in the background, stores a failure for the next
    /// commit.
    pub(crate) fn note_newest_in_background(&self) {
        let _one_at_a_time = self.pause();
        if self.failure().is_some() {
            return;
        }
        let note = || self.slot.with(Files::note_newest).map_or(Ok(()), |noted| noted.map_err(Fault::from));
        if let Err(cause) = unwind::caught_as_fault(note) {
            *self.failure_of_background() = Some(cause);
        }
    }

    /// Logs if the files are not in their places any more, or are there again.
    pub(crate) fn check_in_place(&self) {
        if let Ok(in_place) = self.slot.with(Files::in_place) {
            // The commits that come next are refused for the same reason.
            let _ = in_place.check();
        }
    }

    /// Returns why a step in the background failed, if one has failed since the store was opened.
    pub(crate) fn failure(&self) -> Option<Fault> {
        self.failure_of_background().clone()
    }

    /// Forgets the failure, and that all costs are known to be by the present prices. To be called when the store is
    /// closed, while no flush runs.
    pub(crate) fn forget_failure(&self) {
        *self.failure_of_background() = None;
        self.is_priced.store(false, Ordering::Relaxed);
        self.may_erase.store(true, Ordering::Relaxed);
    }

    fn failure_of_background(&self) -> MutexGuard<'_, Option<Fault>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes until everything is moved.
    pub(crate) fn move_all(&self) -> Result<(), Fault> {
        if let Some(cause) = self.failure() {
            return Err(cause);
        }
        while !self.slot.with(|files| files.memtable().is_empty()).unwrap_or(true) {
            self.flush()?;
        }
        if self.slot.with(|files| files.memtable().keeps_rows()).unwrap_or(false) {
            return Err(DamagedRecord::new(Keys::WHAT, RecordFlaw::InJournal).into());
        }
        Ok(())
    }

    /// Flushes until everything is moved, removes the journal, and closes the files. An error says why the journal is
    /// still needed.
    pub(crate) fn close(&self, location: &Location) -> Result<(), Fault> {
        let moved = self.move_all();
        let _no_flush = self.pause();
        let Some(files) = self.slot.take(Fault::closed()) else { return Err(Fault::closed()) };
        match moved {
            Ok(()) => location.retire(files),
            Err(cause) => {
                tracing::warn!(
                    cause = cause.in_full(),
                    "the journal could not be moved into the tables; the next opening reads it"
                );
                files.close();
                Err(cause)
            }
        }
    }

    /// Returns whether many turns of the memtable are not counted yet.
    pub(crate) fn has_turns_to_count(&self) -> bool {
        let many = |files: &Files| files.memtable().uncounted_bytes() >= BYTES_COUNTED_AT_ONCE;
        self.slot.with(many).unwrap_or(false)
    }

    /// Counts some of the memtable's turns if many are not counted yet, so that a report or a flush has few left to
    /// count. Returns whether many are still left. May run beside a flush.
    pub(crate) fn count_turns(&self) -> bool {
        if !self.has_turns_to_count() {
            return false;
        }
        match unwind::caught(|| self.slot.count(BYTES_COUNTED_AT_ONCE)) {
            // An error says that the store was closed meanwhile.
            Ok(counted) => counted.is_ok() && self.has_turns_to_count(),
            Err(panic) => {
                *self.failure_of_background() = Some(panic.into());
                false
            }
        }
    }

    /// Moves some of the sums of the immutable table. Its pieces and its order are in the tables already.
    fn flush_sums(&self) -> Result<(), Fault> {
        let begin = |files: &Files, memtable: &Memtable| {
            let place = (memtable.summed_to().cloned(), memtable.rolled_up_then());
            Ok((place, memtable.frozen_at(), memtable.last_row(), files.hasher()))
        };
        let take = |recent: &mut Recent, (place, frozen_at, newest, hasher): (_, _, _, _)| {
            let (summed_to, rolled_up): (Option<TallyKey>, _) = place;
            let (tally, to) = recent.immutable.next_after(summed_to.as_ref(), self.conversations_summed_at_once());
            let checkpoint = to.is_none().then_some(frozen_at);
            let sums = Sums { tally, digest: self.slot.book().digest(), rolled_up, to };
            let (pieces, runs) = (Vec::new(), Vec::new());
            (Transfer { pieces, runs, checkpoint, newest, last_row: rolled_up.row, sums: Some(sums) }, hasher)
        };
        // Nothing adds turns to the immutable table, so all of its turns are counted then.
        self.slot.count(usize::MAX)?;
        let (transfer, hasher) = self.slot.with_sums(begin, take)??;
        let txn = self.slot.with(Files::write_tables)??;
        transfer.write(&txn, hasher)?;
        txn.commit().map_err(Failure::from)?;
        let to = transfer.sums.as_ref().and_then(|sums| sums.to.clone());
        // No other thread removes anything from the immutable table, so it is still the one that the transfer was made
        // of.
        let end = |recent: &mut Recent, ()| -> Result<Tally, Fault> {
            let moved = if to.is_none() { std::mem::take(&mut recent.immutable) } else { Tally::default() };
            self.slot.with(|files| {
                let mut memtable = files.memtable_mut();
                memtable.summed(to);
                memtable.moved(&[], 0);
            })?;
            Ok(moved)
        };
        // Freeing the memory of many rows takes milliseconds, so that happens without the locks.
        drop(self.slot.with_sums(|_, _| Ok(()), end)???);
        // `flush_size` does not learn from this flush: the time for sums says nothing about the time for pieces.
        self.progress().moved_bytes += transfer.bytes() as u64;
        self.may_erase.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs the next step of computing all costs anew, if the prices have changed. Like a flush in the background,
    /// stores a failure for the next commit. Returns whether a further step may follow.
    pub(crate) fn reprice_in_background(&self) -> bool {
        if self.is_priced.load(Ordering::Relaxed) {
            return false;
        }
        let _one_at_a_time = self.pause();
        if self.failure().is_some() {
            return false;
        }
        unwind::caught_as_fault(|| self.reprice_once()).unwrap_or_else(|cause| {
            *self.failure_of_background() = Some(cause);
            false
        })
    }

    fn reprice_once(&self) -> Result<bool, Fault> {
        let begun = self.slot.with(|files| -> Result<_, Failure> {
            let has_immutable = files.memtable().has_immutable();
            Ok((files.read_tables()?, has_immutable, files.hasher()))
        });
        let Ok(begun) = begun else { return Ok(false) };
        let (tables, has_immutable, hasher) = begun?;
        let book = self.slot.book();
        let step = match Step::next(&tables, book.digest())? {
            None => {
                self.is_priced.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Some(Step::Begin { .. }) if has_immutable => return Ok(false),
            Some(step) => step,
        };
        let txn = self.slot.with(Files::write_tables)??;
        step.write(&txn, &tables, hasher, &**book)?;
        txn.commit().map_err(Failure::from)?;
        // Erasing waits for the end of a repricing.
        self.may_erase.store(true, Ordering::Relaxed);
        Ok(true)
    }

    fn flush_once(&self) -> Result<(), Fault> {
        // A closed store has nothing to move. Nothing closes the store meanwhile.
        let Ok(has_only_sums) = self.slot.with(|files| files.memtable().has_only_sums()) else { return Ok(()) };
        if has_only_sums {
            return self.flush_sums();
        }
        let frozen = self.slot.freeze()?;
        let start = Instant::now();
        // The conversations are sorted here, where the memtable is not locked.
        let order = frozen.map(in_order_of_keys);
        let flush_bytes = self.progress().flush_size.bytes().min(self.limit / FLUSHES);
        let begun = self.slot.with(|files| -> Result<_, Failure> {
            let mut memtable = files.memtable_mut();
            if let Some(order) = order {
                memtable.set_order(order);
            }
            if !memtable.has_immutable() || memtable.has_only_sums() {
                return Ok(None);
            }
            let (pieces, are_last) = memtable.next_to_move(flush_bytes);
            let moved_bytes: usize = pieces.iter().map(|piece| piece.bytes()).sum();
            let room = if are_last { flush_bytes.saturating_sub(moved_bytes) } else { 0 };
            let (runs, is_all) = memtable.next_runs(room);
            let checkpoint = (are_last && is_all && !memtable.has_sums()).then(|| memtable.frozen_at());
            let newest = memtable.last_row();
            let last_row = memtable.rolled_up_then().row;
            drop(memtable);
            let transfer = Transfer { pieces, runs, checkpoint, newest, last_row, sums: None };
            Ok(Some((transfer, files.hasher(), files.filter(), files.write_tables()?)))
        });
        let begun = begun?;
        let Some((transfer, hasher, filter, txn)) = begun? else { return Ok(()) };
        let keys = transfer.write(&txn, hasher)?;
        transfer.add_to(&filter, &keys, hasher);
        txn.commit().map_err(Failure::from)?;
        let moved_bytes = transfer.bytes();
        let moved: Vec<_> = transfer.pieces.into_iter().zip(keys).collect();
        self.slot.with(|files| files.memtable_mut().moved(&moved, transfer.runs.len()))?;
        let mut progress = self.progress();
        progress.moved_bytes += moved_bytes as u64;
        progress.flush_size.learn(moved_bytes, start.elapsed());
        self.may_erase.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Counting turns whose records have so many bytes takes some milliseconds, so a report or a flush that waits for it
/// does not wait long.
const BYTES_COUNTED_AT_ONCE: usize = 256 * 1024;

/// Adding the sums of so many conversations takes some milliseconds, and so does writing the pages that have them. Commits
/// wait meanwhile. The conversations of a flush are in the order of their ids, so most of them are on pages of their own,
/// and small flushes would write each page again and again.
const CONVERSATIONS_SUMMED_AT_ONCE: usize = 256 * CONVERSATIONS_FOR_A_LABEL;

/// The bytes of the memtable's limit for each conversation whose sums a flush adds: a small memtable is moved in small
/// flushes.
const BYTES_FOR_A_CONVERSATION: usize = 8 * 1024;

/// Reading so many rows takes some milliseconds, so a flush that is due does not wait long.
const ROWS_LEARNED_AT_ONCE: usize = 20_000;

/// The maximum time to wait for room. Only on a failing disk does a flush take longer.
const MAX_WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// Returns the conversations of these pieces in descending order of their keys in the tables. The memtable moves them
/// from the end of the list, so in ascending order, and neighbours share pages. New conversations are moved last, as
/// they get the highest keys. They get them in the order of their latest turns: conversations that are active at the same
/// time are often active together again, and then they also share pages of the table by activity.
fn in_order_of_keys(mut pieces: Vec<Arc<Piece>>) -> Vec<ConversationId> {
    fn place(piece: &Piece) -> (u64, Option<EpochMillis>, &ConversationId) {
        let conversation = &piece.conversation;
        let key = piece.key.unwrap_or(u64::MAX);
        (key, piece.key.is_none().then_some(conversation.last_at), &conversation.id)
    }
    pieces.sort_unstable_by(|one, other| place(other).cmp(&place(one)));
    pieces.iter().map(|piece| piece.conversation.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::settings::StoreSettings;
    use crate::store::redb::engine::RedbEngine;
    use crate::store::redb::files::open_files::Files;
    use crate::store::redb::writer::backoff::Backoff;
    use crate::store::{Commit, TurnOutcome, Version};
    use crate::turn::{Done, OpenTurn, Ordinal, TurnId};

    #[tokio::test]
    async fn turns_sealed_before_the_store_was_opened_are_learned_and_stay_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let settings = StoreSettings::default();
        let prepare = || {
            let location = Location::Directory(directory.path().to_owned());
            RedbEngine::prepare(location, &settings, Backoff::default()).unwrap()
        };
        let commit = |version, turn_id: &str| Commit {
            conversation_id: ConversationId::new("c").unwrap(),
            expected_version: Version(version),
            staged: Vec::new(),
            sealed: vec![
                OpenTurn::new(TurnId::new(turn_id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1)),
            ],
            imported_from: None,
        };
        for (version, turn_id) in [(0, "a"), (1, "b")] {
            let (store, writer) = prepare();
            let thread = std::thread::spawn(move || writer.run());
            store.commit(commit(version, turn_id)).await.unwrap();
            store.close().await;
            thread.join().unwrap();
        }
        let (store, writer) = prepare();
        let checkpoint = Arc::clone(writer.checkpoint());
        let filter = checkpoint.slot.with(Files::filter).unwrap();
        assert!(!filter.is_complete(), "opening must add only one row to the filter");
        checkpoint.learn_turns();
        assert!(filter.is_complete());
        let thread = std::thread::spawn(move || writer.run());
        for (turn_id, expected) in
            [("a", TurnOutcome::Duplicate(Ordinal::after(0))), ("c", TurnOutcome::Sealed(Ordinal::after(2)))]
        {
            let committed = store.commit(commit(2, turn_id)).await.unwrap();
            assert_eq!(committed.outcomes[0].1, expected);
        }
        store.close().await;
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn no_record_of_a_turn_waits_to_be_counted_after_its_piece_is_moved() {
        let (store, mut writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        writer.checkpoint_by_hand();
        let checkpoint = Arc::clone(writer.checkpoint());
        let thread = std::thread::spawn(move || writer.run());
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
        let uncounted = || checkpoint.slot.with(|files| files.memtable().uncounted()).unwrap();
        assert_eq!(uncounted(), 2);
        checkpoint.flush().unwrap();
        assert_eq!(uncounted(), 0);
        store.close().await;
        thread.join().unwrap();
    }

    #[test]
    fn a_waiting_thread_flushes_next_even_if_the_last_one_asks_again_at_once() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let checkpoint = Checkpoint::new(Arc::new(Slot::new(files)), 1 << 20);
        let (paused, order) = channel();
        std::thread::scope(|scope| {
            let flush = checkpoint.pause();
            scope.spawn(|| {
                let _no_flush = checkpoint.pause();
                paused.send("the one that waited").unwrap();
            });
            // The waiting thread holds this lock while it waits.
            while checkpoint.next.try_lock().is_ok() {
                std::thread::yield_now();
            }
            drop(flush);
            let _no_flush = checkpoint.pause();
            paused.send("the one that had it").unwrap();
        });
        drop(paused);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["the one that waited", "the one that had it"]);
    }
}

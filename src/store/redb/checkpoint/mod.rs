//! The checkpoint: moves what the image holds into the tables, a few pieces at a time.
//!
//! Each step is one transaction on the tables. It moves whole pieces, each with the version of its conversation after
//! it. A crash leaves a conversation in the tables as it was after some commit; opening the store then skips the rows
//! of the journal up to that version. The size of a step follows from how long earlier steps took, so that nobody waits
//! long for one.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{ReadableTable, Table, WriteTransaction};

use crate::store::redb::files::slot::Slot;
use crate::store::redb::memtable::{Change, PIECE_BYTES, Recent};
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::meta::{
    CONVERSATIONS, Failure, INDEX, KEYS, META, META_CHECKPOINT, META_LIVE_BYTES, META_NEXT_KEY, OPEN_TURNS, TURNS,
    read_number,
};
use crate::store::redb::unwind;
use crate::store::redb::writer::pace::{self, StepSize};
use crate::turn::ConversationId;

/// In how many steps the image is moved at least.
const STEPS: usize = 24;

/// Takes the steps of the checkpoint, one at a time, whoever asks for one.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    slot: Arc<Slot>,
    /// About how much the image may take in memory.
    limit: usize,
    /// Held while waiting for the step in progress. Without it, a thread that takes one step after another would nearly
    /// always beat a thread that the end of a step wakes.
    next: Mutex<()>,
    step: Mutex<()>,
    progress: Mutex<Progress>,
    /// Notified when a step was taken or has failed.
    progressed: Condvar,
    /// Why a step in the background failed, if one did since the store was opened.
    failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The bytes moved since the checkpoint began.
    moved_bytes: u64,
    step_size: StepSize,
}

impl Checkpoint {
    pub(crate) fn new(slot: Arc<Slot>, limit: usize) -> Self {
        Self {
            slot,
            limit,
            next: Mutex::default(),
            step: Mutex::default(),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            failure: Mutex::default(),
        }
    }

    /// The size at which a piece of the image is full, so that a step can move less than its maximum.
    pub(crate) fn piece_bytes(&self) -> usize {
        PIECE_BYTES.min(self.limit / STEPS)
    }

    /// Waits for the step that is being taken, and keeps others from being taken.
    pub(crate) fn pause(&self) -> MutexGuard<'_, ()> {
        let _next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the image is over its limit, so that no commit can be taken in before a part of it is moved.
    pub(crate) fn is_due(&self) -> bool {
        self.slot.with(|files| files.image().size() > self.limit).unwrap_or(false)
    }

    /// Whether the image holds enough for a background step.
    pub(crate) fn is_worthwhile(&self) -> bool {
        let is_worthwhile = self.slot.with(|files| {
            let image = files.image();
            image.has_frozen() || image.active_size() >= self.limit / 2
        });
        is_worthwhile.unwrap_or(false) && self.failure_of_background().is_none()
    }

    /// The bytes moved so far, as measured in the image.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.progress().moved_bytes
    }

    /// How many bytes must be moved for this many bytes taken in, by how full the image is.
    pub(crate) fn owed_bytes(&self, taken_bytes: usize) -> u64 {
        let size = self.slot.with(|files| files.image().size()).unwrap_or_default();
        pace::owed(size, self.limit, taken_bytes)
    }

    /// Waits until this many bytes were moved in all, `at_most` has passed, or the background has nothing to do.
    pub(crate) fn wait_until_moved(&self, moved_bytes: u64, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut progress = self.progress();
        while progress.moved_bytes < moved_bytes && self.is_worthwhile() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            progress = self.progressed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the image has room, but no longer than it takes to move one full step: that is enough for an image
    /// that is just full. Returns whether it has room.
    pub(crate) fn wait_for_room(&self) -> bool {
        let mut progress = self.progress();
        let enough = progress.moved_bytes + progress.step_size.bytes() as u64;
        let deadline = Instant::now() + MOST_WAIT_FOR_ROOM;
        while self.is_due() {
            if progress.moved_bytes >= enough || !self.is_worthwhile() {
                return false;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            progress = self.progressed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves some pieces; freezes the active layer first if none is frozen. After an `Err` the outcome is unknown.
    pub(crate) fn step(&self) -> Result<(), String> {
        let _one_at_a_time = self.pause();
        unwind::caught(|| self.take_step()).and_then(|taken| taken)
    }

    /// The same where nobody waits to be told how it went. Tells whether it went well. Once it has not, it is not tried
    /// again before the store was closed, as the outcome is unknown.
    pub(crate) fn step_in_background(&self) -> bool {
        let _one_at_a_time = self.pause();
        let taken = unwind::caught(|| self.take_step()).and_then(|taken| taken);
        let is_taken = taken.is_ok();
        if let Err(cause) = taken {
            *self.failure_of_background() = Some(cause);
        }
        // A waiting thread holds this lock while it checks its condition, so it cannot miss the notification.
        drop(self.progress());
        self.progressed.notify_all();
        is_taken
    }

    /// Why a step in the background failed, if one did since the store was opened.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure_of_background().clone()
    }

    /// To be called when the store is closed, while no step is taken.
    pub(crate) fn forget_failure(&self) {
        *self.failure_of_background() = None;
    }

    fn failure_of_background(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_step(&self) -> Result<(), String> {
        let start = Instant::now();
        let step_bytes = self.progress().step_size.bytes().min(self.limit / STEPS);
        let begun = self.slot.with(|files| {
            let frozen = files.image_mut().freeze();
            // The sort runs while the image is not locked.
            let order = frozen.map(in_order_of_keys);
            let mut image = files.image_mut();
            if let Some(order) = order {
                image.set_order(order);
            }
            if !image.has_frozen() {
                return Ok(None);
            }
            let (moving, is_last) = image.next_to_move(step_bytes);
            let checkpoint = is_last.then(|| image.frozen_at());
            drop(image);
            Ok(Some((moving, checkpoint, files.hasher(), files.write_tables()?)))
        });
        // A store that is closed has nothing to move.
        let Ok(begun) = begun else { return Ok(()) };
        let begun = begun.map_err(|failure: Failure| failure.to_string())?;
        let Some((moving, checkpoint, hasher, txn)) = begun else { return Ok(()) };
        let moved = move_conversations(&txn, hasher, &moving, checkpoint)
            .and_then(|keys| Ok(txn.commit().map(|()| keys)?))
            .map_err(|failure| failure.to_string())?;
        let moved: Vec<_> = moving.into_iter().zip(moved).collect();
        self.slot.with(|files| files.image_mut().moved(&moved))?;
        let moved_bytes: usize = moved.iter().map(|(recent, _)| recent.bytes()).sum();
        let mut progress = self.progress();
        progress.moved_bytes += moved_bytes as u64;
        progress.step_size.learn(moved_bytes, start.elapsed());
        Ok(())
    }
}

/// A step that takes longer than this means a failing disk.
const MOST_WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// The conversations of these pieces in descending order of the tables' keys: the image moves its list from the end,
/// and neighbours share pages. New conversations are moved last, as they get the highest keys.
fn in_order_of_keys(mut pieces: Vec<Arc<Recent>>) -> Vec<ConversationId> {
    fn place(recent: &Recent) -> (u64, &ConversationId) {
        (recent.key.unwrap_or(u64::MAX), &recent.conversation.id)
    }
    pieces.sort_unstable_by(|one, other| place(other).cmp(&place(one)));
    pieces.iter().map(|recent| recent.conversation.id.clone()).collect()
}

/// A thread that takes steps while they are worthwhile. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Background(SyncSender<()>);

impl Background {
    pub(crate) fn start(checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        let (wakes, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into());
        thread.spawn(move || {
            while woken.recv().is_ok() {
                while checkpoint.is_worthwhile() && checkpoint.step_in_background() {}
            }
        })?;
        Ok(Self(wakes))
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

/// Writes pieces to the tables, and that the tables hold everything up to a row of the journal, if they do.
/// Gives the conversations' keys.
pub(crate) fn move_conversations(
    txn: &WriteTransaction,
    hasher: TurnHasher,
    moving: &[Arc<Recent>],
    checkpoint: Option<u64>,
) -> Result<Vec<u64>, Failure> {
    let mut meta = txn.open_table(META)?;
    let mut tables = Tables::open(txn, hasher)?;
    let mut next_key = read_number(&meta, META_NEXT_KEY)?;
    let mut keys = Vec::with_capacity(moving.len());
    for recent in moving {
        keys.push(tables.write(recent, &mut next_key)?);
    }
    meta.insert(META_NEXT_KEY, next_key.to_le_bytes().as_slice())?;
    let live_bytes = read_number(&meta, META_LIVE_BYTES)?.saturating_add_signed(tables.growth);
    meta.insert(META_LIVE_BYTES, live_bytes.to_le_bytes().as_slice())?;
    if let Some(row) = checkpoint {
        meta.insert(META_CHECKPOINT, row.to_le_bytes().as_slice())?;
    }
    Ok(keys)
}

struct Tables<'txn> {
    keys: Table<'txn, &'static str, u64>,
    conversations: Table<'txn, u64, &'static [u8]>,
    turns: Table<'txn, (u64, u64), &'static [u8]>,
    index: Table<'txn, (u64, u64), u64>,
    open_turns: Table<'txn, (u64, &'static str), &'static [u8]>,
    hasher: TurnHasher,
    /// By how many bytes the rows have grown.
    growth: i64,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction, hasher: TurnHasher) -> Result<Self, Failure> {
        Ok(Self {
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            hasher,
            growth: 0,
        })
    }

    fn grow(&mut self, added: usize, removed: usize) {
        let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.growth = self.growth.saturating_add(signed(added)).saturating_sub(signed(removed));
    }

    fn write(&mut self, recent: &Recent, next_key: &mut u64) -> Result<u64, Failure> {
        let conversation = &recent.conversation;
        let id = conversation.id.as_str();
        let known = self.keys.get(id)?.map(|key| key.value());
        let key = known.unwrap_or(*next_key);
        if known.is_none() {
            *next_key = key.saturating_add(1);
            self.keys.insert(id, key)?;
            self.grow(id.len() + size_of::<u64>(), 0);
        }
        for (ordinal, record) in recent.sealed_after(0) {
            let before = self.turns.insert((key, ordinal.get()), &**record)?.map(|turn| turn.value().len());
            self.grow(2 * size_of::<u64>() + record.len(), before.map_or(0, |bytes| 2 * size_of::<u64>() + bytes));
        }
        for (turn_id, change) in &recent.turns {
            let turn_id = turn_id.as_str();
            let place = size_of::<u64>() + turn_id.len();
            match change {
                Change::Sealed(ordinal) => {
                    if index::insert(&mut self.index, key, self.hasher.hash(turn_id), ordinal.get())? {
                        self.grow(3 * size_of::<u64>(), 0);
                    }
                    let open = self.open_turns.remove((key, turn_id))?.map(|open| open.value().len());
                    self.grow(0, open.map_or(0, |bytes| place + bytes));
                }
                Change::Open(record) => {
                    let before = self.open_turns.insert((key, turn_id), &**record)?.map(|open| open.value().len());
                    self.grow(place + record.len(), before.map_or(0, |bytes| place + bytes));
                }
            }
        }
        let record = conversation.encode()?;
        let before = self.conversations.insert(key, &*record)?.map(|before| before.value().len());
        self.grow(size_of::<u64>() + record.len(), before.map_or(0, |bytes| size_of::<u64>() + bytes));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::Location;

    #[test]
    fn whoever_waits_for_a_step_is_next_however_soon_the_same_thread_asks_again() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let checkpoint = Checkpoint::new(Arc::new(Slot::new(files)), 1 << 20);
        let (paused, order) = channel();
        std::thread::scope(|scope| {
            let step = checkpoint.pause();
            scope.spawn(|| {
                let _no_step = checkpoint.pause();
                paused.send("the one that waited").unwrap();
            });
            // It holds this while it waits.
            while checkpoint.next.try_lock().is_ok() {
                std::thread::yield_now();
            }
            drop(step);
            let _no_step = checkpoint.pause();
            paused.send("the one that had it").unwrap();
        });
        drop(paused);
        assert_eq!(order.iter().collect::<Vec<_>>(), ["the one that waited", "the one that had it"]);
    }
}

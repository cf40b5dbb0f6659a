//! The checkpoint: moves what the image holds into the tables, a few conversations at a time.
//!
//! Each step is one transaction on the tables, whole conversations at a time, each with its version. A crash leaves a
//! conversation in the tables as it was or as it is; opening the store then passes over what its version says is there.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{ReadableTable, Table, WriteTransaction};

use super::image::{Change, Recent};
use super::index::{self, TurnHasher};
use super::schema::{
    CONVERSATIONS, Failure, INDEX, KEYS, META, META_CHECKPOINT, META_LIVE_BYTES, META_NEXT_KEY, OPEN_TURNS, TURNS,
    read_number,
};
use super::slot::Slot;
use super::unwind;

/// About how much of the image one step moves at most: some thousand turns, which take some ten milliseconds.
const MOST_STEP_BYTES: usize = 512 * 1024;

/// In how many steps the image is moved at least.
const STEPS: usize = 24;

/// Takes the steps of the checkpoint, one at a time, whoever asks for one.
#[derive(Debug)]
pub(super) struct Checkpoint {
    slot: Arc<Slot>,
    /// About how much the image may take in memory.
    limit: usize,
    step: Mutex<()>,
    /// Why a step in the background failed, if one did since the store was opened.
    failure: Mutex<Option<String>>,
}

impl Checkpoint {
    pub(super) fn new(slot: Arc<Slot>, limit: usize) -> Self {
        Self { slot, limit, step: Mutex::new(()), failure: Mutex::new(None) }
    }

    /// Waits for the step that is being taken, and keeps others from being taken.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the image holds more than it may, so that the next commit has to wait for a step.
    pub(super) fn is_due(&self) -> bool {
        self.slot.with(|files| files.image().size() > self.limit).unwrap_or(false)
    }

    /// Whether there is something to move, though nobody waits for it.
    pub(super) fn is_worthwhile(&self) -> bool {
        let is_worthwhile = self.slot.with(|files| {
            let image = files.image();
            image.size() <= self.limit && (image.has_frozen() || image.active_size() >= self.limit / 2)
        });
        is_worthwhile.unwrap_or(false) && self.failure_of_background().is_none()
    }

    /// Moves some conversations. With nothing frozen it freezes what there is first. `Err` says what went wrong, and
    /// then the outcome is unknown.
    pub(super) fn step(&self) -> Result<(), String> {
        let _one_at_a_time = self.pause();
        unwind::caught(|| self.take_step()).and_then(|taken| taken)
    }

    /// The same where nobody waits to be told how it went. Tells whether it went well. Once it has not, it is not tried
    /// again before the store was closed, as the outcome is unknown.
    pub(super) fn step_in_background(&self) -> bool {
        let _one_at_a_time = self.pause();
        match unwind::caught(|| self.take_step()).and_then(|taken| taken) {
            Ok(()) => true,
            Err(cause) => {
                *self.failure_of_background() = Some(cause);
                false
            }
        }
    }

    /// Why a step in the background failed, if one did since the store was opened.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure_of_background().clone()
    }

    /// To be called when the store is closed, while no step is taken.
    pub(super) fn forget_failure(&self) {
        *self.failure_of_background() = None;
    }

    fn failure_of_background(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_step(&self) -> Result<(), String> {
        let begun = self.slot.with(|files| {
            let mut image = files.image_mut();
            image.freeze();
            if !image.has_frozen() {
                return Ok(None);
            }
            let (moving, is_last) = image.next_to_move(MOST_STEP_BYTES.min(self.limit / STEPS));
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
        self.slot.with(|files| files.image_mut().moved(&moved))
    }
}

/// A thread that takes steps while they are worthwhile. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Background(SyncSender<()>);

impl Background {
    pub(super) fn start(checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        let (wakes, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-checkpoint".into());
        thread.spawn(move || {
            while woken.recv().is_ok() {
                while checkpoint.is_worthwhile() && checkpoint.step_in_background() {}
            }
        })?;
        Ok(Self(wakes))
    }

    /// Has it look whether there is something to do.
    pub(super) fn wake(&self) {
        // One that was woken before and has not looked yet will look.
        let _ = self.0.try_send(());
    }
}

/// Writes conversations to the tables, and that the tables hold everything up to a row of the journal, if they do.
/// Gives the conversations' keys.
pub(super) fn move_conversations(
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

//! What the journal holds and the tables do not yet, in memory.
//!
//! Commits go to the active layer. When that is large and the frozen one is empty, it is frozen, and the checkpoint moves
//! it into the tables while the next layer fills. A layer keeps the changes of each conversation in pieces of bounded
//! size, in most cases a single one. Each piece ends with a commit and is moved whole, oldest first, so that the tables
//! always hold a conversation as some commit left it. The state of a conversation is its rows in the tables, overlaid
//! by the pieces of the frozen layer and then by those of the active one. Overlaying a piece that the tables already
//! hold is a no-op, so a moved piece may be dropped at any later time.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::iter;
use std::sync::Arc;

use super::journal::entry::Entry;
use super::tables::record::conversation::Conversation;
use super::tables::record::damaged::DamagedRecord;
use super::tables::record::{self};
use crate::turn::{ConversationId, Ordinal, TurnId};

/// A piece of this size takes no further commit: some thousand turns, which the checkpoint moves in a few milliseconds.
/// A small image uses a smaller size. Smaller pieces would make a look-up of a turn search more of them.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// The changes of consecutive commits to one conversation: a piece of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    /// The conversation after the last of the commits.
    pub(crate) conversation: Conversation,
    /// Its key in the tables, if known.
    pub(crate) key: Option<u64>,
    /// The turns that changed.
    pub(crate) turns: HashMap<TurnId, Change>,
    /// The records of the turns that were sealed, the last of which has the conversation's last ordinal.
    sealed: Vec<Arc<[u8]>>,
    bytes: usize,
}

/// What became of a turn.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// It is open; its record.
    Open(Arc<[u8]>),
    /// It is sealed, and open nowhere below.
    Sealed(Ordinal),
}

impl Recent {
    /// About what a conversation takes in memory beside its records.
    const BYTES: usize = 500;
    /// About what a turn takes in memory beside its record.
    const TURN_BYTES: usize = 160;

    fn of(entry: Entry) -> Result<Self, DamagedRecord> {
        let conversation = entry.conversation.clone();
        let mut new = Self { conversation, key: None, turns: HashMap::new(), sealed: Vec::new(), bytes: Self::BYTES };
        new.take(entry)?;
        Ok(new)
    }

    /// Takes all of an entry or, where a turn in it has no id that can be read, nothing.
    fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        let mut ordinal = entry.sealed_before();
        let Entry { conversation, key, sealed, staged } = entry;
        let named = |records: Vec<Arc<[u8]>>| {
            records.into_iter().map(|record| Ok((turn_id(&record)?, record))).collect::<Result<Vec<_>, _>>()
        };
        let (staged, sealed) = (named(staged)?, named(sealed)?);
        self.conversation = conversation;
        self.key = self.key.or(key);
        for (id, record) in staged {
            self.bytes += record.len() + Self::TURN_BYTES;
            if let Some(Change::Open(before)) = self.turns.insert(id, Change::Open(Arc::clone(&record))) {
                self.bytes -= before.len() + Self::TURN_BYTES;
            }
        }
        for (id, record) in sealed {
            let at = Ordinal::after(ordinal);
            ordinal = at.get();
            self.bytes += record.len() + Self::TURN_BYTES;
            if let Some(Change::Open(before)) = self.turns.insert(id, Change::Sealed(at)) {
                self.bytes -= before.len() + Self::TURN_BYTES;
            }
            self.sealed.push(record);
        }
        Ok(())
    }

    /// Its approximate size in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last ordinal of those below.
    pub(crate) fn sealed_before(&self) -> u64 {
        self.conversation.sealed_turns - self.sealed.len() as u64
    }

    /// The records of the turns sealed here whose ordinals come after this one, in order.
    pub(crate) fn sealed_after(&self, after: u64) -> impl Iterator<Item = (Ordinal, &Arc<[u8]>)> {
        let before = self.sealed_before();
        let passed = usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        let ordinals = (before..).map(Ordinal::after);
        ordinals.zip(&self.sealed).skip(passed)
    }
}

fn turn_id(record: &[u8]) -> Result<TurnId, DamagedRecord> {
    TurnId::new(record::turn_id_of(record)?).map_err(|error| DamagedRecord::new("turn", error.to_string()))
}

/// The pieces of a conversation in one layer.
#[derive(Debug, Clone)]
struct Pieces {
    /// The full pieces, oldest first.
    full: VecDeque<Arc<Recent>>,
    latest: Arc<Recent>,
}

impl Pieces {
    fn new(latest: Recent) -> Self {
        Self { full: VecDeque::new(), latest: Arc::new(latest) }
    }

    fn add(&mut self, latest: Recent) {
        self.full.push_back(std::mem::replace(&mut self.latest, Arc::new(latest)));
    }

    fn oldest_first(&self) -> impl DoubleEndedIterator<Item = &Arc<Recent>> {
        self.full.iter().chain(iter::once(&self.latest))
    }

    fn latest_first(&self) -> impl Iterator<Item = &Arc<Recent>> {
        self.oldest_first().rev()
    }

    /// Sets the key of the conversation in the tables.
    fn set_key(&mut self, key: u64) {
        for recent in self.full.iter_mut().chain(iter::once(&mut self.latest)).filter(|recent| recent.key.is_none()) {
            Arc::make_mut(recent).key = Some(key);
        }
    }
}

/// A part of the image.
#[derive(Debug, Clone, Default)]
struct Layer {
    conversations: HashMap<ConversationId, Pieces>,
    /// About what it takes in memory.
    bytes: usize,
    /// What its rows take in the journal. A turn that is staged again and again takes room there each time.
    row_bytes: usize,
}

impl Layer {
    fn size(&self) -> usize {
        self.bytes.max(self.row_bytes)
    }

    /// Adds the changes of a commit.
    fn take(&mut self, entry: Entry, piece_bytes: usize) -> Result<(), DamagedRecord> {
        let pieces = self.conversations.get_mut(&entry.conversation.id);
        if let Some(pieces) = pieces
            && pieces.latest.bytes < piece_bytes
        {
            // This copies the piece only while a reader holds it.
            let latest = Arc::make_mut(&mut pieces.latest);
            let before = latest.bytes;
            latest.take(entry)?;
            self.bytes = self.bytes + latest.bytes - before;
            return Ok(());
        }
        let piece = Recent::of(entry)?;
        self.bytes += piece.bytes;
        match self.conversations.entry(piece.conversation.id.clone()) {
            Slot::Occupied(mut there) => there.get_mut().add(piece),
            Slot::Vacant(place) => drop(place.insert(Pieces::new(piece))),
        }
        Ok(())
    }

    /// Drops the oldest piece of a conversation.
    fn drop_oldest(&mut self, id: &ConversationId) {
        let Some(pieces) = self.conversations.get_mut(id) else { return };
        let oldest = pieces.full.pop_front().or_else(|| self.conversations.remove(id).map(|pieces| pieces.latest));
        self.bytes -= oldest.map_or(0, |oldest| oldest.bytes);
    }
}

/// What the image holds. A clone is what it held then, and keeps the writer from changing that in place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    active: Layer,
    frozen: Layer,
}

impl Layers {
    /// What is known of a conversation here, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Recent>> {
        let layers = [&self.active, &self.frozen].into_iter();
        layers.filter_map(|layer| layer.conversations.get(id)).flat_map(Pieces::latest_first)
    }

    /// All pieces: the frozen layer first, and the pieces of one conversation oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Recent>> {
        let pieces = self.frozen.conversations.values().chain(self.active.conversations.values());
        pieces.flat_map(Pieces::oldest_first)
    }

    /// Whether the turn changed here.
    pub(crate) fn has(&self, id: &ConversationId, turn_id: &TurnId) -> bool {
        self.of(id).any(|recent| recent.turns.contains_key(turn_id))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// What the journal holds and the tables do not yet.
#[derive(Debug, Default)]
pub(crate) struct Image {
    layers: Layers,
    /// The conversations of the pieces in the frozen layer; the next to move is at the end.
    to_move: Vec<ConversationId>,
    /// The last row of the journal that was taken.
    last_row: u64,
    /// The last row when the frozen layer was.
    frozen_at: u64,
    /// The last row of which everything is in the tables.
    checkpoint: u64,
}

impl Image {
    /// Of a journal of which the tables hold everything up to this row.
    pub(crate) fn at(checkpoint: u64) -> Self {
        Self { last_row: checkpoint, frozen_at: checkpoint, checkpoint, ..Self::default() }
    }

    /// Takes in what a commit changed.
    pub(crate) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        self.take_in_pieces(entry, PIECE_BYTES)
    }

    /// Like [`take`](Self::take), with another size of a full piece.
    pub(crate) fn take_in_pieces(&mut self, entry: Entry, piece_bytes: usize) -> Result<(), DamagedRecord> {
        self.layers.active.take(entry, piece_bytes)
    }

    /// Everything of this row, and of those before it, was taken.
    pub(crate) fn took_row(&mut self, row: u64, bytes: usize) {
        self.last_row = row;
        self.layers.active.row_bytes += bytes;
    }

    pub(crate) fn last_row(&self) -> u64 {
        self.last_row
    }

    pub(crate) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// About what it takes in memory or in the journal, whichever is more.
    pub(crate) fn size(&self) -> usize {
        self.layers.active.size() + self.layers.frozen.size()
    }

    pub(crate) fn active_size(&self) -> usize {
        self.layers.active.size()
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.layers.active.bytes + self.layers.frozen.bytes
    }

    pub(crate) fn has_frozen(&self) -> bool {
        !self.layers.frozen.conversations.is_empty()
    }

    /// What it holds.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What is known of a conversation here, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Recent>> {
        self.layers.of(id)
    }

    /// Freezes the active layer if it holds anything and no layer is frozen. Returns its pieces; the caller must then
    /// set their order with [`set_order`](Self::set_order).
    pub(crate) fn freeze(&mut self) -> Option<Vec<Arc<Recent>>> {
        if self.has_frozen() || self.layers.active.conversations.is_empty() {
            return None;
        }
        self.layers.frozen = std::mem::take(&mut self.layers.active);
        self.frozen_at = self.last_row;
        Some(self.layers.frozen.conversations.values().flat_map(Pieces::oldest_first).cloned().collect())
    }

    /// Sets the order in which the frozen layer is moved: a list of conversations, each once for each of its pieces.
    /// The next to move is at the end.
    pub(crate) fn set_order(&mut self, to_move: Vec<ConversationId>) {
        self.to_move = to_move;
    }

    /// Returns the next pieces to move, of about this many bytes in total, and whether they are the last of the layer.
    pub(crate) fn next_to_move(&self, bytes: usize) -> (Vec<Arc<Recent>>, bool) {
        let mut moving: Vec<Arc<Recent>> = Vec::new();
        let mut size = 0;
        let mut of_the_same = 0;
        for id in self.to_move.iter().rev() {
            if size >= bytes {
                return (moving, false);
            }
            of_the_same =
                if moving.last().is_some_and(|last| last.conversation.id == *id) { of_the_same + 1 } else { 0 };
            let pieces = self.layers.frozen.conversations.get(id);
            if let Some(recent) = pieces.and_then(|pieces| pieces.oldest_first().nth(of_the_same)) {
                size += recent.bytes;
                moving.push(Arc::clone(recent));
            }
        }
        (moving, true)
    }

    /// The row up to which the tables hold everything when the frozen layer is moved.
    pub(crate) fn frozen_at(&self) -> u64 {
        self.frozen_at
    }

    /// Drops pieces that are in the tables now, and sets the keys of their conversations.
    pub(crate) fn moved(&mut self, moved: &[(Arc<Recent>, u64)]) {
        let before = self.layers.frozen.bytes.max(1);
        for (recent, key) in moved {
            let id = &recent.conversation.id;
            self.layers.frozen.drop_oldest(id);
            for layer in [&mut self.layers.frozen, &mut self.layers.active] {
                layer.conversations.get_mut(id).into_iter().for_each(|pieces| pieces.set_key(*key));
            }
        }
        // Its rows can go when all of it has. But whoever waits for room waits for a part of it, not for the whole.
        let frozen = &mut self.layers.frozen;
        frozen.row_bytes = frozen.row_bytes / before * frozen.bytes + frozen.row_bytes % before * frozen.bytes / before;
        self.to_move.truncate(self.to_move.len() - moved.len());
        if self.to_move.is_empty() {
            self.checkpoint = self.frozen_at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;
    use crate::turn::{Done, EpochMillis, OpenTurn, Usage};

    fn id() -> ConversationId {
        ConversationId::new("c").unwrap()
    }

    /// The `nth` commit of a conversation, which seals this many turns.
    fn entry(nth: u64, turns: u64) -> Entry {
        let sealed = (nth * turns..(nth + 1) * turns).map(|turn| {
            let turn = OpenTurn::new(TurnId::new(format!("turn-{turn}")).unwrap());
            record::encode_sealed(&turn.seal(&Done::because("stop"), EpochMillis::new(1))).unwrap().into()
        });
        let conversation = Conversation {
            id: id(),
            version: Version(nth + 1),
            sealed_turns: (nth + 1) * turns,
            last_sealed_at: EpochMillis::default(),
            total_usage: Usage::default(),
        };
        Entry { conversation, key: None, sealed: sealed.collect(), staged: Vec::new() }
    }

    #[test]
    fn a_conversation_of_100_000_turns_is_moved_in_many_steps_each_of_which_ends_with_a_commit() {
        const TURNS: u64 = 100;
        const COMMITS: u64 = 1000;
        let mut image = Image::default();
        (0..COMMITS).for_each(|nth| image.take(entry(nth, TURNS)).unwrap());
        let pieces = image.freeze().unwrap();
        assert!(pieces.len() > 50, "{}", pieces.len());
        image.set_order(pieces.iter().map(|piece| piece.conversation.id.clone()).collect());
        drop(pieces);
        image.take(entry(COMMITS, TURNS)).unwrap();

        let mut moved = 0;
        while image.has_frozen() {
            let (moving, is_last) = image.next_to_move(1);
            assert_eq!(moving.len(), 1);
            let piece = &moving[0];
            // The last commit of a piece may be larger than the room that was left.
            let most = PIECE_BYTES + usize::try_from(TURNS).unwrap() * 300;
            assert!(piece.bytes() < most, "a step of {} bytes", piece.bytes());
            assert_eq!(piece.sealed_before(), moved);
            moved = piece.conversation.sealed_turns;
            assert_eq!(piece.conversation.version, Version(moved / TURNS));
            assert_eq!(is_last, moved == COMMITS * TURNS);
            image.moved(&[(Arc::clone(piece), 7)]);
            let left: Vec<_> = image.of(&id()).collect();
            assert!(left.iter().all(|piece| piece.key == Some(7)));
            assert_eq!(left.last().unwrap().sealed_before(), moved, "what is left follows what was moved");
            assert_eq!(left[0].conversation.version, Version(COMMITS + 1), "the latest stays in sight");
        }
        assert_eq!(image.bytes(), image.of(&id()).map(|piece| piece.bytes()).sum::<usize>());
    }

    #[test]
    fn one_step_takes_the_pieces_of_a_conversation_in_their_order() {
        let mut image = Image::default();
        (0..9).for_each(|nth| image.take_in_pieces(entry(nth, 1), 1).unwrap());
        let order = image.freeze().unwrap().iter().map(|piece| piece.conversation.id.clone()).collect();
        image.set_order(order);
        let (moving, is_last) = image.next_to_move(usize::MAX);
        assert!(moving.iter().map(|piece| piece.conversation.version.0).eq(1..=9) && is_last);
        let (moving, is_last) = image.next_to_move(moving[0].bytes() * 4);
        assert!(moving.iter().map(|piece| piece.conversation.version.0).eq(1..=4) && !is_last);
    }

    #[test]
    fn an_entry_that_cannot_be_read_leaves_no_piece() {
        let mut image = Image::default();
        let damaged = |nth| Entry { sealed: vec![b"no record"[..].into()], ..entry(nth, 1) };
        image.take(damaged(0)).unwrap_err();
        assert!(image.layers().is_empty());
        image.take_in_pieces(entry(0, 1), 1).unwrap();
        image.take_in_pieces(damaged(1), 1).unwrap_err();
        assert_eq!(image.of(&id()).map(|piece| piece.conversation.version).collect::<Vec<_>>(), [Version(1)]);
    }
}

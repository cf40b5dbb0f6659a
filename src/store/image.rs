//! What the journal holds and the tables do not yet, in memory.
//!
//! Commits go to the active layer. When that is large and the frozen one is empty, it is frozen, and the checkpoint moves
//! its conversations into the tables, each whole, while the next layer fills. What is known of a conversation is its
//! rows in the tables, then the frozen layer over them, then the active one. Laying something over rows that hold it
//! already changes nothing, so it does not matter when what was moved is dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use super::entry::Entry;
use super::record::{self, Conversation, DamagedRecord};
use crate::turn::{ConversationId, Ordinal, TurnId};

/// What commits changed in one conversation.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    /// The conversation as it is now.
    pub(super) conversation: Conversation,
    /// Its key in the tables, if known.
    pub(super) key: Option<u64>,
    /// The turns that changed.
    pub(super) turns: HashMap<TurnId, Change>,
    /// The records of the turns that were sealed, the last of which has the conversation's last ordinal.
    sealed: Vec<Arc<[u8]>>,
    bytes: usize,
}

/// What became of a turn.
#[derive(Debug, Clone)]
pub(super) enum Change {
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

    fn new(entry: &Entry) -> Self {
        Self {
            conversation: entry.conversation.clone(),
            key: None,
            turns: HashMap::new(),
            sealed: Vec::new(),
            bytes: Self::BYTES,
        }
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

    /// The last ordinal of those below.
    pub(super) fn sealed_before(&self) -> u64 {
        self.conversation.sealed_turns - self.sealed.len() as u64
    }

    /// The records of the turns sealed here whose ordinals come after this one, in order.
    pub(super) fn sealed_after(&self, after: u64) -> impl Iterator<Item = (Ordinal, &Arc<[u8]>)> {
        let before = self.sealed_before();
        let passed = usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        let ordinals = (before..).map(Ordinal::after);
        ordinals.zip(&self.sealed).skip(passed)
    }
}

fn turn_id(record: &[u8]) -> Result<TurnId, DamagedRecord> {
    TurnId::new(record::turn_id_of(record)?).map_err(|error| DamagedRecord::new("turn", error.to_string()))
}

/// A part of the image.
#[derive(Debug, Clone, Default)]
struct Layer {
    conversations: HashMap<ConversationId, Arc<Recent>>,
    /// About what it takes in memory.
    bytes: usize,
    /// What its rows take in the journal. A turn that is staged again and again takes room there each time.
    row_bytes: usize,
}

impl Layer {
    fn size(&self) -> usize {
        self.bytes.max(self.row_bytes)
    }
}

/// What the image holds. A clone is what it held then, and keeps the writer from changing that in place.
#[derive(Debug, Clone, Default)]
pub(super) struct Layers {
    active: Layer,
    frozen: Layer,
}

impl Layers {
    /// What is known of a conversation here, the latest first.
    pub(super) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Recent>> {
        [&self.active, &self.frozen].into_iter().filter_map(|layer| layer.conversations.get(id))
    }

    /// Every conversation that is here, those of the frozen layer first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Recent>> {
        self.frozen.conversations.values().chain(self.active.conversations.values())
    }

    /// Whether the turn changed here.
    pub(super) fn has(&self, id: &ConversationId, turn_id: &TurnId) -> bool {
        self.of(id).any(|recent| recent.turns.contains_key(turn_id))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// What the journal holds and the tables do not yet.
#[derive(Debug, Default)]
pub(super) struct Image {
    layers: Layers,
    /// The frozen conversations, those to be moved next at the end.
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
    pub(super) fn at(checkpoint: u64) -> Self {
        Self { last_row: checkpoint, frozen_at: checkpoint, checkpoint, ..Self::default() }
    }

    /// Takes in what a commit changed.
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        let recent = match self.layers.active.conversations.entry(entry.conversation.id.clone()) {
            Slot::Occupied(there) => there.into_mut(),
            Slot::Vacant(place) => {
                self.layers.active.bytes += Recent::BYTES;
                place.insert(Arc::new(Recent::new(&entry)))
            }
        };
        // A copy is made only where somebody reads what was.
        let recent = Arc::make_mut(recent);
        let before = recent.bytes;
        recent.take(entry)?;
        self.layers.active.bytes = self.layers.active.bytes + recent.bytes - before;
        Ok(())
    }

    /// Everything of this row, and of those before it, was taken.
    pub(super) fn took_row(&mut self, row: u64, bytes: usize) {
        self.last_row = row;
        self.layers.active.row_bytes += bytes;
    }

    pub(super) fn last_row(&self) -> u64 {
        self.last_row
    }

    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// About what it takes in memory or in the journal, whichever is more.
    pub(super) fn size(&self) -> usize {
        self.layers.active.size() + self.layers.frozen.size()
    }

    pub(super) fn active_size(&self) -> usize {
        self.layers.active.size()
    }

    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.layers.active.bytes + self.layers.frozen.bytes
    }

    pub(super) fn has_frozen(&self) -> bool {
        !self.to_move.is_empty()
    }

    /// What it holds.
    pub(super) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What is known of a conversation here, the latest first.
    pub(super) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Recent>> {
        self.layers.of(id)
    }

    /// Freezes the active layer, if none is frozen and this one holds anything.
    pub(super) fn freeze(&mut self) {
        if self.has_frozen() || self.layers.active.conversations.is_empty() {
            return;
        }
        self.layers.frozen = std::mem::take(&mut self.layers.active);
        self.frozen_at = self.last_row;
        // In the order of the tables' keys: neighbours share pages. The new ones last, which is where they go.
        let mut order: Vec<_> = self.layers.frozen.conversations.values().collect();
        order.sort_by_key(|recent| std::cmp::Reverse((recent.key.unwrap_or(u64::MAX), &recent.conversation.id)));
        self.to_move = order.into_iter().map(|recent| recent.conversation.id.clone()).collect();
    }

    /// The next conversations to move, of about so many bytes together, and whether they are the last of the layer.
    pub(super) fn next_to_move(&self, bytes: usize) -> (Vec<Arc<Recent>>, bool) {
        let mut moving = Vec::new();
        let mut size = 0;
        for id in self.to_move.iter().rev() {
            if size >= bytes {
                return (moving, false);
            }
            if let Some(recent) = self.layers.frozen.conversations.get(id) {
                size += recent.bytes;
                moving.push(Arc::clone(recent));
            }
        }
        (moving, true)
    }

    /// The row up to which the tables hold everything when the frozen layer is moved.
    pub(super) fn frozen_at(&self) -> u64 {
        self.frozen_at
    }

    /// Drops conversations that are in the tables now, with the keys that they have there.
    pub(super) fn moved(&mut self, moved: &[(Arc<Recent>, u64)]) {
        let before = self.layers.frozen.bytes.max(1);
        for (recent, key) in moved {
            let id = &recent.conversation.id;
            if let Some(recent) = self.layers.frozen.conversations.remove(id) {
                self.layers.frozen.bytes -= recent.bytes;
            }
            if let Some(newer) = self.layers.active.conversations.get_mut(id) {
                Arc::make_mut(newer).key = Some(*key);
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

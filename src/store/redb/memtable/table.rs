use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::iter;
use std::sync::Arc;

use super::piece::Piece;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::turn::ConversationId;

/// The pieces of a conversation in a table.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    /// The full pieces, oldest first.
    full: VecDeque<Arc<Piece>>,
    latest: Arc<Piece>,
}

impl Pieces {
    fn new(latest: Piece) -> Self {
        Self { full: VecDeque::new(), latest: Arc::new(latest) }
    }

    fn add(&mut self, latest: Piece) {
        self.full.push_back(std::mem::replace(&mut self.latest, Arc::new(latest)));
    }

    pub(super) fn oldest_first(&self) -> impl DoubleEndedIterator<Item = &Arc<Piece>> {
        self.full.iter().chain(iter::once(&self.latest))
    }

    pub(super) fn latest_first(&self) -> impl Iterator<Item = &Arc<Piece>> {
        self.oldest_first().rev()
    }

    /// Sets the key of the conversation in the tables.
    pub(super) fn set_key(&mut self, key: u64) {
        for piece in self.full.iter_mut().chain(iter::once(&mut self.latest)).filter(|piece| piece.key.is_none()) {
            Arc::make_mut(piece).key = Some(key);
        }
    }
}

/// One of the two tables of the memtable.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) conversations: HashMap<ConversationId, Pieces>,
    /// Its approximate memory.
    pub(super) bytes: usize,
    /// The size of its rows in the journal. A turn that is staged again takes space there each time.
    pub(super) row_bytes: usize,
}

impl Table {
    pub(super) fn size(&self) -> usize {
        self.bytes.max(self.row_bytes)
    }

    /// Adds the changes of a commit.
    pub(super) fn take(&mut self, entry: Entry, piece_bytes: usize) -> Result<(), DamagedRecord> {
        let pieces = self.conversations.get_mut(&entry.conversation.id);
        if let Some(pieces) = pieces
            && pieces.latest.bytes() < piece_bytes
        {
            // This copies the piece only while a reader holds it.
            let latest = Arc::make_mut(&mut pieces.latest);
            let before = latest.bytes();
            latest.take(entry)?;
            self.bytes = self.bytes + latest.bytes() - before;
            return Ok(());
        }
        let piece = Piece::of(entry)?;
        self.bytes += piece.bytes();
        match self.conversations.entry(piece.conversation.id.clone()) {
            Slot::Occupied(mut there) => there.get_mut().add(piece),
            Slot::Vacant(place) => drop(place.insert(Pieces::new(piece))),
        }
        Ok(())
    }

    /// Drops the oldest piece of a conversation.
    pub(super) fn drop_oldest(&mut self, id: &ConversationId) {
        let Some(pieces) = self.conversations.get_mut(id) else { return };
        let oldest = pieces.full.pop_front().or_else(|| self.conversations.remove(id).map(|pieces| pieces.latest));
        self.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
    }
}

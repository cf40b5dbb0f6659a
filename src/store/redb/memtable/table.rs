use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::iter;
use std::sync::Arc;

use super::piece::Piece;
use crate::store::contract::Life;
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

    /// Notes in the pieces of this life which key it has in the tables. A piece that has a key keeps it.
    pub(super) fn set_key(&mut self, life: Life, key: u64) {
        let pieces = self.full.iter_mut().chain(iter::once(&mut self.latest));
        for piece in pieces.filter(|piece| piece.key.is_none() && piece.conversation.life == life) {
            Arc::make_mut(piece).key = Some(key);
        }
    }
}

/// One of the two tables of the memtable.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) conversations: HashMap<ConversationId, Pieces>,
    /// The approximate memory of the table.
    pub(super) bytes: usize,
    /// The size of the journal's rows that the table has taken in. A turn that is staged several times takes space in
    /// several rows.
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
            && pieces.latest.conversation.life == entry.conversation.life
        {
            // `make_mut` copies the piece only if a reader still uses it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;
    use crate::store::redb::tables::record::conversation::ConversationRecord;

    fn id(id: &str) -> ConversationId {
        ConversationId::new(id).unwrap()
    }

    fn entry(conversation: &str, version: u64) -> Entry {
        let begun = ConversationRecord::begin(id(conversation));
        let conversation = ConversationRecord { life: Life(1), version: Version(version), ..begun };
        Entry { conversation, erased: None, key: None, position: 1, sealed: Vec::new(), staged: Vec::new() }
    }

    fn versions(pieces: &Pieces) -> Vec<u64> {
        pieces.oldest_first().map(|piece| piece.conversation.version.0).collect()
    }

    #[test]
    fn a_full_piece_takes_no_commit_and_the_oldest_is_dropped_first() {
        let mut table = Table::default();
        (1..=3).for_each(|version| table.take(entry("c", version), 1).unwrap());
        table.take(entry("c", 4), usize::MAX).unwrap();
        table.take(entry("d", 1), 1).unwrap();
        let bytes = |table: &Table| {
            let pieces = table.conversations.values().flat_map(Pieces::oldest_first);
            pieces.map(|piece| piece.bytes()).sum::<usize>()
        };
        for left in [&[1, 2, 4][..], &[2, 4], &[4]] {
            assert_eq!(versions(&table.conversations[&id("c")]), left);
            assert_eq!(table.bytes, bytes(&table));
            table.drop_oldest(&id("c"));
        }
        assert_eq!((table.conversations.len(), table.bytes), (1, bytes(&table)));
        table.drop_oldest(&id("c"));
        assert_eq!(table.conversations.len(), 1, "dropping a piece of an unknown conversation removed another one");
    }

    #[test]
    fn what_a_reader_holds_does_not_change_and_a_key_that_is_known_stays() {
        let mut table = Table::default();
        table.take(entry("c", 1), usize::MAX).unwrap();
        let held = table.conversations[&id("c")].clone();
        table.take(entry("c", 2), usize::MAX).unwrap();
        let pieces = table.conversations.get_mut(&id("c")).unwrap();
        for key in [7, 8] {
            pieces.set_key(pieces.latest.conversation.life, key);
        }
        let seen = |pieces: &Pieces| (versions(pieces), pieces.latest.key);
        assert_eq!((seen(&held), seen(pieces)), ((vec![1], None), (vec![2], Some(7))));
    }

    #[test]
    fn a_table_is_as_large_as_the_larger_of_its_memory_and_its_rows() {
        let table = |bytes, row_bytes| Table { bytes, row_bytes, ..Table::default() };
        assert_eq!((table(3, 5).size(), table(5, 3).size()), (5, 5));
    }
}

//! What the journal holds and the tables do not yet, in memory.
//!
//! Commits go to the active table. When that is large and there is no immutable table, it becomes the immutable one,
//! and the checkpoint moves it into the tables of the main file while the next active table fills.
//!
//! Each table keeps the changes of a conversation in pieces of bounded size, in most cases a single one. Each piece
//! ends with a commit and is moved whole, oldest first, so that the main file always holds a conversation as some
//! commit left it. The state of a conversation is its rows in the main file, overlaid by the pieces of the immutable
//! table and then by those of the active one. Overlaying a piece that the main file already holds is a no-op, so a
//! moved piece may be dropped at any later time.
//!
//! - `piece`: the changes of consecutive commits to one conversation.
//! - `table`: one of the two tables.

pub(crate) mod piece;
mod table;

use std::sync::Arc;

use self::piece::{PIECE_BYTES, Piece};
use self::table::{Pieces, Table};
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::turn::{ConversationId, TurnId};

/// What the memtable holds. A clone is what it held then, and keeps the writer from changing that in place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    active: Table,
    immutable: Table,
}

impl Contents {
    /// What is known of a conversation here, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Piece>> {
        let tables = [&self.active, &self.immutable].into_iter();
        tables.filter_map(|table| table.conversations.get(id)).flat_map(Pieces::latest_first)
    }

    /// All pieces: the immutable table first, and the pieces of one conversation oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Piece>> {
        let pieces = self.immutable.conversations.values().chain(self.active.conversations.values());
        pieces.flat_map(Pieces::oldest_first)
    }

    /// Whether the turn changed here.
    pub(crate) fn has(&self, id: &ConversationId, turn_id: &TurnId) -> bool {
        self.of(id).any(|piece| piece.turns.contains_key(turn_id))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// What the journal holds and the tables do not yet.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    contents: Contents,
    /// The conversations of the pieces in the immutable table; the next to move is at the end.
    to_move: Vec<ConversationId>,
    /// The last row of the journal that was taken.
    last_row: JournalMark,
    /// The last row when the immutable table took its last commit.
    frozen_at: JournalMark,
    /// The last row of which everything is in the tables.
    checkpoint: JournalMark,
}

impl Memtable {
    /// Of a journal of which the tables hold everything up to this row.
    pub(crate) fn at(checkpoint: JournalMark) -> Self {
        Self { last_row: checkpoint, frozen_at: checkpoint, checkpoint, ..Self::default() }
    }

    /// Takes in what a commit changed.
    pub(crate) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        self.take_in_pieces(entry, PIECE_BYTES)
    }

    /// Like [`take`](Self::take), with another size of a full piece.
    pub(crate) fn take_in_pieces(&mut self, entry: Entry, piece_bytes: usize) -> Result<(), DamagedRecord> {
        self.contents.active.take(entry, piece_bytes)
    }

    /// Everything of this row, and of those before it, was taken.
    pub(crate) fn took_row(&mut self, row: JournalMark, bytes: usize) {
        self.last_row = row;
        self.contents.active.row_bytes += bytes;
    }

    pub(crate) fn last_row(&self) -> JournalMark {
        self.last_row
    }

    pub(crate) fn checkpoint(&self) -> JournalMark {
        self.checkpoint
    }

    /// About what it takes in memory or in the journal, whichever is more.
    pub(crate) fn size(&self) -> usize {
        self.contents.active.size() + self.contents.immutable.size()
    }

    pub(crate) fn active_size(&self) -> usize {
        self.contents.active.size()
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.contents.active.bytes + self.contents.immutable.bytes
    }

    pub(crate) fn has_immutable(&self) -> bool {
        !self.contents.immutable.conversations.is_empty()
    }

    /// What it holds.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What is known of a conversation here, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Piece>> {
        self.contents.of(id)
    }

    /// Makes the active table the immutable one, if it holds anything and there is none yet. Returns its pieces; the
    /// caller must then set their order with [`set_order`](Self::set_order).
    pub(crate) fn freeze(&mut self) -> Option<Vec<Arc<Piece>>> {
        if self.has_immutable() || self.contents.active.conversations.is_empty() {
            return None;
        }
        self.contents.immutable = std::mem::take(&mut self.contents.active);
        self.frozen_at = self.last_row;
        Some(self.contents.immutable.conversations.values().flat_map(Pieces::oldest_first).cloned().collect())
    }

    /// Sets the order in which the immutable table is moved: a list of conversations, each once for each of its pieces.
    /// The next to move is at the end.
    pub(crate) fn set_order(&mut self, to_move: Vec<ConversationId>) {
        self.to_move = to_move;
    }

    /// Returns the next pieces to move, of about this many bytes in total, and whether they are the last of the table.
    pub(crate) fn next_to_move(&self, bytes: usize) -> (Vec<Arc<Piece>>, bool) {
        let mut moving: Vec<Arc<Piece>> = Vec::new();
        let mut size = 0;
        let mut of_the_same = 0;
        for id in self.to_move.iter().rev() {
            if size >= bytes {
                return (moving, false);
            }
            of_the_same =
                if moving.last().is_some_and(|last| last.conversation.id == *id) { of_the_same + 1 } else { 0 };
            let pieces = self.contents.immutable.conversations.get(id);
            if let Some(piece) = pieces.and_then(|pieces| pieces.oldest_first().nth(of_the_same)) {
                size += piece.bytes();
                moving.push(Arc::clone(piece));
            }
        }
        (moving, true)
    }

    /// The row up to which the tables hold everything when the immutable table is moved.
    pub(crate) fn frozen_at(&self) -> JournalMark {
        self.frozen_at
    }

    /// Drops pieces that are in the tables now, and sets the keys of their conversations.
    pub(crate) fn moved(&mut self, moved: &[(Arc<Piece>, u64)]) {
        let before = self.contents.immutable.bytes.max(1);
        for (piece, key) in moved {
            let id = &piece.conversation.id;
            self.contents.immutable.drop_oldest(id);
            for table in [&mut self.contents.immutable, &mut self.contents.active] {
                table.conversations.get_mut(id).into_iter().for_each(|pieces| pieces.set_key(*key));
            }
        }
        // Its rows can go when all of it has. But whoever waits for room waits for a part of it, not for the whole.
        let immutable = &mut self.contents.immutable;
        // Divided first, as the product may be too large.
        let (rows, left) = (immutable.row_bytes, immutable.bytes);
        immutable.row_bytes = rows / before * left + rows % before * left / before;
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
    use crate::store::redb::tables::record;
    use crate::store::redb::tables::record::conversation::Conversation;
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
        let mut memtable = Memtable::default();
        (0..COMMITS).for_each(|nth| memtable.take(entry(nth, TURNS)).unwrap());
        let pieces = memtable.freeze().unwrap();
        assert!(pieces.len() > 50, "{}", pieces.len());
        memtable.set_order(pieces.iter().map(|piece| piece.conversation.id.clone()).collect());
        drop(pieces);
        memtable.take(entry(COMMITS, TURNS)).unwrap();

        let mut moved = 0;
        while memtable.has_immutable() {
            let (moving, is_last) = memtable.next_to_move(1);
            assert_eq!(moving.len(), 1);
            let piece = &moving[0];
            // The last commit of a piece may be larger than the room that was left.
            let most = PIECE_BYTES + usize::try_from(TURNS).unwrap() * 300;
            assert!(piece.bytes() < most, "a step of {} bytes", piece.bytes());
            assert_eq!(piece.sealed_before(), moved);
            moved = piece.conversation.sealed_turns;
            assert_eq!(piece.conversation.version, Version(moved / TURNS));
            assert_eq!(is_last, moved == COMMITS * TURNS);
            memtable.moved(&[(Arc::clone(piece), 7)]);
            let left: Vec<_> = memtable.of(&id()).collect();
            assert!(left.iter().all(|piece| piece.key == Some(7)));
            assert_eq!(left.last().unwrap().sealed_before(), moved, "what is left follows what was moved");
            assert_eq!(left[0].conversation.version, Version(COMMITS + 1), "the latest stays in sight");
        }
        assert_eq!(memtable.bytes(), memtable.of(&id()).map(|piece| piece.bytes()).sum::<usize>());
    }

    #[test]
    fn one_step_takes_the_pieces_of_a_conversation_in_their_order() {
        let mut memtable = Memtable::default();
        (0..9).for_each(|nth| memtable.take_in_pieces(entry(nth, 1), 1).unwrap());
        let order = memtable.freeze().unwrap().iter().map(|piece| piece.conversation.id.clone()).collect();
        memtable.set_order(order);
        let (moving, is_last) = memtable.next_to_move(usize::MAX);
        assert!(moving.iter().map(|piece| piece.conversation.version.0).eq(1..=9) && is_last);
        let (moving, is_last) = memtable.next_to_move(moving[0].bytes() * 4);
        assert!(moving.iter().map(|piece| piece.conversation.version.0).eq(1..=4) && !is_last);
    }

    #[test]
    fn an_entry_that_cannot_be_read_leaves_no_piece() {
        let mut memtable = Memtable::default();
        let damaged = |nth| Entry { sealed: vec![b"no record"[..].into()], ..entry(nth, 1) };
        memtable.take(damaged(0)).unwrap_err();
        assert!(memtable.contents().is_empty());
        memtable.take_in_pieces(entry(0, 1), 1).unwrap();
        memtable.take_in_pieces(damaged(1), 1).unwrap_err();
        assert_eq!(memtable.of(&id()).map(|piece| piece.conversation.version).collect::<Vec<_>>(), [Version(1)]);
    }
}

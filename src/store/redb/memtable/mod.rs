//! The memtable: the changes that are in the journal and not in the tables yet, in memory.
//!
//! Commits go to the active table. When the active table is large and there is no immutable table, the active table
//! becomes the immutable one. The checkpoint moves the immutable table into the tables of the main file while the next
//! active table fills.
//!
//! Each table keeps the changes of a conversation in pieces of bounded size, in most cases in a single piece. Each
//! piece ends with a commit and is moved whole, oldest first, so that the main file always holds a conversation as some
//! commit left it. The state of a conversation is its rows in the main file, overlaid by the pieces of the immutable
//! table and then by those of the active one. Overlaying a piece that the main file already holds is a no-op, so a
//! moved piece may be dropped at any later time.
//!
//! - `piece`: the changes of consecutive commits to one conversation.
//! - `open_parts`: the parts of an open turn in a piece: its head and the steps that changed.
//! - `table`: one of the two tables.
//! - `order`: the order in which the turns of both tables were sealed.
//! - `tally`: the sums that the turns of both tables add to reports.

pub(crate) mod open_parts;
pub(crate) mod order;
pub(crate) mod piece;
mod table;
pub(crate) mod tally;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::order::{Order, Run};
use self::piece::{PIECE_BYTES, Piece};
use self::table::{Pieces, Table};
use self::tally::{Recent, TallyKey, TurnsToCount, Unsummed};
use crate::store::contract::Life;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::RolledUp;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::turn::{ConversationId, Ordinal, TurnId};

/// The pieces of the memtable. A clone shows the pieces at the time of cloning; while it lives, the writer copies a
/// piece before it changes the piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    active: Table,
    immutable: Table,
    /// The lives that were erased and whose erasures are not in the tables of the main file yet.
    erased: HashSet<Life>,
}

impl Contents {
    /// Returns the pieces of a conversation's present life, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Piece>> {
        let tables = [&self.active, &self.immutable].into_iter();
        let pieces = tables.filter_map(|table| table.conversations.get(id)).flat_map(Pieces::latest_first);
        let mut present = None;
        pieces.take_while(move |piece| piece.conversation.life == *present.get_or_insert(piece.conversation.life))
    }

    /// Returns the present life of a conversation that has a piece.
    pub(crate) fn life_of(&self, id: &ConversationId) -> Option<Life> {
        self.of(id).next().map(|piece| piece.conversation.life)
    }

    /// Returns all pieces, also those of lives that were erased: those of the immutable table first, and the pieces of a
    /// conversation in a table oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Piece>> {
        let pieces = self.immutable.conversations.values().chain(self.active.conversations.values());
        pieces.flat_map(Pieces::oldest_first)
    }

    /// Returns the lives that were erased and whose erasures are not in the tables of the main file yet.
    pub(crate) fn erased(&self) -> &HashSet<Life> {
        &self.erased
    }

    /// Returns the pieces of the present life of each conversation, in the order of [`Contents::all`].
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Piece>> {
        // Pieces are moved oldest first, so the pieces of an erased life go before its erasure does.
        let has_erased = !self.erased.is_empty();
        let is_present =
            move |piece: &&Arc<Piece>| self.life_of(&piece.conversation.id) == Some(piece.conversation.life);
        self.all().filter(move |piece| !has_erased || is_present(piece))
    }

    /// Returns whether a piece has changes of this open turn or seals it.
    pub(crate) fn has(&self, id: &ConversationId, turn_id: &TurnId) -> bool {
        self.of(id).any(|piece| piece.change(turn_id.as_str()).is_some())
    }

    /// Returns the record of a sealed turn, if it is in a piece.
    fn sealed(&self, id: &ConversationId, ordinal: Ordinal) -> Option<&Arc<[u8]>> {
        self.of(id).find_map(|piece| piece.sealed_at(ordinal))
    }

    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

/// The changes that are in the journal and not in the tables yet.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    contents: Contents,
    order: Order,
    /// The last position that was given.
    last_position: u64,
    /// The last position that the tables had when the journal was opened.
    moved_position: u64,
    /// The conversations of the pieces in the immutable table; the next to move is at the end.
    to_move: Vec<ConversationId>,
    /// The last row of the journal that was taken in.
    last_row: JournalMark,
    /// The last row when the immutable table took its last commit.
    frozen_at: JournalMark,
    /// The last row of the journal that the tables have in full.
    checkpoint: JournalMark,
    /// The row after which the journal must be kept, because the next row has changes that cannot be moved into the
    /// tables. `None` if all can.
    kept_after: Option<JournalMark>,
    /// The turns and the size of the sums that the active table has to add to the tables.
    unsummed: Unsummed,
    /// The turns and the size of the sums that the immutable table has to add to the tables, after its pieces and its
    /// order.
    frozen: Unsummed,
    /// The last position when the immutable table took its last commit.
    frozen_position: u64,
    /// The key up to which the sums of the immutable table were moved.
    summed_to: Option<TallyKey>,
    /// Whether the active table has sums of turns that are in the tables already, as after a crash within a checkpoint.
    has_sums_of_moved_turns: bool,
    /// Which tally counts the turns of the row that is being taken in.
    counting: Counting,
}

/// Which tally counts the turns of a row. When a journal is replayed, the tables have the sums of its first rows
/// already, and may have a part of the sums of some rows after these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Counting {
    #[default]
    Active,
    /// The tally of the immutable table: the tables may have a part of the sums of these turns.
    Immutable,
    /// No tally: the tables have the sums of these turns.
    Nowhere,
}

/// A turn whose position is in the memtable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderedTurn<'a> {
    pub(crate) position: u64,
    pub(crate) conversation_id: &'a ConversationId,
    /// The life of the conversation in which the turn was sealed.
    pub(crate) life: Life,
    pub(crate) ordinal: Ordinal,
    pub(crate) place: Place<'a>,
}

/// The place of a turn whose position is in the memtable.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Its piece is in the memtable. This is its record.
    Here(&'a Arc<[u8]>),
    /// Its piece was moved. The tables have it, unless it was erased.
    Tables,
    /// It was erased.
    Erased,
}

impl Memtable {
    /// Returns an empty memtable. The tables have all rows of the journal up to `checkpoint`, and the order of all
    /// turns up to `position`.
    pub(crate) fn at(checkpoint: JournalMark, position: u64) -> Self {
        Self {
            last_position: position,
            moved_position: position,
            last_row: checkpoint,
            frozen_at: checkpoint,
            checkpoint,
            ..Self::default()
        }
    }

    /// Takes in the changes of a commit.
    pub(crate) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        self.take_in_pieces(entry, PIECE_BYTES)
    }

    /// Like [`take`](Self::take), with another size of a full piece.
    pub(crate) fn take_in_pieces(&mut self, entry: Entry, piece_bytes: usize) -> Result<(), DamagedRecord> {
        let run = Run::of(&entry);
        let (id, life, sealed) = (entry.conversation.id.clone(), entry.conversation.life, entry.sealed.clone());
        let erased = entry.erased;
        self.contents.active.take(entry, piece_bytes)?;
        self.contents.erased.extend(erased);
        self.list_for_sums(&id, life, &sealed);
        self.take_run(run);
        Ok(())
    }

    /// Takes in the positions and the sums of a commit whose changes are in the tables already.
    pub(crate) fn take_positions(&mut self, entry: &Entry) {
        self.has_sums_of_moved_turns |= self.counting == Counting::Active && !entry.sealed.is_empty();
        self.list_for_sums(&entry.conversation.id, entry.conversation.life, &entry.sealed);
        self.take_run(Run::of(entry));
    }

    fn list_for_sums(&mut self, id: &ConversationId, life: Life, sealed: &[Arc<[u8]>]) {
        match self.counting {
            Counting::Active => self.unsummed.add(id, life, sealed),
            Counting::Immutable => self.frozen.add(id, life, sealed),
            Counting::Nowhere => {}
        }
    }

    /// To be called before a row is replayed. The tables have the sums of all rows up to `rolled_up`. `rolling_up`
    /// names a later row and a key: of the rows up to that row, the tables have the sums up to that key.
    pub(crate) fn replays_row(&mut self, row: u64, rolled_up: RolledUp, rolling_up: Option<&(u64, TallyKey)>) {
        self.counting = match rolling_up {
            _ if row <= rolled_up.row => Counting::Nowhere,
            Some((last, _)) if row <= *last => Counting::Immutable,
            _ => Counting::Active,
        };
        if let Some((_, key)) = rolling_up.filter(|_| self.counting == Counting::Immutable) {
            self.summed_to = Some(key.clone());
        }
    }

    /// To be called when the whole journal was replayed. The turns of later rows are in no sums yet.
    pub(crate) fn replayed(&mut self) {
        self.counting = Counting::Active;
    }

    /// Returns the first turns of each table that were not counted yet, until their records have this many bytes.
    pub(crate) fn first_uncounted(&self, bytes: usize) -> TurnsToCount {
        TurnsToCount { immutable: self.frozen.first(bytes), active: self.unsummed.first(bytes) }
    }

    /// Returns all turns that were not counted yet.
    pub(crate) fn all_uncounted(&self) -> TurnsToCount {
        self.first_uncounted(usize::MAX)
    }

    /// Returns the number of turns that were not counted yet.
    #[cfg(test)]
    pub(crate) fn uncounted(&self) -> usize {
        self.frozen.uncounted() + self.unsummed.uncounted()
    }

    /// Returns the bytes of the records of the turns that were not counted yet.
    pub(crate) fn uncounted_bytes(&self) -> usize {
        self.frozen.uncounted_bytes() + self.unsummed.uncounted_bytes()
    }

    /// Marks `turns`, the first uncounted turns of each table, as counted. `recent` has their sums.
    pub(crate) fn counted(&mut self, turns: &TurnsToCount, recent: &Recent) {
        self.frozen.counted(turns.immutable.len(), recent.immutable.bytes());
        self.unsummed.counted(turns.active.len(), recent.active.bytes());
    }

    /// Returns whether only the sums of the immutable table are left to be moved.
    pub(crate) fn has_only_sums(&self) -> bool {
        !self.frozen.is_empty() && self.to_move.is_empty() && !self.order.has_frozen()
    }

    /// Returns whether the immutable table has sums to move.
    pub(crate) fn has_sums(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// The key up to which the sums of the immutable table were moved.
    pub(crate) fn summed_to(&self) -> Option<&TallyKey> {
        self.summed_to.as_ref()
    }

    /// Returns how far the sums of the tables will have come when the immutable table is moved.
    pub(crate) fn rolled_up_then(&self) -> RolledUp {
        RolledUp { row: self.frozen_at.number, position: self.frozen_position }
    }

    /// Returns how far the sums of the tables will have come when everything is moved.
    pub(crate) fn rolled_up_at_last(&self) -> RolledUp {
        RolledUp { row: self.last_row.number, position: self.last_position }
    }

    /// Notes that the tables have the sums of the immutable table up to this key. `None` means all sums.
    pub(crate) fn summed(&mut self, to: Option<TallyKey>) {
        if to.is_none() {
            self.frozen = Unsummed::default();
        }
        self.summed_to = to;
    }

    /// Skips a commit whose conversation cannot be found in the tables. The journal keeps this row and all rows after
    /// it. The positions of the commit are not given again.
    pub(crate) fn pass_over(&mut self, entry: &Entry) {
        let last = Run::of(entry).map_or(0, |run| run.last());
        self.last_position = self.last_position.max(last);
        self.kept_after.get_or_insert(self.last_row);
    }

    /// Notes that all positions up to this one were given. They are not given again, also if the tables have lost them.
    pub(crate) fn has_given(&mut self, position: u64) {
        self.last_position = self.last_position.max(position);
    }

    /// Returns whether the journal keeps rows that cannot be moved into the tables.
    pub(crate) fn keeps_rows(&self) -> bool {
        self.kept_after.is_some()
    }

    fn take_run(&mut self, run: Option<Run>) {
        if let Some(run) = run.filter(|run| run.last() > self.moved_position) {
            self.last_position = self.last_position.max(run.last());
            self.order.push(run);
        }
    }

    /// Returns the position of the latest sealed turn; 0 if no turn is sealed.
    pub(crate) fn last_position(&self) -> u64 {
        self.last_position
    }

    /// Returns the first position in the memtable: the tables have the positions before it.
    pub(crate) fn first_position(&self) -> u64 {
        self.order.first().unwrap_or(self.last_position.saturating_add(1))
    }

    /// Returns the turns of the memtable after a position, in order.
    pub(crate) fn sealed_after(&self, position: u64) -> impl Iterator<Item = OrderedTurn<'_>> {
        self.order.after(position).map(|(position, run, ordinal)| {
            let id = &run.conversation_id;
            let place = match self.contents.life_of(id) {
                Some(life) if life != run.life => Place::Erased,
                _ => self.contents.sealed(id, ordinal).map_or(Place::Tables, Place::Here),
            };
            OrderedTurn { position, conversation_id: id, life: run.life, ordinal, place }
        })
    }

    /// Returns the part of the order of all turns that is in the memtable.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.order.runs()
    }

    /// Notes that this row and all rows before it were taken in.
    pub(crate) fn took_row(&mut self, row: JournalMark, bytes: usize) {
        self.last_row = row;
        if self.counting == Counting::Immutable {
            (self.frozen_at, self.frozen_position) = (row, self.last_position);
            // The sums are moved last, so the journal can drop the row once they are moved.
            self.contents.immutable.row_bytes += bytes;
        } else {
            self.contents.active.row_bytes += bytes;
        }
    }

    pub(crate) fn last_row(&self) -> JournalMark {
        self.last_row
    }

    pub(crate) fn checkpoint(&self) -> JournalMark {
        self.checkpoint
    }

    /// Returns about how many bytes the memtable takes in memory or in the journal, whichever is more.
    pub(crate) fn size(&self) -> usize {
        let tables = self.contents.active.size() + self.contents.immutable.size();
        tables + self.order.bytes() + self.unsummed.bytes() + self.frozen.bytes()
    }

    /// Returns about how many bytes the memtable takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let tables = self.contents.active.bytes + self.contents.immutable.bytes;
        tables + self.order.bytes() + self.unsummed.bytes() + self.frozen.bytes()
    }

    pub(crate) fn has_immutable(&self) -> bool {
        !self.contents.immutable.conversations.is_empty() || self.order.has_frozen() || !self.frozen.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.contents.is_empty() && self.order.is_empty() && self.unsummed.is_empty() && self.frozen.is_empty()
    }

    /// Returns the pieces.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Returns the pieces of a conversation, the latest first.
    pub(crate) fn of(&self, id: &ConversationId) -> impl Iterator<Item = &Arc<Piece>> {
        self.contents.of(id)
    }

    /// Makes the active table the immutable one, if the active table is not empty and there is no immutable table.
    /// Returns its pieces; the caller must then set their order with [`set_order`](Self::set_order).
    pub(crate) fn freeze(&mut self) -> Option<Vec<Arc<Piece>>> {
        let has_active = !self.contents.active.conversations.is_empty() || self.order.has_active();
        let has_active = has_active || !self.unsummed.is_empty();
        if self.has_immutable() || !has_active {
            return None;
        }
        self.order.freeze();
        self.contents.immutable = std::mem::take(&mut self.contents.active);
        self.frozen = std::mem::take(&mut self.unsummed);
        self.has_sums_of_moved_turns = false;
        (self.frozen_at, self.frozen_position) = (self.last_row, self.last_position);
        Some(self.contents.immutable.conversations.values().flat_map(Pieces::oldest_first).cloned().collect())
    }

    /// Sets the order in which the immutable table is moved: a list of conversations, each once for each of its pieces.
    /// The next conversation to move is at the end.
    pub(crate) fn set_order(&mut self, to_move: Vec<ConversationId>) {
        self.to_move = to_move;
    }

    /// Returns whether some turns of the tables have not added to the sums of the tables yet.
    pub(crate) fn owes_sums(&self) -> bool {
        self.has_immutable() || self.has_sums_of_moved_turns
    }

    /// Returns the next pieces to move, of about this many bytes in total, and whether they are the last of the table.
    pub(crate) fn next_to_move(&self, bytes: usize) -> (Vec<Arc<Piece>>, bool) {
        let mut moving: Vec<Arc<Piece>> = Vec::new();
        let mut size = 0;
        // How many pieces of each conversation are among the next ones. The pieces of an erased life and of the next life
        // have different keys, so they need not follow each other in the list.
        let mut counts: HashMap<&ConversationId, usize> = HashMap::new();
        for id in self.to_move.iter().rev() {
            if size >= bytes {
                return (moving, false);
            }
            let count = counts.entry(id).or_default();
            let of_the_same = std::mem::replace(count, *count + 1);
            let pieces = self.contents.immutable.conversations.get(id);
            if let Some(piece) = pieces.and_then(|pieces| pieces.oldest_first().nth(of_the_same)) {
                size += piece.bytes();
                moving.push(Arc::clone(piece));
            }
        }
        (moving, true)
    }

    /// Returns the next runs of the order to move, of about this many bytes in total, and whether they are the last of
    /// the table. They are moved after all pieces, so that a position in the tables always leads to a turn there.
    pub(crate) fn next_runs(&self, bytes: usize) -> (Vec<Run>, bool) {
        self.order.frozen(bytes)
    }

    /// Returns the last row that the tables will have in full when the immutable table is moved.
    pub(crate) fn frozen_at(&self) -> JournalMark {
        self.kept_after.filter(|kept| kept.number < self.frozen_at.number).unwrap_or(self.frozen_at)
    }

    /// Drops pieces and runs that are in the tables now, and sets the keys of the pieces' conversations. A piece of which
    /// nothing had to be stored has no key.
    pub(crate) fn moved(&mut self, moved: &[(Arc<Piece>, Option<u64>)], runs: usize) {
        let before = self.contents.immutable.bytes.max(1);
        for (piece, key) in moved {
            let (id, life) = (&piece.conversation.id, piece.conversation.life);
            self.contents.immutable.drop_oldest(id);
            piece.erased.map(|erased| self.contents.erased.remove(&erased));
            let Some(key) = *key else { continue };
            for table in [&mut self.contents.immutable, &mut self.contents.active] {
                table.conversations.get_mut(id).into_iter().for_each(|pieces| pieces.set_key(life, key));
            }
        }
        // The journal's rows go only when the whole table has been moved. The part of them that was moved counts as
        // gone already, so that a commit that waits for room does not wait for the whole table.
        let immutable = &mut self.contents.immutable;
        // The division comes before the multiplication, as the product may overflow.
        let (rows, left) = (immutable.row_bytes, immutable.bytes);
        immutable.row_bytes = rows / before * left + rows % before * left / before;
        self.to_move.truncate(self.to_move.len() - moved.len());
        self.order.drop_first(runs);
        if self.to_move.is_empty() && !self.order.has_frozen() && self.frozen.is_empty() {
            self.checkpoint = self.frozen_at();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;
    use crate::store::redb::tables::record;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::turn::{Done, EpochMillis, OpenTurn};

    fn id() -> ConversationId {
        ConversationId::new("c").unwrap()
    }

    /// The `nth` commit of a conversation, which seals this many turns.
    fn entry(nth: u64, turns: u64) -> Entry {
        let sealed = (nth * turns..(nth + 1) * turns).map(|turn| {
            let turn = OpenTurn::new(TurnId::new(format!("turn-{turn}")).unwrap());
            record::encode_sealed(&turn.seal(&Done::because("stop"), EpochMillis::new(1))).unwrap().into()
        });
        let conversation = ConversationRecord {
            life: Life(1),
            version: Version(nth + 1),
            sealed_turns: (nth + 1) * turns,
            ..ConversationRecord::begin(id())
        };
        Entry {
            conversation,
            erased: None,
            key: None,
            position: nth * turns + 1,
            sealed: sealed.collect(),
            staged: Vec::new(),
        }
    }

    #[test]
    fn a_conversation_of_100_000_turns_is_moved_in_many_flushes_each_of_which_ends_with_a_commit() {
        const TURNS: u64 = 100;
        const COMMITS: u64 = 1000;
        let mut memtable = Memtable::default();
        (0..COMMITS).for_each(|nth| memtable.take(entry(nth, TURNS)).unwrap());
        let pieces = memtable.freeze().unwrap();
        assert!(pieces.len() > 30, "{}", pieces.len());
        memtable.set_order(pieces.iter().map(|piece| piece.conversation.id.clone()).collect());
        drop(pieces);
        memtable.frozen_at = JournalMark { number: 5, checksum: 55 };
        memtable.take(entry(COMMITS, TURNS)).unwrap();

        let mut moved = 0;
        while !memtable.contents.immutable.conversations.is_empty() {
            let (moving, is_last) = memtable.next_to_move(1);
            assert_eq!(moving.len(), 1);
            let piece = &moving[0];
            // The last commit of a piece may be larger than the room that was left in it.
            let most = PIECE_BYTES + usize::try_from(TURNS).unwrap() * 300;
            assert!(piece.bytes() < most, "a flush of {} bytes", piece.bytes());
            assert_eq!(piece.sealed_before(), moved);
            moved = piece.conversation.sealed_turns;
            assert_eq!(piece.conversation.version, Version(moved / TURNS));
            assert_eq!(is_last, moved == COMMITS * TURNS);
            memtable.moved(&[(Arc::clone(piece), Some(7))], 0);
            let left: Vec<_> = memtable.of(&id()).collect();
            assert!(left.iter().all(|piece| piece.key == Some(7)));
            assert_eq!(left.last().unwrap().sealed_before(), moved, "the next piece does not follow the moved one");
            assert_eq!(left[0].conversation.version, Version(COMMITS + 1), "the latest piece is hidden");
        }

        // The order is moved once all turns are in the tables, in separate flushes.
        let mut next = 1;
        while memtable.order.has_frozen() {
            assert_eq!((memtable.first_position(), memtable.checkpoint()), (next, JournalMark::default()));
            let (runs, is_last) = memtable.next_runs(10_000);
            let positions: Vec<_> = runs.iter().flat_map(Run::places).collect();
            assert!(
                positions
                    .iter()
                    .map(|(position, ordinal)| (*position, ordinal.get()))
                    .eq((next..).zip(next..).take(positions.len()))
            );
            assert!((1..1000).contains(&positions.len()), "a flush of {} positions", positions.len());
            next += positions.len() as u64;
            assert_eq!(is_last, next > COMMITS * TURNS);
            memtable.moved(&[], runs.len());
        }
        // The sums of the turns are moved once the order is in the tables.
        assert!(memtable.has_only_sums());
        let key = TallyKey::Conversation(id(), Life(1));
        for to in [Some(key.clone()), None] {
            memtable.summed(to.clone());
            memtable.moved(&[], 0);
            assert_eq!((memtable.summed_to(), memtable.has_immutable()), (to.as_ref(), to.is_some()));
            assert_eq!(memtable.checkpoint().number, if to.is_some() { 0 } else { 5 });
        }
        assert_eq!(memtable.checkpoint(), JournalMark { number: 5, checksum: 55 });
        assert_eq!((next, memtable.last_position()), (COMMITS * TURNS + 1, (COMMITS + 1) * TURNS));
        let left = memtable.of(&id()).map(|piece| piece.bytes()).sum::<usize>();
        let unsummed = memtable.unsummed.bytes();
        assert_eq!(memtable.bytes(), left + memtable.runs().map(Run::bytes).sum::<usize>() + unsummed);
        assert_eq!((memtable.uncounted() as u64, unsummed > 0), (TURNS, true));
    }

    #[test]
    fn a_replay_counts_the_turns_whose_sums_the_tables_lack() {
        let key = TallyKey::Conversation(id(), Life(1));
        let rolled_up = RolledUp { row: 2, position: 2 };
        let mut memtable = Memtable::at(JournalMark { number: 1, checksum: 0 }, 0);
        for row in 2..=6 {
            memtable.replays_row(row, rolled_up, Some(&(4, key.clone())));
            memtable.take(entry(row - 2, 1)).unwrap();
            memtable.took_row(JournalMark { number: row, checksum: row * 11 }, 1_000_000);
        }
        memtable.replayed();
        let counted = memtable.all_uncounted();
        // The tables have the sums of row 2, and a part of those of rows 3 and 4.
        assert_eq!((counted.immutable.len(), counted.active.len()), (2, 2));
        assert_eq!((memtable.summed_to(), memtable.rolled_up_then()), (Some(&key), RolledUp { row: 4, position: 3 }));
        assert!(memtable.has_only_sums() && memtable.freeze().is_none(), "rows 3 and 4 must be moved first");
        assert!((5_000_000..5_100_000).contains(&memtable.size()), "{}", memtable.size());
        memtable.summed(None);
        memtable.moved(&[], 0);
        assert_eq!(memtable.checkpoint(), JournalMark { number: 4, checksum: 44 });
        assert!((3_000_000..3_100_000).contains(&memtable.size()), "rows 3 and 4 are gone: {}", memtable.size());
        assert_eq!(memtable.freeze().map(|pieces| pieces.len()), Some(1));
    }

    #[test]
    fn the_order_says_where_each_turn_is_while_pieces_are_moved() {
        let mut memtable = Memtable::at(JournalMark::default(), 0);
        (0..6).for_each(|nth| memtable.take_in_pieces(entry(nth, 2), 1).unwrap());
        let order = memtable.freeze().unwrap().iter().map(|piece| piece.conversation.id.clone()).collect();
        memtable.set_order(order);
        memtable.take(entry(6, 2)).unwrap();
        let seen = |memtable: &Memtable, after| {
            let turns = memtable.sealed_after(after);
            let is_here = |place| matches!(place, Place::Here(_));
            turns.map(|turn| (turn.position, turn.ordinal.get(), is_here(turn.place))).collect::<Vec<_>>()
        };
        let all = |moved| (1..=14).map(|n| (n, n, n > moved)).collect::<Vec<_>>();
        assert_eq!(seen(&memtable, 0), all(0));
        let (moving, _) = memtable.next_to_move(1);
        memtable.moved(&[(Arc::clone(&moving[0]), Some(7))], 0);
        assert_eq!(seen(&memtable, 0), all(2), "a moved piece has left records behind");
        for after in 0..16 {
            assert_eq!(seen(&memtable, after), all(2).split_off(usize::try_from(after).unwrap().min(14)));
        }
    }

    #[test]
    fn positions_that_the_tables_have_are_not_taken_again() {
        let mut memtable = Memtable::at(JournalMark::default(), 4);
        assert_eq!((memtable.first_position(), memtable.last_position()), (5, 4));
        (0..3).for_each(|nth| memtable.take_positions(&entry(nth, 2)));
        assert_eq!((memtable.first_position(), memtable.last_position()), (5, 6));
        assert!(memtable.freeze().unwrap().is_empty(), "there must be an order to move, and no piece");
        assert!(memtable.has_immutable());
    }

    #[test]
    fn one_flush_takes_the_pieces_of_a_conversation_in_their_order() {
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
        assert!(memtable.is_empty());
        memtable.take_in_pieces(entry(0, 1), 1).unwrap();
        memtable.take_in_pieces(damaged(1), 1).unwrap_err();
        assert_eq!(memtable.of(&id()).map(|piece| piece.conversation.version).collect::<Vec<_>>(), [Version(1)]);
    }
}

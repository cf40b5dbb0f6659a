use std::collections::HashMap;
use std::collections::hash_map::{Entry as Slot, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::open_parts::OpenParts;
use crate::store::contract::{Life, Version};
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::record::open_turn::StagedRecords;
use crate::turn::{Ordinal, TurnId};

/// The size at which a piece is full and takes no further commit. Such a piece has some thousand turns, which the
/// checkpoint moves in a few milliseconds. A small memtable uses a smaller size. With smaller pieces a look-up of a
/// turn would have to search more pieces.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// The changes of consecutive commits to one life of a conversation.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The state of the conversation after the last of the commits.
    pub(crate) conversation: ConversationRecord,
    /// The life of the conversation that was erased before the first of the commits, if one was.
    pub(crate) erased: Option<Life>,
    /// The key of the conversation in the tables, if it is known.
    pub(crate) key: Option<u64>,
    /// The open turns that changed.
    open: HashMap<TurnId, OpenParts>,
    /// The turns that were sealed.
    sealed: SealedRecords,
    bytes: usize,
}

/// The state of a turn after all commits of a piece: open or sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// The turn is open. These parts of it changed.
    Open(&'a OpenParts),
    /// The turn is sealed at this ordinal.
    Sealed(Ordinal),
}

impl Piece {
    /// The approximate memory of a piece besides its records.
    const BYTES: usize = 500;
    /// The approximate memory of an open turn besides its records.
    const OPEN_TURN_BYTES: usize = 200;

    pub(super) fn of(entry: Entry) -> Result<Self, DamagedRecord> {
        let (conversation, erased) = (entry.conversation.clone(), entry.erased);
        let (open, sealed) = (HashMap::new(), SealedRecords::default());
        let mut new = Self { conversation, erased, key: None, open, sealed, bytes: Self::BYTES };
        new.take(entry)?;
        Ok(new)
    }

    /// Takes in an entry. If the id of a sealed turn in the entry cannot be read, the piece does not change.
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        let Entry { conversation, key, sealed, staged, .. } = entry;
        for record in &sealed {
            record::turn_id_of(record)?;
        }
        self.conversation = conversation;
        self.key = self.key.or(key);
        for records in staged {
            self.stage(records);
        }
        for record in sealed {
            self.bytes += record.len() + SealedRecords::TURN_BYTES;
            if let Some(before) = self.open.remove(id_of(&record)) {
                self.bytes -= before.bytes() + Self::OPEN_TURN_BYTES;
            }
            self.sealed.push(record);
        }
        Ok(())
    }

    fn stage(&mut self, records: StagedRecords) {
        if self.sealed.find(records.turn_id.as_str()).is_some() {
            return;
        }
        match self.open.entry(records.turn_id.clone()) {
            Slot::Occupied(mut there) => {
                let open = there.get_mut();
                self.bytes -= open.bytes();
                open.take(records);
                self.bytes += open.bytes();
            }
            Slot::Vacant(place) => {
                let open = place.insert(OpenParts::of(records));
                self.bytes += open.bytes() + Self::OPEN_TURN_BYTES;
            }
        }
    }

    /// Returns whether the conversation has no commit since it was erased, so that there is nothing of it to store.
    pub(crate) fn is_void(&self) -> bool {
        self.conversation.version == Version::default()
    }

    /// Returns the approximate size of the piece in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the state of a turn, if the turn changed in this piece.
    pub(crate) fn change(&self, turn_id: &str) -> Option<Change<'_>> {
        if let Some(open) = self.open.get(turn_id) {
            return Some(Change::Open(open));
        }
        let place = self.sealed.find(turn_id)?;
        Some(Change::Sealed(Ordinal::after(self.sealed_before() + u64::from(place))))
    }

    /// Returns the turns that changed in this piece: first the sealed turns in the order of their ordinals, then the
    /// open turns.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&str, Change<'_>)> {
        let sealed = self.sealed_after(0).map(|(ordinal, record)| (id_of(record), Change::Sealed(ordinal)));
        sealed.chain(self.open.iter().map(|(turn_id, open)| (turn_id.as_str(), Change::Open(open))))
    }

    /// Returns the ids of the open turns that changed in this piece.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(TurnId::as_str)
    }

    /// Returns the ids of the turns that were sealed in this piece.
    pub(crate) fn sealed_ids(&self) -> impl Iterator<Item = &str> {
        self.sealed.records.iter().map(|record| id_of(record))
    }

    /// Returns the number of turns that were sealed before this piece.
    pub(crate) fn sealed_before(&self) -> u64 {
        self.conversation.sealed_turns - self.sealed.records.len() as u64
    }

    /// Returns the record of the turn with this ordinal, if the turn was sealed in this piece.
    pub(super) fn sealed_at(&self, ordinal: Ordinal) -> Option<&Arc<[u8]>> {
        let place = ordinal.get().checked_sub(self.sealed_before() + 1)?;
        self.sealed.records.get(usize::try_from(place).ok()?)
    }

    /// Returns the records of the turns that are sealed in this piece and have an ordinal after this one, in order.
    pub(crate) fn sealed_after(&self, after: u64) -> impl DoubleEndedIterator<Item = (Ordinal, &Arc<[u8]>)> {
        let before = self.sealed_before();
        let passed = usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        let records = self.sealed.records.iter().enumerate().skip(passed);
        records.map(move |(place, record)| (Ordinal::after(before + place as u64), record))
    }
}

/// Records of sealed turns in order. The last one has the conversation's last ordinal. The hash table stores only
/// places and compares the ids within the records: keys with copies of the ids would take as much memory as the
/// records.
#[derive(Debug, Clone, Default)]
struct SealedRecords {
    records: Vec<Arc<[u8]>>,
    /// The place of each record in `records`.
    places: HashTable<u32>,
    hasher: RandomState,
}

impl SealedRecords {
    /// The approximate memory of a turn besides its record.
    const TURN_BYTES: usize = 64;

    fn push(&mut self, record: Arc<[u8]>) {
        let Self { records, places, hasher } = self;
        let hash = hasher.hash_one(id_of(&record));
        // A piece has far fewer than 2^32 turns.
        let place = u32::try_from(records.len()).unwrap_or(u32::MAX);
        records.push(record);
        places.insert_unique(hash, place, |place| hasher.hash_one(id_of(&records[*place as usize])));
    }

    /// Returns the place of a turn.
    fn find(&self, turn_id: &str) -> Option<u32> {
        let is_it = |place: &u32| id_of(&self.records[*place as usize]) == turn_id;
        self.places.find(self.hasher.hash_one(turn_id), is_it).copied()
    }
}

/// Returns the id in the record of a sealed turn. The piece took only records whose ids can be read.
fn id_of(record: &[u8]) -> &str {
    record::turn_id_of(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::contract::StagedTurn;
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, RunningTime};

    fn turn(id: &str) -> OpenTurn {
        OpenTurn::new(TurnId::new(id).unwrap())
    }

    fn sealed(id: &str) -> Arc<[u8]> {
        record::encode_sealed(&turn(id).seal(&Done::because("stop"), EpochMillis::new(1))).unwrap().into()
    }

    fn staged(id: &str) -> StagedRecords {
        StagedRecords::encode(&StagedTurn { turn: turn(id), last_event_at: RunningTime::new(1) }.into()).unwrap()
    }

    /// Returns an entry after which the conversation has this many sealed turns.
    fn entry(sealed_turns: u64, staged: Vec<StagedRecords>, sealed: Vec<Arc<[u8]>>) -> Entry {
        let begun = ConversationRecord::begin(ConversationId::new("c").unwrap());
        let conversation = ConversationRecord { version: Version(sealed_turns), sealed_turns, ..begun };
        Entry { conversation, erased: None, key: None, position: 1, sealed, staged }
    }

    fn seen(piece: &Piece) -> BTreeMap<&str, Option<u64>> {
        let ordinal = |change| if let Change::Sealed(ordinal) = change { Some(ordinal.get()) } else { None };
        let changes: BTreeMap<_, _> = piece.changes().map(|(id, change)| (id, ordinal(change))).collect();
        for (id, expected) in &changes {
            assert_eq!(piece.change(id).map(ordinal), Some(*expected), "{id}");
        }
        changes
    }

    #[test]
    fn each_turn_is_found_by_its_id_whether_open_or_sealed() {
        let mut piece = Piece::of(entry(7, vec![staged("x"), staged("y")], vec![sealed("a"), sealed("b")])).unwrap();
        assert_eq!(seen(&piece), BTreeMap::from([("a", Some(6)), ("b", Some(7)), ("x", None), ("y", None)]));
        assert!(piece.change("z").is_none());
        let before = piece.bytes();
        piece.take(entry(8, vec![staged("z"), staged("a")], vec![sealed("x")])).unwrap();
        let expected = [("a", Some(6)), ("b", Some(7)), ("x", Some(8)), ("y", None), ("z", None)];
        assert_eq!(seen(&piece), BTreeMap::from(expected), "a sealed turn is open again");
        assert!(piece.bytes() > before);
        let ids: Vec<_> = (0..1000).map(|nth| format!("turn {nth}")).collect();
        piece.take(entry(1008, Vec::new(), ids.iter().map(|id| sealed(id)).collect())).unwrap();
        assert_eq!((seen(&piece).len(), seen(&piece)["turn 999"]), (1005, Some(1008)));
    }

    #[test]
    fn the_turns_that_a_piece_sealed_are_found_by_their_ordinals_and_no_others() {
        let mut piece = Piece::of(entry(11, Vec::new(), vec![sealed("a"), sealed("b")])).unwrap();
        piece.take(entry(12, Vec::new(), vec![sealed("c")])).unwrap();
        assert_eq!(piece.sealed_before(), 9);
        let ordinals = |after| piece.sealed_after(after).map(|(ordinal, _)| ordinal.get()).collect::<Vec<_>>();
        assert_eq!(
            [0, 9, 10, 12, u64::MAX].map(ordinals),
            [vec![10, 11, 12], vec![10, 11, 12], vec![11, 12], vec![], vec![]]
        );
        let found = |ordinal: u64| piece.sealed_at(Ordinal::after(ordinal - 1)).cloned();
        assert_eq!([1, 9, 10, 12, 13].map(found), [None, None, Some(sealed("a")), Some(sealed("c")), None]);
        assert!(matches!(piece.change("b"), Some(Change::Sealed(at)) if at.get() == 11));
    }

    #[test]
    fn a_sealed_turn_leaves_nothing_of_its_open_parts_and_is_not_opened_again() {
        let mut piece = Piece::of(entry(0, vec![staged("a")], Vec::new())).unwrap();
        piece.take(entry(1, Vec::new(), vec![sealed("a")])).unwrap();
        piece.take(entry(1, vec![staged("a")], Vec::new())).unwrap();
        assert!(matches!(piece.change("a"), Some(Change::Sealed(_))));
        let at_once = Piece::of(entry(1, Vec::new(), vec![sealed("a")])).unwrap();
        assert_eq!(piece.bytes(), at_once.bytes());
    }

    #[test]
    fn an_entry_with_a_turn_that_cannot_be_read_changes_nothing() {
        let mut piece = Piece::of(entry(1, vec![staged("a")], vec![sealed("b")])).unwrap();
        let (version, bytes) = (piece.conversation.version, piece.bytes());
        let no_record: Arc<[u8]> = b"no record"[..].into();
        piece.take(entry(3, vec![staged("c")], vec![sealed("d"), no_record])).unwrap_err();
        assert_eq!((piece.conversation.version, piece.bytes(), piece.changes().count()), (version, bytes, 2));
        assert_eq!(piece.sealed_after(0).count(), 1);
    }
}

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use super::open_parts::OpenParts;
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::Conversation;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::record::open_turn::StagedRecords;
use crate::turn::{Ordinal, TurnId};

/// A piece of this size takes no further commit: some thousand turns, which the checkpoint moves in a few milliseconds.
/// A small memtable uses a smaller size. Smaller pieces would make a look-up of a turn search more of them.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// The changes of consecutive commits to one conversation.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
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
    /// It is open.
    Open(OpenParts),
    /// It is sealed.
    Sealed(Ordinal),
}

impl Piece {
    /// About what a conversation takes in memory beside its records.
    const BYTES: usize = 500;
    /// About what a turn takes in memory beside its record.
    const TURN_BYTES: usize = 160;

    pub(super) fn of(entry: Entry) -> Result<Self, DamagedRecord> {
        let conversation = entry.conversation.clone();
        let mut new = Self { conversation, key: None, turns: HashMap::new(), sealed: Vec::new(), bytes: Self::BYTES };
        new.take(entry)?;
        Ok(new)
    }

    /// Takes all of an entry or, where a turn in it has no id that can be read, nothing.
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), DamagedRecord> {
        let mut ordinal = entry.sealed_before();
        let Entry { conversation, key, sealed, staged, .. } = entry;
        let named = |records: Vec<Arc<[u8]>>| {
            records.into_iter().map(|record| Ok((turn_id(&record)?, record))).collect::<Result<Vec<_>, _>>()
        };
        let headed = |records: StagedRecords| {
            let (id, step_count) = record::step_count_of(&records.head)?;
            Ok((checked(id)?, step_count, records))
        };
        let staged = staged.into_iter().map(headed).collect::<Result<Vec<_>, DamagedRecord>>()?;
        let sealed = named(sealed)?;
        self.conversation = conversation;
        self.key = self.key.or(key);
        for (id, step_count, records) in staged {
            self.stage(id, step_count, records);
        }
        for (id, record) in sealed {
            let at = Ordinal::after(ordinal);
            ordinal = at.get();
            self.bytes += record.len() + Self::TURN_BYTES;
            if let Some(Change::Open(before)) = self.turns.insert(id, Change::Sealed(at)) {
                self.bytes -= before.bytes() + Self::TURN_BYTES;
            }
            self.sealed.push(record);
        }
        Ok(())
    }

    fn stage(&mut self, id: TurnId, step_count: u32, records: StagedRecords) {
        match self.turns.entry(id) {
            Slot::Occupied(mut there) => {
                if let Change::Open(open) = there.get_mut() {
                    self.bytes -= open.bytes();
                    open.take(records, step_count);
                    self.bytes += open.bytes();
                }
            }
            Slot::Vacant(place) => {
                let open = OpenParts::of(records, step_count);
                self.bytes += open.bytes() + Self::TURN_BYTES;
                place.insert(Change::Open(open));
            }
        }
    }

    /// Its approximate size in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last ordinal before those of its turns.
    pub(crate) fn sealed_before(&self) -> u64 {
        self.conversation.sealed_turns - self.sealed.len() as u64
    }

    /// The record of the turn with this ordinal, if it is sealed here.
    pub(super) fn sealed_at(&self, ordinal: Ordinal) -> Option<&Arc<[u8]>> {
        let place = ordinal.get().checked_sub(self.sealed_before() + 1)?;
        self.sealed.get(usize::try_from(place).ok()?)
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
    checked(record::turn_id_of(record)?)
}

fn checked(id: &str) -> Result<TurnId, DamagedRecord> {
    TurnId::new(id).map_err(|error| DamagedRecord::new("turn", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Version;
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

    /// An entry after which the conversation has this many sealed turns.
    fn entry(sealed_turns: u64, staged: Vec<StagedRecords>, sealed: Vec<Arc<[u8]>>) -> Entry {
        let begun = Conversation::begin(ConversationId::new("c").unwrap());
        let conversation = Conversation { version: Version(sealed_turns), sealed_turns, ..begun };
        Entry { conversation, key: None, position: 1, sealed, staged }
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
        assert!(matches!(piece.turns[&TurnId::new("b").unwrap()], Change::Sealed(at) if at.get() == 11));
    }

    #[test]
    fn a_sealed_turn_leaves_nothing_of_its_open_parts_and_is_not_opened_again() {
        let mut piece = Piece::of(entry(0, vec![staged("a")], Vec::new())).unwrap();
        piece.take(entry(1, Vec::new(), vec![sealed("a")])).unwrap();
        piece.take(entry(1, vec![staged("a")], Vec::new())).unwrap();
        assert!(matches!(piece.turns[&TurnId::new("a").unwrap()], Change::Sealed(_)));
        let at_once = Piece::of(entry(1, Vec::new(), vec![sealed("a")])).unwrap();
        assert_eq!(piece.bytes(), at_once.bytes());
    }

    #[test]
    fn an_entry_with_a_turn_that_cannot_be_read_changes_nothing() {
        let mut piece = Piece::of(entry(1, vec![staged("a")], vec![sealed("b")])).unwrap();
        let (version, bytes) = (piece.conversation.version, piece.bytes());
        let no_record: Arc<[u8]> = b"no record"[..].into();
        let damaged = [
            entry(3, vec![staged("c")], vec![sealed("d"), no_record.clone()]),
            entry(2, vec![staged("c"), StagedRecords { head: no_record, steps: Vec::new() }], vec![sealed("d")]),
        ];
        for entry in damaged {
            piece.take(entry).unwrap_err();
            assert_eq!((piece.conversation.version, piece.bytes(), piece.turns.len()), (version, bytes, 2));
            assert_eq!(piece.sealed_after(0).count(), 1);
        }
    }
}

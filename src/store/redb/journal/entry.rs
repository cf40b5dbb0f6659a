//! The rows of the journal: each row has the entries that one transaction made durable.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::chain::CHAIN_BYTES;
use crate::store::contract::Life;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::open_turn::StagedRecords;

/// The changes that one commit made to a conversation, or the erasure of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The conversation as it is after the commit. After an erasure, this is a new life without any commit.
    pub(crate) conversation: ConversationRecord,
    /// The life that ended, if the entry is an erasure.
    pub(crate) erased: Option<Life>,
    /// The key of the conversation in the tables, if it is known. The key is not written to the journal.
    pub(crate) key: Option<u64>,
    /// The position of the first turn that the commit sealed. If it sealed none, the position that the next sealed turn
    /// gets.
    pub(crate) position: u64,
    /// The records of the turns that the commit sealed. The last of them has the conversation's last ordinal.
    pub(crate) sealed: Vec<Arc<[u8]>>,
    /// The records of the heads and steps that the commit staged.
    pub(crate) staged: Vec<StagedRecords>,
}

impl Entry {
    /// Returns the number of turns that were sealed before the commit.
    pub(crate) fn sealed_before(&self) -> u64 {
        self.conversation.sealed_turns - self.sealed.len() as u64
    }
}

/// The version byte of the encoding below.
const V1: u8 = 1;

#[derive(Serialize, Deserialize)]
struct EntryV1<'a> {
    #[serde(borrow)]
    conversation: Bytes<'a>,
    erased: Option<[u8; 8]>,
    position: u64,
    sealed: Vec<Bytes<'a>>,
    staged: Vec<StagedV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StagedV1<'a> {
    #[serde(borrow)]
    head: Bytes<'a>,
    steps: Vec<(u32, Bytes<'a>)>,
}

/// Bytes that serde writes as one byte string, not as a list of numbers.
#[derive(Deserialize)]
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

const ROW: &str = "row of the journal";

pub(crate) fn encode_row(entries: &[Entry]) -> Result<Vec<u8>, DamagedRecord> {
    let conversations = entries.iter().map(|entry| entry.conversation.encode());
    let conversations = conversations.collect::<Result<Vec<_>, _>>()?;
    let size = entries.iter().zip(&conversations);
    let size: usize = size.map(|(entry, conversation)| conversation.len() + room_of(entry) + 16).sum();
    let mut row = Vec::with_capacity(size + 8 + CHAIN_BYTES);
    row.push(V1);
    let twins = entries.iter().zip(&conversations).map(|(entry, conversation)| EntryV1 {
        conversation: Bytes(conversation),
        erased: entry.erased.map(|life| life.0.to_le_bytes()),
        position: entry.position,
        sealed: entry.sealed.iter().map(|record| Bytes(record)).collect(),
        staged: entry.staged.iter().map(StagedV1::of).collect(),
    });
    for twin in twins {
        row = postcard::to_extend(&twin, row).map_err(|error| DamagedRecord::new(ROW, error))?;
    }
    Ok(row)
}

/// Returns about how many bytes the records of an entry take.
fn room_of(entry: &Entry) -> usize {
    let of_turn = |records: &StagedRecords| {
        let steps: usize = records.steps.iter().map(|(_, record)| record.len() + 6).sum();
        records.head.len() + steps + 6
    };
    entry.sealed.iter().map(|record| record.len() + 3).chain(entry.staged.iter().map(of_turn)).sum()
}

impl<'a> StagedV1<'a> {
    fn of(records: &'a StagedRecords) -> Self {
        let steps = records.steps.iter().map(|(place, record)| (*place, Bytes(record)));
        Self { head: Bytes(&records.head), steps: steps.collect() }
    }

    fn read(self) -> Result<StagedRecords, DamagedRecord> {
        let steps = self.steps.into_iter().map(|(place, record)| (place, record.0.into()));
        StagedRecords::read(self.head.0.into(), steps.collect())
    }
}

pub(crate) fn decode_row(bytes: &[u8]) -> Result<Vec<Entry>, DamagedRecord> {
    let (&version, mut rest) = bytes.split_first().ok_or_else(|| DamagedRecord::new(ROW, RecordFlaw::Empty))?;
    if version != V1 {
        return Err(DamagedRecord::new(ROW, RecordFlaw::Version { found: version, known: V1 }));
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (twin, after) =
            postcard::take_from_bytes::<EntryV1<'_>>(rest).map_err(|error| DamagedRecord::new(ROW, error))?;
        let conversation = ConversationRecord::decode(twin.conversation.0)?;
        if conversation.sealed_turns < twin.sealed.len() as u64 {
            return Err(DamagedRecord::new(ROW, RecordFlaw::SealedTurns));
        }
        let erased = twin.erased.map(|life| Life(u64::from_le_bytes(life)));
        if erased.is_some() && (conversation.version.0 > 0 || !twin.sealed.is_empty() || !twin.staged.is_empty()) {
            return Err(DamagedRecord::new(ROW, RecordFlaw::NotEmpty));
        }
        let position = twin.position;
        if position == 0 || position.checked_add(twin.sealed.len() as u64).is_none() {
            return Err(DamagedRecord::new(ROW, RecordFlaw::Position(position)));
        }
        let sealed = twin.sealed.into_iter().map(|record| record.0.into()).collect();
        let staged = twin.staged.into_iter().map(StagedV1::read).collect::<Result<_, _>>()?;
        entries.push(Entry { conversation, erased, key: None, position, sealed, staged });
        rest = after;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StagedTurn, Version};
    use crate::turn::{ConversationId, EpochMillis, OpenTurn, RunningTime, TurnId, Usage};

    fn entry(id: &str, sealed: &[&[u8]], staged: &[&str]) -> Entry {
        let id = ConversationId::new(id).unwrap();
        let total_usage = Usage { input_tokens: 7.into(), ..Usage::default() };
        let staged = staged.iter().map(|id| {
            let turn = OpenTurn::new(TurnId::new(*id).unwrap());
            let staged = StagedTurn { turn, last_event_at: RunningTime::new(1) };
            let steps = (7..).zip(id.bytes()).map(|(place, byte)| (place, [byte].into())).collect();
            StagedRecords { steps, ..StagedRecords::encode(&staged.into()).unwrap() }
        });
        Entry {
            conversation: ConversationRecord {
                life: Life(77),
                version: Version(3),
                sealed_turns: 9,
                last_sealed_at: EpochMillis::new(5),
                last_at: EpochMillis::new(4),
                total_usage,
                ..ConversationRecord::begin(id)
            },
            erased: None,
            key: None,
            position: 40,
            sealed: sealed.iter().map(|record| (*record).into()).collect(),
            staged: staged.collect(),
        }
    }

    #[test]
    fn a_row_reads_back_equal_and_not_at_all_when_it_is_cut() {
        let entries = [entry("a", &[b"one", b"two"], &[]), entry("b", &[], &["three", "four"])];
        let row = encode_row(&entries).unwrap();
        assert_eq!(decode_row(&row).unwrap(), entries);
        assert_eq!(entries[0].sealed_before(), 7);
        assert_eq!(decode_row(&encode_row(&[]).unwrap()).unwrap(), []);
        let first = encode_row(&entries[..1]).unwrap().len();
        for cut in (0..row.len()).filter(|cut| ![1, first].contains(cut)) {
            assert!(decode_row(&row[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_row_whose_positions_are_none_is_damaged() {
        for (position, is_sound) in [(1, true), (u64::MAX - 2, true), (0, false), (u64::MAX, false)] {
            let row = encode_row(&[Entry { position, ..entry("a", &[b"one", b"two"], &[]) }]).unwrap();
            assert_eq!(decode_row(&row).is_ok(), is_sound, "{position}");
        }
    }

    #[test]
    fn a_row_of_a_later_version_is_refused() {
        let mut row = encode_row(&[entry("a", &[], &[])]).unwrap();
        row[0] = 2;
        assert!(decode_row(&row).unwrap_err().to_string().contains("version 2, and this program reads version 1"));
    }

    #[test]
    fn a_row_with_a_head_that_cannot_be_read_is_damaged() {
        let mut entry = entry("a", &[], &["three"]);
        assert_eq!(decode_row(&encode_row(std::slice::from_ref(&entry)).unwrap()).unwrap(), [entry.clone()]);
        entry.staged[0].head = b"no record"[..].into();
        decode_row(&encode_row(&[entry]).unwrap()).unwrap_err();
    }
}

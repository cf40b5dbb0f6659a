use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use redb::{Database, ReadableDatabase};

use crate::store::contract::Version;
use crate::store::redb::journal::chain::read_row;
use crate::store::redb::journal::entry::{self, Entry};
use crate::store::redb::memtable::Memtable;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::schema::ROWS;
use crate::turn::ConversationId;

/// The changes of a journal that the tables lack.
pub(crate) struct Replayed {
    pub(crate) memtable: Memtable,
    /// The rows of the journal that could not be read in full.
    pub(crate) damaged: Vec<DamagedRow>,
    /// Rows that can be read but not replayed in full, because they have commits to a conversation whose key is lost.
    /// The key is the number of the conversation in the tables. Without the key, the place of its turns is unknown.
    pub(crate) unplaced: Vec<DamagedRow>,
}

/// A row of the journal that could not be replayed in full.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DamagedRow {
    pub(crate) number: u64,
    pub(crate) flaw: RowFlaw,
    /// The flaws of further conversations that lose commits from this row on.
    more_flaws: Vec<RowFlaw>,
    /// The bytes of the row; empty if the row is missing.
    pub(crate) bytes: Vec<u8>,
}

impl DamagedRow {
    pub(crate) fn new(number: u64, flaw: RowFlaw, bytes: &[u8]) -> Self {
        Self { number, flaw, more_flaws: Vec::new(), bytes: bytes.to_vec() }
    }

    /// Returns the number of the row with each of its flaws.
    pub(crate) fn flaws(self) -> impl Iterator<Item = (u64, RowFlaw)> {
        let number = self.number;
        std::iter::once(self.flaw).chain(self.more_flaws).map(move |flaw| (number, flaw))
    }
}

/// What is wrong with a row of the journal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFlaw {
    /// The row is missing, and a later row is there.
    #[error("it is missing; the next one is {next}")]
    Missing {
        /// The number of the next row.
        next: u64,
    },
    /// The row is missing, and so are all others.
    #[error("the whole journal is missing, and what was acknowledged last with it")]
    NoJournal,
    /// The row has a commit to a conversation whose key is lost, so the place of its turns in the tables is unknown.
    #[error("the key of conversation {conversation_id} is lost")]
    LostKey {
        /// The conversation.
        conversation_id: ConversationId,
    },
    /// A commit in the row belongs to another life of its conversation than the commit before.
    #[error("conversation {conversation_id} is of another life than before")]
    OtherLife {
        /// The conversation.
        conversation_id: ConversationId,
    },
    /// The row's checksum for the previous row differs from that row's own checksum, so one of the two rows was
    /// exchanged.
    #[error("it does not follow the row before it, one of which was exchanged")]
    Exchanged,
    /// The row, or a record in it, cannot be read.
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    /// A commit in the row has positions that do not follow the positions before it.
    #[error("a commit begins at position {first}, and not between {from} and {to}")]
    Position {
        /// The first position of the commit.
        first: u64,
        /// The first position that would be right.
        from: u64,
        /// The last position that would be right.
        to: u64,
    },
    /// A commit in the row does not follow the commit before it in its conversation.
    #[error(
        "conversation {conversation_id} goes from version {} and {sealed_turns} sealed turns to version {} after \
         {sealed_before} sealed turns",
        version.0, next_version.0
    )]
    Commit {
        /// The conversation.
        conversation_id: ConversationId,
        /// Its version before the commit.
        version: Version,
        /// The number of its sealed turns before the commit.
        sealed_turns: u64,
        /// Its version after the commit, as the commit says.
        next_version: Version,
        /// The number of its sealed turns before the commit, as the commit says.
        sealed_before: u64,
    },
}

/// Reads a journal. The tables have all rows up to the row `checkpoint`, and of some conversations also later commits.
pub(crate) fn replay(journal: &Database, tables: &ReadTables, checkpoint: JournalMark) -> Result<Replayed, Failure> {
    // A checkpoint moves the positions last, so the tables may have some positions of these rows already.
    let positions = 1..=tables.last_position()?.saturating_add(1);
    replay_from(journal, tables, checkpoint, positions)
}

/// Like [`replay`], for tables that may lack positions.
pub(crate) fn replay_at_any_position(
    journal: &Database,
    tables: &ReadTables,
    checkpoint: JournalMark,
) -> Result<Replayed, Failure> {
    replay_from(journal, tables, checkpoint, ANY_POSITION)
}

fn replay_from(
    journal: &Database,
    tables: &ReadTables,
    checkpoint: JournalMark,
    positions: RangeInclusive<u64>,
) -> Result<Replayed, Failure> {
    let position = tables.last_position()?;
    let mut replay = Replay {
        tables,
        in_tables: HashMap::new(),
        memtable: Memtable::at(checkpoint, position),
        positions,
        without_key: HashSet::new(),
        interrupted: HashSet::new(),
        passed_over: None,
    };
    let (mut damaged, mut unplaced) = (Vec::new(), Vec::new());
    let (rolled_up, rolling_up) = (tables.meta()?.rolled_up()?, tables.meta()?.rolling_up()?);
    let rows = journal.begin_read()?.open_table(ROWS)?;
    let mut expected = checkpoint.number.saturating_add(1);
    // The checksum of the row before, if it is known.
    let mut previous = Some(checkpoint.checksum);
    for row in rows.range(expected..)? {
        let (number, bytes) = row?;
        let number = number.value();
        if number > expected {
            let flaw = RowFlaw::Missing { next: number };
            damaged.push(DamagedRow::new(expected, flaw, &[]));
            previous = None;
            replay.positions = ANY_POSITION;
        }
        let stored = bytes.value();
        let mark = JournalMark { number, checksum: stored.checksum() };
        let all_bytes = stored.unverified();
        replay.memtable.replays_row(number, rolled_up, rolling_up.as_ref());
        let flaws = match read_row(number, stored) {
            Ok(row) => {
                let follows = previous.is_none_or(|previous| previous == row.previous);
                if !follows {
                    replay.positions = ANY_POSITION;
                }
                let flaws = replay.row(row.entries)?;
                if follows { flaws } else { vec![RowFlaw::Exchanged] }
            }
            Err(damaged) => vec![damaged.into()],
        };
        if let Some(flaw) = replay.passed_over.take() {
            unplaced.push(DamagedRow::new(number, flaw, all_bytes));
        }
        replay.memtable.took_row(mark, all_bytes.len());
        previous = flaws.is_empty().then_some(mark.checksum);
        let mut flaws = flaws.into_iter();
        if let Some(flaw) = flaws.next() {
            replay.positions = ANY_POSITION;
            damaged.push(DamagedRow { more_flaws: flaws.collect(), ..DamagedRow::new(number, flaw, all_bytes) });
        }
        expected = number.saturating_add(1);
    }
    // The sums of reports have the turns up to that position.
    replay.memtable.has_given(rolled_up.position);
    replay.memtable.replayed();
    Ok(Replayed { memtable: replay.memtable, damaged, unplaced })
}

struct Replay<'a> {
    tables: &'a ReadTables,
    /// The key and the record in the tables of each conversation that was looked up so far.
    in_tables: HashMap<ConversationId, Option<(u64, ConversationRecord)>>,
    memtable: Memtable,
    /// The positions that the next entry may begin at.
    positions: RangeInclusive<u64>,
    /// The conversations whose keys are lost.
    without_key: HashSet<ConversationId>,
    /// The conversations of which an entry could not be taken.
    interrupted: HashSet<ConversationId>,
    /// Why an entry of the present row was passed over, if that happened.
    passed_over: Option<RowFlaw>,
}

/// After a damaged row, an entry may begin at any position, since the damaged row may have sealed any number of turns.
const ANY_POSITION: RangeInclusive<u64> = 1..=u64::MAX;

impl Replay<'_> {
    /// Takes the entries of a row into the memtable. Returns why entries could not be taken, once for each conversation of
    /// which all earlier entries could be taken: the later ones cannot be taken either. If there is no such conversation,
    /// returns the first reason.
    fn row(&mut self, bytes: &[u8]) -> Result<Vec<RowFlaw>, Failure> {
        let entries = match entry::decode_row(bytes) {
            Ok(entries) => entries,
            Err(damaged) => return Ok(vec![damaged.into()]),
        };
        let (mut first_of_each, mut other) = (Vec::new(), None);
        for entry in entries {
            let id = entry.conversation.id.clone();
            if let Err(flaw) = self.entry(entry)? {
                if self.interrupted.insert(id) {
                    first_of_each.push(flaw);
                } else {
                    other.get_or_insert(flaw);
                }
            }
        }
        Ok(if first_of_each.is_empty() { other.into_iter().collect() } else { first_of_each })
    }

    fn entry(&mut self, mut entry: Entry) -> Result<Result<(), RowFlaw>, Failure> {
        let first = entry.position;
        if !self.positions.contains(&first) {
            let (from, to) = (*self.positions.start(), *self.positions.end());
            return Ok(Err(RowFlaw::Position { first, from, to }));
        }
        let next = first + entry.sealed.len() as u64;
        self.positions = next..=next;
        let id = &entry.conversation.id;
        if self.without_key.contains(id) {
            self.pass_over(entry);
            return Ok(Ok(()));
        }
        let life = entry.conversation.life;
        if self.tables.has_erasure(life)? {
            // A flush had moved this entry, and then the erasure of its life.
            self.memtable.take_positions(&entry);
            return Ok(Ok(()));
        }
        if let Some(erased) = entry.erased
            && self.tables.has_erasure(erased)?
        {
            // A flush had moved this erasure. If the tables have the conversation now, then with this life or with a later
            // one, and there is nothing to replay. Otherwise the next entry may go on from this one.
            let id = id.clone();
            return Ok(match self.in_tables(&id) {
                Ok(None) => self.memtable.take(entry).map_err(RowFlaw::Record),
                Ok(Some(_)) | Err(Failure::Record(_)) => Ok(()),
                Err(failure) => return Err(failure),
            });
        }
        let of_another_life = || Ok(Err(RowFlaw::OtherLife { conversation_id: id.clone() }));
        let latest = self.memtable.of(id).next();
        let latest = latest.map(|piece| (piece.conversation.life, piece.conversation.version, piece.is_void(), piece));
        let (version, sealed_turns) = if let Some((of, version, is_void, piece)) = latest {
            if let Some(erased) = entry.erased {
                if erased != of || is_void {
                    return of_another_life();
                }
                return Ok(self.memtable.take(entry).map_err(RowFlaw::Record));
            }
            if of == life {
                (version, piece.conversation.sealed_turns)
            } else if is_void {
                // A flush had moved the erasure before the conversation began anew.
                (Version::default(), 0)
            } else {
                return of_another_life();
            }
        } else {
            match self.in_tables(id) {
                Ok(Some((_, conversation))) if entry.erased == Some(conversation.life) => {
                    return Ok(self.memtable.take(entry).map_err(RowFlaw::Record));
                }
                Ok(Some((key, conversation))) => {
                    let Ok(is_new) = conversation.is_before(&entry.conversation) else { return of_another_life() };
                    if !is_new {
                        // A flush had moved this entry before the store ended, but perhaps not its positions.
                        self.memtable.take_positions(&entry);
                        return Ok(Ok(()));
                    }
                    entry.key = Some(*key);
                    (conversation.version, conversation.sealed_turns)
                }
                Ok(None) if entry.erased.is_some() => return of_another_life(),
                Ok(None) => (Version::default(), 0),
                // The damaged record does not matter: an erasure needs no record, and any other entry has the whole
                // conversation. Turns that the tables have already are written once more.
                Err(Failure::Record(_)) if entry.erased.is_some() => {
                    return Ok(self.memtable.take(entry).map_err(RowFlaw::Record));
                }
                Err(Failure::Record(_)) => {
                    entry.key = self.tables.search_key_of(id)?;
                    if entry.key.is_none() {
                        self.pass_over(entry);
                        return Ok(Ok(()));
                    }
                    return Ok(self.memtable.take(entry).map_err(RowFlaw::Record));
                }
                Err(failure) => return Err(failure),
            }
        };
        let (next_version, sealed_before) = (entry.conversation.version, entry.sealed_before());
        let begins_here = sealed_turns == 0 && sealed_before == entry.conversation.begins_after;
        if Some(next_version.0) != version.0.checked_add(1) || !(begins_here || sealed_before == sealed_turns) {
            let conversation_id = id.clone();
            return Ok(Err(RowFlaw::Commit { conversation_id, version, sealed_turns, next_version, sealed_before }));
        }
        Ok(self.memtable.take(entry).map_err(RowFlaw::Record))
    }

    /// Leaves an entry in the journal. Reads and commits of its conversation are refused, as its key is damaged.
    fn pass_over(&mut self, entry: Entry) {
        self.memtable.pass_over(&entry);
        let conversation_id = entry.conversation.id;
        self.without_key.insert(conversation_id.clone());
        self.passed_over = Some(RowFlaw::LostKey { conversation_id });
    }

    fn in_tables(&mut self, id: &ConversationId) -> Result<&Option<(u64, ConversationRecord)>, Failure> {
        match self.in_tables.entry(id.clone()) {
            Slot::Occupied(found) => Ok(found.into_mut()),
            Slot::Vacant(slot) => {
                let found = match self.tables.key_of(id)? {
                    Some(key) => Some((key, self.tables.conversation(key)?)),
                    None => None,
                };
                Ok(slot.insert(found))
            }
        }
    }
}

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{LIST_BYTES, LeftOut};
use crate::store::contract::{Life, PositionedTurn, SealedPage};
use crate::store::position::{Lineage, Position};
use crate::store::redb::memtable::{Memtable, OrderedTurn, Place};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::guarded::visit_from;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::{Keys, Positions};
use crate::turn::{ConversationId, Ordinal, StoredTurn};

/// The limit on the steps of a page. The page ends with the turn that reaches the limit. A step may take a KiB, and a
/// turn has at most some thousand steps.
const PAGE_STEPS: usize = 8192;

/// Like [`PAGE_STEPS`], for a page that is read on a thread on which other work waits. Decoding so many steps takes a
/// fraction of a millisecond.
const SHORT_PAGE_STEPS: usize = 1024;

/// When a page ends.
#[derive(Clone, Copy)]
struct Limits {
    /// The page ends with the turn that reaches this number of steps.
    steps: usize,
    /// The page ends before a turn whose record is longer.
    record_bytes: usize,
}

/// A page of the order of all turns: the number of its positions that are in the tables, and its turns whose positions
/// are in the memtable.
pub(crate) struct OrderQuery {
    after: u64,
    latest: u64,
    /// The number of positions after `after` that are in the tables. The positions in the memtable follow them.
    in_tables: u64,
    recent: Vec<Recent>,
    /// The lives that were erased in the memtable. The tables do not know of that.
    erased: HashSet<Life>,
    /// The last position of the page.
    last: u64,
    /// Whether no turn follows the turns of `recent`. Positions without a turn may follow.
    is_last: bool,
}

/// A turn whose position is in the memtable, and which was not erased in the memtable.
struct Recent {
    position: u64,
    conversation_id: ConversationId,
    life: Life,
    ordinal: Ordinal,
    /// The record of the turn. `None` if the record is in the tables already.
    record: Option<Arc<[u8]>>,
}

impl OrderQuery {
    /// Returns `None` if the store has not given the position `after` yet.
    pub(crate) fn of(memtable: &Memtable, after: u64, limit: usize) -> Option<Self> {
        let latest = memtable.last_position();
        if after > latest {
            return None;
        }
        let limit = limit.min(SealedPage::MAX_POSITIONS);
        let in_tables = (memtable.first_position() - 1).saturating_sub(after).min(limit as u64);
        let left = limit.saturating_sub(usize::try_from(in_tables).unwrap_or(limit));
        let (mut recent, mut visited, mut last) = (Vec::new(), 0, after + in_tables);
        for OrderedTurn { position, conversation_id, life, ordinal, place } in memtable.sealed_after(after).take(left) {
            (visited, last) = (visited + 1, position);
            let record = match place {
                Place::Here(record) => Some(Arc::clone(record)),
                Place::Tables => None,
                Place::Erased => continue,
            };
            recent.push(Recent { position, conversation_id: conversation_id.clone(), life, ordinal, record });
        }
        let erased = if in_tables > 0 { memtable.contents().erased().clone() } else { HashSet::new() };
        Some(Self { after, latest, in_tables, recent, erased, last, is_last: visited < left })
    }

    pub(crate) fn needs_tables(&self) -> bool {
        self.in_tables > 0 || self.recent.iter().any(|recent| recent.record.is_none())
    }

    pub(crate) fn read(
        self,
        lineage: Lineage,
        tables: Option<&ReadTables>,
        left_out: &mut LeftOut,
    ) -> Result<SealedPage, Failure> {
        let limits = Limits { steps: PAGE_STEPS, record_bytes: usize::MAX };
        let begin = Position { lineage, number: self.after };
        let empty = SealedPage { turns: Vec::new(), next: begin, latest: begin, left_out: 0 };
        Ok(self.read_within(limits, lineage, tables, left_out)?.unwrap_or(empty))
    }

    /// Like [`read`](Self::read), for a thread on which other work waits: the page ends with fewer steps, and before a
    /// turn whose record is longer than a list of short turns. Returns `None` if such a turn comes first.
    pub(crate) fn read_short(
        self,
        lineage: Lineage,
        tables: Option<&ReadTables>,
        left_out: &mut LeftOut,
    ) -> Result<Option<SealedPage>, Failure> {
        let limits = Limits { steps: SHORT_PAGE_STEPS, record_bytes: LIST_BYTES };
        self.read_within(limits, lineage, tables, left_out)
    }

    fn read_within(
        self,
        limits: Limits,
        lineage: Lineage,
        tables: Option<&ReadTables>,
        left_out: &mut LeftOut,
    ) -> Result<Option<SealedPage>, Failure> {
        let at = |number| Position { lineage, number };
        let mut page = SealedPage { turns: Vec::new(), next: at(self.after), latest: at(self.latest), left_out: 0 };
        let before = |long: Position, page: SealedPage| {
            let next = at(long.number - 1);
            (next.number > self.after).then_some(SealedPage { next, ..page })
        };
        let mut steps = 0;
        let mut is_full = |turn: &StoredTurn| {
            steps += turn.metrics.steps.len();
            steps >= limits.steps
        };
        if let (Some(tables), 1..) = (tables, self.in_tables) {
            let last = self.after + self.in_tables;
            let mut ids = HashMap::new();
            let (mut is_cut, mut long) = (false, None);
            // Each position has a row, also that of a turn which is gone. So a missing row is damage.
            let mut expected = self.after + 1;
            let mut missing = 0;
            visit_from::<Positions>(tables.positions()?, &(self.after + 1), |position, value| {
                if value.is_ok() && *position > last {
                    return Ok(ControlFlow::Break(()));
                }
                // A damaged row may have another key than it had, so it stands for the position that is expected.
                if value.is_ok() {
                    missing += position.saturating_sub(expected);
                    expected = expected.max(*position);
                }
                expected += 1;
                let position = at(*position);
                match read(tables, value, &self.erased, &mut ids, limits.record_bytes) {
                    Ok(Some((_, Found::Long))) => {
                        long = Some(position);
                        return Ok(ControlFlow::Break(()));
                    }
                    Ok(Some((conversation_id, Found::Turn(turn)))) => {
                        is_cut = is_full(&turn);
                        page.turns.push(PositionedTurn { position, conversation_id, turn: *turn });
                        if is_cut {
                            page.next = position;
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Ok(Some((_, Found::Gone)) | None) => {}
                    Err(Failure::Record(damaged)) => {
                        page.left_out += 1;
                        left_out.add(&damaged, || format!("position {}", position.number));
                    }
                    Err(failure) => return Err(failure),
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if !is_cut && long.is_none() {
                missing += (last + 1).saturating_sub(expected);
            }
            page.left_out += missing;
            left_out.add_missing(missing, || format!("a position after {}", self.after));
            if let Some(long) = long {
                return Ok(before(long, page));
            }
            if is_cut {
                return Ok(Some(page));
            }
            // Even if the last rows of the page are missing, the next page must begin after them.
            page.next = at(last);
        }
        for recent in self.recent {
            let Recent { position, conversation_id, life, ordinal, record } = recent;
            let position = at(position);
            let turn = match record {
                Some(record) if record.len() > limits.record_bytes => Ok(Found::Long),
                Some(record) => record::decode_sealed(ordinal, &record).map(Found::turn).map_err(Failure::from),
                None => turn_in_tables(tables, &conversation_id, life, ordinal, limits.record_bytes),
            };
            if matches!(turn, Ok(Found::Long)) {
                return Ok(before(position, page));
            }
            page.next = position;
            match turn {
                Ok(Found::Gone | Found::Long) => {}
                Ok(Found::Turn(turn)) => {
                    let is_full = is_full(&turn);
                    page.turns.push(PositionedTurn { position, conversation_id, turn: *turn });
                    if is_full {
                        return Ok(Some(page));
                    }
                }
                Err(Failure::Record(damaged)) => {
                    page.left_out += 1;
                    left_out.add(&damaged, || format!("turn {ordinal} of {conversation_id}"));
                }
                Err(failure) => return Err(failure),
            }
        }
        page.next = if self.is_last { page.latest } else { at(self.last) };
        Ok(Some(page))
    }
}

/// A turn that was looked for.
enum Found {
    Turn(Box<StoredTurn>),
    /// The turn was erased or dropped.
    Gone,
    /// The record of the turn is longer than wanted.
    Long,
}

impl Found {
    fn turn(turn: StoredTurn) -> Self {
        Self::Turn(Box::new(turn))
    }
}

/// Looks for a turn in the tables, as its piece is no longer in the memtable.
fn turn_in_tables(
    tables: Option<&ReadTables>,
    id: &ConversationId,
    life: Life,
    ordinal: Ordinal,
    record_bytes: usize,
) -> Result<Found, Failure> {
    let missing = || Failure::from(DamagedRecord::new(Keys::WHAT, RecordFlaw::Missing));
    let tables = tables.ok_or_else(missing)?;
    if tables.has_erasure(life)? {
        return Ok(Found::Gone);
    }
    let key = tables.search_key_of(id)?.ok_or_else(missing)?;
    turn_of(tables, key, ordinal, record_bytes)
}

/// Looks for a turn of the conversation with this key.
fn turn_of(tables: &ReadTables, key: u64, ordinal: Ordinal, record_bytes: usize) -> Result<Found, Failure> {
    match tables.turn_within(key, ordinal, record_bytes) {
        Ok(turn) => Ok(turn.map_or(Found::Long, Found::turn)),
        Err(Failure::Record(_)) if tables.dropped(key)?.is_some_and(|dropped| ordinal.get() <= dropped.last()) => {
            Ok(Found::Gone)
        }
        Err(failure) => Err(failure),
    }
}

/// Looks for the turn of a row of the order, and returns its conversation too. `None` if the row is of no turn, or its
/// conversation was erased.
fn read(
    tables: &ReadTables,
    record: Result<&[u8], DamagedRecord>,
    erased: &HashSet<Life>,
    ids: &mut HashMap<u64, Option<ConversationId>>,
    record_bytes: usize,
) -> Result<Option<(ConversationId, Found)>, Failure> {
    let AtPosition::Sealed { key, ordinal } = AtPosition::decode(record?)? else { return Ok(None) };
    let conversation_id = match ids.get(&key) {
        Some(id) => id.clone(),
        None => ids.entry(key).or_insert(id_of(tables, key, erased)?).clone(),
    };
    let Some(conversation_id) = conversation_id else { return Ok(None) };
    Ok(Some((conversation_id, turn_of(tables, key, ordinal, record_bytes)?)))
}

/// Returns the id of the conversation with this key. `None` if it was erased, in the tables or as one of these lives.
fn id_of(tables: &ReadTables, key: u64, erased: &HashSet<Life>) -> Result<Option<ConversationId>, Failure> {
    match tables.conversation(key) {
        Ok(record) => Ok((!erased.contains(&record.life)).then_some(record.id)),
        Err(Failure::Record(_)) if tables.is_erased(key)? => Ok(None),
        Err(Failure::Record(_)) => tables.search_id_of(key).map(Some),
        Err(failure) => Err(failure),
    }
}

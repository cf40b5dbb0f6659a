use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, RangeInclusive};
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
use crate::store::redb::unwind;
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
        if let (Some(tables), 1..) = (tables, self.in_tables) {
            let positions = self.after + 1..=self.after + self.in_tables;
            let read = Reading::of(tables, &self.erased, limits, positions.clone())?;
            page.left_out = read.left_out.count;
            left_out.absorb(read.left_out);
            steps = read.steps;
            let turns = read.turns.into_iter();
            page.turns.extend(turns.map(|(number, conversation_id, turn)| PositionedTurn {
                position: at(number),
                conversation_id,
                turn,
            }));
            match read.end {
                Some(End::Before(long)) => return Ok(before(at(long), page)),
                Some(End::With(last)) => return Ok(Some(SealedPage { next: at(last), ..page })),
                // Even if the last rows of the page are missing, the next page must begin after them.
                None => page.next = at(*positions.end()),
            }
        }
        let mut is_full = |turn: &StoredTurn| {
            steps += turn.metrics.steps.len();
            steps >= limits.steps
        };
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

/// The turns of a page whose positions are in the tables.
struct Reading<'a> {
    tables: &'a ReadTables,
    erased: &'a HashSet<Life>,
    limits: Limits,
    positions: RangeInclusive<u64>,
    /// The ids of the conversations that were looked up so far.
    ids: HashMap<u64, Option<ConversationId>>,
    turns: Vec<(u64, ConversationId, StoredTurn)>,
    steps: usize,
    left_out: LeftOut,
    end: Option<End>,
}

/// Where a page ends before its last position.
enum End {
    /// With the turn at this position.
    With(u64),
    /// Before the turn at this position, whose record is long.
    Before(u64),
}

impl<'a> Reading<'a> {
    /// Reads the turns at these positions. If a page of the file is damaged, what is in it is left out.
    fn of(
        tables: &'a ReadTables,
        erased: &'a HashSet<Life>,
        limits: Limits,
        positions: RangeInclusive<u64>,
    ) -> Result<Self, Failure> {
        let begun = || Self {
            tables,
            erased,
            limits,
            positions: positions.clone(),
            ids: HashMap::new(),
            turns: Vec::new(),
            steps: 0,
            left_out: LeftOut::default(),
            end: None,
        };
        // A damaged page can make the database panic too.
        match unwind::caught(|| begun().in_one_range()) {
            Ok(Err(failure)) if !failure.is_damage() => Err(failure),
            Ok(Ok(read)) => Ok(read),
            Ok(Err(_)) | Err(_) => begun().one_by_one(),
        }
    }

    fn in_one_range(mut self) -> Result<Self, Failure> {
        let (first, last) = (*self.positions.start(), *self.positions.end());
        // Each position has a row, also that of a turn which is gone. So a missing row is damage.
        let (mut expected, mut missing) = (first, 0);
        visit_from::<Positions>(self.tables.positions()?, &first, |position, row| {
            if row.is_ok() && *position > last {
                return Ok(ControlFlow::Break(()));
            }
            // A damaged row may have another key than it had, so it stands for the position that is expected.
            if row.is_ok() {
                missing += position.saturating_sub(expected);
                expected = expected.max(*position);
            }
            expected += 1;
            let found = self.find(row);
            self.take(*position, found)
        })?;
        if self.end.is_none() {
            missing += (last + 1).saturating_sub(expected);
        }
        self.left_out.add_missing(missing, || format!("a position after {}", first - 1));
        Ok(self)
    }

    /// Looks for each position by itself, so that a page that cannot be read hides only what is in it.
    fn one_by_one(mut self) -> Result<Self, Failure> {
        let rows = self.tables.positions()?;
        for position in self.positions.clone() {
            let found = unwind::caught(|| match rows.get(position)? {
                Some(row) => self.find(row.value().verify(&position)),
                None => Err(DamagedRecord::new(Positions::WHAT, RecordFlaw::Missing).into()),
            });
            let place = || format!("position {position}");
            match found {
                Ok(Err(failure)) if failure.is_damage() => self.left_out.add(&failure, place),
                Err(panic) => self.left_out.add(&panic, place),
                Ok(found) => {
                    if self.take(position, found)?.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(self)
    }

    /// Looks for the turn of a row of the order, and returns its conversation too. `None` if the row is of no turn, or its
    /// conversation was erased.
    fn find(&mut self, row: Result<&[u8], DamagedRecord>) -> Result<Option<(ConversationId, Found)>, Failure> {
        let AtPosition::Sealed { key, ordinal } = AtPosition::decode(row?)? else { return Ok(None) };
        let conversation_id = match self.ids.get(&key) {
            Some(id) => id.clone(),
            None => self.ids.entry(key).or_insert(id_of(self.tables, key, self.erased)?).clone(),
        };
        let Some(conversation_id) = conversation_id else { return Ok(None) };
        Ok(Some((conversation_id, turn_of(self.tables, key, ordinal, self.limits.record_bytes)?)))
    }

    /// Takes what was found at a position. Breaks where the page ends.
    fn take(
        &mut self,
        position: u64,
        found: Result<Option<(ConversationId, Found)>, Failure>,
    ) -> Result<ControlFlow<()>, Failure> {
        match found {
            Ok(Some((_, Found::Long))) => self.end = Some(End::Before(position)),
            Ok(Some((conversation_id, Found::Turn(turn)))) => {
                self.steps += turn.metrics.steps.len();
                if self.steps >= self.limits.steps {
                    self.end = Some(End::With(position));
                }
                self.turns.push((position, conversation_id, *turn));
            }
            Ok(Some((_, Found::Gone)) | None) => {}
            Err(Failure::Record(damaged)) => self.left_out.add(&damaged, || format!("position {position}")),
            Err(failure) => return Err(failure),
        }
        Ok(if self.end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
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

/// Returns the id of the conversation with this key. `None` if it was erased, in the tables or as one of these lives.
fn id_of(tables: &ReadTables, key: u64, erased: &HashSet<Life>) -> Result<Option<ConversationId>, Failure> {
    match tables.conversation(key) {
        Ok(record) => Ok((!erased.contains(&record.life)).then_some(record.id)),
        Err(Failure::Record(_)) if tables.is_erased(key)? => Ok(None),
        Err(Failure::Record(_)) => tables.search_id_of(key).map(Some),
        Err(failure) => Err(failure),
    }
}

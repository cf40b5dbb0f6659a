use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::LeftOut;
use crate::store::contract::{PositionedTurn, SealedPage};
use crate::store::position::{Lineage, Position};
use crate::store::redb::memtable::Memtable;
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

/// A page of the order of all turns: the number of its positions that are in the tables, and its turns whose positions
/// are in the memtable.
pub(crate) struct OrderQuery {
    after: u64,
    latest: u64,
    /// The number of positions after `after` that are in the tables. The positions in the memtable follow them.
    in_tables: u64,
    recent: Vec<Recent>,
    /// Whether no turn follows the turns of `recent`. Positions without a turn may follow.
    is_last: bool,
}

/// A turn whose position is in the memtable.
struct Recent {
    position: u64,
    conversation_id: ConversationId,
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
        let recent = memtable.sealed_after(after).take(left).map(|(position, id, ordinal, record)| Recent {
            position,
            conversation_id: id.clone(),
            ordinal,
            record: record.map(Arc::clone),
        });
        let recent: Vec<_> = recent.collect();
        let is_last = recent.len() < left;
        Some(Self { after, latest, in_tables, recent, is_last })
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
        self.read_steps(PAGE_STEPS, lineage, tables, left_out)
    }

    /// Like [`read`](Self::read), for a thread on which other work waits: the page ends with fewer steps.
    pub(crate) fn read_short(
        self,
        lineage: Lineage,
        tables: Option<&ReadTables>,
        left_out: &mut LeftOut,
    ) -> Result<SealedPage, Failure> {
        self.read_steps(SHORT_PAGE_STEPS, lineage, tables, left_out)
    }

    fn read_steps(
        self,
        most_steps: usize,
        lineage: Lineage,
        tables: Option<&ReadTables>,
        left_out: &mut LeftOut,
    ) -> Result<SealedPage, Failure> {
        let at = |number| Position { lineage, number };
        let mut page = SealedPage { turns: Vec::new(), next: at(self.after), latest: at(self.latest) };
        let mut steps = 0;
        let mut is_full = |turn: &StoredTurn| {
            steps += turn.metrics.steps.len();
            steps >= most_steps
        };
        if let (Some(tables), 1..) = (tables, self.in_tables) {
            let last = self.after + self.in_tables;
            let mut ids = HashMap::new();
            let mut is_cut = false;
            visit_from::<Positions>(tables.positions()?, &(self.after + 1), |position, value| {
                if value.is_ok() && *position > last {
                    return Ok(ControlFlow::Break(()));
                }
                let position = at(*position);
                match read(tables, value, position, &mut ids) {
                    Ok(Some(turn)) => {
                        is_cut = is_full(&turn.turn);
                        page.turns.push(turn);
                        if is_cut {
                            page.next = position;
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Ok(None) => {}
                    Err(Failure::Record(damaged)) => left_out.add(&damaged, || format!("position {}", position.number)),
                    Err(failure) => return Err(failure),
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if is_cut {
                return Ok(page);
            }
            // Even if the last rows of the page are missing, the next page must begin after them.
            page.next = at(last);
        }
        for recent in self.recent {
            let Recent { position, conversation_id, ordinal, record } = recent;
            let position = at(position);
            let turn = match record {
                Some(record) => record::decode_sealed(ordinal, &record).map_err(Failure::from),
                None => turn_in_tables(tables, &conversation_id, ordinal),
            };
            page.next = position;
            match turn {
                Ok(turn) => {
                    let is_full = is_full(&turn);
                    page.turns.push(PositionedTurn { position, conversation_id, turn });
                    if is_full {
                        return Ok(page);
                    }
                }
                Err(Failure::Record(damaged)) => {
                    left_out.add(&damaged, || format!("turn {ordinal} of {conversation_id}"));
                }
                Err(failure) => return Err(failure),
            }
        }
        if self.is_last {
            page.next = page.latest;
        }
        Ok(page)
    }
}

/// Returns a turn from the tables, as its piece is no longer in the memtable.
fn turn_in_tables(tables: Option<&ReadTables>, id: &ConversationId, ordinal: Ordinal) -> Result<StoredTurn, Failure> {
    let key = tables.map(|tables| tables.search_key_of(id)).transpose()?.flatten();
    match (tables, key) {
        (Some(tables), Some(key)) => tables.turn(key, ordinal),
        _ => Err(DamagedRecord::new(Keys::WHAT, RecordFlaw::Missing).into()),
    }
}

/// Returns the turn of a row of the order. `None` if the turn was erased.
fn read(
    tables: &ReadTables,
    record: Result<&[u8], DamagedRecord>,
    position: Position,
    ids: &mut HashMap<u64, ConversationId>,
) -> Result<Option<PositionedTurn>, Failure> {
    let AtPosition::Sealed { key, ordinal } = AtPosition::decode(record?)? else { return Ok(None) };
    let conversation_id = match ids.get(&key) {
        Some(id) => id.clone(),
        None => ids.entry(key).or_insert(tables.search_id_of(key)?).clone(),
    };
    Ok(Some(PositionedTurn { position, conversation_id, turn: tables.turn(key, ordinal)? }))
}

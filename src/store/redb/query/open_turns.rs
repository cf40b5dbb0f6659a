use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::store::contract::StagedTurn;
use crate::store::redb::memtable::piece::{Change, Piece};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::guarded::visit_from;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::schema::OpenTurns;
use crate::turn::TurnId;

/// Reads the open turns of a conversation: puts each together from the rows of the tables and from the pieces that
/// override them.
pub(super) struct OpenTurnsQuery<'a> {
    /// The parts of each turn in the pieces. `None` if the pieces seal the turn.
    changed: BTreeMap<&'a str, Option<Parts<'a>>>,
}

/// The parts of an open turn that are in pieces.
struct Parts<'a> {
    head: &'a [u8],
    steps: BTreeMap<u32, &'a [u8]>,
}

/// A turn, or the damage of one of its rows.
type Read = Result<StagedTurn, DamagedRecord>;

impl<'a> OpenTurnsQuery<'a> {
    /// `pieces` are the pieces of the conversation, the latest first.
    pub(super) fn of(pieces: &'a [Arc<Piece>]) -> Self {
        let mut changed: BTreeMap<&str, Option<Parts<'_>>> = BTreeMap::new();
        for (turn_id, change) in pieces.iter().flat_map(|piece| piece.changes()) {
            match (changed.entry(turn_id), change) {
                (Slot::Vacant(slot), Change::Sealed(_)) => drop(slot.insert(None)),
                (Slot::Vacant(slot), Change::Open(open)) => {
                    slot.insert(Some(Parts { head: open.head(), steps: open.steps().collect() }));
                }
                (Slot::Occupied(mut later), Change::Open(open)) => {
                    if let Some(later) = later.get_mut() {
                        for (place, record) in open.steps() {
                            later.steps.entry(place).or_insert(record);
                        }
                    }
                }
                (Slot::Occupied(_), Change::Sealed(_)) => {}
            }
        }
        Self { changed }
    }

    /// Puts the turns together. `key` is the key of the conversation in the tables.
    pub(super) fn read(mut self, tables: &ReadTables, key: Option<u64>) -> Result<Vec<(String, Read)>, Failure> {
        let mut turns = Vec::new();
        if let Some(key) = key {
            visit_from::<OpenTurns>(tables.open_turns()?, &(key, ""), |(of, turn_id), head| {
                // The key of a damaged row may be wrong, so the row may belong here.
                if head.is_ok() && *of != key {
                    return Ok(ControlFlow::Break(()));
                }
                if !self.changed.contains_key(turn_id) {
                    let parts = head.map(|head| Parts { head, steps: BTreeMap::new() });
                    turns.push(((*turn_id).to_owned(), put_together(parts, tables, Some(key))?));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        while let Some((turn_id, parts)) = self.changed.pop_first() {
            if let Some(parts) = parts {
                turns.push((turn_id.to_owned(), put_together(Ok(parts), tables, key)?));
            }
        }
        Ok(turns)
    }
}

/// Puts a turn together from its parts in the pieces, and takes the steps that these lack from the tables.
fn put_together(
    parts: Result<Parts<'_>, DamagedRecord>,
    tables: &ReadTables,
    key: Option<u64>,
) -> Result<Read, Failure> {
    let headed = parts.and_then(|parts| Ok((StagedHead::decode(parts.head)?, parts.steps)));
    let (head, mut changed) = match headed {
        Ok(headed) => headed,
        Err(damaged) => return Ok(Err(damaged)),
    };
    // Steps beyond the number in the head are left from before the turn began anew.
    drop(changed.split_off(&head.step_count));
    let mut stored = BTreeMap::new();
    if let Some(key) = key
        && changed.len() as u64 != u64::from(head.step_count)
    {
        stored = stored_steps(tables, key, &head.turn_id, head.step_count)?;
    }
    Ok(whole(head, &changed, &stored))
}

type StoredSteps = BTreeMap<u32, Result<Vec<u8>, DamagedRecord>>;

/// Returns the rows of the first `count` steps of a turn.
fn stored_steps(tables: &ReadTables, key: u64, turn_id: &TurnId, count: u32) -> Result<StoredSteps, Failure> {
    let turn_id = turn_id.as_str();
    let mut steps = BTreeMap::new();
    for row in tables.open_steps()?.range((key, turn_id, 0)..(key, turn_id, count))? {
        let (place, value) = row?;
        let record = value.value().verify(&place.value()).map(<[u8]>::to_vec);
        steps.insert(place.value().2, record);
    }
    Ok(steps)
}

fn whole(head: StagedHead, changed: &BTreeMap<u32, &[u8]>, stored: &StoredSteps) -> Read {
    let steps = (0..head.step_count).map(|place| match (changed.get(&place), stored.get(&place)) {
        (Some(record), _) => Ok(*record),
        (None, Some(record)) => record.as_deref().map_err(Clone::clone),
        (None, None) => Err(DamagedRecord::new("step of an open turn", RecordFlaw::Missing)),
    });
    head.with_steps(steps)
}

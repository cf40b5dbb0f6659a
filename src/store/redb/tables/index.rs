//! The index of sealed turns: says whether a turn of a conversation is sealed, and at which ordinal.
//!
//! The key of a row has a hash of the turn's id instead of the id, which is in the turn's record. So a row has 24
//! bytes, and many rows fit into a page. If another id of the conversation has the hash already, the next free number
//! is used, so the index is exact.

use std::ops::{Bound, ControlFlow};

use redb::{AccessGuard, ReadableTable, Table};
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use super::failure::Failure;
use super::guarded::visit_from;
use super::indexed::{Indexed, StoredOrdinal};
use super::record;
use super::record::damaged::{DamagedRecord, RecordFlaw};
use super::row::Row;
use super::schema::Turns;
use crate::turn::Ordinal;

/// Hashes turn ids for the index. The hash is keyed by the store's id, so that nobody can make ids that collide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnHasher(SipHasher13);

impl TurnHasher {
    pub(crate) fn of(store_id: Uuid) -> Self {
        Self(SipHasher13::new_with_key(store_id.as_bytes()))
    }

    pub(crate) fn hash(&self, turn_id: &str) -> u64 {
        self.0.hash(turn_id.as_bytes())
    }
}

/// The maximum number of ids of a conversation with the same hash. Two hashes of 64 bits collide once in billions of
/// turns.
const MAX_COLLISIONS: u64 = 16;

/// Returns the ordinal of the turn `turn_id` of the conversation `key`, if the turn is sealed. `hash` returns the hash
/// of an id.
///
/// If damage of the index may hide the turn's row, all turns of the conversation are searched for the id. If some of
/// them are damaged too, this returns an error, as it is unknown whether the turn is sealed.
pub(crate) fn find(
    index: &impl ReadableTable<(u64, u64), Indexed>,
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    key: u64,
    hash: impl Fn(&str) -> u64,
    turn_id: &str,
) -> Result<Option<Ordinal>, Failure> {
    let mut at = hash(turn_id);
    while let Some(stored) = index.get((key, at))?.map(|ordinal| ordinal.value()) {
        let Ok(ordinal) = stored.verify((key, at)) else { return search(turns, key, turn_id) };
        let turn = turns.get((key, ordinal))?;
        let turn = turn.as_ref().map(AccessGuard::value);
        match turn.map(|turn| turn.verify(&(key, ordinal)).and_then(record::turn_id_of)) {
            // The turn at this ordinal is lost or damaged, so its id is unknown. It may be this turn, which must not be
            // sealed again.
            None | Some(Err(_)) => return Ok(Ordinal::new(ordinal)),
            Some(Ok(id)) if id == turn_id => return Ok(Ordinal::new(ordinal)),
            Some(Ok(other)) if belongs(at, hash(other)) => {}
            Some(Ok(_)) => return Err(DamagedRecord::new(Indexed::WHAT, RecordFlaw::OtherTurn).into()),
        }
        at = at.wrapping_add(1);
    }
    if is_gap(index, (key, at))? { Ok(None) } else { search(turns, key, turn_id) }
}

/// Returns whether a look-up of this hash finds a row with this ordinal.
pub(crate) fn has(
    index: &impl ReadableTable<(u64, u64), Indexed>,
    key: u64,
    hash: u64,
    ordinal: u64,
) -> Result<bool, Failure> {
    for nth in 0..MAX_COLLISIONS {
        let place = (key, hash.wrapping_add(nth));
        match index.get(place)?.map(|row| row.value().verify(place)) {
            Some(Ok(found)) if found == ordinal => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// Returns whether a turn of the id with the second hash may have its row at the first one.
pub(crate) fn belongs(at: u64, hash: u64) -> bool {
    at.wrapping_sub(hash) < MAX_COLLISIONS
}

/// Returns the hashes of the ids whose turns may have their row at a place.
pub(crate) fn hashes_at(at: u64) -> impl Iterator<Item = u64> {
    (0..MAX_COLLISIONS).map(move |nth| at.wrapping_sub(nth))
}

/// Returns whether a search which found no row of this key went the right way. See `guarded`.
fn is_gap(index: &impl ReadableTable<(u64, u64), Indexed>, place: (u64, u64)) -> Result<bool, Failure> {
    let before = index.range::<(u64, u64)>((Bound::Unbounded, Bound::Excluded(place)))?.next_back().transpose()?;
    let after = index.range::<(u64, u64)>((Bound::Included(place), Bound::Unbounded))?.next().transpose()?;
    let is_sound = |at: (u64, u64), stored: StoredOrdinal| stored.verify(at).is_ok();
    let before = before.is_none_or(|(at, row)| at.value() < place && is_sound(at.value(), row.value()));
    let after = after.is_none_or(|(at, row)| at.value() > place && is_sound(at.value(), row.value()));
    Ok(before && after)
}

/// Searches all turns of a conversation for an id.
fn search(
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    key: u64,
    turn_id: &str,
) -> Result<Option<Ordinal>, Failure> {
    let (mut found, mut unknown) = (None, None);
    visit_from::<Turns>(turns, &(key, 0), |place, turn| {
        match turn.and_then(record::turn_id_of) {
            Ok(_) if place.0 != key => return Ok(ControlFlow::Break(())),
            Ok(id) if id == turn_id => found = Ordinal::new(place.1),
            Ok(_) => {}
            Err(damaged) => unknown = Some(damaged),
        }
        Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    match (found, unknown) {
        (None, Some(damaged)) => Err(damaged.into()),
        (found, _) => Ok(found),
    }
}

/// Adds the row of a turn, if the turn has none. Returns whether it was added.
pub(crate) fn insert(
    index: &mut Table<'_, (u64, u64), Indexed>,
    key: u64,
    hash: u64,
    ordinal: u64,
) -> Result<bool, Failure> {
    let mut at = hash;
    loop {
        let taken = index.insert((key, at), StoredOrdinal::seal((key, at), ordinal))?.map(|other| other.value());
        let Some(other) = taken else { return Ok(true) };
        // A damaged row is replaced: this turn or another one had this place, and a check finds which one lacks it.
        if other.verify((key, at)).is_ok_and(|other| other == ordinal) || other.verify((key, at)).is_err() {
            return Ok(false);
        }
        // A collision, which is rare: restore the other turn's row and probe the next slot.
        index.insert((key, at), other)?;
        at = at.wrapping_add(1);
    }
}

/// Removes the row of a turn, if it has one. The table of turns must still have the turn. `hash` returns the hash of an
/// id. Returns whether there was a row.
///
/// A search ends at the first free place. So a later row that is not at its own place because of a collision moves to the
/// place that is free now.
pub(crate) fn remove(
    index: &mut Table<'_, (u64, u64), Indexed>,
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    key: u64,
    hash: impl Fn(&str) -> u64,
    turn: (&str, Ordinal),
) -> Result<bool, Failure> {
    let run = run_of(index, turns, key, &hash, turn.0)?;
    let mut rows = run.into_iter().skip_while(|row| row.ordinal != turn.1.get());
    let Some(Probed { at: mut free, .. }) = rows.next() else { return Ok(false) };
    for Probed { at, ordinal, own } in rows {
        if belongs(free, own) {
            index.insert((key, free), StoredOrdinal::seal((key, free), ordinal))?;
            free = at;
        }
    }
    index.remove((key, free))?;
    Ok(true)
}

/// A row of the index that a search meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probed {
    at: u64,
    ordinal: u64,
    /// The hash of its turn.
    own: u64,
}

/// Returns the rows from the place of an id up to the first free place. Fails if one of them or its turn is damaged.
pub(crate) fn run_of(
    index: &impl ReadableTable<(u64, u64), Indexed>,
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    key: u64,
    hash: &impl Fn(&str) -> u64,
    turn_id: &str,
) -> Result<Vec<Probed>, Failure> {
    let mut rows = Vec::new();
    let mut at = hash(turn_id);
    while let Some(row) = index.get((key, at))?.map(|row| row.value()) {
        let ordinal = row.verify((key, at))?;
        let turn = turns.get((key, ordinal))?;
        let missing = || DamagedRecord::new(Indexed::WHAT, RecordFlaw::Missing);
        let turn = turn.as_ref().map(AccessGuard::value).ok_or_else(missing)?;
        let own = hash(record::turn_id_of(turn.verify(&(key, ordinal))?)?);
        rows.push(Probed { at, ordinal, own });
        at = at.wrapping_add(1);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase, ReadableTableMetadata};

    use super::*;
    use crate::store::redb::tables::row;
    use crate::store::redb::tables::schema::{INDEX, TURNS};
    use crate::turn::{Done, EpochMillis, OpenTurn, TurnId};

    #[test]
    fn ids_of_one_hash_are_told_apart_and_a_lost_one_is_never_new() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let (mut index, mut turns) = (txn.open_table(INDEX).unwrap(), txn.open_table(TURNS).unwrap());
            for (ordinal, id) in (1..).zip(["a", "b", "c"]) {
                let turn = OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
                let mut record = record::encode_sealed(&turn).unwrap();
                turns.insert((7, ordinal), row::seal(&(7, ordinal), &mut record)).unwrap();
                assert!(insert(&mut index, 7, u64::MAX, ordinal).unwrap());
            }
            for ordinal in 1..=3 {
                assert!(!insert(&mut index, 7, u64::MAX, ordinal).unwrap(), "the row was there already");
            }
        }
        txn.commit().unwrap();
        let found = |id| {
            let txn = database.begin_read().unwrap();
            let (index, turns) = (txn.open_table(INDEX).unwrap(), txn.open_table(TURNS).unwrap());
            find(&index, &turns, 7, |_| u64::MAX, id).unwrap().map(Ordinal::get)
        };
        assert_eq!(["a", "b", "c", "d"].map(found), [Some(1), Some(2), Some(3), None]);

        let txn = database.begin_write().unwrap();
        txn.open_table(TURNS).unwrap().remove((7, 3)).unwrap();
        txn.commit().unwrap();
        assert_eq!(["b", "c", "d"].map(found), [Some(2), Some(3), Some(3)]);
        let txn = database.begin_read().unwrap();
        let (index, turns) = (txn.open_table(INDEX).unwrap(), txn.open_table(TURNS).unwrap());
        let hash = |id: &str| if id == "d" { u64::MAX } else { 7 };
        let damaged = find(&index, &turns, 7, hash, "d").unwrap_err();
        assert!(matches!(damaged, Failure::Record(_)), "a row that leads to a turn of another hash: {damaged}");
    }

    #[test]
    fn a_removed_row_hides_no_other_row_of_its_hash() {
        let hash = |id: &str| if id == "other" { 8 } else { 7 };
        let ids = ["a", "b", "other", "c"];
        for removed in 0..ids.len() {
            let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
            let txn = database.begin_write().unwrap();
            let (mut index, mut turns) = (txn.open_table(INDEX).unwrap(), txn.open_table(TURNS).unwrap());
            for (ordinal, id) in (1..).zip(ids) {
                let turn = OpenTurn::new(TurnId::new(id).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
                let mut record = record::encode_sealed(&turn).unwrap();
                turns.insert((7, ordinal), row::seal(&(7, ordinal), &mut record)).unwrap();
                insert(&mut index, 7, hash(id), ordinal).unwrap();
            }
            let ordinal = Ordinal::new(removed as u64 + 1).unwrap();
            assert!(remove(&mut index, &turns, 7, hash, (ids[removed], ordinal)).unwrap());
            turns.remove((7, ordinal.get())).unwrap();
            for (nth, id) in ids.into_iter().enumerate() {
                let found = find(&index, &turns, 7, hash, id).unwrap().map(Ordinal::get);
                assert_eq!(found, (nth != removed).then_some(nth as u64 + 1), "{id} without {}", ids[removed]);
            }
            assert_eq!(index.len().unwrap(), 3);
        }
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        let hasher = TurnHasher::of(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        assert_eq!(hasher.hash("a turn"), 17_977_788_237_591_494_117);
    }
}

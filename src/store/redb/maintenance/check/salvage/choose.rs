//! Chooses among the rows that were found in pages of an unknown time, and completes the tables of the new file with
//! them. Rows that the walk has reached are of the latest commit, and are never replaced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redb::{ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction};

use super::rows::{FOUND, IN_PLACE};
use super::walk::Reached;
use crate::store::contract::Life;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::indexed::StoredOrdinal;
use crate::store::redb::tables::read::{decode_key, read_dropped};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::row::{self, KeyOf, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, DROPPED, DroppedTurns, ERASED, ERASED_COSTS, ERASED_ROLLUPS,
    ERASURES, Erased, ErasedCosts, ErasedRollups, Erasures, IMPORTED_SUMS, INDEX, ImportedSums, KEYS, Keys, LABELS,
    LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS, LOST_UNKNOWN, Labels, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps,
    OpenTurns, POSITIONS, Positions, TURNS, Turns,
};
use crate::turn::ConversationId;

/// The ids of the conversations by their keys.
pub(super) type Ids = BTreeMap<u64, ConversationId>;

/// An open turn: the key of its conversation and its id.
pub(super) type OpenTurnName = (u64, String);

/// The different rows that were found under one key: those in pages of the table first.
#[derive(Default)]
struct FoundRows {
    all: Vec<Vec<u8>>,
    /// How many of them are in pages of the table.
    in_place: usize,
}

impl FoundRows {
    fn iter(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.all.iter()
    }

    /// Returns the only row. One in a page of the table stands above those in other pages.
    fn only(&self) -> Option<&Vec<u8>> {
        match (self.in_place, &*self.all) {
            (1, [row, ..]) | (0, [row]) => Some(row),
            _ => None,
        }
    }
}

/// Calls `take` with each key of a table for which rows were found, and with these rows.
fn each_found<T: Rows>(
    txn: &WriteTransaction,
    mut take: impl FnMut(KeyOf<'_, T>, &FoundRows) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let found = txn.open_table(FOUND)?;
    let mut group: Option<(Vec<u8>, FoundRows)> = None;
    for row in found.range((T::NAME, [].as_slice(), IN_PLACE, 0)..)? {
        let (place, value) = row?;
        let (table, key, rank, _) = place.value();
        if table != T::NAME {
            break;
        }
        if group.as_ref().is_none_or(|(of, _)| of != key) {
            let before = group.replace((key.to_vec(), FoundRows::default()));
            if let Some((key, rows)) = before {
                take(T::Key::from_bytes(&key), &rows)?;
            }
        }
        if let Some((_, rows)) = &mut group
            && !rows.all.iter().any(|row| row == value.value())
        {
            rows.all.push(value.value().to_vec());
            rows.in_place += usize::from(rank == IN_PLACE);
        }
    }
    group.map_or(Ok(()), |(key, rows)| take(T::Key::from_bytes(&key), &rows))
}

/// Returns the value of a found row. Its checksum was verified when it was found.
fn value_of<'a, T: Rows>(key: &KeyOf<'_, T>, row: &'a [u8]) -> Option<&'a [u8]> {
    Stored::<T>::as_it_is(row).verify(key).ok()
}

/// The keys of the erased conversations.
pub(super) type ErasedKeys = BTreeSet<u64>;

/// Completes the notes of erased conversations, and returns the keys of these. Removes what is left of their ids.
///
/// An erasure is durable in the journal before a flush notes it, so even a note of a transaction that was never committed
/// is right. A note of an earlier time may be of an erasure that has ended; then there is nothing left to remove.
pub(super) fn erased_keys(txn: &WriteTransaction, reached: &Reached) -> Result<ErasedKeys, Failure> {
    complete::<Erased>(txn, ERASED)?;
    complete::<Erasures>(txn, ERASURES)?;
    if reached.lacks(Erased::NAME) {
        note_erased_again(txn, reached)?;
    }
    let (notes, mut erasures) = (txn.open_table(ERASED)?, txn.open_table(ERASURES)?);
    let mut erased = ErasedKeys::new();
    for row in notes.iter()? {
        let (key, note) = row?;
        if note.value().verify(&key.value()).is_ok() {
            erased.insert(key.value());
        }
    }
    for row in erasures.iter()? {
        let (life, erasure) = row?;
        let erasure = erasure.value().verify(&life.value());
        if let Ok(erasure) = erasure.and_then(|bytes| Erasure::decode(Life(life.value()), bytes)) {
            erased.insert(erasure.key);
        }
    }
    txn.open_table(KEYS)?
        .retain(|id, key| !key.verify(&id).and_then(decode_key).is_ok_and(|key| erased.contains(&key)))?;
    for row in txn.open_table(CONVERSATIONS)?.extract_if(|key, _| erased.contains(&key))? {
        let (key, record) = row?;
        let key = key.value();
        if let Ok(record) = record.value().verify(&key).and_then(ConversationRecord::decode) {
            // Rows of the journal from before the erasure are passed over because of this row.
            let (life, erasure) = (record.life.0, Erasure { life: record.life, key, row: 0 });
            erasures.insert(life, row::seal(&life, &mut erasure.encode()))?;
        }
    }
    Ok(erased)
}

/// Notes that conversations were erased, if such notes are lost: those of which a position or a row of the index tells, and
/// that the list of all conversations does not have. A conversation that has a turn is not among them: its name may be lost.
fn note_erased_again(txn: &WriteTransaction, reached: &Reached) -> Result<(), Failure> {
    let (Some(named), Some(recorded)) = (keys_of_ids(txn)?, keys_of_records(txn)?) else { return Ok(()) };
    if reached.lacks(Keys::NAME) && reached.lacks(Conversations::NAME) {
        return Ok(());
    }
    let (turns, lost) = (txn.open_table(TURNS)?, txn.open_table(LOST_TURNS)?);
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    let mut tells = |key, ordinal: u64| {
        let end = ends.entry(key).or_default();
        *end = ordinal.max(*end);
    };
    for row in txn.open_table(INDEX)?.iter()? {
        let (place, ordinal) = row?;
        if let Ok(ordinal) = ordinal.value().verify(place.value()) {
            tells(place.value().0, ordinal);
        }
    }
    for row in txn.open_table(POSITIONS)?.iter()? {
        let (position, value) = row?;
        let at = value.value().verify(&position.value()).and_then(AtPosition::decode);
        if let Ok(AtPosition::Sealed { key, ordinal }) = at {
            tells(key, ordinal.get());
        }
    }
    let mut notes = txn.open_table(ERASED)?;
    for (key, ordinal) in ends.into_iter().filter(|(key, _)| !named.contains(key) && !recorded.contains(key)) {
        let all = (key, 0)..=(key, u64::MAX);
        if turns.range(all.clone())?.next().is_none() && lost.range(all)?.next().is_none() && notes.get(key)?.is_none()
        {
            notes.insert(key, row::seal(&key, &mut ordinal.to_le_bytes().to_vec()))?;
        }
    }
    Ok(())
}

/// Returns the keys that ids lead to. `None` if one of them is damaged.
fn keys_of_ids(txn: &WriteTransaction) -> Result<Option<BTreeSet<u64>>, Failure> {
    let mut keys = BTreeSet::new();
    for row in txn.open_table(KEYS)?.iter()? {
        let (id, key) = row?;
        let Ok(key) = key.value().verify(&id.value()).and_then(decode_key) else { return Ok(None) };
        keys.insert(key);
    }
    Ok(Some(keys))
}

/// Returns the keys of the records of conversations. `None` if one of them is damaged.
fn keys_of_records(txn: &WriteTransaction) -> Result<Option<BTreeSet<u64>>, Failure> {
    let mut keys = BTreeSet::new();
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        if record.value().verify(&key.value()).is_err() {
            return Ok(None);
        }
        keys.insert(key.value());
    }
    Ok(Some(keys))
}

/// Completes the labels of sums, and the sums of erased turns. Such sums do not say which of several rows is the latest, so
/// they are taken only from pages of their table, and only if there is no other row.
pub(super) fn sums(txn: &WriteTransaction) -> Result<(), Failure> {
    complete::<Labels>(txn, LABELS)?;
    complete_by::<ErasedRollups>(txn, ERASED_ROLLUPS, FoundRows::only)?;
    complete_by::<ErasedCosts>(txn, ERASED_COSTS, FoundRows::only)?;
    complete_by::<ImportedSums>(txn, IMPORTED_SUMS, FoundRows::only)
}

/// Completes a table whose rows never change, so any found row is right.
fn complete<T: Rows>(txn: &WriteTransaction, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
    complete_by::<T>(txn, table, |rows| rows.iter().next())
}

fn complete_by<T: Rows>(
    txn: &WriteTransaction,
    table: TableDefinition<'static, T::Key, Row<T>>,
    choose: impl Fn(&FoundRows) -> Option<&Vec<u8>>,
) -> Result<(), Failure> {
    let mut table = txn.open_table(table)?;
    each_found::<T>(txn, |key, rows| {
        let is_there = table.get(&key)?.is_some();
        if let Some(row) = choose(rows).filter(|_| !is_there) {
            table.insert(&key, Stored::as_it_is(row))?;
        }
        Ok(())
    })
}

/// Says which key each conversation has, and writes the missing rows of the keys.
///
/// The rows that were reached decide first. A found row may be of a transaction that was never committed, in which a
/// conversation had a key that another one got later. So a key is given to the one conversation that has no other. The
/// keys of erased conversations are given to none.
pub(super) fn keys(txn: &WriteTransaction, erased: &ErasedKeys) -> Result<Ids, Failure> {
    let mut ids = Ids::new();
    let mut named = BTreeSet::new();
    let mut name = |key: u64, id: &str| {
        if let Ok(id) = ConversationId::new(id)
            && !ids.contains_key(&key)
            && !erased.contains(&key)
            && named.insert(id.clone())
        {
            ids.insert(key, id);
        }
    };
    for row in txn.open_table(KEYS)?.iter()? {
        let (id, key) = row?;
        if let Ok(key) = key.value().verify(&id.value()).and_then(decode_key) {
            name(key, id.value());
        }
    }
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        if let Ok(record) = record.value().verify(&key.value()).and_then(ConversationRecord::decode) {
            name(key.value(), record.id.as_str());
        }
    }
    for row in txn.open_table(ACTIVITY)?.iter()? {
        let (place, key) = row?;
        let place = place.value();
        if let Ok(key) = key.value().verify(&place).and_then(decode_key) {
            name(key, place.1);
        }
    }
    let mut claims = Claims::default();
    let mut claim = |key: u64, id: &str, version: u64| {
        if let Ok(id) = ConversationId::new(id)
            && !ids.contains_key(&key)
            && !erased.contains(&key)
            && !named.contains(&id)
        {
            claims.add(key, id, version);
        }
    };
    each_found::<Keys>(txn, |id, rows| {
        let keys = rows.iter().filter_map(|row| decode_key(value_of::<Keys>(&id, row)?).ok());
        keys.for_each(|key| claim(key, id, 0));
        Ok(())
    })?;
    each_found::<Conversations>(txn, |key, rows| {
        for row in rows.iter() {
            if let Some(Ok(record)) = value_of::<Conversations>(&key, row).map(ConversationRecord::decode) {
                claim(key, record.id.as_str(), record.version.0);
            }
        }
        Ok(())
    })?;
    each_found::<Activity>(txn, |place, rows| {
        let keys = rows.iter().filter_map(|row| decode_key(value_of::<Activity>(&place, row)?).ok());
        keys.for_each(|key| claim(key, place.1, 0));
        Ok(())
    })?;
    ids.extend(claims.settle());
    let mut keys = txn.open_table(KEYS)?;
    for (key, id) in &ids {
        let id = id.as_str();
        let is_there = keys.get(id)?.is_some_and(|row| row.value().verify(&id).and_then(decode_key) == Ok(*key));
        if !is_there {
            keys.insert(id, row::seal(&id, &mut key.to_le_bytes().to_vec()))?;
        }
    }
    Ok(ids)
}

/// Which conversation had which key, by rows of unknown times.
#[derive(Default)]
struct Claims {
    /// The keys of each conversation, each with the highest version of a record under it.
    by_id: BTreeMap<ConversationId, BTreeMap<u64, u64>>,
    by_key: BTreeMap<u64, BTreeSet<ConversationId>>,
}

impl Claims {
    fn add(&mut self, key: u64, id: ConversationId, version: u64) {
        self.by_key.entry(key).or_default().insert(id.clone());
        let highest = self.by_id.entry(id).or_default().entry(key).or_default();
        *highest = version.max(*highest);
    }

    /// Gives each conversation a key: first to those that claim only one.
    fn settle(mut self) -> Ids {
        let mut ids = Ids::new();
        let mut single: VecDeque<_> =
            self.by_id.iter().filter(|(_, keys)| keys.len() == 1).map(|(id, _)| id.clone()).collect();
        loop {
            let next = single.pop_front().or_else(|| self.by_id.keys().next().cloned());
            let Some(id) = next else { return ids };
            let Some(keys) = self.by_id.remove(&id) else { continue };
            let best = keys.into_iter().max_by_key(|(key, version)| (*version, *key));
            let Some((key, _)) = best.filter(|(key, _)| !ids.contains_key(key)) else { continue };
            for other in self.by_key.remove(&key).into_iter().flatten().filter(|other| *other != id) {
                if let Some(keys) = self.by_id.get_mut(&other) {
                    keys.remove(&key);
                    if keys.len() == 1 {
                        single.push_back(other);
                    }
                }
            }
            ids.insert(key, id);
        }
    }
}

/// Completes the records of conversations: of the found ones, the highest version wins.
pub(super) fn conversations(txn: &WriteTransaction, ids: &Ids) -> Result<(), Failure> {
    let mut records = txn.open_table(CONVERSATIONS)?;
    each_found::<Conversations>(txn, |key, rows| {
        if records.get(key)?.is_some() {
            return Ok(());
        }
        let record = |row: &Vec<u8>| ConversationRecord::decode(value_of::<Conversations>(&key, row)?).ok();
        let of_id = rows.iter().filter_map(|row| Some((record(row)?, row)));
        let of_id = of_id.filter(|(record, _)| ids.get(&key) == Some(&record.id));
        if let Some((_, row)) = of_id.max_by_key(|(record, _)| record.version.0) {
            records.insert(key, Stored::as_it_is(row))?;
        }
        Ok(())
    })
}

/// Completes the positions, and returns the turns that were erased: those that had a position which is erased now.
/// Positions are numbered anew in any case, so they need not be complete.
pub(super) fn positions(txn: &WriteTransaction) -> Result<BTreeSet<(u64, u64)>, Failure> {
    let mut positions = txn.open_table(POSITIONS)?;
    let mut erased = BTreeSet::new();
    each_found::<Positions>(txn, |position, rows| {
        let at = |row: &[u8]| AtPosition::decode(value_of::<Positions>(&position, row)?).ok();
        let reached = positions.get(position)?.map(|row| row.value().unverified().to_vec());
        let all: Vec<_> = reached.iter().chain(rows.iter()).filter_map(|row| Some((at(row)?, row.clone()))).collect();
        let last = all.iter().find(|(at, _)| *at == AtPosition::Erased).or(all.first());
        let Some((at, row)) = last else { return Ok(()) };
        if *at == AtPosition::Erased {
            erased.extend(all.iter().filter_map(|(at, _)| match at {
                AtPosition::Sealed { key, ordinal } => Some((*key, ordinal.get())),
                AtPosition::Erased => None,
            }));
        }
        if reached.is_none() {
            positions.insert(position, Stored::as_it_is(row))?;
        }
        Ok(())
    })?;
    Ok(erased)
}

/// The last ordinal that was dropped of each conversation with dropped turns.
pub(super) type DroppedTo = BTreeMap<u64, u64>;

/// Completes the notes of dropped turns, and returns how far each conversation was dropped. Of several notes that were
/// found, the one that goes furthest is the latest. A note that goes as far as a turn that is still there was never
/// committed.
pub(super) fn dropped_turns(txn: &WriteTransaction) -> Result<DroppedTo, Failure> {
    let (mut notes, turns) = (txn.open_table(DROPPED)?, txn.open_table(TURNS)?);
    each_found::<DroppedTurns>(txn, |key, rows| {
        if notes.get(key)?.is_some() {
            return Ok(());
        }
        let first = turns.range((key, 0)..=(key, u64::MAX))?.next().transpose()?.map(|(place, _)| place.value().1);
        let last_of = |row: &[u8]| Some(Dropped::decode(value_of::<DroppedTurns>(&key, row)?).ok()?.last());
        let of_row = |row| Some((last_of(row)?, row));
        let before_first = rows.iter().map(Vec::as_slice).filter_map(of_row);
        let before_first = before_first.filter(|(last, _)| first.is_none_or(|first| *last < first));
        if let Some((_, row)) = before_first.max_by_key(|(last, _)| *last) {
            notes.insert(key, Stored::as_it_is(row))?;
        }
        Ok(())
    })?;
    let mut dropped = DroppedTo::new();
    for row in notes.iter()? {
        let key = row?.0.value();
        if let Ok(Some(note)) = read_dropped(&notes, key) {
            dropped.insert(key, note.last());
        }
    }
    Ok(dropped)
}

/// Completes the sealed turns. A sealed turn never changes, so any row of it is right, unless there are several: then
/// one of them was never committed, and the turn counts as lost. Erased turns stay erased, and dropped ones dropped.
pub(super) fn turns(
    txn: &WriteTransaction,
    ids: &Ids,
    erased: &BTreeSet<(u64, u64)>,
    dropped: &DroppedTo,
) -> Result<(), Failure> {
    let (mut turns, lost) = (txn.open_table(TURNS)?, txn.open_table(LOST_TURNS)?);
    each_found::<Turns>(txn, |place, rows| {
        let Some(row) = rows.only() else { return Ok(()) };
        let is_gone = erased.contains(&place) || is_dropped(dropped, place);
        let is_wanted = ids.contains_key(&place.0) && !is_gone && lost.get(place)?.is_none();
        if is_wanted && turns.get(place)?.is_none() {
            turns.insert(place, Stored::as_it_is(row))?;
        }
        Ok(())
    })
}

/// Returns whether a turn was dropped.
pub(super) fn is_dropped(dropped: &DroppedTo, (key, ordinal): (u64, u64)) -> bool {
    dropped.get(&key).is_some_and(|last| ordinal <= *last)
}

/// Drops the conversations of which nothing but erased turns is known.
pub(super) fn drop_erased(txn: &WriteTransaction, ids: &mut Ids, erased: &BTreeSet<(u64, u64)>) -> Result<(), Failure> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for (key, ordinal) in erased {
        last.insert(*key, *ordinal);
    }
    let (turns, mut records) = (txn.open_table(TURNS)?, txn.open_table(CONVERSATIONS)?);
    let (mut keys, mut index) = (txn.open_table(KEYS)?, txn.open_table(INDEX)?);
    for (key, ordinal) in last {
        let has_turns = turns.range((key, 0)..=(key, u64::MAX))?.next().is_some();
        let sealed = records
            .get(key)?
            .and_then(|row| Some(ConversationRecord::decode(row.value().verify(&key).ok()?).ok()?.sealed_turns));
        if !has_turns && sealed.is_none_or(|sealed| sealed <= ordinal) {
            records.remove(key)?;
            index.retain_in((key, 0)..=(key, u64::MAX), |_, _| false)?;
            if let Some(id) = ids.remove(&key) {
                keys.remove(id.as_str())?;
            }
        }
    }
    Ok(())
}

/// Notes the turns that are lost: ordinals that were given, and of which there is no turn. Moves aside the turns of
/// conversations whose ids are lost. So no ordinal is given again. Turns of erased conversations stay until the erasures
/// go on.
pub(super) fn note_lost(
    txn: &WriteTransaction,
    ids: &Ids,
    erased_keys: &ErasedKeys,
    erased: &BTreeSet<(u64, u64)>,
) -> Result<(), Failure> {
    let (mut turns, mut lost) = (txn.open_table(TURNS)?, txn.open_table(LOST_TURNS)?);
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    let mut given = |key: u64, ordinal: u64| {
        let end = ends.entry(key).or_default();
        *end = ordinal.max(*end);
    };
    for row in turns.iter()? {
        let (place, value) = row?;
        // The damaged part of another row may be its ordinal.
        if value.value().verify(&place.value()).is_ok() {
            given(place.value().0, place.value().1);
        }
    }
    for row in turns.extract_if(|(key, _), _| !ids.contains_key(&key) && !erased_keys.contains(&key))? {
        let (place, value) = row?;
        lost.insert(place.value(), value.value().unverified())?;
    }
    for row in txn.open_table(INDEX)?.iter()? {
        let (place, ordinal) = row?;
        if let Ok(ordinal) = ordinal.value().verify(place.value()) {
            given(place.value().0, ordinal);
        }
    }
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        if let Ok(record) = record.value().verify(&key.value()).and_then(ConversationRecord::decode) {
            given(key.value(), record.sealed_turns);
        }
    }
    for row in txn.open_table(POSITIONS)?.iter()? {
        let (position, value) = row?;
        if let Ok(AtPosition::Sealed { key, ordinal }) =
            value.value().verify(&position.value()).and_then(AtPosition::decode)
        {
            given(key, ordinal.get());
        }
    }
    // Found rows of the index have short checksums. An ordinal in them is believed if that many rows can lead up to it.
    let mut found: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    each_found_index(txn, |(key, _), ordinal| {
        let (highest, count) = found.entry(key).or_default();
        (*highest, *count) = (ordinal.max(*highest), *count + 1);
        Ok(())
    })?;
    for (key, (highest, count)) in found {
        let end = ends.entry(key).or_default();
        if ids.contains_key(&key) && highest <= end.saturating_add(count) {
            *end = highest.max(*end);
        }
    }
    let notes = txn.open_table(DROPPED)?;
    for (key, end) in ends.into_iter().filter(|(key, _)| !erased_keys.contains(key)) {
        let mut missing = Vec::new();
        // A note that cannot be read is lost, and the dropped turns count as lost turns.
        let dropped = read_dropped(&notes, key).ok().flatten();
        let mut expected = dropped.map_or(1, |dropped| dropped.last().saturating_add(1));
        for row in turns.range((key, 0)..=(key, end))? {
            let (_, ordinal) = row?.0.value();
            missing.extend((expected..ordinal).take(MOST_MISSING - missing.len()));
            expected = ordinal + 1;
        }
        missing.extend((expected..=end).take(MOST_MISSING - missing.len()));
        for ordinal in missing {
            if !erased.contains(&(key, ordinal)) && lost.get((key, ordinal))?.is_none() {
                lost.insert((key, ordinal), [].as_slice())?;
            }
        }
    }
    Ok(())
}

/// Calls `take` with the key and the ordinal of each found row of the index.
fn each_found_index(
    txn: &WriteTransaction,
    mut take: impl FnMut((u64, u64), u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for row in txn.open_table(FOUND)?.range((INDEX.name(), [].as_slice(), IN_PLACE, 0)..)? {
        let (place, _) = row?;
        let (table, key, _, ordinal) = place.value();
        if table != INDEX.name() {
            break;
        }
        take(<(u64, u64)>::from_bytes(key), ordinal)?;
    }
    Ok(())
}

/// The maximum number of lost turns of a conversation that are noted.
pub(super) const MOST_MISSING: usize = 1_000_000;

/// Completes the index with the found rows of lost turns, so that these are not sealed again. The other rows of the
/// index are computed from the turns. Drops the rows of unknown conversations.
pub(super) fn index(txn: &WriteTransaction, ids: &Ids, erased: &ErasedKeys) -> Result<(), Failure> {
    let (mut index, lost) = (txn.open_table(INDEX)?, txn.open_table(LOST_TURNS)?);
    each_found_index(txn, |place, ordinal| {
        if ids.contains_key(&place.0) && lost.get((place.0, ordinal))?.is_some() && index.get(place)?.is_none() {
            index.insert(place, StoredOrdinal::seal(place, ordinal))?;
        }
        Ok(())
    })?;
    index.retain(|(key, _), _| ids.contains_key(&key) || erased.contains(&key))?;
    Ok(())
}

/// Completes the open turns, and returns the names of those that may be of an earlier time. The latest head wins. If
/// there are several rows of a step, it is unknown which is the latest, and the step counts as missing.
pub(super) fn open_turns(txn: &WriteTransaction, ids: &Ids) -> Result<BTreeSet<OpenTurnName>, Failure> {
    let mut old = BTreeSet::new();
    let mut heads = txn.open_table(OPEN_TURNS)?;
    each_found::<OpenTurns>(txn, |place, rows| {
        if heads.get(place)?.is_some() || !ids.contains_key(&place.0) {
            return Ok(());
        }
        let head = |row: &Vec<u8>| StagedHead::decode(value_of::<OpenTurns>(&place, row)?).ok();
        let found = rows.iter().filter_map(|row| Some((head(row)?, row)));
        if let Some((_, row)) = found.max_by_key(|(head, _)| (head.last_event_at, head.step_count)) {
            heads.insert(place, Stored::as_it_is(row))?;
            old.insert((place.0, place.1.to_owned()));
        }
        Ok(())
    })?;
    let mut steps = txn.open_table(OPEN_STEPS)?;
    each_found::<OpenTurnSteps>(txn, |place, rows| {
        let Some(row) = rows.only() else { return Ok(()) };
        // A step without a head is of a turn that was sealed.
        if steps.get(place)?.is_none() && heads.get((place.0, place.1))?.is_some() {
            steps.insert(place, Stored::as_it_is(row))?;
            old.insert((place.0, place.1.to_owned()));
        }
        Ok(())
    })?;
    Ok(old)
}

/// Moves aside the open turns of earlier times that may be sealed: those of conversations with a lost turn whose id is
/// unknown. Such an open turn could be sealed again. Returns the names of the other ones that are still open.
pub(super) fn set_uncertain_aside(
    txn: &WriteTransaction,
    old: BTreeSet<OpenTurnName>,
    repair: u64,
) -> Result<Vec<OpenTurnName>, Failure> {
    let uncertain = conversations_with_unknown_turns(txn)?;
    let (mut heads, mut lost) = (txn.open_table(OPEN_TURNS)?, txn.open_table(LOST_OPEN_TURNS)?);
    let (mut steps, mut lost_steps) = (txn.open_table(OPEN_STEPS)?, txn.open_table(LOST_OPEN_STEPS)?);
    let mut kept = Vec::new();
    for (key, turn_id) in old {
        let id = turn_id.as_str();
        if !uncertain.contains(&key) {
            if heads.get((key, id))?.is_some() {
                kept.push((key, turn_id));
            }
            continue;
        }
        let head = heads.remove((key, id))?.map(|row| row.value().unverified().to_vec());
        if let Some(head) = head {
            lost.insert((repair, key, id), &*head)?;
        }
        for row in steps.extract_from_if((key, id, 0)..=(key, id, u32::MAX), |_, _| true)? {
            let (place, value) = row?;
            lost_steps.insert((repair, key, id, place.value().2), value.value().unverified())?;
        }
    }
    Ok(kept)
}

/// Returns the conversations with lost turns whose ids are unknown.
fn conversations_with_unknown_turns(txn: &WriteTransaction) -> Result<BTreeSet<u64>, Failure> {
    let (index, mut uncertain) = (txn.open_table(INDEX)?, BTreeSet::new());
    let mut known: (u64, BTreeSet<u64>) = (0, BTreeSet::new());
    for row in txn.open_table(LOST_TURNS)?.iter()? {
        let (place, _) = row?;
        let (key, ordinal) = place.value();
        if known.0 != key {
            let rows = index.range((key, 0)..=(key, u64::MAX))?;
            known = (key, BTreeSet::new());
            for row in rows {
                let (place, ordinal) = row?;
                known.1.extend(ordinal.value().verify(place.value()).ok());
            }
        }
        if !known.1.contains(&ordinal) {
            uncertain.insert(key);
        }
    }
    Ok(uncertain)
}

/// Moves aside the records and open turns of conversations whose ids are lost, or have another key.
pub(super) fn set_unnamed_aside(
    txn: &WriteTransaction,
    ids: &Ids,
    erased: &ErasedKeys,
    repair: u64,
) -> Result<(), Failure> {
    let is_unnamed = |key: u64| !ids.contains_key(&key) && !erased.contains(&key);
    let (mut records, mut lost) = (txn.open_table(CONVERSATIONS)?, txn.open_table(LOST_UNKNOWN)?);
    for row in records.extract_if(|key, _| is_unnamed(key))? {
        let (key, record) = row?;
        let place = (repair, Conversations::NAME, key.value().to_le_bytes());
        lost.insert((place.0, place.1, place.2.as_slice()), record.value().unverified())?;
    }
    let (mut heads, mut lost) = (txn.open_table(OPEN_TURNS)?, txn.open_table(LOST_OPEN_TURNS)?);
    for row in heads.extract_if(|(key, _), _| is_unnamed(key))? {
        let (place, value) = row?;
        let (key, turn_id) = place.value();
        lost.insert((repair, key, turn_id), value.value().unverified())?;
    }
    let (mut steps, mut lost) = (txn.open_table(OPEN_STEPS)?, txn.open_table(LOST_OPEN_STEPS)?);
    for row in steps.extract_if(|(key, ..), _| is_unnamed(key))? {
        let (place, value) = row?;
        let (key, turn_id, step) = place.value();
        lost.insert((repair, key, turn_id, step), value.value().unverified())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_two_conversations_claim_is_given_to_the_one_that_has_no_other() {
        let id = |name: &str| ConversationId::new(name).unwrap();
        let settled = |claims: &[(u64, &str, u64)]| {
            let mut all = Claims::default();
            for (key, name, version) in claims {
                all.add(*key, id(name), *version);
            }
            all.settle().into_iter().map(|(key, id)| (key, id.to_string())).collect::<Vec<_>>()
        };
        let given = |keys: &[(u64, &str)]| keys.iter().map(|(key, id)| (*key, (*id).to_owned())).collect::<Vec<_>>();
        assert_eq!(settled(&[(7, "x", 3), (8, "x", 3), (7, "y", 1)]), given(&[(7, "y"), (8, "x")]));
        assert_eq!(
            settled(&[(1, "a", 0), (1, "b", 0), (2, "b", 0), (2, "c", 0), (3, "c", 0)]),
            given(&[(1, "a"), (2, "b"), (3, "c")])
        );
        assert_eq!(settled(&[(7, "x", 3), (8, "x", 4)]), given(&[(8, "x")]), "the later record decides");
        assert_eq!(settled(&[(7, "x", 3), (7, "y", 4)]).len(), 1, "no key is given twice");
    }
}

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use redb::{Key, ReadableTable, Table, TableDefinition, TableHandle, Value, WriteTransaction};

use super::inspect::{count, unsound_step};
use crate::report::{BreakdownRow, ConversationSums, NoPrices, PriceBook};
use crate::store::contract::{Life, Version};
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::{CostState, PricedBy, RolledUp, WriteMeta};
use crate::store::redb::tables::read::{decode_key, read_dropped};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::record::{self};
use crate::store::redb::tables::rollups::{LostSums, WriteRollups, decode};
use crate::store::redb::tables::row::{self, Row, Rows, Stored};
use crate::store::redb::tables::schema::{
    ACTIVITY, CONVERSATION_SUMS, CONVERSATIONS, COSTS, Conversations, DROPPED, DroppedTurns, ERASED, ERASURES,
    FINDINGS, IMPORTED_SUMS, INDEX, ImportedSums, KEYS, Keys, LOST_OPEN_STEPS, LOST_OPEN_TURNS, LOST_TURNS,
    LOST_UNKNOWN, LostStepKey, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns, POSITIONS, ROLLUPS, Role, StepKey,
    TURNS, TableVisitor, Turns, count_live_bytes, visit_tables,
};
use crate::turn::{ConversationId, Ordinal};

/// The maximum number of missing turns that a repair notes. Without it, a damaged and therefore huge ordinal could make
/// the repair write for ever.
const MAX_GAPS: usize = 1_000_000;

/// The number of turns that are summed up in memory before their sums are written.
const TURNS_AT_ONCE: usize = 50_000;

/// Makes all tables agree with the sealed turns in the file.
///
/// The sealed turns are the truth. A turn that cannot be read, or that is there a second time, is moved aside, and its
/// ordinal is not given again. A missing turn is noted, and its ordinal is not given again either. Rows under a key
/// that no conversation has stay as they are; only a salvage can find their conversation or move them aside.
pub(super) fn derive(txn: &WriteTransaction) -> Result<(), Failure> {
    let meta = WriteMeta::write(txn)?;
    let (number, hasher) = (meta.next_repair()?, TurnHasher::of(meta.store_id()?));
    drop(meta);
    set_aside(txn, number)?;
    notes_of_dropped(txn, number)?;
    let ids = keys(txn, number)?;
    let given = given(txn)?;
    for (key, id) in &ids {
        Repair::of(txn, number, *key, hasher)?.run(id, given.get(key).copied().unwrap_or_default())?;
    }
    let last_erased = erased(txn, &ids)?;
    let erasing = txn.open_table(ERASED)?;
    let known = |key| -> Result<bool, Failure> { Ok(ids.contains_key(&key) || erasing.get(key)?.is_some()) };
    txn.open_table(DROPPED)?.retain(|key, _| known(key).unwrap_or(true))?;
    drop(erasing);
    positions(txn)?;
    activity(txn)?;
    sums(txn)?;
    for LostSums { table, key, value } in WriteRollups::open(txn)?.mend_erased()? {
        txn.open_table(LOST_UNKNOWN)?.insert((number, table, &*key), &*value)?;
    }
    imported(txn)?;
    txn.delete_table(FINDINGS)?;
    let last = ids.keys().next_back().copied().unwrap_or_default().max(last_erased);
    let mut meta = WriteMeta::write(txn)?;
    if meta.next_key().map_or(true, |next| next <= last) {
        meta.set_next_key(last.saturating_add(1))?;
    }
    let position = txn.open_table(POSITIONS)?.last()?.map_or(0, |(position, _)| position.value());
    let row = meta.checkpoint()?.number;
    meta.set_rolled_up(RolledUp { row, position })?;
    // The next opening computes the costs anew, as its price book is another than `NoPrices`.
    meta.set_costs(CostState { generation: 1, latest: 1, prices: PricedBy::Book(NoPrices.digest()) })?;
    meta.set_repricing(None)?;
    // Turns may be lost or have other positions now. A new lineage (id of the store's history) makes the store refuse
    // the positions and revisions that it returned before.
    meta.draw_lineage()?;
    meta.end_repair()?;
    meta.set_live_bytes(count_live_bytes(txn)?)
}

/// Moves aside the rows whose checksums do not fit: the damaged part of such a row may be its key. If the index has the
/// ordinal of a turn, the key of that turn's row is right. Such a row stays here, and is later moved to the same place
/// among the lost turns.
fn set_aside(txn: &WriteTransaction, number: u64) -> Result<(), Failure> {
    let mut indexed = BTreeSet::new();
    for row in txn.open_table(INDEX)?.iter()? {
        let (place, ordinal) = row?;
        if let Ok(ordinal) = ordinal.value().verify(place.value()) {
            indexed.insert((place.value().0, ordinal));
        }
    }
    visit_tables(&mut SetAside { txn, number, indexed })
}

struct SetAside<'txn> {
    txn: &'txn WriteTransaction,
    /// The number of the repair.
    number: u64,
    indexed: BTreeSet<(u64, u64)>,
}

impl TableVisitor for SetAside<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        _: TableDefinition<'static, K, V>,
        _: Role,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn visit_rows<T: Rows>(&mut self, table: TableDefinition<'static, T::Key, Row<T>>) -> Result<(), Failure> {
        let mut rows = self.txn.open_table(table)?;
        let mut damaged = Vec::new();
        for row in rows.iter()? {
            let (key, value) = row?;
            if value.value().verify(&key.value()).is_err() {
                let place = T::Key::as_bytes(&key.value()).as_ref().to_vec();
                damaged.push((place, value.value().unverified().to_vec()));
            }
        }
        if T::NAME == TURNS.name() {
            damaged.retain(|(place, _)| !self.indexed.contains(&<(u64, u64)>::from_bytes(place)));
        }
        for (place, bytes) in damaged {
            rows.remove(T::Key::from_bytes(&place))?;
            self.txn.open_table(LOST_UNKNOWN)?.insert((self.number, T::NAME, &*place), &*bytes)?;
        }
        Ok(())
    }
}

/// Moves aside the notes of dropped turns that cannot be decoded although their checksums fit. Without its note, a
/// dropped turn counts as lost.
fn notes_of_dropped(txn: &WriteTransaction, number: u64) -> Result<(), Failure> {
    let (mut notes, mut aside) = (txn.open_table(DROPPED)?, txn.open_table(LOST_UNKNOWN)?);
    let is_no_note = |key: u64, note: &Stored<'_, DroppedTurns>| note.verify(&key).and_then(Dropped::decode).is_err();
    for row in notes.extract_if(|key, note| is_no_note(key, &note))? {
        let (key, note) = row?;
        aside.insert((number, DroppedTurns::NAME, key.value().to_le_bytes().as_slice()), note.value().unverified())?;
    }
    Ok(())
}

/// Returns the highest ordinal of each conversation that its record or a position names. The turn at this ordinal may be
/// missing without a trace in the index.
fn given(txn: &WriteTransaction) -> Result<BTreeMap<u64, u64>, Failure> {
    let mut given: BTreeMap<u64, u64> = BTreeMap::new();
    let mut add = |key, ordinal: u64| {
        let last = given.entry(key).or_default();
        *last = ordinal.max(*last);
    };
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        if let Ok(record) = record.value().verify(&key.value()).and_then(ConversationRecord::decode) {
            add(key.value(), record.sealed_turns);
        }
    }
    for row in txn.open_table(POSITIONS)?.iter()? {
        let (position, value) = row?;
        let at = value.value().verify(&position.value()).and_then(AtPosition::decode);
        if let Ok(AtPosition::Sealed { key, ordinal }) = at {
            add(key, ordinal.get());
        }
    }
    Ok(given)
}

/// Makes the table by activity anew from the conversations' records.
fn activity(txn: &WriteTransaction) -> Result<(), Failure> {
    txn.delete_table(ACTIVITY)?;
    let (mut activity, notes) = (txn.open_table(ACTIVITY)?, txn.open_table(DROPPED)?);
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        let dropped = read_dropped(&notes, key.value());
        if let Ok(record) = record.value().verify(&key.value()).and_then(ConversationRecord::decode)
            && let Some(place) = record.activity()
            && dropped.as_ref().ok().and_then(Option::as_ref).map(Dropped::last) != Some(record.sealed_turns)
        {
            activity.insert(place, row::seal(&place, &mut key.value().to_le_bytes().to_vec()))?;
        }
    }
    Ok(())
}

/// Makes the notes of erased conversations agree with each other and with the conversations `ids`. Returns the highest
/// key of an erased conversation.
fn erased(txn: &WriteTransaction, ids: &BTreeMap<u64, ConversationId>) -> Result<u64, Failure> {
    let (mut erased, mut erasures) = (txn.open_table(ERASED)?, txn.open_table(ERASURES)?);
    // A conversation that is there is kept, whatever a note says of its key.
    let is_note = |key, value: Result<&[u8], DamagedRecord>| {
        value.is_ok_and(|bytes| bytes.len() == size_of::<u64>()) && !ids.contains_key(&key)
    };
    erased.retain(|key, value| is_note(key, value.verify(&key)))?;
    let mut erasing = BTreeSet::new();
    let mut going_on = Vec::new();
    for row in erasures.extract_if(|_, _| true)? {
        let (life, value) = row?;
        let life = life.value();
        let erasure = value.value().verify(&life).and_then(|bytes| Erasure::decode(Life(life), bytes));
        going_on.extend(erasure.ok().filter(|erasure| !ids.contains_key(&erasure.key) && erasing.insert(erasure.key)));
    }
    for erasure in going_on {
        // The tables have everything after a repair. The number of the row may be one that the next journal never reaches, and
        // then the erasure would wait for ever, and each export with it.
        let mut value = Erasure { row: 0, ..erasure }.encode();
        erasures.insert(erasure.life.0, row::seal(&erasure.life.0, &mut value))?;
    }
    let turns = txn.open_table(TURNS)?;
    for key in &erasing {
        if erased.get(key)?.is_none() {
            let last = turns.range((*key, 0)..=(*key, u64::MAX))?.next_back().transpose()?;
            let sealed_turns = last.map_or(0, |(place, _)| place.value().1);
            erased.insert(key, row::seal(key, &mut sealed_turns.to_le_bytes().to_vec()))?;
        }
    }
    let (index, open_turns) = (txn.open_table(INDEX)?, txn.open_table(OPEN_TURNS)?);
    let open_steps = txn.open_table(OPEN_STEPS)?;
    for row in erased.iter()? {
        let key = row?.0.value();
        let has_rows = turns.range((key, 0)..=(key, u64::MAX))?.next().is_some()
            || index.range((key, 0)..=(key, u64::MAX))?.next().is_some()
            || open_turns.range((key, "")..)?.next().transpose()?.is_some_and(|(place, _)| place.value().0 == key)
            || open_steps.range((key, "", 0)..)?.next().transpose()?.is_some_and(|(place, _)| place.value().0 == key);
        if has_rows && erasing.insert(key) {
            // The erasure was damaged. The life is only the name of the row, as the journal is empty after a repair.
            let erasure = Erasure { life: Life::draw(), key, row: 0 };
            erasures.insert(erasure.life.0, row::seal(&erasure.life.0, &mut erasure.encode()))?;
        }
    }
    Ok(erased.last()?.map_or(0, |(key, _)| key.value()))
}

/// Makes the sums of reports anew from the turns. No turn has a price. The sums of erased turns stay, and so do the
/// labels, which these sums may have.
fn sums(txn: &WriteTransaction) -> Result<(), Failure> {
    txn.delete_table(ROLLUPS)?;
    txn.delete_table(COSTS)?;
    txn.delete_table(CONVERSATION_SUMS)?;
    let mut rollups = WriteRollups::open(txn)?;
    let turns = txn.open_table(TURNS)?;
    let mut rows = turns.iter()?;
    loop {
        let (mut tally, mut conversations) = (Tally::default(), BTreeMap::<u64, ConversationSums>::new());
        let mut is_last = true;
        for row in rows.by_ref().take(TURNS_AT_ONCE) {
            is_last = false;
            let (place, value) = row?;
            let (key, ordinal) = place.value();
            let record = value.value().verify(&place.value());
            let Some(at) = Ordinal::new(ordinal) else { continue };
            let Ok(turn) = record.and_then(|record| record::decode_sealed(at, record)) else { continue };
            conversations.entry(key).or_default().add(&tally.count_parts(&turn, &NoPrices));
        }
        if is_last {
            return Ok(());
        }
        rollups.add_rollups(tally.parts().map(|(quarter, label, part)| (quarter, label, &part.rollup)))?;
        rollups.add_costs(1, tally.parts().map(|(quarter, label, part)| (quarter, label, &part.cost)))?;
        for (key, sums) in conversations {
            rollups.add_to_conversation(1, key, &sums)?;
        }
    }
}

/// Removes notes of imported sums that cannot be decoded. The sums themselves are among those of erased turns, and stay. If
/// they are imported again, they are added again.
fn imported(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut notes = txn.open_table(IMPORTED_SUMS)?;
    Ok(notes.retain(|id, note| decode::<ImportedSums, BreakdownRow>(&id, note).is_ok())?)
}

/// Numbers all turns anew, without a gap. The turns of a conversation are in the order of their ordinals, and otherwise
/// the old order is kept as far as possible. The store gets a new lineage, so no earlier position can be mistaken for a
/// new one.
fn positions(txn: &WriteTransaction) -> Result<(), Failure> {
    let turns = txn.open_table(TURNS)?;
    let positions = txn.open_table(POSITIONS)?;
    // Returns the ordinal of the next turn of a conversation after an ordinal.
    let next = |key, after: u64| -> Result<Option<u64>, Failure> {
        let Some(first) = after.checked_add(1) else { return Ok(None) };
        Ok(turns.range((key, first)..=(key, u64::MAX))?.next().transpose()?.map(|(place, _)| place.value().1))
    };
    let mut order = Vec::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for row in positions.iter()? {
        let (position, value) = row?;
        if let Ok(AtPosition::Sealed { key, .. }) = value.value().verify(&position.value()).and_then(AtPosition::decode)
        {
            let last = last.entry(key).or_default();
            if let Some(ordinal) = next(key, *last)? {
                *last = ordinal;
                order.push((key, ordinal));
            }
        }
    }
    for row in turns.iter()? {
        let (key, ordinal) = row?.0.value();
        if ordinal > last.get(&key).copied().unwrap_or_default() {
            order.push((key, ordinal));
        }
    }
    drop(positions);
    txn.delete_table(POSITIONS)?;
    let mut positions = txn.open_table(POSITIONS)?;
    for (position, (key, ordinal)) in (1..).zip(order) {
        let no_ordinal = || DamagedRecord::new(Turns::WHAT, RecordFlaw::Ordinal);
        let ordinal = Ordinal::new(ordinal).ok_or_else(no_ordinal)?;
        let mut record = AtPosition::Sealed { key, ordinal }.encode()?;
        positions.insert(position, row::seal(&position, &mut record))?;
    }
    Ok(())
}

/// Returns the id of each key. If a record's id has no row in the table of keys, the row is written anew. If several ids lead
/// to one key, the key is that of the id which the record names; the rows of the others are moved aside.
fn keys(txn: &WriteTransaction, number: u64) -> Result<BTreeMap<u64, ConversationId>, Failure> {
    let (mut keys, records) = (txn.open_table(KEYS)?, txn.open_table(CONVERSATIONS)?);
    let recorded = |key: u64| -> Result<_, Failure> {
        let record = records.get(key)?.map(|row| row.value().verify(&key).and_then(ConversationRecord::decode));
        Ok(record.and_then(Result::ok).map(|record| record.id))
    };
    let (mut ids, mut others) = (BTreeMap::new(), Vec::new());
    for row in keys.iter()? {
        let (id, key) = row?;
        let key = key.value().verify(&id.value()).and_then(decode_key);
        if let (Ok(id), Ok(key)) = (ConversationId::new(id.value()), key) {
            let is_recorded = recorded(key)?.as_ref() == Some(&id);
            match ids.entry(key) {
                Entry::Vacant(free) => drop(free.insert(id)),
                Entry::Occupied(mut taken) if is_recorded => others.push(taken.insert(id)),
                Entry::Occupied(_) => others.push(id),
            }
        }
    }
    for id in others {
        let row = keys.remove(id.as_str())?.map(|row| row.value().unverified().to_vec()).unwrap_or_default();
        txn.open_table(LOST_UNKNOWN)?.insert((number, Keys::NAME, id.as_str().as_bytes()), &*row)?;
    }
    drop(records);
    for row in txn.open_table(CONVERSATIONS)?.iter()? {
        let (key, record) = row?;
        let record = record.value().verify(&key.value()).and_then(ConversationRecord::decode);
        if let (false, Ok(record)) = (ids.contains_key(&key.value()), record)
            && keys.get(record.id.as_str())?.is_none()
        {
            let id = record.id.as_str();
            keys.insert(id, row::seal(&id, &mut key.value().to_le_bytes().to_vec()))?;
            ids.insert(key.value(), record.id);
        }
    }
    Ok(ids)
}

/// The repair of one conversation.
struct Repair<'txn> {
    /// The number of the repair.
    number: u64,
    key: u64,
    hasher: TurnHasher,
    conversations: Table<'txn, u64, Row<Conversations>>,
    dropped: Table<'txn, u64, Row<DroppedTurns>>,
    turns: Table<'txn, (u64, u64), Row<Turns>>,
    index: Table<'txn, (u64, u64), Indexed>,
    open_turns: Table<'txn, (u64, &'static str), Row<OpenTurns>>,
    open_steps: Table<'txn, StepKey, Row<OpenTurnSteps>>,
    lost: Table<'txn, (u64, u64), &'static [u8]>,
    lost_open: Table<'txn, (u64, u64, &'static str), &'static [u8]>,
    lost_steps: Table<'txn, LostStepKey, &'static [u8]>,
}

impl<'txn> Repair<'txn> {
    fn of(txn: &'txn WriteTransaction, number: u64, key: u64, hasher: TurnHasher) -> Result<Self, Failure> {
        Ok(Self {
            number,
            key,
            hasher,
            conversations: txn.open_table(CONVERSATIONS)?,
            dropped: txn.open_table(DROPPED)?,
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            open_steps: txn.open_table(OPEN_STEPS)?,
            lost: txn.open_table(LOST_TURNS)?,
            lost_open: txn.open_table(LOST_OPEN_TURNS)?,
            lost_steps: txn.open_table(LOST_OPEN_STEPS)?,
        })
    }

    /// `given` is an ordinal that a turn got.
    fn run(mut self, id: &ConversationId, given: u64) -> Result<(), Failure> {
        self.beginning()?;
        let sound = self.turns()?;
        self.index(id, &sound, given)?;
        self.open_turns()?;
        self.record(id)
    }

    /// Notes once more that a conversation never had its first turns here, if that note was lost.
    fn beginning(&mut self) -> Result<(), Failure> {
        if self.dropped()?.is_none()
            && let Some(known) = self.known()?.filter(|known| known.begins_after > 0)
        {
            let mut note = Dropped::none_of(&known).encode()?;
            self.dropped.insert(self.key, row::seal(&self.key, &mut note))?;
        }
        Ok(())
    }

    /// Moves aside rows that are not sound turns, that have the id of an earlier turn, or that were dropped and whose sums are
    /// therefore among those of erased turns. Returns the ids and ordinals of the others.
    fn turns(&mut self) -> Result<BTreeMap<String, u64>, Failure> {
        let dropped = self.dropped()?.map_or(0, |dropped| dropped.last());
        let mut sound = BTreeMap::new();
        let mut aside = Vec::new();
        for row in self.turns.range((self.key, 0)..=(self.key, u64::MAX))? {
            let (place, value) = row?;
            let (_, ordinal) = place.value();
            let record = value.value().verify(&place.value());
            let turn = record.ok().zip(Ordinal::new(ordinal)).map(|(record, at)| record::decode_sealed(at, record));
            match turn {
                Some(Ok(turn)) if ordinal > dropped && !sound.contains_key(turn.metrics.turn_id.as_str()) => {
                    sound.insert(turn.metrics.turn_id.as_str().to_owned(), ordinal);
                }
                _ => aside.push((ordinal, value.value().unverified().to_vec())),
            }
        }
        for (ordinal, bytes) in aside {
            self.turns.remove((self.key, ordinal))?;
            self.lost.insert((self.key, ordinal), &*bytes)?;
        }
        Ok(sound)
    }

    /// Makes the index agree with the turns. For each turn that is moved aside a row stays, so that the turn is not sealed
    /// again, unless another turn that is there has its id. Notes the turns up to `given` that are missing.
    fn index(&mut self, id: &ConversationId, sound: &BTreeMap<String, u64>, given: u64) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for row in self.index.range((self.key, 0)..=(self.key, u64::MAX))? {
            let (place, ordinal) = row?;
            rows.push((place.value().1, ordinal.value().verify(place.value()).ok()));
        }
        let there: BTreeSet<_> = sound.values().copied().collect();
        let hashes: HashSet<_> = sound.keys().map(|turn_id| self.hasher.hash(turn_id)).collect();
        let (mut gone, mut kept) = (Vec::new(), BTreeSet::new());
        for (hash, ordinal) in &rows {
            let Some(ordinal) = ordinal else {
                self.index.remove((self.key, *hash))?;
                continue;
            };
            let is_lost = self.lost.get((self.key, *ordinal))?.is_some();
            let is_there = || index::hashes_at(*hash).any(|of| hashes.contains(&of));
            if !is_lost || is_there() || !kept.insert(*ordinal) {
                self.index.remove((self.key, *hash))?;
            }
            if !is_lost && !there.contains(ordinal) {
                gone.push(*ordinal);
            }
        }
        for (turn_id, ordinal) in sound {
            index::insert(&mut self.index, self.key, self.hasher.hash(turn_id), *ordinal)?;
        }
        let dropped = self.dropped()?;
        let first = dropped.as_ref().map_or(1, |dropped| dropped.last().saturating_add(1));
        let base = dropped.map_or_else(|| ConversationRecord::begin(id.clone()), |dropped| dropped.record);
        let counted = count(&self.turns, Some(&self.lost), self.key, base)?.sealed_turns;
        // An ordinal in the index was given to a turn, unless the row of the index itself is damaged and the ordinal
        // too large to be true.
        let most = counted.saturating_add(rows.len() as u64);
        let indexed = gone.iter().copied().filter(|ordinal| *ordinal <= most).max();
        let last = counted.max(indexed.unwrap_or_default()).max(given);
        for ordinal in (first..=last).filter(|ordinal| !there.contains(ordinal)).take(MAX_GAPS) {
            if self.lost.get((self.key, ordinal))?.is_none() {
                self.lost.insert((self.key, ordinal), b"".as_slice())?;
            }
        }
        Ok(())
    }

    /// Drops open turns that are sealed. Moves aside open turns that cannot be read, each with all of its steps, and
    /// steps that belong to no open turn.
    fn open_turns(&mut self) -> Result<(), Failure> {
        // The number of steps of each open turn that stays.
        let mut sound = BTreeMap::new();
        let mut gone = Vec::new();
        for row in self.open_turns.range((self.key, "")..)? {
            let (place, value) = row?;
            let (key, turn_id) = place.value();
            if key != self.key {
                break;
            }
            let sealed = self.is_sealed(turn_id)?;
            let head = value.value().verify(&(key, turn_id)).and_then(StagedHead::decode);
            match head.ok().filter(|head| !sealed && head.turn_id.as_str() == turn_id) {
                Some(head) if unsound_step(&self.open_steps, key, &head)?.is_none() => {
                    sound.insert(turn_id.to_owned(), head.step_count);
                }
                _ => gone.push((turn_id.to_owned(), (!sealed).then(|| value.value().unverified().to_vec()))),
            }
        }
        for (turn_id, aside) in gone {
            self.open_turns.remove((self.key, turn_id.as_str()))?;
            if let Some(bytes) = aside {
                self.lost_open.insert((self.number, self.key, turn_id.as_str()), &*bytes)?;
            }
        }
        self.open_steps(&sound)
    }

    /// Keeps the steps of these open turns, each of which has this number of steps. Drops the steps of sealed turns,
    /// and moves all others aside.
    fn open_steps(&mut self, sound: &BTreeMap<String, u32>) -> Result<(), Failure> {
        let mut gone = Vec::new();
        for row in self.open_steps.range((self.key, "", 0)..)? {
            let (place, value) = row?;
            let (key, turn_id, step) = place.value();
            if key != self.key {
                break;
            }
            if sound.get(turn_id).is_none_or(|count| step >= *count) {
                let aside = if self.is_sealed(turn_id)? { None } else { Some(value.value().unverified().to_vec()) };
                gone.push((turn_id.to_owned(), step, aside));
            }
        }
        for (turn_id, step, aside) in gone {
            let place = (self.key, turn_id.as_str(), step);
            self.open_steps.remove(place)?;
            if let Some(bytes) = aside {
                self.lost_steps.insert((self.number, self.key, turn_id.as_str(), step), &*bytes)?;
            }
        }
        Ok(())
    }

    /// Returns what is known of the dropped turns. A note that cannot be read was moved aside before.
    fn dropped(&self) -> Result<Option<Dropped>, Failure> {
        match read_dropped(&self.dropped, self.key) {
            Err(Failure::Record(_)) => Ok(None),
            dropped => dropped,
        }
    }

    fn is_sealed(&self, turn_id: &str) -> Result<bool, Failure> {
        let hash = |id: &str| self.hasher.hash(id);
        Ok(index::find(&self.index, &self.turns, self.key, hash, turn_id)?.is_some())
    }

    /// Returns the record of the conversation, if it is sound.
    fn known(&self) -> Result<Option<ConversationRecord>, Failure> {
        Ok(self.conversations.get(self.key)?.and_then(|record| {
            let record = record.value().verify(&self.key);
            record.and_then(ConversationRecord::decode).ok()
        }))
    }

    fn record(&mut self, id: &ConversationId) -> Result<(), Failure> {
        let base = self.dropped()?.map_or_else(|| ConversationRecord::begin(id.clone()), |dropped| dropped.record);
        let has_dropped = base.sealed_turns > base.begins_after;
        let mut counted = count(&self.turns, Some(&self.lost), self.key, base)?;
        let has_turns = self.turns.range((self.key, 0)..=(self.key, u64::MAX))?.next().is_some();
        if !has_turns && !has_dropped {
            // All turns are lost, so the next one is the first of which anything is known.
            counted.begins_after = counted.sealed_turns;
        }
        let known = self.known()?;
        // No actor holds a version while the store is stopped, so any version will do except 0, the version of unknown
        // conversations.
        let version = known.as_ref().map_or(0, |known| known.version.0).max(1);
        let life = known.map_or_else(Life::draw, |known| known.life);
        let record = ConversationRecord { id: id.clone(), life, version: Version(version), ..counted };
        self.conversations.insert(self.key, row::seal(&self.key, &mut record.encode()?))?;
        Ok(())
    }
}

//! The sums of reports: labels, rollups, costs, and the sums of conversations.
//!
//! Unlike other rows, these rows are added to, so adding the same turn again would count it twice. So each transaction
//! that adds to them also notes how far the sums have come (see `RolledUp` in `meta`).
//!
//! The keys have the hash of a label. If another label has the hash already, the next free number is used.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, Value, WriteTransaction};
use siphasher::sip::SipHasher13;

use super::failure::Failure;
use super::guarded::{look_up, visit_from};
use super::record::damaged::{DamagedRecord, RecordFlaw};
use super::record::{decode_plain, encode_plain};
use super::row::{self, KeyOf, Row, Rows};
use super::schema::{
    CONVERSATION_SUMS, COSTS, ConversationSumRows, CostKey, Costs, ERASED_COSTS, ERASED_ROLLUPS, ErasedCosts,
    ErasedRollups, IMPORTED_SUMS, ImportedSums, LABELS, Labels, ROLLUPS, RollupKey, Rollups,
};
use crate::report::{BreakdownRow, ConversationSums, Cost, Level, Period, Quarter, Rollup, RollupLabel};
use crate::store::erased_sums::ErasedSums;

/// Returns the number of a level in a key.
pub(crate) fn code_of(level: Level) -> u8 {
    match level {
        Level::Quarter => 0,
        Level::Hour => 1,
        Level::SixHours => 2,
        Level::Day => 3,
    }
}

/// Decodes the value of a row with this key.
pub(crate) fn decode<T: Rows, V: serde::de::DeserializeOwned>(
    key: &KeyOf<'_, T>,
    stored: row::Stored<'_, T>,
) -> Result<V, DamagedRecord> {
    decode_plain(T::WHAT, stored.verify(key)?)
}

/// Returns the hash of a label, which is the first key to look for its row.
pub(crate) fn hash_of(label: &RollupLabel) -> Result<u64, DamagedRecord> {
    Ok(SipHasher13::new_with_keys(0, 0).hash(&encode_plain(Labels::WHAT, label)?))
}

/// The tables of sums in a write transaction.
pub(crate) struct WriteRollups<'txn> {
    labels: Table<'txn, u64, Row<Labels>>,
    rollups: Table<'txn, RollupKey, Row<Rollups>>,
    costs: Table<'txn, CostKey, Row<Costs>>,
    conversations: Table<'txn, (u32, u64), Row<ConversationSumRows>>,
    erased_rollups: Table<'txn, RollupKey, Row<ErasedRollups>>,
    erased_costs: Table<'txn, RollupKey, Row<ErasedCosts>>,
    imported: Table<'txn, &'static str, Row<ImportedSums>>,
    /// The keys of the labels that were looked up so far.
    known: HashMap<RollupLabel, u64>,
    /// The number of bytes by which the rows have grown.
    growth: i64,
}

impl<'txn> WriteRollups<'txn> {
    pub(crate) fn open(txn: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            labels: txn.open_table(LABELS)?,
            rollups: txn.open_table(ROLLUPS)?,
            costs: txn.open_table(COSTS)?,
            conversations: txn.open_table(CONVERSATION_SUMS)?,
            erased_rollups: txn.open_table(ERASED_ROLLUPS)?,
            erased_costs: txn.open_table(ERASED_COSTS)?,
            imported: txn.open_table(IMPORTED_SUMS)?,
            known: HashMap::new(),
            growth: 0,
        })
    }

    /// The number of bytes by which the rows have grown.
    pub(crate) fn growth(&self) -> i64 {
        self.growth
    }

    /// Adds the sums of some quarters to the rows of each level. Each row is written once.
    pub(crate) fn add_rollups<'a>(
        &mut self,
        parts: impl Iterator<Item = (Quarter, &'a RollupLabel, &'a Rollup)>,
    ) -> Result<(), Failure> {
        let mut rows: BTreeMap<RollupKey, Rollup> = BTreeMap::new();
        for (quarter, label, rollup) in parts {
            let label = self.hash(label)?;
            for level in Level::ALL {
                rows.entry((code_of(level), level.start_of(quarter).get(), label)).or_default().add(rollup);
            }
        }
        for (key, mut sum) in rows {
            self.growth += add_to(&mut self.rollups, &key, 17, &mut sum, Rollup::add)?;
        }
        Ok(())
    }

    /// Adds the costs of some quarters to the rows of each level, in one generation.
    pub(crate) fn add_costs<'a>(
        &mut self,
        generation: u32,
        parts: impl Iterator<Item = (Quarter, &'a RollupLabel, &'a Cost)>,
    ) -> Result<(), Failure> {
        let mut rows: BTreeMap<CostKey, Cost> = BTreeMap::new();
        for (quarter, label, cost) in parts.filter(|(_, _, cost)| **cost != Cost::default()) {
            let label = self.hash(label)?;
            for level in Level::ALL {
                rows.entry((generation, code_of(level), level.start_of(quarter).get(), label)).or_default().add(cost);
            }
        }
        for (key, mut sum) in rows {
            self.growth += add_to(&mut self.costs, &key, 21, &mut sum, Cost::add)?;
        }
        Ok(())
    }

    /// Adds to the sums of a conversation, in one generation.
    pub(crate) fn add_to_conversation(
        &mut self,
        generation: u32,
        key: u64,
        sums: &ConversationSums,
    ) -> Result<(), Failure> {
        let mut sum = sums.clone();
        self.growth += add_to(&mut self.conversations, &(generation, key), 12, &mut sum, ConversationSums::add)?;
        Ok(())
    }

    /// Moves what erased turns have added to the sums of this generation to the sums of erased turns.
    pub(crate) fn erase<'a>(
        &mut self,
        generation: u32,
        parts: impl Iterator<Item = (Quarter, &'a RollupLabel, &'a BreakdownRow)>,
    ) -> Result<(), Failure> {
        for (key, row) in self.rows_of(parts)? {
            let BreakdownRow { rollup, cost } = &row;
            self.growth += take_from(&mut self.rollups, &key, 17, rollup, Rollup::subtract)?;
            if *cost != Cost::default() {
                let of_generation = (generation, key.0, key.1, key.2);
                self.growth += take_from(&mut self.costs, &of_generation, 21, cost, Cost::subtract)?;
            }
            self.add_erased(&key, row)?;
        }
        Ok(())
    }

    /// Returns the sums of some quarters by the keys of the rows of each level.
    fn rows_of<'a>(
        &mut self,
        parts: impl Iterator<Item = (Quarter, &'a RollupLabel, &'a BreakdownRow)>,
    ) -> Result<BTreeMap<RollupKey, BreakdownRow>, Failure> {
        let mut rows: BTreeMap<RollupKey, BreakdownRow> = BTreeMap::new();
        for (quarter, label, part) in parts {
            let label = self.hash(label)?;
            for level in Level::ALL {
                rows.entry((code_of(level), level.start_of(quarter).get(), label)).or_default().add(part);
            }
        }
        Ok(rows)
    }

    /// Adds to a row of the sums of erased turns.
    fn add_erased(
        &mut self,
        key: &RollupKey,
        BreakdownRow { mut rollup, mut cost }: BreakdownRow,
    ) -> Result<(), Failure> {
        self.growth += add_to(&mut self.erased_rollups, key, 17, &mut rollup, Rollup::add)?;
        if cost != Cost::default() {
            self.growth += add_to(&mut self.erased_costs, key, 17, &mut cost, Cost::add)?;
        }
        Ok(())
    }

    /// Takes in sums of erased turns of other stores, and notes that. Adds only what is not among the sums that were taken
    /// in under the same ids before. Returns how many of the sums changed something.
    ///
    /// A damaged note is an error, as its sums would be added twice.
    pub(crate) fn take_in<'a>(&mut self, sums: impl Iterator<Item = &'a ErasedSums>) -> Result<u64, Failure> {
        let (mut parts, mut changed) = (Vec::new(), 0);
        for ErasedSums { id, label, sums } in sums {
            let (id, quarter) = (id.to_string(), id.quarter);
            let key = id.as_str();
            let before = look_up::<ImportedSums>(&self.imported, &key)?;
            let before = before.map(|row| -> Result<_, DamagedRecord> {
                let note: BreakdownRow = decode::<ImportedSums, _>(&key, row.value())?;
                Ok((note, key.len() + row.value().unverified().len()))
            });
            let (before, bytes) = before.transpose()?.unwrap_or_default();
            if before == *sums && bytes > 0 {
                continue;
            }
            parts.push((quarter, label, sums.since(&before)));
            let mut record = encode_plain(ImportedSums::WHAT, sums)?;
            self.imported.insert(key, row::seal(&key, &mut record))?;
            self.growth += growth(key.len() + record.len(), bytes);
            changed += 1;
        }
        for (key, row) in self.rows_of(parts.iter().map(|(quarter, label, part)| (*quarter, *label, part)))? {
            self.add_erased(&key, row)?;
        }
        Ok(changed)
    }

    /// Subtracts from the sums of a conversation, in one generation.
    pub(crate) fn take_from_conversation(
        &mut self,
        generation: u32,
        key: u64,
        sums: &ConversationSums,
    ) -> Result<(), Failure> {
        let key = (generation, key);
        self.growth += take_from(&mut self.conversations, &key, 12, sums, ConversationSums::subtract)?;
        Ok(())
    }

    /// Removes the sums of a conversation, in one generation.
    pub(crate) fn remove_conversation(&mut self, generation: u32, key: u64) -> Result<(), Failure> {
        let removed =
            self.conversations.remove((generation, key))?.map_or(0, |row| 12 + row.value().unverified().len());
        self.growth += growth(0, removed);
        Ok(())
    }

    /// Removes rows of all generations but this one, at most `limit` rows of each table.
    pub(crate) fn remove_other_generations(&mut self, generation: u32, limit: usize) -> Result<(), Failure> {
        let removed = remove_others(&mut self.costs, 21, limit, |key| key.0 == generation)?
            + remove_others(&mut self.conversations, 12, limit, |key| key.0 == generation)?;
        self.growth += growth(0, removed);
        Ok(())
    }

    /// Makes the sums of erased turns agree: removes sums whose label is unknown, and computes those of the longer levels
    /// anew from those of the quarters. Sums of a quarter that are no sums of this table are removed and returned.
    pub(crate) fn mend_erased(&mut self) -> Result<Vec<LostSums>, Failure> {
        let mut lost = mend(&mut self.erased_rollups, &self.labels, Rollup::add)?;
        lost.extend(mend(&mut self.erased_costs, &self.labels, Cost::add)?);
        Ok(lost)
    }

    /// Returns the key of a label. A label without a row gets one.
    fn hash(&mut self, label: &RollupLabel) -> Result<u64, Failure> {
        if let Some(hash) = self.known.get(label) {
            return Ok(*hash);
        }
        let mut hash = hash_of(label)?;
        let is_new = loop {
            let there = self.labels.get(hash)?.map(|row| decode::<Labels, RollupLabel>(&hash, row.value()));
            match there {
                Some(Ok(other)) if other != *label => hash = hash.wrapping_add(1),
                Some(Ok(_)) => break false,
                // A damaged row most likely belongs to this label, as two labels hardly ever have the same hash. It is
                // written anew.
                Some(Err(_)) | None => break true,
            }
        };
        if is_new {
            let mut record = encode_plain(Labels::WHAT, label)?;
            let before = self.labels.insert(hash, row::seal(&hash, &mut record))?;
            let before = before.map_or(0, |row| 8 + row.value().unverified().len());
            self.growth += growth(8 + record.len(), before);
        }
        self.known.insert(label.clone(), hash);
        Ok(hash)
    }
}

/// Removes at most `limit` rows from the beginning and the end of a table, up to the rows that stay. Returns the bytes
/// of the removed rows.
fn remove_others<T: Rows>(
    table: &mut Table<'_, T::Key, Row<T>>,
    key_bytes: usize,
    limit: usize,
    stays: impl Fn(&KeyOf<'_, T>) -> bool,
) -> Result<usize, Failure> {
    let mut removed = 0;
    for _ in 0..limit {
        let first = match table.first()? {
            Some((key, _)) if !stays(&key.value()) => true,
            Some(_) => false,
            None => break,
        };
        if !first && table.last()?.is_none_or(|(key, _)| stays(&key.value())) {
            break;
        }
        let row = if first { table.pop_first()? } else { table.pop_last()? };
        removed += row.map_or(0, |(_, row)| key_bytes + row.value().unverified().len());
    }
    Ok(removed)
}

fn growth(after: usize, before: usize) -> i64 {
    let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    signed(after) - signed(before)
}

/// Adds a value to the value of a row. Returns the number of bytes by which the row has grown.
///
/// A damaged row is replaced, since it must not stop the checkpoint. A check finds that such sums lack turns.
fn add_to<T: Rows, V: serde::Serialize + serde::de::DeserializeOwned>(
    table: &mut Table<'_, T::Key, Row<T>>,
    key: &KeyOf<'_, T>,
    key_bytes: usize,
    sum: &mut V,
    add: impl Fn(&mut V, &V),
) -> Result<i64, Failure> {
    let before = table.get(key)?.map(|row| (decode::<T, V>(key, row.value()), row.value().unverified().len()));
    let before_bytes = match before {
        Some((Ok(before), bytes)) => {
            add(sum, &before);
            key_bytes + bytes
        }
        Some((Err(damaged), bytes)) => {
            tracing::warn!(%damaged, "a damaged row of sums was replaced; `turn-metrics check` shows what is missing");
            key_bytes + bytes
        }
        None => 0,
    };
    let mut record = encode_plain(T::WHAT, sum)?;
    table.insert(key, row::seal(key, &mut record))?;
    Ok(growth(key_bytes + record.len(), before_bytes))
}

/// A row of sums that could not be read.
pub(crate) struct LostSums {
    /// The name of its table.
    pub(crate) table: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Removes the rows of a table of sums that have no label, and computes those of the longer levels anew from those of the
/// quarters. Returns the rows of quarters that could not be read.
fn mend<T: for<'a> Rows<Key = RollupKey>, V: serde::Serialize + serde::de::DeserializeOwned + Default>(
    table: &mut Table<'_, RollupKey, Row<T>>,
    labels: &Table<'_, u64, Row<Labels>>,
    add: impl Fn(&mut V, &V),
) -> Result<Vec<LostSums>, Failure> {
    let (mut sums, mut lost): (BTreeMap<RollupKey, V>, _) = (BTreeMap::new(), Vec::new());
    for row in table.iter()? {
        let (key, value) = row?;
        let key = key.value();
        if key.0 != code_of(Level::Quarter) || labels.get(key.2)?.is_none() {
            continue;
        }
        let Ok(sum) = decode::<T, V>(&key, value.value()) else {
            let (key, value) = (RollupKey::as_bytes(&key), value.value().unverified().to_vec());
            lost.push(LostSums { table: T::NAME, key, value });
            continue;
        };
        for level in Level::ALL {
            let start = level.start_of(Quarter::new(key.1)).get();
            add(sums.entry((code_of(level), start, key.2)).or_default(), &sum);
        }
    }
    table.retain(|_, _| false)?;
    for (key, sum) in sums {
        let mut record = encode_plain(T::WHAT, &sum)?;
        table.insert(key, row::seal(&key, &mut record))?;
    }
    Ok(lost)
}

/// Subtracts a value from the value of a row, which stays even if nothing is left. Returns the number of bytes by which
/// the row has grown. If the row is damaged or missing, nothing is subtracted: a check finds that such sums are wrong.
fn take_from<T: Rows, V: serde::Serialize + serde::de::DeserializeOwned>(
    table: &mut Table<'_, T::Key, Row<T>>,
    key: &KeyOf<'_, T>,
    key_bytes: usize,
    part: &V,
    subtract: impl Fn(&mut V, &V),
) -> Result<i64, Failure> {
    let before = table.get(key)?.map(|row| (decode::<T, V>(key, row.value()), row.value().unverified().len()));
    let Some((Ok(mut sum), bytes)) = before else { return Ok(0) };
    subtract(&mut sum, part);
    let mut record = encode_plain(T::WHAT, &sum)?;
    table.insert(key, row::seal(key, &mut record))?;
    Ok(growth(key_bytes + record.len(), key_bytes + bytes))
}

/// The tables of sums in a read transaction.
pub(crate) struct ReadRollups {
    pub(crate) labels: ReadOnlyTable<u64, Row<Labels>>,
    pub(crate) rollups: ReadOnlyTable<RollupKey, Row<Rollups>>,
    pub(crate) costs: ReadOnlyTable<CostKey, Row<Costs>>,
    pub(crate) conversations: ReadOnlyTable<(u32, u64), Row<ConversationSumRows>>,
    pub(crate) erased_rollups: ReadOnlyTable<RollupKey, Row<ErasedRollups>>,
    pub(crate) erased_costs: ReadOnlyTable<RollupKey, Row<ErasedCosts>>,
    pub(crate) imported: ReadOnlyTable<&'static str, Row<ImportedSums>>,
}

impl ReadRollups {
    pub(crate) fn open(txn: &ReadTransaction) -> Result<Self, Failure> {
        Ok(Self {
            labels: txn.open_table(LABELS)?,
            rollups: txn.open_table(ROLLUPS)?,
            costs: txn.open_table(COSTS)?,
            conversations: txn.open_table(CONVERSATION_SUMS)?,
            erased_rollups: txn.open_table(ERASED_ROLLUPS)?,
            erased_costs: txn.open_table(ERASED_COSTS)?,
            imported: txn.open_table(IMPORTED_SUMS)?,
        })
    }

    /// Returns whether there are rows of other generations than this one.
    pub(crate) fn has_other_generations(&self, generation: u32) -> Result<bool, Failure> {
        let ends = [self.costs.first()?, self.costs.last()?].into_iter().flatten().map(|(key, _)| key.value().0);
        let others = [self.conversations.first()?, self.conversations.last()?];
        let mut all = ends.chain(others.into_iter().flatten().map(|(key, _)| key.value().0));
        Ok(all.any(|of| of != generation))
    }

    /// Returns the label with this hash.
    pub(crate) fn label(&self, hash: u64) -> Result<Result<RollupLabel, DamagedRecord>, Failure> {
        let row = self.labels.get(hash)?;
        let missing = || Err(DamagedRecord::new(Labels::WHAT, RecordFlaw::Missing));
        Ok(row.map_or_else(missing, |row| decode::<Labels, _>(&hash, row.value())))
    }

    /// Returns the sums of a conversation. The sums are empty if none of its turns was rolled up.
    pub(crate) fn conversation(&self, generation: u32, key: u64) -> Result<ConversationSums, Failure> {
        let key = (generation, key);
        let row = look_up::<ConversationSumRows>(&self.conversations, &key)?;
        row.map_or_else(
            || Ok(ConversationSums::default()),
            |row| Ok(decode::<ConversationSumRows, _>(&key, row.value())?),
        )
    }

    /// Calls `each` with the rollup and the cost of erased turns of one label in one quarter, in the order of quarters and
    /// labels, until it breaks. Begins after a quarter and the hash of a label, or with the first ones.
    pub(crate) fn each_erased(
        &self,
        after: Option<(i64, u64)>,
        mut each: impl FnMut((i64, u64), Result<BreakdownRow, DamagedRecord>) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let quarters = code_of(Level::Quarter);
        let (quarter, label) = after.unwrap_or((i64::MIN, 0));
        visit_from::<ErasedRollups>(&self.erased_rollups, &(quarters, quarter, label), |key, rollup| {
            let place = (key.1, key.2);
            if rollup.is_ok() && key.0 != quarters {
                return Ok(ControlFlow::Break(()));
            }
            if after == Some(place) {
                return Ok(ControlFlow::Continue(()));
            }
            let row = || -> Result<BreakdownRow, Failure> {
                let rollup = decode_plain(ErasedRollups::WHAT, rollup?)?;
                let cost = look_up::<ErasedCosts>(&self.erased_costs, key)?;
                let cost = cost.map_or(Ok(Cost::default()), |cost| decode::<ErasedCosts, _>(key, cost.value()))?;
                Ok(BreakdownRow { rollup, cost })
            };
            match row() {
                Ok(row) => each(place, Ok(row)),
                Err(Failure::Record(damaged)) => each(place, Err(damaged)),
                Err(failure) => Err(failure),
            }
        })
    }

    /// Calls `each` with each rollup of a range and the hash of its label, if `is_wanted` selects the label. Then it calls
    /// `each` with the rollups of erased turns.
    pub(crate) fn each_rollup(
        &self,
        level: Level,
        range: Period,
        is_wanted: impl Fn(u64) -> Result<bool, Failure>,
        mut each: impl FnMut(u64, Result<Rollup, DamagedRecord>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let code = code_of(level);
        let (from, to) = ((code, range.start().get(), 0), (code, range.end().get(), 0));
        visit_from::<Rollups>(&self.rollups, &from, |key, row| {
            if row.is_ok() && *key >= to {
                return Ok(ControlFlow::Break(()));
            }
            if is_wanted(key.2)? {
                each(key.2, row.and_then(|row| decode_plain(Rollups::WHAT, row)))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        visit_from::<ErasedRollups>(&self.erased_rollups, &from, |key, row| {
            if row.is_ok() && *key >= to {
                return Ok(ControlFlow::Break(()));
            }
            if is_wanted(key.2)? {
                each(key.2, row.and_then(|row| decode_plain(ErasedRollups::WHAT, row)))?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Calls `each` with each cost of a range, of one generation, and the hash of its label, if `is_wanted` selects the
    /// label. Then it calls `each` with the costs of erased turns.
    pub(crate) fn each_cost(
        &self,
        generation: u32,
        level: Level,
        range: Period,
        is_wanted: impl Fn(u64) -> Result<bool, Failure>,
        mut each: impl FnMut(u64, Result<Cost, DamagedRecord>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let code = code_of(level);
        let (start, end) = (range.start().get(), range.end().get());
        visit_from::<Costs>(&self.costs, &(generation, code, start, 0), |key, row| {
            if row.is_ok() && *key >= (generation, code, end, 0) {
                return Ok(ControlFlow::Break(()));
            }
            if is_wanted(key.3)? {
                each(key.3, row.and_then(|row| decode_plain(Costs::WHAT, row)))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        visit_from::<ErasedCosts>(&self.erased_costs, &(code, start, 0), |key, row| {
            if row.is_ok() && *key >= (code, end, 0) {
                return Ok(ControlFlow::Break(()));
            }
            if is_wanted(key.2)? {
                each(key.2, row.and_then(|row| decode_plain(ErasedCosts::WHAT, row)))?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase};

    use super::*;
    use crate::report::ReasonClass;
    use crate::store::redb::tables::schema::{count_live_bytes, make_tables};
    use crate::turn::{Done, EpochMillis, OpenTurn, Ordinal, TurnId};

    fn label(model: &str) -> RollupLabel {
        RollupLabel { model: Some(model.into()), reason: Some(ReasonClass::Stop), ..RollupLabel::default() }
    }

    fn rollup() -> Rollup {
        let done = Done { duration: Some(7.into()), ..Done::because("stop") };
        let turn = OpenTurn::new(TurnId::new("t").unwrap()).seal(&done, EpochMillis::new(1));
        Rollup::of_turn(&turn.at(Ordinal::after(0))).remove(0).1
    }

    fn database() -> redb::Database {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        make_tables(&txn).unwrap();
        txn.commit().unwrap();
        database
    }

    /// Does the work in a transaction, and asserts that the noted growth is that of the rows.
    fn change(database: &redb::Database, work: impl FnOnce(&mut WriteRollups<'_>)) {
        let txn = database.begin_write().unwrap();
        let before = count_live_bytes(&txn).unwrap();
        let mut rollups = WriteRollups::open(&txn).unwrap();
        work(&mut rollups);
        let grown = rollups.growth();
        drop(rollups);
        assert_eq!(before.strict_add_signed(grown), count_live_bytes(&txn).unwrap());
        txn.commit().unwrap();
    }

    fn rows(database: &redb::Database, level: Level) -> Vec<(u64, Rollup)> {
        let tables = ReadRollups::open(&database.begin_read().unwrap()).unwrap();
        let (mut rows, all) = (Vec::new(), Period::new(Quarter::new(0), Quarter::new(999)).unwrap());
        let each = |hash, rollup: Result<Rollup, DamagedRecord>| {
            rows.push((hash, rollup.unwrap()));
            Ok(())
        };
        tables.each_rollup(level, all, |_| Ok(true), each).unwrap();
        rows
    }

    #[test]
    fn what_is_added_in_several_transactions_sums_up_at_each_level() {
        let database = database();
        let (label, one) = (label("m"), rollup());
        for quarters in [vec![0, 1, 3], vec![1, 4, 30]] {
            let parts = quarters.iter().map(|quarter| (Quarter::new(*quarter), &label, &one));
            change(&database, |rollups| rollups.add_rollups(parts).unwrap());
        }
        let turns = |level| -> Vec<i128> {
            let turns = |rollup: &Rollup| crate::report::Figures::of(rollup).turns;
            rows(&database, level).iter().map(|(_, rollup)| turns(rollup)).collect()
        };
        assert_eq!(turns(Level::Quarter), [1, 2, 1, 1, 1]);
        assert_eq!(turns(Level::Hour), [4, 1, 1]);
        assert_eq!(turns(Level::SixHours), [5, 1]);
        assert_eq!(turns(Level::Day), [6]);
    }

    #[test]
    fn labels_of_one_hash_are_told_apart_and_a_damaged_one_is_written_again() {
        let database = database();
        let (taken, other) = (label("m"), label("other"));
        let hash = hash_of(&other).unwrap();
        let txn = database.begin_write().unwrap();
        let mut record = encode_plain(Labels::WHAT, &taken).unwrap();
        txn.open_table(LABELS).unwrap().insert(hash, row::seal(&hash, &mut record)).unwrap();
        txn.commit().unwrap();
        for _ in 0..2 {
            change(&database, |rollups| assert_eq!(rollups.hash(&other).unwrap(), hash + 1));
        }
        let found = |hash| ReadRollups::open(&database.begin_read().unwrap()).unwrap().label(hash).unwrap();
        assert_eq!((found(hash), found(hash + 1)), (Ok(taken), Ok(other.clone())));
        let txn = database.begin_write().unwrap();
        txn.open_table(LABELS).unwrap().insert(hash + 1, row::Stored::as_it_is(b"damaged by a test")).unwrap();
        txn.commit().unwrap();
        assert!(found(hash + 1).is_err());
        change(&database, |rollups| assert_eq!(rollups.hash(&other).unwrap(), hash + 1));
        assert_eq!(found(hash + 1), Ok(other));
    }

    #[test]
    fn the_rows_of_other_generations_are_removed_a_few_at_a_time() {
        let database = database();
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        let usage = crate::turn::Usage { input_tokens: 7.into(), ..crate::turn::Usage::default() };
        turn.fold(&crate::turn::Progress::Usage { step_id: None, report: usage.into(), is_final: false });
        let turn = turn.seal(&Done::because("stop"), EpochMillis::new(1)).at(Ordinal::after(0));
        let unknown = Cost::of_turn(&turn, &crate::report::NoPrices).remove(0).1;
        for generation in 1..=3 {
            let (label, sums) = (label("m"), ConversationSums::of_turn(&turn, &crate::report::NoPrices));
            change(&database, |rollups| {
                rollups.add_costs(generation, [(Quarter::new(5), &label, &unknown)].into_iter()).unwrap();
                rollups.add_to_conversation(generation, 1, &sums).unwrap();
            });
        }
        let others = || ReadRollups::open(&database.begin_read().unwrap()).unwrap().has_other_generations(2).unwrap();
        let mut steps = 0;
        while others() {
            change(&database, |rollups| rollups.remove_other_generations(2, 2).unwrap());
            steps += 1;
        }
        assert_eq!(steps, 4, "each of two generations has four rows of costs");
        let tables = ReadRollups::open(&database.begin_read().unwrap()).unwrap();
        assert_eq!(tables.conversation(2, 1).unwrap().cost, unknown);
        assert_eq!(tables.conversation(3, 1).unwrap(), ConversationSums::default());
    }
}

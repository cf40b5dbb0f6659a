//! Compares the sums of reports with the turns, in one pass. The memory for this grows only with the number of labels.
//!
//! Each number is multiplied by a hash of its row and its place in the row, and all products are added up to a
//! fingerprint. One fingerprint is made from the turns, another from the rows of sums. Only if the two differ are the
//! rows made anew from the turns and compared one by one.
//!
//! The price book of the costs is not known here. So a check of costs only compares the rows that must have the same
//! sums with each other.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use redb::{ReadTransaction, ReadableTable};
use siphasher::sip::SipHasher13;

use super::flaw::Flaw;
use super::report::Violation;
use crate::report::{
    BreakdownRow, Contribution, ConversationSums, Cost, Level, NoPrices, Quarter, Rollup, RollupLabel,
};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::record;
use crate::store::redb::tables::rollups::{ReadRollups, code_of, decode};
use crate::store::redb::tables::row::Row;
use crate::store::redb::tables::schema::{
    ConversationSumRows, Costs, ErasedCosts, ErasedRollups, ImportedSums, Labels, RollupKey, Rollups, Turns,
};
use crate::turn::{Ordinal, StoredTurn};

/// A sum over numbers, each multiplied by a hash of its row and its place in the row. Equal sets of numbers have equal
/// fingerprints. Different sets have equal fingerprints with a probability of about 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, row: RowHash, numbers: impl IntoIterator<Item = i128>) {
        (0..).zip(numbers).for_each(|(place, number)| self.add_at(row, place, number));
    }

    fn add_at(&mut self, RowHash(key): RowHash, place: u64, number: i128) {
        let mut hasher = SipHasher13::new_with_keys(key, 0);
        hasher.write_u64(place);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the sum wraps around all the same"
        )]
        let number = number as u64;
        self.0 = self.0.wrapping_add(hasher.finish().wrapping_mul(number));
    }

    fn add_rollup(&mut self, row: RowHash, rollup: &Rollup) {
        rollup.each_number(|place, number| self.add_at(row, place, number));
    }
}

/// The hash that stands for a row.
#[derive(Debug, Clone, Copy)]
struct RowHash(u64);

impl RowHash {
    /// Returns the hash of a label or of a conversation's key.
    fn of(bytes: &[u8]) -> Self {
        Self(SipHasher13::new().hash(bytes))
    }

    /// Returns the hash of the row of this label at a level and a start.
    fn at(self, level: u8, start: i64) -> Self {
        let mut hasher = SipHasher13::new_with_keys(self.0, level.into());
        hasher.write_i64(start);
        Self(hasher.finish())
    }
}

fn add_to<const N: usize>(sums: &mut [i128; N], numbers: [i128; N]) {
    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum = sum.wrapping_add(number));
}

fn hash_of(label: &RollupLabel) -> Result<RowHash, Failure> {
    Ok(RowHash::of(&record::encode_plain("label", label)?))
}

/// The fingerprints of the sums over all turns.
#[derive(Debug, Default)]
pub(super) struct TurnSums {
    rollups: Fingerprint,
    conversations: Fingerprint,
}

impl TurnSums {
    /// Adds a turn of the conversation `key`.
    pub(super) fn count(&mut self, key: u64, turn: &StoredTurn) -> Result<(), Failure> {
        let Contribution { quarter, parts, conversation } = Contribution::of_turn(turn, &NoPrices);
        for (label, part) in parts {
            let label = hash_of(&label)?;
            for level in Level::ALL {
                let row = label.at(code_of(level), level.start_of(quarter).get());
                self.rollups.add_rollup(row, &part.rollup);
            }
        }
        self.conversations.add(RowHash::of(&key.to_le_bytes()), conversation.numbers());
        Ok(())
    }
}

/// Returns what is wrong with the sums of a store whose turns are all sound and sum up to `summed`.
pub(super) fn compare(
    txn: &ReadTransaction,
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    summed: &TurnSums,
) -> Result<Vec<Violation>, Failure> {
    let tables = ReadRollups::open(txn)?;
    let mut comparison = Comparison { tables, labels: HashMap::new(), wrong: Vec::new() };
    comparison.labels()?;
    comparison.rollups(turns, summed)?;
    comparison.costs(ReadMeta::read(txn)?.costs()?.generation, summed)?;
    comparison.erased()?;
    comparison.imported()?;
    Ok(comparison.wrong)
}

struct Comparison {
    tables: ReadRollups,
    /// The labels, by their keys in the tables.
    labels: HashMap<u64, (RowHash, RollupLabel)>,
    wrong: Vec<Violation>,
}

impl Comparison {
    fn tell(&mut self, rows: String, flaw: impl Into<Flaw>) {
        self.wrong.push(Violation::Sums { rows, flaw: flaw.into() });
    }

    fn labels(&mut self) -> Result<(), Failure> {
        let mut damaged = Vec::new();
        for row in self.tables.labels.iter()? {
            let (key, value) = row?;
            let key = key.value();
            match decode::<Labels, RollupLabel>(&key, value.value()) {
                Ok(label) => drop(self.labels.insert(key, (hash_of(&label)?, label))),
                Err(flaw) => damaged.push((format!("label {key:016x}"), flaw)),
            }
        }
        for (rows, flaw) in damaged {
            self.tell(rows, flaw);
        }
        Ok(())
    }

    fn name_of(&self, (level, start, label): RollupKey) -> String {
        let length = match level {
            0 => "quarter of an hour",
            1 => "hour",
            2 => "six hours",
            _ => "day",
        };
        let label = self.labels.get(&label).map_or_else(|| format!("{label:016x}"), |(_, label)| format!("{label:?}"));
        format!("the {length} from {} ms on, {label}", Quarter::new(start).start_millis())
    }

    fn rollups(
        &mut self,
        turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
        summed: &TurnSums,
    ) -> Result<(), Failure> {
        let (mut found, mut wrong) = (Fingerprint::default(), Vec::new());
        for row in self.tables.rollups.iter()? {
            let (key, value) = row?;
            let key = key.value();
            match (decode::<Rollups, Rollup>(&key, value.value()), self.labels.get(&key.2)) {
                (Ok(rollup), Some((label, _))) => found.add_rollup(label.at(key.0, key.1), &rollup),
                (Ok(_), None) => wrong.push((self.name_of(key), Flaw::NotTheSums)),
                (Err(damaged), _) => wrong.push((self.name_of(key), damaged.into())),
            }
        }
        if wrong.is_empty() && found != summed.rollups {
            wrong = self.closer_look(turns)?;
        }
        for (rows, flaw) in wrong {
            self.tell(rows, flaw);
        }
        Ok(())
    }

    /// Makes the rollups anew from the turns, and returns the rows that differ.
    fn closer_look(&self, turns: &impl ReadableTable<(u64, u64), Row<Turns>>) -> Result<Vec<(String, Flaw)>, Failure> {
        let mut expected: BTreeMap<(u8, i64, RollupLabel), Rollup> = BTreeMap::new();
        for row in turns.iter()? {
            let (place, value) = row?;
            let Some(at) = Ordinal::new(place.value().1) else { continue };
            let turn = record::decode_sealed(at, value.value().verify(&place.value())?)?;
            let Contribution { quarter, parts, .. } = Contribution::of_turn(&turn, &NoPrices);
            for (label, part) in parts {
                for level in Level::ALL {
                    let key = (code_of(level), level.start_of(quarter).get(), label.clone());
                    expected.entry(key).or_default().add(&part.rollup);
                }
            }
        }
        let numbers = |rollup: &Rollup| {
            let mut numbers = Vec::new();
            rollup.each_number(|place, number| numbers.push((place, number)));
            numbers
        };
        let mut wrong = Vec::new();
        for row in self.tables.rollups.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let Some((_, label)) = self.labels.get(&key.2) else { continue };
            let found: Rollup = decode::<Rollups, _>(&key, value.value())?;
            let expected = expected.remove(&(key.0, key.1, label.clone())).unwrap_or_default();
            if numbers(&found) != numbers(&expected) {
                wrong.push((self.name_of(key), Flaw::NotTheSums));
            }
        }
        for (level, start, label) in expected.into_keys() {
            wrong.push((format!("{}, {label:?}", self.name_of((level, start, 0))), Flaw::NotThere));
        }
        Ok(wrong)
    }

    /// Checks that the sums of erased turns are the same at each level. Their turns are gone, so there is nothing else to
    /// compare them with.
    fn erased(&mut self) -> Result<(), Failure> {
        let mut rollups = [Fingerprint::default(); Level::ALL.len()];
        let (mut costs, mut wrong) = (rollups, Vec::new());
        // The hash uses the day and the label: these are the same at all levels.
        let row_of =
            |(_, start, label): RollupKey| RowHash(label).at(0, Level::Day.start_of(Quarter::new(start)).get());
        for row in self.tables.erased_rollups.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let name = || format!("erased turns, {}", self.name_of(key));
            match (decode::<ErasedRollups, Rollup>(&key, value.value()), rollups.get_mut(usize::from(key.0))) {
                (Ok(_), _) if !self.labels.contains_key(&key.2) => wrong.push((name(), Flaw::NotTheSums)),
                (Ok(rollup), Some(found)) => found.add_rollup(row_of(key), &rollup),
                (Ok(_), None) => wrong.push((name(), Flaw::SumsDiffer)),
                (Err(damaged), _) => wrong.push((name(), damaged.into())),
            }
        }
        for row in self.tables.erased_costs.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let name = || format!("costs of erased turns, {}", self.name_of(key));
            match (decode::<ErasedCosts, Cost>(&key, value.value()), costs.get_mut(usize::from(key.0))) {
                (Ok(_), _) if !self.labels.contains_key(&key.2) => wrong.push((name(), Flaw::NotTheSums)),
                (Ok(cost), Some(found)) => found.add(row_of(key), cost.numbers()),
                (Ok(_), None) => wrong.push((name(), Flaw::SumsDiffer)),
                (Err(damaged), _) => wrong.push((name(), damaged.into())),
            }
        }
        let differ = |levels: &[Fingerprint]| levels.iter().any(|found| *found != levels[0]);
        if wrong.is_empty() && (differ(&rollups) || differ(&costs)) {
            wrong.push(("erased turns".into(), Flaw::SumsDiffer));
        }
        for (rows, flaw) in wrong {
            self.tell(rows, flaw);
        }
        Ok(())
    }

    /// Checks that each note of imported sums can be read. Sums of other stores are added to them, so there is nothing to
    /// compare them with.
    fn imported(&mut self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for row in self.tables.imported.iter()? {
            let (id, value) = row?;
            if let Err(damaged) = decode::<ImportedSums, BreakdownRow>(&id.value(), value.value()) {
                wrong.push((format!("sums imported as {}", id.value()), damaged));
            }
        }
        for (rows, damaged) in wrong {
            self.tell(rows, damaged);
        }
        Ok(())
    }

    /// Checks that the rows of costs have the same sum at each level, and that the costs of the conversations have this
    /// sum too.
    fn costs(&mut self, generation: u32, summed: &TurnSums) -> Result<(), Failure> {
        let mut by_level = [Fingerprint::default(); Level::ALL.len()];
        let (mut total, mut wrong) = ([0; 4], Vec::new());
        for row in self.tables.costs.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let (of, level, start, label) = key;
            let name = || format!("costs of {}", self.name_of((level, start, label)));
            if of < generation {
                // Rows of earlier generations are about to be removed.
                continue;
            }
            match (decode::<Costs, Cost>(&key, value.value()), by_level.get_mut(usize::from(level))) {
                (Ok(cost), Some(found)) => {
                    // The row's hash uses the start at the longest level, the generation and the label: these are the
                    // same at all levels.
                    let row = RowHash(label).at(0, Level::LONGEST.start_of(Quarter::new(start)).get());
                    found.add(row.at(0, of.into()), cost.numbers());
                    if (of, level) == (generation, code_of(Level::Quarter)) {
                        add_to(&mut total, cost.numbers());
                    }
                }
                (Ok(_), None) => wrong.push((name(), Flaw::SumsDiffer)),
                (Err(damaged), _) => wrong.push((name(), damaged.into())),
            }
        }
        let mut conversations = Fingerprint::default();
        for row in self.tables.conversations.iter()? {
            let (key, value) = row?;
            let key = key.value();
            match decode::<ConversationSumRows, ConversationSums>(&key, value.value()) {
                Ok(sums) if key.0 == generation => {
                    conversations.add(RowHash::of(&key.1.to_le_bytes()), sums.numbers());
                    add_to(&mut total, sums.cost.numbers().map(|number| -number));
                }
                Ok(_) => {}
                Err(damaged) => wrong.push((format!("conversation #{}", key.1), damaged.into())),
            }
        }
        if wrong.is_empty() {
            if by_level.iter().any(|found| *found != by_level[0]) {
                wrong.push(("costs by label".into(), Flaw::SumsDiffer));
            }
            if total != [0; 4] {
                wrong.push(("costs of conversations".into(), Flaw::SumsDiffer));
            }
            if conversations != summed.conversations {
                wrong.push(("conversations".into(), Flaw::NotTheSums));
            }
        }
        for (rows, flaw) in wrong {
            self.tell(rows, flaw);
        }
        Ok(())
    }
}

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::report::{BreakdownRow, Contribution, ConversationSums, NoPrices, Period, PriceBook, Quarter, RollupLabel};
use crate::store::contract::Life;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::{Meta, MetaTable};
use crate::store::redb::tables::record;
use crate::store::redb::unwind;
use crate::turn::{ConversationId, Ordinal, StoredTurn};

/// The number of conversations whose sums are added in the time in which those of a label in a quarter are added: these are
/// added to a row of sums and to a row of costs, of each level.
pub(crate) const CONVERSATIONS_FOR_A_LABEL: usize = 8;

/// A turn that is not in a tally yet: its conversation, the life in which it was sealed, and its record.
pub(crate) type Uncounted = (ConversationId, Life, Arc<[u8]>);

/// The key of a row of a tally. Rows are moved into the tables in the order of these keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum TallyKey {
    /// The sums of a life of a conversation.
    Conversation(ConversationId, Life),
    /// The sums of a label in a quarter of an hour.
    Part(Quarter, RollupLabel),
}

/// The sums over some turns, to be added to the sums of the tables.
///
/// A clone shares the rows, so that a reader can copy many rows quickly while it holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    conversations: BTreeMap<(ConversationId, Life), Arc<ConversationSums>>,
    parts: BTreeMap<(Quarter, RollupLabel), Arc<BreakdownRow>>,
}

impl Tally {
    /// The approximate memory of a row.
    const ROW_BYTES: usize = 1200;
    /// The approximate memory of the sums of a conversation.
    const CONVERSATION_BYTES: usize = 300;

    /// Adds turns at the prices of a book. A record that does not decode is left out, as no read can show its turn
    /// either.
    pub(crate) fn count(&mut self, turns: &[Uncounted], book: &dyn PriceBook) {
        for (id, life, record) in turns {
            let Ok(turn) = record::decode_sealed(Ordinal::after(0), record) else { continue };
            let sums = self.count_parts(&turn, book);
            match self.conversations.entry((id.clone(), *life)) {
                Slot::Occupied(mut known) => Arc::make_mut(known.get_mut()).add(&sums),
                Slot::Vacant(place) => drop(place.insert(Arc::new(sums))),
            }
        }
    }

    /// Adds the parts of a turn to the sums of their labels, and returns the sums that the turn adds to its
    /// conversation.
    pub(crate) fn count_parts(&mut self, turn: &StoredTurn, book: &dyn PriceBook) -> ConversationSums {
        let contribution = unwind::caught(|| Contribution::of_turn(turn, book)).unwrap_or_else(|panic| {
            // The turn is counted without a price: if it were left out here, it would be missing in every report.
            tracing::error!(%panic, "the price of a turn could not be computed");
            Contribution::of_turn(turn, &NoPrices)
        });
        for (label, part) in contribution.parts {
            match self.parts.entry((contribution.quarter, label)) {
                Slot::Occupied(mut row) => Arc::make_mut(row.get_mut()).add(&part),
                Slot::Vacant(place) => drop(place.insert(Arc::new(part))),
            }
        }
        contribution.conversation
    }

    /// Adds another tally. Rows that are new here stay shared with the other tally.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (key, part) in other.parts {
            match self.parts.entry(key) {
                Slot::Occupied(mut row) => Arc::make_mut(row.get_mut()).add(&part),
                Slot::Vacant(place) => drop(place.insert(part)),
            }
        }
        for (id, sums) in other.conversations {
            match self.conversations.entry(id) {
                Slot::Occupied(mut known) => Arc::make_mut(known.get_mut()).add(&sums),
                Slot::Vacant(place) => drop(place.insert(sums)),
            }
        }
    }

    /// Returns the approximate memory of the tally.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.len() * Self::ROW_BYTES + self.conversations.len() * Self::CONVERSATION_BYTES
    }

    /// Returns the rows after a key, or all rows.
    pub(crate) fn after(&self, key: Option<&TallyKey>) -> Self {
        self.next_after(key, usize::MAX).0
    }

    /// Returns rows after a key, and the key of the last of these rows if more follow. There are at most `limit` rows of
    /// conversations. The sums of a label take as long to add as [`CONVERSATIONS_FOR_A_LABEL`], and count as much.
    pub(crate) fn next_after(&self, key: Option<&TallyKey>, limit: usize) -> (Self, Option<TallyKey>) {
        let mut next = Self::default();
        let (id, part) = match key {
            None => (Some(Bound::Unbounded), Bound::Unbounded),
            Some(TallyKey::Conversation(id, life)) => (Some(Bound::Excluded((id.clone(), *life))), Bound::Unbounded),
            Some(TallyKey::Part(quarter, label)) => (None, Bound::Excluded((*quarter, label.clone()))),
        };
        let conversations = id.map(|from| self.conversations.range((from, Bound::Unbounded)));
        let mut conversations = conversations.into_iter().flatten();
        next.conversations.extend(conversations.by_ref().take(limit).map(|(id, sums)| (id.clone(), Arc::clone(sums))));
        let left = (limit - next.conversations.len()).div_ceil(CONVERSATIONS_FOR_A_LABEL);
        let mut parts = self.parts.range((part, Bound::Unbounded));
        next.parts.extend(parts.by_ref().take(left).map(|(key, part)| (key.clone(), Arc::clone(part))));
        if conversations.next().is_none() && parts.next().is_none() {
            return (next, None);
        }
        let part = next.parts.last_key_value().map(|((quarter, label), _)| TallyKey::Part(*quarter, label.clone()));
        let last = part.or_else(|| {
            let ((id, life), _) = next.conversations.last_key_value()?;
            Some(TallyKey::Conversation(id.clone(), *life))
        });
        (next, last)
    }

    /// Returns the sums of each label in each quarter of a period.
    pub(crate) fn in_period(
        &self,
        period: Period,
    ) -> impl Iterator<Item = (Quarter, &RollupLabel, &Arc<BreakdownRow>)> {
        let from = Bound::Included((period.start(), RollupLabel::default()));
        let parts = self.parts.range((from, Bound::Unbounded)).map(|((quarter, label), part)| (*quarter, label, part));
        parts.take_while(move |(quarter, _, _)| *quarter < period.end())
    }

    /// Returns the sums of each label in each quarter.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Quarter, &RollupLabel, &BreakdownRow)> + Clone {
        self.parts.iter().map(|((quarter, label), part)| (*quarter, label, &**part))
    }

    /// Returns the sums of each life of each conversation.
    pub(crate) fn conversations(&self) -> impl Iterator<Item = (&(ConversationId, Life), &Arc<ConversationSums>)> {
        self.conversations.iter()
    }
}

/// The sums over the turns of the memtable that are counted so far. Counting a turn takes longer than committing it, so
/// the writer does not count: another thread does. A read of sums counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The sums over turns of the immutable table.
    pub(crate) immutable: Tally,
    /// The sums over turns of the active table.
    pub(crate) active: Tally,
}

impl Recent {
    /// Returns the sums over these turns.
    pub(crate) fn of(turns: &TurnsToCount, book: &dyn PriceBook) -> Self {
        let mut recent = Self::default();
        recent.count(turns, book);
        recent
    }

    /// Adds the sums over other turns.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.immutable.absorb(other.immutable);
        self.active.absorb(other.active);
    }

    /// Counts turns of the memtable.
    pub(crate) fn count(&mut self, turns: &TurnsToCount, book: &dyn PriceBook) {
        self.immutable.count(&turns.immutable, book);
        self.active.count(&turns.active, book);
    }

    /// Returns the sums that a state of the tables lacks.
    pub(crate) fn not_in(&self, lacking: &Lacking) -> Tally {
        let mut tally = match lacking {
            Lacking::Nothing => Tally::default(),
            Lacking::After(key) => self.immutable.after(Some(key)),
            Lacking::All => self.immutable.clone(),
        };
        // The rows stay shared, as copying them takes long.
        tally.absorb(self.active.clone());
        tally
    }

    /// To be called when the active table becomes the immutable one. There must be no other immutable table.
    pub(crate) fn freeze(&mut self) {
        self.immutable = std::mem::take(&mut self.active);
    }
}

/// Which part of the immutable table's tally a state of the tables lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacking {
    Nothing,
    /// The rows after this key.
    After(TallyKey),
    All,
}

impl Lacking {
    /// Returns what a state of the tables lacks. `frozen_row` is the number of the immutable table's last row in the
    /// journal.
    pub(crate) fn of(meta: &Meta<impl MetaTable>, frozen_row: u64) -> Result<Self, Failure> {
        if meta.rolled_up()?.row >= frozen_row {
            return Ok(Self::Nothing);
        }
        let moved = meta.rolling_up::<TallyKey>()?.filter(|(row, _)| *row == frozen_row);
        Ok(moved.map_or(Self::All, |(_, key)| Self::After(key)))
    }

    /// Returns whether the tables lack the sums of a label in a quarter.
    pub(crate) fn has_part(&self, quarter: Quarter, label: &RollupLabel) -> bool {
        match self {
            Self::Nothing => false,
            Self::After(TallyKey::Conversation(..)) | Self::All => true,
            Self::After(TallyKey::Part(last, of)) => (quarter, label) > (*last, of),
        }
    }

    /// Returns whether the tables lack the sums of a life of a conversation.
    pub(crate) fn has_conversation(&self, (id, life): &(ConversationId, Life)) -> bool {
        match self {
            Self::Nothing | Self::After(TallyKey::Part(..)) => false,
            Self::After(TallyKey::Conversation(last, of)) => (id, life) > (last, of),
            Self::All => true,
        }
    }
}

/// Turns of the memtable that are not counted yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct TurnsToCount {
    pub(crate) immutable: Vec<Uncounted>,
    pub(crate) active: Vec<Uncounted>,
}

impl TurnsToCount {
    pub(crate) fn is_empty(&self) -> bool {
        self.immutable.is_empty() && self.active.is_empty()
    }
}

/// The turns of one of the memtable's tables whose sums are not in the tables of the main file yet.
#[derive(Debug, Default)]
pub(super) struct Unsummed {
    uncounted: VecDeque<Uncounted>,
    /// The bytes of the records of `uncounted`.
    uncounted_bytes: usize,
    /// The number of turns, counted or not.
    turns: usize,
    /// The approximate memory of the tally.
    pub(super) tally_bytes: usize,
}

impl Unsummed {
    /// The approximate memory of a turn until it is counted, without its record, which counts as memory of its piece.
    const TURN_BYTES: usize = 40;

    pub(super) fn add(&mut self, id: &ConversationId, life: Life, records: &[Arc<[u8]>]) {
        self.uncounted.extend(records.iter().map(|record| (id.clone(), life, Arc::clone(record))));
        self.uncounted_bytes += records.iter().map(|record| record.len()).sum::<usize>();
        self.turns += records.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns == 0
    }

    /// Returns the first turns that are not counted, until their records have this many bytes.
    pub(super) fn first(&self, bytes: usize) -> Vec<Uncounted> {
        let mut left = bytes;
        let is_within = |(_, _, record): &&Uncounted| {
            let is_within = left > 0;
            left = left.saturating_sub(record.len());
            is_within
        };
        self.uncounted.iter().take_while(is_within).cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn uncounted(&self) -> usize {
        self.uncounted.len()
    }

    /// Returns the bytes of the records of the turns that are not counted.
    pub(super) fn uncounted_bytes(&self) -> usize {
        self.uncounted_bytes
    }

    /// Removes the first turns, which were counted. The tally now takes `tally_bytes`.
    pub(super) fn counted(&mut self, turns: usize, tally_bytes: usize) {
        let counted = self.uncounted.drain(..turns);
        self.uncounted_bytes -= counted.map(|(_, _, record)| record.len()).sum::<usize>();
        self.tally_bytes = tally_bytes;
    }

    pub(super) fn bytes(&self) -> usize {
        self.uncounted.len() * Self::TURN_BYTES + self.tally_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::test_prices;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::tables::meta::{RolledUp, WriteMeta};
    use crate::turn::{Done, EpochMillis, OpenTurn, TurnId};

    fn id(name: &str) -> ConversationId {
        ConversationId::new(name).unwrap()
    }

    /// Returns a turn that counts in this quarter.
    fn turn(conversation: &str, model: &str, quarter: u64) -> Uncounted {
        let done = Done { model: Some(model.into()), ..Done::because("stop") };
        let turn = OpenTurn::new(TurnId::new("t").unwrap()).seal(&done, EpochMillis::new(quarter * 900_000));
        (id(conversation), Life(1), record::encode_sealed(&turn).unwrap().into())
    }

    fn tally(turns: &[Uncounted]) -> Tally {
        let mut tally = Tally::default();
        tally.count(turns, &*test_prices());
        tally
    }

    fn some() -> Tally {
        tally(&[turn("b", "m", 3), turn("a", "m", 3), turn("a", "dear", 3), turn("c", "m", 1), turn("c", "m", 3)])
    }

    #[test]
    fn a_tally_is_moved_in_parts_of_any_size_each_row_once() {
        let all = some();
        let rows = all.parts.len() + all.conversations.len();
        assert_eq!((all.parts.len(), all.conversations.len()), (3, 3));
        let enough = all.conversations.len() + (all.parts.len() - 1) * CONVERSATIONS_FOR_A_LABEL + 1;
        for limit in 1..=enough {
            let (mut moved, mut last, mut steps) = (Tally::default(), None, 0);
            loop {
                assert_eq!(all.after(last.as_ref()).bytes() + moved.bytes(), all.bytes());
                let (part, to) = all.next_after(last.as_ref(), limit);
                assert!(part.parts.len() + part.conversations.len() <= limit);
                moved.absorb(part);
                steps += 1;
                if to.is_none() {
                    break;
                }
                assert!(to > last, "the keys do not rise");
                last = to;
            }
            assert_eq!(moved, all, "in parts of {limit}");
            assert!(steps <= rows && (steps == 1) == (limit == enough), "{steps} steps of {limit}");
        }
    }

    #[test]
    fn the_tables_lack_the_rows_after_the_key_that_they_have_reached() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let recent = Recent { immutable: some(), active: tally(&[turn("d", "m", 9)]) };
        let frozen_row = 7;
        let lacking = |change: &dyn Fn(&mut WriteMeta<'_>)| {
            let txn = files.write_tables().unwrap();
            let mut meta = WriteMeta::write(&txn).unwrap();
            change(&mut meta);
            Lacking::of(&meta, frozen_row).unwrap()
        };
        let at = |row| RolledUp { row, position: 0 };
        assert_eq!(lacking(&|_| {}), Lacking::All);
        assert_eq!(lacking(&|meta| meta.set_rolled_up(at(6)).unwrap()), Lacking::All);
        assert_eq!(lacking(&|meta| meta.set_rolled_up(at(7)).unwrap()), Lacking::Nothing);
        let (mut keys, mut key) = (Vec::new(), None);
        while let (_, Some(next)) = recent.immutable.next_after(key.as_ref(), 1) {
            keys.push(next.clone());
            key = Some(next);
        }
        for key in keys {
            let lacking = lacking(&|meta| meta.set_rolling_up(frozen_row, &key).unwrap());
            let rest = recent.immutable.after(Some(&key));
            for (quarter, label, _) in recent.immutable.parts() {
                let is_left = rest.parts.contains_key(&(quarter, label.clone()));
                assert_eq!(lacking.has_part(quarter, label), is_left, "{key:?}");
            }
            for (id, _) in recent.immutable.conversations() {
                assert_eq!(lacking.has_conversation(id), rest.conversations.contains_key(id), "{key:?}");
            }
            let mut all = rest;
            all.absorb(recent.active.clone());
            assert_eq!(recent.not_in(&lacking), all);
        }
    }

    #[test]
    fn a_price_that_panics_costs_the_price_and_not_the_turn() {
        #[derive(Debug)]
        struct Panicking;
        impl PriceBook for Panicking {
            fn price(&self, _: &crate::report::PricedStep<'_>) -> Option<crate::report::PicoDollars> {
                panic!("this panic is part of a test");
            }

            fn digest(&self) -> u64 {
                1
            }
        }
        let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
        let usage = crate::turn::Usage { input_tokens: 5.into(), ..crate::turn::Usage::default() };
        turn.fold(&crate::turn::Progress::Usage { step_id: None, report: usage.into(), is_final: false });
        let done = Done { model: Some("m".into()), ..Done::because("stop") };
        let record = record::encode_sealed(&turn.seal(&done, EpochMillis::new(1))).unwrap();
        let turns = [(id("a"), Life(1), Arc::from(record)), (id("a"), Life(1), Arc::from(*b"no record"))];
        let mut counted = Tally::default();
        counted.count(&turns, &Panicking);
        let mut unpriced = Tally::default();
        unpriced.count(&turns, &NoPrices);
        assert_eq!((counted.parts.len(), &counted), (1, &unpriced));
    }
}

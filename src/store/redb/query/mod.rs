//! Reads: the rows of the tables, overlaid by the memtable.
//!
//! Invariant: a record that does not decode is left out and reported. It does not make the read fail, as other records
//! are sound.
//!
//! - `open_turns`: the open turns of a conversation, each put together from its head and its steps.
//! - `conversations`: lists of conversations.
//! - `erased`: the sums of erased turns, for an export.
//! - `order`: the turns of all conversations, in the order in which they became durable.
//! - `report`: sums over the turns of some periods.
//! - `tests`: the answer to each question is the same at every stage of a checkpoint.

pub(crate) mod conversations;
pub(crate) mod erased;
mod open_turns;
pub(crate) mod order;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use self::open_turns::OpenTurnsQuery;
use crate::store::contract::{ConversationState, Life, OpenTurns, RangeEnd, StaleBefore, StaleTurn, TurnRange};
use crate::store::redb::memtable::piece::{Change, Piece};
use crate::store::redb::memtable::{Contents, Memtable};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::guarded::{visit_back_from, visit_from};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::{OpenTurns as OpenTurnRows, Positions, Turns};
use crate::turn::{ConversationId, Ordinal, StoredTurn, TurnId};

/// A list of turns ends with the turn at which the records together have this many bytes: after some hundred short
/// turns, whose JSON is about 100 KiB, or after a single long turn.
const LIST_BYTES: usize = 16 * 1024;

/// The damaged records that a read met.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    pub(crate) count: u64,
    /// A text with the place of the first damaged record and what is wrong with it.
    pub(crate) first: String,
}

impl LeftOut {
    fn add(&mut self, damaged: &impl Display, place: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = format!("{}: {damaged}", place());
        }
        self.count += 1;
    }

    /// Adds what another part of the read met.
    fn absorb(&mut self, other: Self) {
        if self.count == 0 {
            self.first = other.first;
        }
        self.count += other.count;
    }

    /// Adds positions that have no row.
    fn add_missing(&mut self, missing: u64, place: impl FnOnce() -> String) {
        if missing > 0 {
            self.add(&DamagedRecord::new(Positions::WHAT, RecordFlaw::Missing), place);
            self.count += missing - 1;
        }
    }
}

/// The count of a conversation's turns, if the memtable knows it.
pub(crate) struct CountQuery(Option<TurnCount>);

/// The ordinals that a conversation has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TurnCount {
    pub(crate) life: Life,
    /// The ordinal of the latest turn; 0 if no turn is sealed.
    pub(crate) sealed_turns: u64,
    /// The number of ordinals before that of the first turn.
    pub(crate) begins_after: u64,
}

impl TurnCount {
    fn of(conversation: &ConversationRecord) -> Self {
        let ConversationRecord { life, sealed_turns, begins_after, .. } = *conversation;
        Self { life, sealed_turns, begins_after }
    }
}

impl CountQuery {
    pub(crate) fn of(memtable: &Memtable, id: &ConversationId) -> Self {
        Self::of_latest(memtable.of(id).next())
    }

    fn of_latest(piece: Option<&Arc<Piece>>) -> Self {
        Self(piece.map(|piece| TurnCount::of(&piece.conversation)))
    }

    pub(crate) fn needs_tables(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn read(
        self,
        tables: Option<&ReadTables>,
        id: &ConversationId,
        left_out: &mut LeftOut,
    ) -> Result<TurnCount, Failure> {
        let (None, Some(tables)) = (self.0, tables) else { return Ok(self.0.unwrap_or_default()) };
        let Some(key) = tables.key_of(id)? else { return Ok(TurnCount::default()) };
        match tables.conversation(key) {
            Ok(record) => Ok(TurnCount::of(&record)),
            Err(Failure::Record(damaged)) => {
                left_out.add(&damaged, || format!("conversation {id}"));
                Ok(TurnCount { sealed_turns: last_ordinal(tables, key)?, ..TurnCount::default() })
            }
            Err(failure) => Err(failure),
        }
    }
}

fn last_ordinal(tables: &ReadTables, key: u64) -> Result<u64, Failure> {
    let mut last = 0;
    visit_back_from::<Turns>(tables.turns()?, &(key, u64::MAX), |(of, ordinal), turn| {
        if *of == key {
            last = last.max(*ordinal);
        }
        // The key of a damaged turn may be wrong.
        Ok(if turn.is_ok() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(last)
}

/// Returns how many of the first turns of a conversation were dropped.
pub(crate) fn dropped_turns(tables: &ReadTables, id: &ConversationId, life: Life) -> Result<u64, Failure> {
    match tables.key_of_life(id, life) {
        Ok(Some(key)) => Ok(tables.dropped(key)?.map_or(0, |dropped| dropped.last())),
        // Damage is reported by the reads of the turns themselves.
        Ok(None) | Err(Failure::Record(_)) => Ok(0),
        Err(failure) => Err(failure),
    }
}

/// The turns of a range that are in the memtable. They are copied, so that the lock is free while the tables are read.
pub(crate) struct TurnsQuery {
    /// The first ordinal in the memtable; earlier ones are in the tables.
    first: Option<u64>,
    /// The turns, beginning at the end of the range that the question names.
    turns: Vec<(Ordinal, Arc<[u8]>)>,
    key: Option<u64>,
    /// The present life of the conversation, if the memtable knows it.
    life: Option<Life>,
}

/// Returns the key of a conversation in the tables: that of this life, if the memtable knows the present life.
fn key_of(tables: &ReadTables, id: &ConversationId, life: Option<Life>) -> Result<Option<u64>, Failure> {
    life.map_or_else(|| tables.key_of(id), |life| tables.key_of_life(id, life))
}

impl TurnsQuery {
    pub(crate) fn of(memtable: &Memtable, range: &TurnRange) -> Self {
        let pieces: Vec<&Arc<Piece>> = memtable.of(&range.conversation_id).collect();
        let first = pieces.last().map(|lowest| lowest.sealed_before() + 1);
        let key = pieces.iter().find_map(|piece| piece.key);
        let life = pieces.first().map(|latest| latest.conversation.life);
        let Some((_, to)) = range.ordinals() else { return Self { first, turns: Vec::new(), key, life } };
        let copy = |(ordinal, record): (Ordinal, &Arc<[u8]>)| (ordinal, Arc::clone(record));
        let turns = match range.end {
            RangeEnd::Oldest => {
                let turns = pieces.iter().rev().flat_map(|piece| piece.sealed_after(range.after));
                turns.take_while(|(ordinal, _)| ordinal.get() <= to).take(range.limit).map(copy).collect()
            }
            RangeEnd::Latest => {
                let turns = pieces.iter().flat_map(|piece| piece.sealed_after(range.after).rev());
                turns.skip_while(|(ordinal, _)| ordinal.get() > to).take(range.limit).map(copy).collect()
            }
        };
        Self { first, turns, key, life }
    }

    /// Returns whether the answer also needs turns of the range that are in the tables.
    pub(crate) fn needs_tables(&self, range: &TurnRange) -> bool {
        let are_in_tables = |(from, _)| self.first.is_none_or(|first| from < first);
        range.ordinals().is_some_and(are_in_tables) && !(range.end == RangeEnd::Latest && self.is_enough(range))
    }

    /// Returns whether the memtable has the requested number of turns.
    fn is_enough(&self, range: &TurnRange) -> bool {
        self.turns.len() >= range.limit
    }

    fn key(&self, tables: &ReadTables, range: &TurnRange) -> Result<Option<u64>, Failure> {
        self.key.map_or_else(|| key_of(tables, &range.conversation_id, self.life), |key| Ok(Some(key)))
    }

    /// Returns the turns, at most the requested number. Reading stops with the turn that exceeds [`LIST_BYTES`].
    /// Damaged turns of the tables are skipped and replaced by further turns, so an empty list means that the range has
    /// no more turns. Turns of the memtable are sound: they were decoded when the memtable took them.
    pub(crate) fn read(
        self,
        tables: Option<&ReadTables>,
        range: &TurnRange,
        left_out: &mut LeftOut,
    ) -> Result<Vec<StoredTurn>, Failure> {
        Ok(self.read_within(usize::MAX, tables, range, left_out)?.unwrap_or_default())
    }

    /// Like [`read`](Self::read), for a thread on which other work waits: the list also ends before a turn whose record
    /// is longer than a list of short turns. Returns `None` if that is the first turn of the list.
    pub(crate) fn read_short(
        self,
        tables: Option<&ReadTables>,
        range: &TurnRange,
        left_out: &mut LeftOut,
    ) -> Result<Option<Vec<StoredTurn>>, Failure> {
        self.read_within(LIST_BYTES, tables, range, left_out)
    }

    fn read_within(
        self,
        record_bytes: usize,
        tables: Option<&ReadTables>,
        range: &TurnRange,
        left_out: &mut LeftOut,
    ) -> Result<Option<Vec<StoredTurn>>, Failure> {
        let mut list = List { range, turns: Vec::new(), bytes: 0, record_bytes, has_met_long: false, left_out };
        let Some((from, to)) = range.ordinals() else { return Ok(Some(list.turns)) };
        match range.end {
            RangeEnd::Oldest => {
                let latest = match tables {
                    Some(tables) => match self.key(tables, range)? {
                        Some(key) => list.add_rows(tables, key, from, to)?,
                        None => None,
                    },
                    None => None,
                };
                // Turns that the checkpoint moved since the memtable was copied are in both. Skip turns that were
                // already read.
                let turns = self.turns.iter().filter(|(ordinal, _)| latest.is_none_or(|latest| ordinal.get() > latest));
                list.add_records(turns);
            }
            RangeEnd::Latest => {
                list.add_records(self.turns.iter());
                if let Some(tables) = tables
                    && let Some(key) = self.key(tables, range)?
                {
                    let read = self.turns.last().map(|(earliest, _)| earliest.get() - 1);
                    list.add_rows(tables, key, from, read.map_or(to, |before| before.min(to)))?;
                }
                list.turns.reverse();
            }
        }
        Ok((!list.has_met_long || !list.turns.is_empty()).then_some(list.turns))
    }
}

/// The turns of a range that were read so far, in the order of reading.
struct List<'a> {
    range: &'a TurnRange,
    turns: Vec<StoredTurn>,
    /// The bytes of the turns' records.
    bytes: usize,
    /// The list ends before a turn whose record has more bytes.
    record_bytes: usize,
    has_met_long: bool,
    left_out: &'a mut LeftOut,
}

impl List<'_> {
    fn is_full(&self) -> bool {
        self.has_met_long || self.turns.len() >= self.range.limit || self.bytes >= LIST_BYTES
    }

    fn add(&mut self, ordinal: Ordinal, record: Result<&[u8], DamagedRecord>) {
        if record.as_ref().is_ok_and(|record| record.len() > self.record_bytes) {
            self.has_met_long = true;
            return;
        }
        match record.and_then(|record| Ok((record::decode_sealed(ordinal, record)?, record.len()))) {
            Ok((turn, len)) => {
                self.turns.push(turn);
                self.bytes += len;
            }
            Err(damaged) => {
                self.left_out.add(&damaged, || format!("turn {ordinal} of {}", self.range.conversation_id));
            }
        }
    }

    fn add_records<'a>(&mut self, mut records: impl Iterator<Item = &'a (Ordinal, Arc<[u8]>)>) {
        while !self.is_full()
            && let Some((ordinal, record)) = records.next()
        {
            self.add(*ordinal, Ok(record));
        }
    }

    /// Adds turns of some ordinals from the tables, beginning at the end of the range that the question names. Returns
    /// the last ordinal that was visited.
    fn add_rows(&mut self, tables: &ReadTables, key: u64, from: u64, to: u64) -> Result<Option<u64>, Failure> {
        // A range that begins after its end is an error in redb.
        if from > to {
            return Ok(None);
        }
        let (end, mut last) = (self.range.end, None);
        let visit = |(of, ordinal): &(u64, u64), record: Result<&[u8], DamagedRecord>| {
            let is_within = *of == key && (from..=to).contains(ordinal);
            if self.is_full() || record.is_ok() && !is_within {
                return Ok(ControlFlow::Break(()));
            }
            if is_within {
                last = last.max(Some(*ordinal));
            }
            // The key of a damaged row may be wrong, so the row may belong to the range whatever its key is.
            self.add(Ordinal::new(*ordinal).unwrap_or(Ordinal::after(0)), record);
            Ok(ControlFlow::Continue(()))
        };
        match end {
            RangeEnd::Oldest => visit_from::<Turns>(tables.turns()?, &(key, from), visit)?,
            RangeEnd::Latest => visit_back_from::<Turns>(tables.turns()?, &(key, to), visit)?,
        }
        Ok(last)
    }
}

/// The pieces of a conversation in the memtable, the latest first. Hold this query only while reading: the writer has
/// to copy a piece that a reader holds.
pub(crate) struct StateQuery(Vec<Arc<Piece>>);

impl StateQuery {
    pub(crate) fn of(memtable: &Memtable, id: &ConversationId) -> Self {
        Self(memtable.of(id).cloned().collect())
    }

    fn change(&self, turn_id: &str) -> Option<Change<'_>> {
        self.0.iter().find_map(|piece| piece.change(turn_id))
    }

    fn key(&self, tables: &ReadTables, id: &ConversationId) -> Result<Option<u64>, Failure> {
        let known = self.0.iter().find_map(|piece| piece.key);
        let life = self.0.first().map(|latest| latest.conversation.life);
        known.map_or_else(|| key_of(tables, id, life), |key| Ok(Some(key)))
    }

    /// Returns the open turns without the damaged ones.
    pub(crate) fn open_turns(
        self,
        tables: &ReadTables,
        id: &ConversationId,
        left_out: &mut LeftOut,
    ) -> Result<OpenTurns, Failure> {
        let key = self.key(tables, id)?;
        let count = CountQuery::of_latest(self.0.first());
        let TurnCount { sealed_turns, .. } = count.read(Some(tables), id, left_out)?;
        let mut open = OpenTurns { sealed_turns, turns: Vec::new() };
        for (turn_id, turn) in OpenTurnsQuery::of(&self.0).read(tables, key)? {
            match turn {
                Ok(staged) => open.turns.push(staged),
                Err(damaged) => left_out.add(&damaged, || format!("open turn {turn_id} of {id}")),
            }
        }
        open.turns.sort_unstable_by(|one, other| one.turn.id.cmp(&other.turn.id));
        Ok(open)
    }

    /// Returns the state that a conversation's actor starts from, and which of these turns are sealed.
    pub(crate) fn read(
        self,
        tables: &ReadTables,
        id: &ConversationId,
        turn_ids: &[TurnId],
        left_out: &mut LeftOut,
    ) -> Result<ConversationState, Failure> {
        let key = self.key(tables, id)?;
        let mut state = ConversationState::default();
        (state.version, state.last_sealed_at) = match (self.0.first(), key) {
            (Some(piece), _) => (piece.conversation.version, piece.conversation.last_sealed_at),
            (None, Some(key)) => {
                let conversation = tables.conversation(key)?;
                (conversation.version, conversation.last_sealed_at)
            }
            (None, None) => return Ok(state),
        };
        for (turn_id, turn) in OpenTurnsQuery::of(&self.0).read(tables, key)? {
            match turn {
                Ok(staged) => state.open_turns.push(staged),
                // A damaged open turn is left out, so its next event begins it anew. If the whole conversation were
                // refused, further events would be lost.
                Err(damaged) => left_out.add(&damaged, || format!("open turn {turn_id} of {id}")),
            }
        }
        for turn_id in turn_ids {
            let ordinal = match (self.change(turn_id.as_str()), key) {
                (Some(Change::Sealed(ordinal)), _) => Some(ordinal),
                (Some(Change::Open(_)), _) | (None, None) => None,
                (None, Some(key)) => tables.ordinal_of(key, turn_id)?,
            };
            state.sealed_turns.extend(ordinal.map(|ordinal| (turn_id.clone(), ordinal)));
        }
        Ok(state)
    }
}

/// The open turns of the memtable. A turn in the memtable overrides the rows of this turn in the tables.
pub(crate) struct StaleQuery(Contents);

impl StaleQuery {
    pub(crate) fn of(memtable: &Memtable) -> Self {
        Self(memtable.contents().clone())
    }

    /// Returns the heads of the memtable's open turns, by conversation and turn.
    fn open(&self) -> BTreeMap<(&ConversationId, &str), &[u8]> {
        let mut open = BTreeMap::new();
        // The pieces of the immutable table come first, so a later change of a turn replaces an earlier one.
        for piece in self.0.present() {
            for (turn_id, change) in piece.changes() {
                let place = (&piece.conversation.id, turn_id);
                match change {
                    Change::Open(turn) => open.insert(place, turn.head()),
                    Change::Sealed(_) => open.remove(&place),
                };
            }
        }
        open
    }

    /// Returns a page of the stale turns: first those in the memtable, then those of the tables that the memtable does
    /// not override.
    ///
    /// The last turn of the page before may have moved since, from the tables into the memtable or back. Then some
    /// turns are returned twice, or not before the next sweep.
    pub(crate) fn stale_turns(
        &self,
        tables: &ReadTables,
        before: StaleBefore,
        after: Option<&StaleTurn>,
        limit: usize,
        left_out: &mut LeftOut,
    ) -> Result<Vec<StaleTurn>, Failure> {
        let mut stale = Vec::new();
        let is_after_here = after.is_some_and(|after| self.0.has(&after.conversation_id, &after.turn_id));
        if after.is_none() || is_after_here {
            let from = after.map(|after| (&after.conversation_id, after.turn_id.as_str()));
            let from = from.map_or(Bound::Unbounded, Bound::Excluded);
            for ((conversation_id, turn_id), head) in self.open().range((from, Bound::Unbounded)) {
                if stale.len() == limit {
                    return Ok(stale);
                }
                match StagedHead::decode(head) {
                    Ok(staged) if before.is_stale(staged.last_event_at, &staged.head) => {
                        let conversation_id = (*conversation_id).clone();
                        stale.push(StaleTurn { conversation_id, turn_id: staged.turn_id });
                    }
                    Ok(_) => {}
                    Err(damaged) => left_out.add(&damaged, || format!("open turn {turn_id} of {conversation_id}")),
                }
            }
        }
        let from = match after {
            Some(StaleTurn { conversation_id, turn_id }) if !is_after_here => {
                // An unknown conversation has no key. No key is 0, so the scan starts at the beginning.
                (tables.search_key_of(conversation_id)?.unwrap_or(0), turn_id.as_str())
            }
            _ => (0, ""),
        };
        visit_from::<OpenTurnRows>(tables.open_turns()?, &from, |(key, turn_id), head| {
            if stale.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            if (*key, *turn_id) == from {
                return Ok(ControlFlow::Continue(()));
            }
            match self.if_stale(tables, *key, head, before) {
                Ok(Some(found)) if self.0.has(&found.conversation_id, &found.turn_id) => {}
                Ok(found) => stale.extend(found),
                // A damaged turn must not hide all others.
                Err(Failure::Record(damaged)) => left_out.add(&damaged, || format!("open turn {turn_id}")),
                Err(failure) => return Err(failure),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(stale)
    }

    /// Returns the open turn of a row, if it is stale and was not erased.
    fn if_stale(
        &self,
        tables: &ReadTables,
        key: u64,
        head: Result<&[u8], DamagedRecord>,
        before: StaleBefore,
    ) -> Result<Option<StaleTurn>, Failure> {
        if tables.is_erased(key)? {
            return Ok(None);
        }
        let staged = StagedHead::decode(head?)?;
        if !before.is_stale(staged.last_event_at, &staged.head) {
            return Ok(None);
        }
        let conversation = tables.conversation(key)?;
        let is_erased = self.0.erased().contains(&conversation.life);
        let turn_id = staged.turn_id;
        Ok((!is_erased).then_some(StaleTurn { conversation_id: conversation.id, turn_id }))
    }
}

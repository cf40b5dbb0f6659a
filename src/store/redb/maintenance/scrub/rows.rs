use std::fmt::Display;
use std::ops::ControlFlow;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError, TableDefinition, TableError,
};

use crate::report::{BreakdownRow, ConversationSums, Cost, Rollup, RollupLabel};
use crate::store::contract::Life;
use crate::store::redb::maintenance::check::inspect::unsound_step;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::Finding;
use crate::store::redb::tables::guarded::visit_back_from;
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::read::{decode_key, read_dropped, read_key};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::record::{self, decode_plain};
use crate::store::redb::tables::rollups::ReadRollups;
use crate::store::redb::tables::row::{RawKey, Row, Rows};
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, ConversationSumRows, Conversations, Costs, DROPPED, DroppedTurns, ERASED,
    Erased, INDEX, ImportedSums, KEYS, Keys, LOST_TURNS, Labels, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns,
    POSITIONS, Positions, RollupKey, Rollups, StepKey, TURNS, Turns,
};
use crate::store::redb::unwind;
use crate::turn::{ConversationId, Ordinal};

/// What is wrong with a row.
pub(super) enum Wrong {
    /// The row is damaged, or does not fit other rows.
    Told {
        text: String,
        /// The key of the conversation, if the row's own key does not have it.
        key: Option<u64>,
    },
    /// The tables cannot be read.
    Failed(Failure),
}

impl From<DamagedRecord> for Wrong {
    fn from(damaged: DamagedRecord) -> Self {
        told(damaged)
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Record(damaged) => told(damaged),
            failure => Self::Failed(failure),
        }
    }
}

impl From<StorageError> for Wrong {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.into())
    }
}

fn told(text: impl Display) -> Wrong {
    Wrong::Told { text: text.to_string(), key: None }
}

/// Returns what is wrong unless the condition holds.
fn ensure(holds: bool, text: impl Display) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(told(text)) }
}

/// The place of a row in the text of a finding.
pub(super) struct Place {
    /// The row, before the name of its conversation.
    row: String,
    key: Option<u64>,
    id: Option<ConversationId>,
}

impl Place {
    pub(super) fn of(row: String) -> Self {
        Self { row, key: None, id: None }
    }

    /// The place of a row of the conversation with this key.
    pub(super) fn of_key(row: &str, key: u64) -> Self {
        Self { row: format!("{row}conversation #{key}"), key: Some(key), id: None }
    }

    /// The place of a row of the conversation with this id.
    pub(super) fn of_id(id: &str) -> Self {
        Self { row: format!("conversation {id}"), key: None, id: ConversationId::new(id).ok() }
    }

    pub(super) fn finding(self, wrong: Wrong) -> Finding {
        let (text, key) = match wrong {
            Wrong::Told { text, key } => (text, key),
            Wrong::Failed(failure) => (failure.to_string(), None),
        };
        Finding { text: format!("{}: {text}", self.row), key: self.key.or(key), id: self.id, unread: None }
    }
}

/// A table whose keys may be damaged.
pub(super) type RawTable<T> = ReadOnlyTable<RawKey<<T as Rows>::Key>, Row<T>>;

/// The tables in one snapshot.
pub(super) struct Tables<'txn> {
    txn: &'txn ReadTransaction,
    keys: ReadOnlyTable<&'static str, Row<Keys>>,
    conversations: ReadOnlyTable<u64, Row<Conversations>>,
    turns: ReadOnlyTable<(u64, u64), Row<Turns>>,
    pub(super) index: ReadOnlyTable<(u64, u64), Indexed>,
    open_turns: ReadOnlyTable<(u64, &'static str), Row<OpenTurns>>,
    open_steps: ReadOnlyTable<StepKey, Row<OpenTurnSteps>>,
    activity: ReadOnlyTable<(u64, &'static str), Row<Activity>>,
    positions: ReadOnlyTable<u64, Row<Positions>>,
    rollups: ReadRollups,
    erased: ReadOnlyTable<u64, Row<Erased>>,
    dropped: ReadOnlyTable<u64, Row<DroppedTurns>>,
    /// The turns that repairs moved aside. `None` if the file was never repaired.
    lost: Option<ReadOnlyTable<(u64, u64), &'static [u8]>>,
    hasher: TurnHasher,
    facts: ReadMeta,
}

impl<'txn> Tables<'txn> {
    /// Opens the tables. The hasher is of the open store, so that a damaged id of the store is a finding like others.
    pub(super) fn open(txn: &'txn ReadTransaction, hasher: TurnHasher) -> Result<Self, Failure> {
        let lost = match txn.open_table(LOST_TURNS) {
            Ok(lost) => Some(lost),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            txn,
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            open_steps: txn.open_table(OPEN_STEPS)?,
            activity: txn.open_table(ACTIVITY)?,
            positions: txn.open_table(POSITIONS)?,
            rollups: ReadRollups::open(txn)?,
            erased: txn.open_table(ERASED)?,
            dropped: txn.open_table(DROPPED)?,
            lost,
            hasher,
            facts: ReadMeta::read(txn)?,
        })
    }

    /// Opens a table whose keys may be damaged.
    pub(super) fn raw<T: Rows>(&self) -> Result<RawTable<T>, Failure> {
        Ok(self.txn.open_table(TableDefinition::new(T::NAME))?)
    }

    /// Adds the ids of the conversations to findings that have only their keys.
    pub(super) fn name_conversations(&self, found: &mut [Finding]) {
        for finding in found.iter_mut().filter(|finding| finding.id.is_none()) {
            let Some(key) = finding.key else { continue };
            // A finding stands even if the page with the id is damaged.
            let record = unwind::caught(|| {
                let record = self.conversations.get(key).ok().flatten()?;
                record.value().verify(&key).and_then(ConversationRecord::decode).ok()
            });
            finding.id = record.ok().flatten().map(|record| record.id);
        }
    }

    fn is_lost(&self, key: u64, ordinal: u64) -> Result<bool, Failure> {
        Ok(match &self.lost {
            Some(lost) => lost.get((key, ordinal))?.is_some(),
            None => false,
        })
    }

    /// Returns whether a conversation was erased. Its rows are removed step by step.
    fn is_erased(&self, key: u64) -> Result<bool, Failure> {
        Ok(self.erased.get(key)?.is_some())
    }

    /// Checks that a conversation has a record, or was erased.
    fn known(&self, key: u64) -> Result<(), Wrong> {
        let is_known = self.conversations.get(key)?.is_some() || self.is_erased(key)?;
        ensure(is_known, "its conversation is unknown")
    }

    /// Returns the last ordinal of a conversation that was dropped. The scrub reports a damaged note when it reads that
    /// note.
    fn dropped_to(&self, key: u64) -> Result<u64, Failure> {
        match read_dropped(&self.dropped, key) {
            Err(Failure::Record(_)) => Ok(0),
            dropped => Ok(dropped?.map_or(0, |dropped| dropped.last())),
        }
    }

    fn has_turn(&self, key: u64, ordinal: u64) -> Result<bool, Failure> {
        Ok(self.turns.get((key, ordinal))?.is_some()
            || self.is_lost(key, ordinal)?
            || ordinal <= self.dropped_to(key)?)
    }

    /// Checks that the key of an id has a record, which names the id.
    pub(super) fn key(&self, id: &str, key: &[u8]) -> Result<(), Wrong> {
        let key = decode_key(key)?;
        let Some(record) = self.conversations.get(key)? else { return Err(told("its record is missing")) };
        // The scrub reports a damaged record when it reads that record.
        let record = record.value().verify(&key).and_then(ConversationRecord::decode);
        ensure(record.is_ok_and(|record| record.id.as_str() == id), "its key has the record of another conversation")
    }

    /// Checks that a record has its key, its place by activity, and as many turns as it says.
    pub(super) fn conversation(&self, key: u64, record: &[u8]) -> Result<(), Wrong> {
        let record = ConversationRecord::decode(record)?;
        ensure(read_key(&self.keys, &record.id)? == Some(key), "its id has another key or none")?;
        let dropped = self.dropped_to(key)?;
        let mut last = dropped;
        visit_back_from::<Turns>(&self.turns, &(key, u64::MAX), |(of, ordinal), turn| {
            if *of == key {
                last = *ordinal;
            }
            Ok(if turn.is_ok() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(lost) = &self.lost
            && let Some(row) = lost.range((key, 0)..=(key, u64::MAX))?.next_back()
        {
            last = last.max(row?.0.value().1);
        }
        let said = record.sealed_turns;
        ensure(said == last, format_args!("its record says {said} sealed turns, and the last one is {last}"))?;
        if let Some(place) = record.activity().filter(|_| dropped < record.sealed_turns) {
            let found = self.activity.get(place)?;
            let found = found.map(|found| found.value().verify(&place).and_then(decode_key)).transpose()?;
            ensure(found == Some(key), "it has no place by activity")?;
        }
        ensure(record.version.0 > 0, "its version is 0 though it was changed")
    }

    /// Checks that a turn has a conversation, the turn before it, and a row in the index.
    pub(super) fn turn(&self, key: u64, ordinal: u64, record: &[u8]) -> Result<(), Wrong> {
        let Some(at) = Ordinal::new(ordinal) else { return Err(told("0 is no ordinal")) };
        let turn = record::decode_sealed(at, record)?;
        self.known(key)?;
        if self.is_erased(key)? {
            return Ok(());
        }
        ensure(ordinal == 1 || self.has_turn(key, ordinal - 1)?, "the turn before it is missing")?;
        let hash = self.hasher.hash(turn.metrics.turn_id.as_str());
        ensure(index::has(&self.index, key, hash, ordinal)?, "the index does not have its id")
    }

    /// Checks that a row of the index is found, and leads to a turn that belongs there.
    pub(super) fn index_row(&self, (key, hash): (u64, u64), ordinal: u64) -> Result<(), Wrong> {
        ensure(self.index.get((key, hash))?.is_some(), "a damaged key hides it")?;
        let Some(turn) = self.turns.get((key, ordinal))? else {
            let may_be_gone = self.is_lost(key, ordinal)? || self.is_erased(key)?;
            return ensure(may_be_gone, format_args!("it names turn {ordinal}, which is not there"));
        };
        let place = (key, ordinal);
        // The scrub reports a damaged turn when it reads that turn.
        match turn.value().verify(&place).and_then(record::turn_id_of) {
            Ok(id) => ensure(
                index::belongs(hash, self.hasher.hash(id)),
                format_args!("it names turn {ordinal}, which has another id"),
            ),
            Err(_) => Ok(()),
        }
    }

    /// Checks that an open turn has a conversation, is not sealed, and has its steps.
    pub(super) fn open_turn(&self, key: u64, turn_id: &str, head: &[u8]) -> Result<(), Wrong> {
        let head = StagedHead::decode(head)?;
        ensure(head.turn_id.as_str() == turn_id, "it is another turn")?;
        self.known(key)?;
        let sealed = index::find(&self.index, &self.turns, key, |id| self.hasher.hash(id), turn_id)?;
        ensure(sealed.is_none(), "it is sealed")?;
        if self.is_erased(key)? {
            return Ok(());
        }
        unsound_step(&self.open_steps, key, &head)?.map_or(Ok(()), |flaw| Err(told(flaw)))
    }

    /// Checks that the head of a step's turn counts the step.
    pub(super) fn open_step(&self, key: u64, turn_id: &str, step: u32) -> Result<(), Wrong> {
        let place = (key, turn_id);
        let Some(head) = self.open_turns.get(place)? else { return Err(told("there is no head of the turn")) };
        // The scrub reports a damaged head when it reads that head.
        let head = head.value().verify(&place).and_then(StagedHead::decode);
        ensure(head.is_err() || head.is_ok_and(|head| step < head.step_count), "the head of the turn has fewer steps")
    }

    /// Checks that the conversation of a place by activity has this place.
    pub(super) fn activity(&self, place: (u64, &str), key: &[u8]) -> Result<(), Wrong> {
        let key = decode_key(key)?;
        let record = self.conversations.get(key)?;
        let record = record.map(|record| record.value().verify(&key).and_then(ConversationRecord::decode));
        match record {
            // The scrub reports a damaged record when it reads that record.
            Some(Err(_)) => Ok(()),
            Some(Ok(record)) => {
                ensure(record.activity() == Some(place), "it has a place by activity that is not its own")
            }
            None => Err(told("it has a place by activity and no record")),
        }
    }

    /// Checks that a position follows another one, and leads to a turn.
    pub(super) fn position(&self, position: u64, at: &[u8]) -> Result<(), Wrong> {
        let at = AtPosition::decode(at)?;
        ensure(position > 0, "0 is no position")?;
        ensure(position == 1 || self.positions.get(position - 1)?.is_some(), "the position before it is missing")?;
        let AtPosition::Sealed { key, ordinal } = at else { return Ok(()) };
        if self.has_turn(key, ordinal.get())? || self.is_erased(key)? {
            return Ok(());
        }
        Err(Wrong::Told {
            text: format!("it has turn {ordinal} of conversation #{key}, which is not there"),
            key: Some(key),
        })
    }

    /// Checks that the last position is the number of positions, and that no position of a rolled up turn is missing.
    pub(super) fn last_position(&self) -> Result<(), Wrong> {
        let last = self.positions.last()?.map_or(0, |(position, _)| position.value());
        let rolled_up = self.facts.rolled_up()?.position;
        ensure(last == self.positions.len()? && last >= rolled_up, "positions are missing")
    }

    pub(super) fn label(label: &[u8]) -> Result<(), Wrong> {
        drop(decode_plain::<RollupLabel>(Labels::WHAT, label)?);
        Ok(())
    }

    pub(super) fn imported(note: &[u8]) -> Result<(), Wrong> {
        drop(decode_plain::<BreakdownRow>(ImportedSums::WHAT, note)?);
        Ok(())
    }

    pub(super) fn rollup(&self, key: RollupKey, rollup: &[u8]) -> Result<(), Wrong> {
        drop(decode_plain::<Rollup>(Rollups::WHAT, rollup)?);
        ensure(self.rollups.labels.get(key.2)?.is_some(), "its label is missing")
    }

    pub(super) fn cost(&self, label: u64, cost: &[u8]) -> Result<(), Wrong> {
        drop(decode_plain::<Cost>(Costs::WHAT, cost)?);
        ensure(self.rollups.labels.get(label)?.is_some(), "its label is missing")
    }

    /// Checks that a conversation that was erased is not there.
    pub(super) fn erased(&self, key: u64, sealed_turns: &[u8]) -> Result<(), Wrong> {
        decode_key(sealed_turns)?;
        ensure(self.conversations.get(key)?.is_none(), "its record is there")
    }

    /// Checks that a note of dropped turns is readable, and that its conversation is known.
    pub(super) fn dropped(&self, key: u64, note: &[u8]) -> Result<(), Wrong> {
        Dropped::decode(note)?;
        self.known(key)
    }

    /// Checks that the conversation of an erasure was erased.
    pub(super) fn erasure(&self, life: u64, erasure: &[u8]) -> Result<(), Wrong> {
        let Erasure { key, .. } = Erasure::decode(Life(life), erasure)?;
        ensure(self.is_erased(key)?, format_args!("no note says that conversation #{key} was erased"))
    }

    pub(super) fn conversation_sums(&self, key: u64, sums: &[u8]) -> Result<(), Wrong> {
        drop(decode_plain::<ConversationSums>(ConversationSumRows::WHAT, sums)?);
        self.known(key)
    }
}

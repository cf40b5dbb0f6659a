use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableError};

use super::facts;
use super::flaw::Flaw;
use super::report::{CheckReport, Violation};
use super::sums::{self, TurnSums};
use crate::store::contract::Life;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::{self, TurnHasher};
use crate::store::redb::tables::indexed::Indexed;
use crate::store::redb::tables::meta::ReadMeta;
use crate::store::redb::tables::read::{decode_key, read_dropped};
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::record::dropped::Dropped;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::record::open_turn::StagedHead;
use crate::store::redb::tables::record::{self};
use crate::store::redb::tables::row::Row;
use crate::store::redb::tables::schema::{
    ACTIVITY, Activity, CONVERSATIONS, Conversations, DROPPED, DroppedTurns, ERASED, ERASURES, Erased, Erasures,
    FINDINGS, INDEX, KEYS, Keys, LOST_TURNS, OPEN_STEPS, OPEN_TURNS, OpenTurnSteps, OpenTurns, POSITIONS, Positions,
    StepKey, TURNS, Turns,
};
use crate::turn::{ConversationId, Ordinal};

/// Checks every record of the tables, in one read transaction.
pub(super) struct Inspection {
    turns: ReadOnlyTable<(u64, u64), Row<Turns>>,
    index: ReadOnlyTable<(u64, u64), Indexed>,
    /// `None` if the store's id, which is the key of the hash, is missing.
    hasher: Option<TurnHasher>,
    /// The turns that repairs moved aside. `None` if the file was never repaired.
    lost: Option<ReadOnlyTable<(u64, u64), &'static [u8]>>,
    /// The id of each key's conversation.
    ids: BTreeMap<u64, String>,
    /// What is known of the turns that were dropped.
    dropped: ReadOnlyTable<u64, Row<DroppedTurns>>,
    /// The number of sealed turns of each erased conversation, by its key.
    erased: BTreeMap<u64, u64>,
    /// The keys of erased conversations whose rows are not all removed yet.
    erasing: BTreeSet<u64>,
    /// The sums over the turns checked so far.
    summed: TurnSums,
    report: CheckReport,
}

impl Inspection {
    pub(super) fn of(txn: &ReadTransaction) -> Result<CheckReport, Failure> {
        let lost = match txn.open_table(LOST_TURNS) {
            Ok(lost) => Some(lost),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let meta = ReadMeta::read(txn)?;
        let mut inspection = Self {
            turns: txn.open_table(TURNS)?,
            index: txn.open_table(INDEX)?,
            hasher: meta.store_id().ok().map(TurnHasher::of),
            lost,
            ids: BTreeMap::new(),
            dropped: txn.open_table(DROPPED)?,
            erased: BTreeMap::new(),
            erasing: BTreeSet::new(),
            summed: TurnSums::default(),
            report: CheckReport::default(),
        };
        let conversations = txn.open_table(CONVERSATIONS)?;
        inspection.keys(&txn.open_table(KEYS)?, &conversations)?;
        inspection.erased(&txn.open_table(ERASED)?, &txn.open_table(ERASURES)?)?;
        inspection.dropped()?;
        inspection.meta(&meta)?;
        inspection.activity(&conversations, &txn.open_table(ACTIVITY)?)?;
        inspection.turns()?;
        inspection.index()?;
        inspection.positions(&txn.open_table(POSITIONS)?)?;
        inspection.open_turns(&txn.open_table(OPEN_TURNS)?, &txn.open_table(OPEN_STEPS)?)?;
        // If a turn is missing, the correct sums are unknown. A repair computes them again.
        if inspection.report.violations.is_empty() {
            inspection.report.violations = sums::compare(txn, &inspection.turns, &inspection.summed)?;
        }
        inspection.findings(txn)?;
        Ok(inspection.report)
    }

    /// Reports what scrubs have found. The conversations of these findings take nothing new until a repair.
    fn findings(&mut self, txn: &ReadTransaction) -> Result<(), Failure> {
        let findings = match txn.open_table(FINDINGS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            opened => opened?,
        };
        for row in findings.iter()? {
            let (text, value) = row?;
            let finding = match value.value().verify(&text.value()) {
                Ok(_) => text.value().to_owned(),
                Err(damaged) => format!("{}: {damaged}", text.value()),
            };
            self.tell(Violation::Found { finding });
        }
        Ok(())
    }

    fn tell(&mut self, violation: Violation) {
        self.report.violations.push(violation);
    }

    fn name(&self, key: u64) -> String {
        self.ids.get(&key).cloned().unwrap_or_else(|| format!("#{key}"))
    }

    /// Checks that ids and keys name each other, and that each key has a record that agrees with the turns.
    fn keys(
        &mut self,
        keys: &ReadOnlyTable<&'static str, Row<Keys>>,
        conversations: &ReadOnlyTable<u64, Row<Conversations>>,
    ) -> Result<(), Failure> {
        let mut without_key = BTreeSet::new();
        for row in keys.iter()? {
            let (id, key) = row?;
            let key = key.value().verify(&id.value()).and_then(decode_key);
            let id = id.value().to_owned();
            let mut wrong = |flaw| {
                self.report.violations.push(Violation::Conversation { conversation: id.clone(), flaw });
            };
            if ConversationId::new(&*id).is_err() {
                wrong(Flaw::Id);
            }
            let key = match key {
                Ok(key) => key,
                Err(damaged) => {
                    wrong(damaged.into());
                    without_key.insert(id);
                    continue;
                }
            };
            if let Some(other) = self.ids.get(&key) {
                wrong(Flaw::SharedKey { other: other.clone() });
            } else {
                if conversations.get(key)?.is_none() {
                    wrong(Flaw::NoRecord);
                }
                self.ids.insert(key, id);
            }
        }
        self.report.conversations = self.ids.len() as u64;
        // A conversation whose id has no key is named by its record. Otherwise all its rows would be reported as rows
        // of an unknown conversation.
        for row in conversations.iter()?.filter(|_| !without_key.is_empty()) {
            let (key, record) = row?;
            let record = record.value().verify(&key.value()).and_then(ConversationRecord::decode);
            if let Some(record) = record.ok().filter(|record| without_key.contains(record.id.as_str())) {
                self.ids.entry(key.value()).or_insert_with(|| record.id.as_str().to_owned());
            }
        }
        for row in conversations.iter()? {
            let (key, record) = row?;
            let key = key.value();
            for flaw in self.of_record(key, record.value().verify(&key))? {
                self.tell(Violation::Conversation { conversation: self.name(key), flaw });
            }
        }
        Ok(())
    }

    /// Reads the notes of erased conversations, and checks that they agree with each other and with the conversations.
    fn erased(
        &mut self,
        erased: &ReadOnlyTable<u64, Row<Erased>>,
        erasures: &ReadOnlyTable<u64, Row<Erasures>>,
    ) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for row in erased.iter()? {
            let (key, value) = row?;
            let key = key.value();
            match value.value().verify(&key).and_then(decode_key) {
                Ok(_) if self.ids.contains_key(&key) => wrong.push((key, Flaw::ErasedAndThere)),
                Ok(sealed_turns) => drop(self.erased.insert(key, sealed_turns)),
                Err(damaged) => wrong.push((key, damaged.into())),
            }
        }
        for row in erasures.iter()? {
            let (life, value) = row?;
            let erasure = value.value().verify(&life.value());
            match erasure.and_then(|bytes| Erasure::decode(Life(life.value()), bytes)) {
                Ok(erasure) if self.erased.contains_key(&erasure.key) => drop(self.erasing.insert(erasure.key)),
                Ok(erasure) => wrong.push((erasure.key, Flaw::NotErased)),
                Err(damaged) => wrong.push((0, damaged.into())),
            }
        }
        for (key, flaw) in wrong {
            self.tell(Violation::Conversation { conversation: self.name(key), flaw });
        }
        Ok(())
    }

    /// Checks that each note of dropped turns is sound and belongs to a conversation.
    fn dropped(&mut self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for row in self.dropped.iter()? {
            let (key, value) = row?;
            let key = key.value();
            match value.value().verify(&key).and_then(Dropped::decode) {
                Ok(_) if self.may_have_rows(key) => {}
                Ok(_) => wrong.push((key, Flaw::UnknownConversation)),
                Err(damaged) => wrong.push((key, damaged.into())),
            }
        }
        for (key, flaw) in wrong {
            self.tell(Violation::Conversation { conversation: self.name(key), flaw });
        }
        Ok(())
    }

    /// Returns the last ordinal of a conversation that was dropped; 0 if none was.
    fn dropped_to(&self, key: u64) -> Result<u64, Failure> {
        match read_dropped(&self.dropped, key) {
            Ok(dropped) => Ok(dropped.map_or(0, |dropped| dropped.last())),
            // A damaged note is reported where notes are checked.
            Err(Failure::Record(_)) => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// Returns whether a conversation has this key, or had it and was erased and not all of its rows are removed yet.
    fn may_have_rows(&self, key: u64) -> bool {
        self.ids.contains_key(&key) || self.erasing.contains(&key)
    }

    /// Checks that the facts about the main file are sound, that it has its ids, and that the next new
    /// conversation gets a new key.
    fn meta(&mut self, meta: &ReadMeta) -> Result<(), Failure> {
        self.report.violations.extend(facts::unsound(meta)?);
        if self.hasher.is_none() {
            self.tell(Violation::File(Flaw::NoStoreId));
        }
        if meta.lineage().is_err() {
            self.tell(Violation::File(Flaw::NoLineage));
        }
        let last = self.ids.keys().chain(self.erased.keys()).max().copied().unwrap_or_default();
        if meta.next_key().map_or(true, |next| next <= last) {
            self.tell(Violation::File(Flaw::NextKey));
        }
        Ok(())
    }

    fn of_record(&self, key: u64, record: Result<&[u8], DamagedRecord>) -> Result<Vec<Flaw>, Failure> {
        let record = match record.and_then(ConversationRecord::decode) {
            Ok(record) => record,
            Err(damaged) => return Ok(vec![damaged.into()]),
        };
        let mut wrong = Vec::new();
        if self.ids.get(&key).map(String::as_str) != Some(record.id.as_str()) {
            wrong.push(Flaw::OtherRecord { key, named: record.id.clone() });
        }
        let dropped = read_dropped(&self.dropped, key).ok().flatten();
        let dropped = dropped.map_or_else(|| ConversationRecord::begin(record.id.clone()), |dropped| dropped.record);
        let counted = count(&self.turns, self.lost.as_ref(), key, dropped)?;
        if counted.sealed_turns != record.sealed_turns {
            wrong.push(Flaw::SealedTurns { recorded: record.sealed_turns, counted: counted.sealed_turns });
        }
        if counted.total_usage != record.total_usage {
            wrong.push(Flaw::Totals);
        }
        if counted.last_sealed_at != record.last_sealed_at {
            wrong.push(Flaw::LastSealing);
        }
        if counted.last_at != record.last_at {
            wrong.push(Flaw::LastActivity);
        }
        let told = |of: &ConversationRecord| (of.first_at, of.model.clone(), of.project.clone(), of.context_size);
        if told(&counted) != told(&record) {
            wrong.push(Flaw::OtherTurns);
        }
        if record.version.0 == 0 {
            wrong.push(Flaw::Version);
        }
        Ok(wrong)
    }

    /// Checks that each conversation with a sealed turn has exactly one row in the table by activity, unless all of its
    /// turns were dropped.
    fn activity(
        &mut self,
        conversations: &ReadOnlyTable<u64, Row<Conversations>>,
        activity: &ReadOnlyTable<(u64, &'static str), Row<Activity>>,
    ) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        for row in activity.iter()? {
            let (place, key) = row?;
            let place = place.value();
            let key = match key.value().verify(&place).and_then(decode_key) {
                Ok(key) => key,
                Err(damaged) => {
                    wrong.push(Violation::Conversation { conversation: place.1.to_owned(), flaw: damaged.into() });
                    continue;
                }
            };
            let record = conversations.get(key)?;
            let record = record.map(|record| record.value().verify(&key).and_then(ConversationRecord::decode));
            // A damaged record is reported where records are checked.
            if !matches!(&record, Some(Err(_)))
                && record.and_then(Result::ok).as_ref().and_then(ConversationRecord::activity) != Some(place)
            {
                wrong.push(Violation::Conversation { conversation: place.1.to_owned(), flaw: Flaw::OtherPlace });
            }
        }
        for row in conversations.iter()? {
            let (key, record) = row?;
            let record = record.value().verify(&key.value()).and_then(ConversationRecord::decode);
            let Ok(record) = record else { continue };
            let Some(place) = record.activity() else { continue };
            if self.dropped_to(key.value())? == record.sealed_turns {
                continue;
            }
            let found = activity.get(place)?.map(|key| key.value().verify(&place).and_then(decode_key));
            // A damaged row is reported above.
            if !matches!(found, Some(Err(_))) && found.and_then(Result::ok) != Some(key.value()) {
                let conversation = self.name(key.value());
                wrong.push(Violation::Conversation { conversation, flaw: Flaw::NoPlace });
            }
        }
        self.report.violations.append(&mut wrong);
        Ok(())
    }

    /// Checks that the ordinals of each conversation begin at 1 and have no gaps, and that each turn is in the index. Of a
    /// conversation that is being erased, any turns may be gone.
    fn turns(&mut self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let mut summed = TurnSums::default();
        let mut before = (0, 0);
        for row in self.turns.iter()? {
            let (place, value) = row?;
            let (key, ordinal) = place.value();
            self.report.sealed_turns += 1;
            let mut tell = |ordinal, flaw| {
                wrong.push(Violation::Turn { conversation: self.name(key), ordinal, flaw });
            };
            if before.0 != key {
                let dropped = self.dropped_to(key)?;
                before = (key, dropped);
                if ordinal <= dropped {
                    tell(ordinal, Flaw::DroppedAndThere);
                }
            }
            let mut expected = before.1 + 1;
            if self.erasing.contains(&key) {
                expected = ordinal;
            }
            while expected < ordinal && self.is_lost(key, expected)? {
                expected += 1;
            }
            if expected < ordinal {
                tell(expected, Flaw::Missing { next: ordinal });
            }
            before = (key, ordinal);
            if !self.may_have_rows(key) {
                tell(ordinal, Flaw::UnknownConversation);
            }
            let Some(at) = Ordinal::new(ordinal) else {
                tell(ordinal, Flaw::ZeroOrdinal);
                continue;
            };
            match value.value().verify(&(key, ordinal)).and_then(|record| record::decode_sealed(at, record)) {
                Err(damaged) => tell(ordinal, damaged.into()),
                Ok(turn) => {
                    summed.count(key, &turn)?;
                    let turn_id = turn.metrics.turn_id;
                    match self.indexed(key, turn_id.as_str())? {
                        Some(indexed) if indexed == at => {}
                        // Nobody looks for a turn of an erased conversation.
                        _ if self.erasing.contains(&key) => {}
                        Some(other) => tell(ordinal, Flaw::IndexedElsewhere { turn_id, ordinal: other }),
                        None => tell(ordinal, Flaw::NotIndexed { turn_id }),
                    }
                }
            }
        }
        self.summed = summed;
        self.report.violations.append(&mut wrong);
        if let Some(lost) = &self.lost {
            self.report.lost_turns = redb::ReadableTableMetadata::len(lost)?;
        }
        Ok(())
    }

    fn is_lost(&self, key: u64, ordinal: u64) -> Result<bool, Failure> {
        Ok(match &self.lost {
            Some(lost) => lost.get((key, ordinal))?.is_some(),
            None => false,
        })
    }

    fn indexed(&self, key: u64, turn_id: &str) -> Result<Option<Ordinal>, Failure> {
        let Some(hasher) = &self.hasher else { return Ok(None) };
        match index::find(&self.index, &self.turns, key, |id| hasher.hash(id), turn_id) {
            // The index leads to a damaged row of another turn. That row is reported when it is checked itself.
            Err(Failure::Record(_)) => Ok(None),
            found => found,
        }
    }

    /// Checks that each row of the index leads to a turn, and that no turn has two rows. `turns` has checked that each
    /// turn is found by its own id.
    fn index(&mut self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        // The ordinals that the rows of the present conversation name.
        let mut named = (0, BTreeSet::new());
        for row in self.index.iter()? {
            let (place, ordinal) = row?;
            let (key, hash) = place.value();
            if named.0 != key {
                named = (key, BTreeSet::new());
            }
            let flaw = match ordinal.value().verify((key, hash)) {
                Err(damaged) => damaged.into(),
                Ok(ordinal) if !named.1.insert(ordinal) => Flaw::NamedTwice { ordinal },
                Ok(ordinal)
                    if self.turns.get((key, ordinal))?.is_none()
                        && !self.is_lost(key, ordinal)?
                        && !self.erasing.contains(&key) =>
                {
                    Flaw::NamedMissing { ordinal }
                }
                Ok(_) => continue,
            };
            wrong.push(Violation::Index { conversation: self.name(key), hash, flaw });
        }
        self.report.violations.append(&mut wrong);
        Ok(())
    }

    /// Checks that positions begin at 1 and have no gaps, that each names a turn, that each turn has one, and that the
    /// turns of a conversation have theirs in the order of their ordinals.
    fn positions(&mut self, positions: &ReadOnlyTable<u64, Row<Positions>>) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        // For each conversation, the highest ordinal whose position has been read so far.
        let mut named: BTreeMap<u64, u64> = BTreeMap::new();
        let mut expected = 1;
        for row in positions.iter()? {
            let (position, value) = row?;
            let position = position.value();
            let mut tell = |position, flaw| wrong.push(Violation::Position { position, flaw });
            if position == 0 {
                tell(position, Flaw::ZeroPosition);
            } else if position > expected {
                tell(expected, Flaw::Missing { next: position });
            }
            expected = position.saturating_add(1);
            let (key, ordinal) = match value.value().verify(&position).and_then(AtPosition::decode) {
                Ok(AtPosition::Sealed { key, ordinal }) => (key, ordinal.get()),
                Ok(AtPosition::Erased) => continue,
                Err(damaged) => {
                    tell(position, damaged.into());
                    continue;
                }
            };
            let conversation = self.name(key);
            let last = named.get(&key).copied().unwrap_or_default();
            let was_erased = self.erased.get(&key).is_some_and(|sealed_turns| ordinal <= *sealed_turns);
            let is_known = was_erased
                || self.turns.get((key, ordinal))?.is_some()
                || self.is_lost(key, ordinal)?
                || ordinal <= self.dropped_to(key)?;
            if !is_known {
                tell(position, Flaw::PositionedMissing { ordinal, conversation });
            } else if ordinal <= last {
                tell(position, Flaw::OutOfOrder { ordinal, conversation, before: last });
            } else {
                self.unpositioned(key, last, ordinal - 1, &mut wrong)?;
                named.insert(key, ordinal);
            }
        }
        let mut after = (0, 0);
        while let Some(row) = self.turns.range(after..)?.next() {
            let (key, _) = row?.0.value();
            let last = named.get(&key).copied().unwrap_or_default();
            self.unpositioned(key, last, u64::MAX, &mut wrong)?;
            let Some(next) = key.checked_add(1) else { break };
            after = (next, 0);
        }
        self.report.violations.append(&mut wrong);
        Ok(())
    }

    /// Reports that the turns of a conversation after the ordinal `after`, up to the ordinal `to`, have no position.
    fn unpositioned(&self, key: u64, after: u64, to: u64, wrong: &mut Vec<Violation>) -> Result<(), Failure> {
        let Some(first) = after.checked_add(1).filter(|first| *first <= to) else { return Ok(()) };
        for row in self.turns.range((key, first)..=(key, to))? {
            let (_, ordinal) = row?.0.value();
            wrong.push(Violation::Turn { conversation: self.name(key), ordinal, flaw: Flaw::NoPosition });
        }
        Ok(())
    }

    /// Checks that each open turn belongs to a known conversation, is not sealed, and has as many steps as its head
    /// says.
    fn open_turns(
        &mut self,
        open_turns: &ReadOnlyTable<(u64, &'static str), Row<OpenTurns>>,
        open_steps: &ReadOnlyTable<StepKey, Row<OpenTurnSteps>>,
    ) -> Result<(), Failure> {
        // The number of steps in each head. `None` if the head cannot be read.
        let mut heads: BTreeMap<u64, BTreeMap<String, Option<u32>>> = BTreeMap::new();
        for row in open_turns.iter()? {
            let (place, value) = row?;
            let (key, turn_id) = place.value();
            let mut wrong = Vec::new();
            let is_erasing = self.erasing.contains(&key);
            self.report.open_turns += u64::from(!is_erasing);
            if !self.may_have_rows(key) {
                wrong.push(Flaw::UnknownConversation);
            }
            if self.indexed(key, turn_id)?.is_some() {
                wrong.push(Flaw::Sealed);
            }
            let head = value.value().verify(&(key, turn_id)).and_then(StagedHead::decode);
            let step_count = head.as_ref().ok().map(|head| head.step_count);
            match head {
                Err(damaged) => wrong.push(damaged.into()),
                Ok(head) if head.turn_id.as_str() != turn_id => wrong.push(Flaw::OtherTurn { turn_id: head.turn_id }),
                // The steps of an erased conversation are removed first.
                Ok(_) if is_erasing => {}
                Ok(head) => wrong.extend(unsound_step(open_steps, key, &head)?),
            }
            heads.entry(key).or_default().insert(turn_id.to_owned(), step_count);
            for flaw in wrong {
                self.tell(Violation::OpenTurn { conversation: self.name(key), turn_id: turn_id.into(), flaw });
            }
        }
        for row in open_steps.iter()? {
            let (place, value) = row?;
            let (key, turn_id, step) = place.value();
            let flaw = match heads.get(&key).and_then(|heads| heads.get(turn_id)) {
                // The steps that a head counts are checked above. A damaged head is reported there too.
                Some(None) => continue,
                Some(Some(count)) if step < *count => continue,
                head => match (value.value().verify(&place.value()), head) {
                    (Err(damaged), _) => Flaw::DamagedStep { place: step, damaged },
                    (Ok(_), _) if self.erasing.contains(&key) => continue,
                    (Ok(_), Some(Some(count))) => Flaw::SurplusStep { place: step, step_count: *count },
                    (Ok(_), _) => Flaw::NoHead { place: step },
                },
            };
            self.tell(Violation::OpenTurn { conversation: self.name(key), turn_id: turn_id.into(), flaw });
        }
        Ok(())
    }
}

/// Returns what is wrong with the first missing or damaged step, of the steps that a head counts. `None` if all are
/// sound.
pub(in crate::store::redb::maintenance) fn unsound_step(
    open_steps: &impl ReadableTable<StepKey, Row<OpenTurnSteps>>,
    key: u64,
    head: &StagedHead,
) -> Result<Option<Flaw>, Failure> {
    let turn_id = head.turn_id.as_str();
    let mut rows = open_steps.range((key, turn_id, 0)..(key, turn_id, head.step_count))?;
    let mut ids = BTreeSet::new();
    for place in 0..head.step_count {
        let Some((at, record)) = rows.next().transpose()?.filter(|(at, _)| at.value().2 == place) else {
            return Ok(Some(Flaw::MissingStep { place }));
        };
        let record = record.value().verify(&at.value());
        match record.and_then(|record| record::decode_step(&head.turn_id, place, record)) {
            Ok(step) if ids.insert(step.id.clone()) => {}
            Ok(step) => return Ok(Some(Flaw::RepeatedStep { place, step_id: step.id })),
            Err(damaged) => return Ok(Some(Flaw::DamagedStep { place, damaged })),
        }
    }
    Ok(None)
}

/// Returns the facts that a conversation's record must have, computed from its turns. `record` has the facts about the
/// turns that were dropped.
pub(super) fn count(
    turns: &impl ReadableTable<(u64, u64), Row<Turns>>,
    lost: Option<&impl ReadableTable<(u64, u64), &'static [u8]>>,
    key: u64,
    mut record: ConversationRecord,
) -> Result<ConversationRecord, Failure> {
    let all = (key, 0)..=(key, u64::MAX);
    let mut ordinal = record.sealed_turns;
    for row in turns.range(all.clone())? {
        let (place, value) = row?;
        ordinal = place.value().1;
        let bytes = value.value().verify(&place.value());
        let turn = bytes.ok().zip(Ordinal::new(ordinal)).map(|(bytes, at)| record::decode_sealed(at, bytes));
        if let Some(Ok(turn)) = turn {
            record.count_stored(&turn);
        }
    }
    if let Some(lost) = lost
        && let Some(row) = lost.range(all)?.next_back()
    {
        ordinal = ordinal.max(row?.0.value().1);
    }
    Ok(ConversationRecord { sealed_turns: ordinal, ..record })
}

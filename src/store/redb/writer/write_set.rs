//! The changes of the commits of one transaction, on top of the durable state.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use crate::store::contract::{Commit, CommitError, CommitSeries, Committed, CommittedSeries, Version};
use crate::store::fault::{Fault, FaultKind};
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::piece::Change;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::KnownFindings;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::conversation::ConversationRecord;
use crate::store::redb::tables::record::damaged::{DamagedRecord, RecordFlaw};
use crate::store::redb::tables::record::open_turn::StagedRecords;
use crate::store::redb::tables::row::Rows;
use crate::store::redb::tables::schema::Positions;
use crate::store::redb::unwind;
use crate::store::rule::{ConversationHead, Decision, decide};
use crate::turn::{ConversationId, EpochMillis, Ordinal, SealedTurn, TurnId};

/// The changes of the commits of one transaction so far. No read sees them before they are durable.
pub(crate) struct WriteSet<'a> {
    memtable: &'a Memtable,
    tables: &'a ReadTables,
    findings: &'a KnownFindings,
    conversations: HashMap<ConversationId, PendingConversation>,
    entries: Vec<Entry>,
    /// The position that the next sealed turn gets.
    next_position: u64,
    /// The ordinals of those turns of the current commit that are sealed already. The vector is kept between commits to
    /// reuse its memory.
    looked_up: Vec<Option<Ordinal>>,
}

/// The state of a conversation after the commits so far.
struct PendingConversation {
    conversation: ConversationRecord,
    /// The key of the conversation in the tables, if it has one.
    key: Option<u64>,
    sealed: HashMap<TurnId, Ordinal>,
    /// Whether this transaction began the life of the conversation. Then the memtable and the tables have nothing of it.
    begins_here: bool,
}

impl<'a> WriteSet<'a> {
    pub(crate) fn new(memtable: &'a Memtable, tables: &'a ReadTables, findings: &'a KnownFindings) -> Self {
        Self {
            memtable,
            tables,
            findings,
            conversations: HashMap::new(),
            entries: Vec::new(),
            next_position: memtable.last_position().saturating_add(1),
            looked_up: Vec::new(),
        }
    }

    /// Returns the entries to write to the journal, and then to take into the memtable.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Erases a conversation. Returns whether there was anything to erase.
    pub(crate) fn erase(&mut self, id: &ConversationId) -> Result<Result<bool, CommitError>, Failure> {
        let pending = match self.pending(id)? {
            Ok(pending) => pending,
            Err(error) => return Ok(Err(error)),
        };
        if pending.conversation.version == Version::default() {
            return Ok(Ok(false));
        }
        let erased = Some(pending.conversation.life);
        let conversation = ConversationRecord::begin(id.clone());
        *pending = PendingConversation { begins_here: true, ..PendingConversation::of(conversation.clone(), None) };
        let (position, sealed, staged) = (self.next_position, Vec::new(), Vec::new());
        self.entries.push(Entry { conversation, erased, key: None, position, sealed, staged });
        Ok(Ok(true))
    }

    /// Returns the state of a conversation after the commits so far. The inner error says that the conversation is
    /// damaged. The database is sound then, so the commits of other conversations in this transaction go on.
    fn pending(&mut self, id: &ConversationId) -> Result<Result<&mut PendingConversation, CommitError>, Failure> {
        let (memtable, tables, findings) = (self.memtable, self.tables, self.findings);
        let pending = match self.conversations.entry(id.clone()) {
            Slot::Occupied(there) => there.into_mut(),
            Slot::Vacant(slot) => match caught(|| PendingConversation::load(memtable, tables, id)) {
                Err(unavailable) => return Ok(Err(unavailable)),
                Ok(loaded) => slot.insert(loaded?),
            },
        };
        if findings.block(id, pending.key) {
            return Ok(Err(CommitError::Unavailable(found_damaged())));
        }
        Ok(Ok(pending))
    }

    /// Applies the commits in order. The first one that is refused changes nothing, nor do those after it.
    pub(crate) fn apply_series(&mut self, series: &CommitSeries) -> Result<CommittedSeries, Failure> {
        let mut committed = Vec::with_capacity(series.commits.len());
        for commit in &series.commits {
            match self.apply(commit)? {
                Ok(one) => committed.push(one),
                Err(error) => return Ok(CommittedSeries { committed, ended: Some(error) }),
            }
        }
        Ok(CommittedSeries { committed, ended: None })
    }

    /// Applies the commit, or refuses it without a change.
    pub(crate) fn apply(&mut self, commit: &Commit) -> Result<Result<Committed, CommitError>, Failure> {
        let (memtable, tables) = (self.memtable, self.tables);
        let mut looked_up = std::mem::take(&mut self.looked_up);
        let pending = match self.pending(&commit.conversation_id)? {
            Ok(pending) => pending,
            Err(unavailable) => return Ok(Err(unavailable)),
        };
        let head = pending.head();
        if let Err(conflict) = head.check(commit) {
            return Ok(Err(conflict.into_error()));
        }
        looked_up.clear();
        for turn_id in commit.turn_ids() {
            match caught(|| pending.ordinal_of(memtable, tables, turn_id)) {
                // It is unknown whether the turn is sealed, and it must not be sealed twice. The commits of other
                // conversations go on.
                Err(unavailable) => return Ok(Err(unavailable)),
                Ok(found) => looked_up.push(found?),
            }
        }
        let decision = match decide(&head, &looked_up, commit) {
            Ok(decision) => decision,
            Err(conflict) => return Ok(Err(conflict.into_error())),
        };
        if decision.changes {
            let staged = decision.staged(commit).map(StagedRecords::encode).collect::<Result<_, _>>()?;
            let encoded = |(turn, _, sealed_at)| encode_sealed_at(turn, sealed_at);
            let sealed = decision.sealed(commit).map(encoded).collect::<Result<Vec<_>, _>>()?;
            pending.take(&decision, commit);
            let (conversation, key) = (pending.conversation.clone(), pending.key);
            let position = self.next_position;
            // A position is so large that the next one overflows only in damaged tables.
            let too_large = || DamagedRecord::new(Positions::WHAT, RecordFlaw::Position(position));
            let next = position.checked_add(sealed.len() as u64).ok_or_else(too_large)?;
            self.next_position = next;
            self.entries.push(Entry { conversation, erased: None, key, position, sealed, staged });
        }
        self.looked_up = looked_up;
        Ok(Ok(decision.into_committed()))
    }
}

/// Does a look-up. The outer error says that damage makes it impossible: a damaged record, a damaged page, or a panic
/// because of one.
fn caught<T>(look_up: impl FnOnce() -> Result<T, Failure>) -> Result<Result<T, Failure>, CommitError> {
    match unwind::caught(look_up) {
        Ok(Err(Failure::Record(damaged))) => Err(CommitError::Unavailable(damaged.into())),
        Ok(Err(failure)) if failure.is_damage() => Err(CommitError::Unavailable(failure.into())),
        Ok(looked_up) => Ok(looked_up),
        Err(panic) => Err(CommitError::Unavailable(panic.into())),
    }
}

/// Returns why a conversation that a scrub has found damaged takes nothing new.
fn found_damaged() -> Fault {
    Fault::new(
        FaultKind::Damaged,
        "the conversation is damaged, as a scrub has found; stop the service and run `turn-metrics check --repair`",
    )
}

fn encode_sealed_at(turn: &SealedTurn, sealed_at: EpochMillis) -> Result<Arc<[u8]>, Failure> {
    let record = if sealed_at == turn.sealed_at {
        record::encode_sealed(turn)?
    } else {
        record::encode_sealed(&SealedTurn { sealed_at, ..turn.clone() })?
    };
    Ok(record.into())
}

impl PendingConversation {
    fn of(conversation: ConversationRecord, key: Option<u64>) -> Self {
        Self { conversation, key, sealed: HashMap::new(), begins_here: false }
    }

    fn load(memtable: &Memtable, tables: &ReadTables, id: &ConversationId) -> Result<Self, Failure> {
        if let Some(piece) = memtable.of(id).next() {
            let key = memtable.of(id).find_map(|piece| piece.key);
            // If the memtable has no key of the conversation, a flush may have given it one in the tables since.
            let key = key.map_or_else(|| tables.key_of_life(id, piece.conversation.life), |key| Ok(Some(key)))?;
            return Ok(Self::of(piece.conversation.clone(), key));
        }
        let key = tables.key_of(id)?;
        let conversation = match key {
            Some(key) => tables.conversation(key)?,
            None => ConversationRecord::begin(id.clone()),
        };
        Ok(Self::of(conversation, key))
    }

    fn ordinal_of(
        &self,
        memtable: &Memtable,
        tables: &ReadTables,
        turn_id: &TurnId,
    ) -> Result<Option<Ordinal>, Failure> {
        if let Some(ordinal) = self.sealed.get(turn_id) {
            return Ok(Some(*ordinal));
        }
        if self.begins_here {
            return Ok(None);
        }
        match memtable.of(&self.conversation.id).find_map(|piece| piece.change(turn_id.as_str())) {
            Some(Change::Sealed(ordinal)) => Ok(Some(ordinal)),
            Some(Change::Open(_)) => Ok(None),
            None if self.conversation.sealed_turns == 0 => Ok(None),
            None => self.key.map_or(Ok(None), |key| tables.ordinal_of(key, turn_id)),
        }
    }

    fn head(&self) -> ConversationHead {
        let ConversationRecord { version, sealed_turns, last_sealed_at, .. } = self.conversation;
        ConversationHead { version, sealed_turns, last_sealed_at }
    }

    /// Applies a decision, so that the next commits of the transaction see it.
    fn take(&mut self, decision: &Decision, commit: &Commit) {
        let conversation = &mut self.conversation;
        conversation.version = decision.head.version;
        for (turn, ordinal, sealed_at) in decision.sealed(commit) {
            if conversation.sealed_turns == 0 {
                (conversation.begins_after, conversation.sealed_turns) = (ordinal.get() - 1, ordinal.get() - 1);
            }
            conversation.count(turn, ordinal, sealed_at);
            self.sealed.insert(turn.metrics.turn_id.clone(), ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{StagedChange, StagedTurn};
    use crate::store::oracle::change;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::journal::entry::encode_row;
    use crate::turn::{OpenTurn, Progress, RunningTime, StepId, Usage};

    /// Commits the change and takes it into the memtable. Returns the size of the commit's row in the journal.
    fn row_bytes(memtable: &mut Memtable, tables: &ReadTables, change: StagedChange) -> usize {
        let conversation_id = ConversationId::new("c").unwrap();
        let expected_version =
            memtable.of(&conversation_id).next().map_or(Version(0), |piece| piece.conversation.version);
        let findings = KnownFindings::default();
        let mut write_set = WriteSet::new(memtable, tables, &findings);
        let commit =
            Commit { conversation_id, expected_version, staged: vec![change], sealed: Vec::new(), imported_from: None };
        write_set.apply(&commit).unwrap().unwrap();
        let entries = write_set.into_entries();
        let bytes = encode_row(&entries).unwrap().len();
        for entry in entries {
            memtable.take(entry).unwrap();
        }
        bytes
    }

    #[test]
    fn an_event_of_a_turn_of_4096_steps_makes_a_row_of_one_step() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let tables = files.read_tables().unwrap();
        let mut memtable = Memtable::default();
        let report = |step: u32, tokens: u32| Progress::Usage {
            step_id: Some(StepId::new(format!("step-{step}")).unwrap()),
            report: Usage { input_tokens: tokens.into(), ..Usage::default() }.into(),
            is_final: false,
        };
        let mut staged =
            StagedTurn { turn: OpenTurn::new(TurnId::new("t").unwrap()), last_event_at: RunningTime::new(1) };
        (0..4096).for_each(|step| staged.turn.fold(&report(step, 1)));
        let whole = row_bytes(&mut memtable, &tables, staged.clone().into());
        assert!(whole > 4096 * 10, "{whole} bytes");
        for step in [0, 2000, 4095, 4096] {
            let before = staged.clone();
            staged.turn.fold(&report(step, 7));
            let held = memtable.bytes();
            let row = row_bytes(&mut memtable, &tables, change(Some(&before), staged.clone()));
            assert!(row < 150, "an event of step {step} makes a row of {row} bytes");
            let grown = memtable.bytes().saturating_sub(held);
            assert!(grown < 1500, "the memtable grows by {grown} bytes");
        }
    }

    #[test]
    fn commits_of_one_transaction_go_on_from_each_other_and_one_that_changes_nothing_leaves_no_entry() {
        let files = Location::Memory.open(1 << 20).unwrap();
        let (memtable, tables, findings) = (files.memtable(), files.read_tables().unwrap(), files.findings());
        let mut write_set = WriteSet::new(&memtable, &tables, &findings);
        let mut commit = |conversation: &str, version, turns: &[&str]| {
            let turn = |id: &&str| OpenTurn::new(TurnId::new(*id).unwrap());
            let sealed = turns.iter().map(|id| turn(id).seal(&crate::turn::Done::because("stop"), EpochMillis::new(1)));
            let conversation_id = ConversationId::new(conversation).unwrap();
            let expected_version = Version(version);
            let commit = Commit {
                conversation_id,
                expected_version,
                staged: Vec::new(),
                sealed: sealed.collect(),
                imported_from: None,
            };
            write_set.apply(&commit).unwrap()
        };
        let ordinals = |committed: Result<Committed, CommitError>| {
            let ordinal = |outcome| match outcome {
                crate::store::TurnOutcome::Sealed(ordinal) => (ordinal.get(), false),
                crate::store::TurnOutcome::Duplicate(ordinal) => (ordinal.get(), true),
                crate::store::TurnOutcome::Staged => panic!("it was not sealed"),
            };
            committed.unwrap().outcomes.into_iter().map(|(_, outcome)| ordinal(outcome)).collect::<Vec<_>>()
        };
        assert_eq!(ordinals(commit("a", 0, &["t", "u"])), [(1, false), (2, false)]);
        assert_eq!(ordinals(commit("b", 0, &["t"])), [(1, false)]);
        commit("a", 0, &["lost"]).unwrap_err();
        assert_eq!(ordinals(commit("a", 1, &["u"])), [(2, true)]);
        assert_eq!(ordinals(commit("a", 1, &["t", "v"])), [(1, true), (3, false)]);
        let entries: Vec<_> = write_set
            .into_entries()
            .into_iter()
            .map(|entry| (entry.conversation.id.to_string(), entry.position, entry.sealed.len()))
            .collect();
        assert_eq!(entries, [("a".to_owned(), 1, 2), ("b".to_owned(), 3, 1), ("a".to_owned(), 4, 1)]);
    }
}

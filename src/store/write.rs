//! What is done in one write transaction.

use redb::{ReadableTable, Table, WriteTransaction};

use super::record::{self, Conversation};
use super::schema::{
    CONVERSATIONS, Failure, KEYS, META, META_NEXT_KEY, META_WRITE_CHECK, OPEN_TURNS, ORDINALS, TURNS, find_conversation,
};
use super::{Commit, CommitError, Committed, TurnOutcome, Version};
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnId, Usage};

/// The tables of one write transaction.
pub(super) struct WriteTables<'txn> {
    meta: Table<'txn, &'static str, &'static [u8]>,
    keys: Table<'txn, &'static str, u64>,
    conversations: Table<'txn, u64, &'static [u8]>,
    turns: Table<'txn, (u64, u64), &'static [u8]>,
    ordinals: Table<'txn, (u64, &'static str), u64>,
    open_turns: Table<'txn, (u64, &'static str), &'static [u8]>,
    changed: bool,
}

impl<'txn> WriteTables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            meta: txn.open_table(META)?,
            keys: txn.open_table(KEYS)?,
            conversations: txn.open_table(CONVERSATIONS)?,
            turns: txn.open_table(TURNS)?,
            ordinals: txn.open_table(ORDINALS)?,
            open_turns: txn.open_table(OPEN_TURNS)?,
            changed: false,
        })
    }

    /// Whether there is anything to make durable.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Writes something, anything, so that making it durable shows that writes work.
    pub(super) fn touch(&mut self) -> Result<(), Failure> {
        let previous = self.meta.get(META_WRITE_CHECK)?.and_then(|bytes| bytes.value().try_into().ok());
        let count = previous.map_or(0, u64::from_le_bytes).wrapping_add(1);
        self.meta.insert(META_WRITE_CHECK, count.to_le_bytes().as_slice())?;
        self.changed = true;
        Ok(())
    }

    /// Does what `commit` asks, or refuses it without a change. A [`Failure`] leaves the transaction half done: it
    /// must be aborted.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<Result<Committed, CommitError>, Failure> {
        let id = &commit.conversation_id;
        let known = match find_conversation(&self.keys, &self.conversations, id) {
            // Its loss is its own: the commits of others in this transaction go on, and the database is sound.
            Err(Failure::Record(damaged)) => return Ok(Err(CommitError::Unavailable(damaged.to_string()))),
            known => known?,
        };
        let actual = known.as_ref().map_or(Version::default(), |(_, record)| record.version);
        if actual != commit.expected_version {
            return Ok(Err(CommitError::Conflict { expected: commit.expected_version, actual }));
        }

        let mut change = Change::new(id, known);
        let mut outcomes = Vec::with_capacity(commit.staged.len() + commit.sealed.len());
        for staged in &commit.staged {
            let turn_id = &staged.turn.id;
            let outcome = if let Some(ordinal) = self.sealed_at(&change, turn_id)? {
                TurnOutcome::Duplicate(ordinal)
            } else {
                let key = self.key_of(&mut change)?;
                self.open_turns.insert((key, turn_id.as_str()), &*record::encode_staged(staged)?)?;
                TurnOutcome::Staged
            };
            outcomes.push((turn_id.clone(), outcome));
        }
        for sealed in &commit.sealed {
            let turn_id = &sealed.metrics.turn_id;
            let outcome = match self.sealed_at(&change, turn_id)? {
                Some(ordinal) => TurnOutcome::Duplicate(ordinal),
                None => TurnOutcome::Sealed(self.append(&mut change, sealed)?),
            };
            outcomes.push((turn_id.clone(), outcome));
        }
        let version = self.finish(change, actual)?;
        Ok(Ok(Committed { version, outcomes }))
    }

    fn sealed_at(&self, change: &Change, turn_id: &TurnId) -> Result<Option<Ordinal>, Failure> {
        let Some(key) = change.key else { return Ok(None) };
        let ordinal = self.ordinals.get((key, turn_id.as_str()))?;
        Ok(ordinal.and_then(|ordinal| Ordinal::new(ordinal.value())))
    }

    fn append(&mut self, change: &mut Change, sealed: &SealedTurn) -> Result<Ordinal, Failure> {
        let key = self.key_of(change)?;
        let turn_id = sealed.metrics.turn_id.as_str();
        let ordinal = Ordinal::after(change.record.sealed_turns);
        self.turns.insert((key, ordinal.get()), &*record::encode_sealed(sealed)?)?;
        self.ordinals.insert((key, turn_id), ordinal.get())?;
        self.open_turns.remove((key, turn_id))?;
        change.record.sealed_turns = ordinal.get();
        change.record.total_usage = change.record.total_usage.saturating_add(sealed.metrics.usage);
        Ok(ordinal)
    }

    /// The key of the conversation, which is interned with its first change.
    fn key_of(&mut self, change: &mut Change) -> Result<u64, Failure> {
        change.dirty = true;
        if let Some(key) = change.key {
            return Ok(key);
        }
        let next = self.meta.get(META_NEXT_KEY)?.and_then(|bytes| bytes.value().try_into().ok());
        let key = next.map(u64::from_le_bytes).ok_or(Failure::Meta(META_NEXT_KEY))?;
        self.meta.insert(META_NEXT_KEY, key.wrapping_add(1).to_le_bytes().as_slice())?;
        self.keys.insert(change.record.id.as_str(), key)?;
        change.key = Some(key);
        Ok(key)
    }

    fn finish(&mut self, mut change: Change, version: Version) -> Result<Version, Failure> {
        let (true, Some(key)) = (change.dirty, change.key) else { return Ok(version) };
        change.record.version = Version(version.0 + 1);
        self.conversations.insert(key, &*change.record.encode()?)?;
        self.changed = true;
        Ok(change.record.version)
    }
}

/// A conversation in the middle of a commit.
struct Change {
    key: Option<u64>,
    record: Conversation,
    dirty: bool,
}

impl Change {
    fn new(id: &ConversationId, known: Option<(u64, Conversation)>) -> Self {
        let (key, record) = known.map_or_else(
            || {
                let id = id.as_str().to_owned();
                let version = Version::default();
                (None, Conversation { id, version, sealed_turns: 0, total_usage: Usage::default() })
            },
            |(key, record)| (Some(key), record),
        );
        Self { key, record, dirty: false }
    }
}

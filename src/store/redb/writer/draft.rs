//! What the commits of one transaction become, on top of what is durable.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use crate::store::contract::{Commit, CommitError, Committed, TurnOutcome, Version};
use crate::store::redb::journal::entry::Entry;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::piece::Change;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::conversation::Conversation;
use crate::store::redb::tables::record::{self};
use crate::turn::{ConversationId, EpochMillis, Ordinal, SealedTurn, TurnId, Usage};

/// The commits so far of one transaction. Nothing of it is seen by anyone before it is durable.
pub(crate) struct Draft<'a> {
    memtable: &'a Memtable,
    tables: &'a ReadTables,
    conversations: HashMap<ConversationId, Drafted>,
    entries: Vec<Entry>,
}

/// A conversation as the commits so far leave it.
struct Drafted {
    conversation: Conversation,
    /// Its key in the tables, if it has one.
    key: Option<u64>,
    sealed: HashMap<TurnId, Ordinal>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(memtable: &'a Memtable, tables: &'a ReadTables) -> Self {
        Self { memtable, tables, conversations: HashMap::new(), entries: Vec::new() }
    }

    /// What is to be made durable, and then taken into the memtable.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Does what `commit` asks, or refuses it without a change.
    pub(crate) fn apply(&mut self, commit: &Commit) -> Result<Result<Committed, CommitError>, Failure> {
        let (memtable, tables) = (self.memtable, self.tables);
        let drafted = match self.conversations.entry(commit.conversation_id.clone()) {
            Slot::Occupied(there) => there.into_mut(),
            Slot::Vacant(slot) => match Drafted::load(memtable, tables, &commit.conversation_id) {
                // Its loss is its own: the commits of others in this transaction go on, and the database is sound.
                Err(Failure::Record(damaged)) => return Ok(Err(CommitError::Unavailable(damaged.to_string()))),
                loaded => slot.insert(loaded?),
            },
        };
        let actual = drafted.conversation.version;
        if actual != commit.expected_version {
            return Ok(Err(CommitError::Conflict { expected: commit.expected_version, actual }));
        }

        let mut outcomes = Vec::with_capacity(commit.staged.len() + commit.sealed.len());
        let (mut staged, mut sealed) = (Vec::new(), Vec::new());
        for turn in &commit.staged {
            let turn_id = &turn.turn.id;
            let outcome = if let Some(ordinal) = drafted.ordinal_of(memtable, tables, turn_id)? {
                TurnOutcome::Duplicate(ordinal)
            } else {
                staged.push(Arc::from(record::encode_staged(turn)?));
                TurnOutcome::Staged
            };
            outcomes.push((turn_id.clone(), outcome));
        }
        for turn in &commit.sealed {
            let turn_id = &turn.metrics.turn_id;
            let outcome = if let Some(ordinal) = drafted.ordinal_of(memtable, tables, turn_id)? {
                TurnOutcome::Duplicate(ordinal)
            } else {
                let (ordinal, sealed_at) = drafted.seal(turn);
                sealed.push(if sealed_at == turn.sealed_at {
                    Arc::from(record::encode_sealed(turn)?)
                } else {
                    Arc::from(record::encode_sealed(&SealedTurn { sealed_at, ..turn.clone() })?)
                });
                TurnOutcome::Sealed(ordinal)
            };
            outcomes.push((turn_id.clone(), outcome));
        }
        if !staged.is_empty() || !sealed.is_empty() {
            drafted.conversation.version = Version(actual.0 + 1);
            let (conversation, key) = (drafted.conversation.clone(), drafted.key);
            self.entries.push(Entry { conversation, key, sealed, staged });
        }
        Ok(Ok(Committed { version: drafted.conversation.version, outcomes }))
    }
}

impl Drafted {
    fn load(memtable: &Memtable, tables: &ReadTables, id: &ConversationId) -> Result<Self, Failure> {
        let key = memtable.of(id).find_map(|piece| piece.key);
        // One that has no key in the memtable may have got one in the tables since.
        let key = key.map_or_else(|| tables.key_of(id), |key| Ok(Some(key)))?;
        let conversation = match (memtable.of(id).next(), key) {
            (Some(piece), _) => piece.conversation.clone(),
            (None, Some(key)) => tables.conversation(key)?,
            (None, None) => Conversation {
                id: id.clone(),
                version: Version::default(),
                sealed_turns: 0,
                last_sealed_at: EpochMillis::default(),
                total_usage: Usage::default(),
            },
        };
        Ok(Self { conversation, key, sealed: HashMap::new() })
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
        match memtable.of(&self.conversation.id).find_map(|piece| piece.turns.get(turn_id)) {
            Some(Change::Sealed(ordinal)) => Ok(Some(*ordinal)),
            Some(Change::Open(_)) => Ok(None),
            None if self.conversation.sealed_turns == 0 => Ok(None),
            None => self.key.map_or(Ok(None), |key| tables.ordinal_of(key, turn_id)),
        }
    }

    /// Assigns the turn its ordinal and its sealing moment, which is never before that of the turn before it.
    fn seal(&mut self, turn: &SealedTurn) -> (Ordinal, EpochMillis) {
        let conversation = &mut self.conversation;
        let ordinal = Ordinal::after(conversation.sealed_turns);
        self.sealed.insert(turn.metrics.turn_id.clone(), ordinal);
        conversation.sealed_turns = ordinal.get();
        conversation.last_sealed_at = conversation.last_sealed_at.max(turn.sealed_at);
        conversation.total_usage = conversation.total_usage.saturating_add(turn.metrics.usage);
        (ordinal, conversation.last_sealed_at)
    }
}

//! The damage that scrubs have found and that no repair has mended yet: in the table of findings, and in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};

use super::failure::Failure;
use super::row;
use super::schema::FINDINGS;
use crate::turn::ConversationId;

/// Damage that a scrub found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The place of the damage, and what is wrong there.
    pub(crate) text: String,
    /// The conversation that the damage belongs to, as far as that is known. It takes nothing new until a repair.
    pub(crate) key: Option<u64>,
    pub(crate) id: Option<ConversationId>,
    /// The conversations that could not be compared. They take nothing new either.
    pub(crate) unread: Option<Unread>,
}

/// Conversations whose rows a scrub could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The first and the last key of these conversations.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Whether their ids are unknown too, so that one of them may look like a conversation that does not exist.
    pub(crate) are_ids_unknown: bool,
}

impl Unread {
    /// All conversations.
    pub(crate) const ALL: Self = Self { from: 0, to: u64::MAX, are_ids_unknown: true };

    /// Begins the value of a row, in the place of an id. No text has such a byte, so a program that does not know of
    /// unread conversations reads no id.
    const MARK: u8 = 0xff;

    fn encode(self) -> Vec<u8> {
        let Self { from, to, are_ids_unknown } = self;
        [&[Self::MARK][..], &from.to_le_bytes(), &to.to_le_bytes(), &[are_ids_unknown.into()]].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (from, rest) = bytes.strip_prefix(&[Self::MARK])?.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        Some(Self { from: u64::from_le_bytes(*from), to: u64::from_le_bytes(*to), are_ids_unknown: rest == [1] })
    }

    /// Returns whether the conversation with this key may be one of these. A conversation without a key is not in the
    /// tables, or cannot be found there.
    fn has(self, key: Option<u64>) -> bool {
        key.map_or(self.are_ids_unknown, |key| (self.from..=self.to).contains(&key))
    }
}

impl Finding {
    /// Returns the value of the row of this finding: the key, or 0, and then the id or the unread conversations.
    fn value(&self) -> Vec<u8> {
        if let Some(unread) = self.unread {
            return [&[0; 8][..], &unread.encode()].concat();
        }
        let mut value = self.key.unwrap_or_default().to_le_bytes().to_vec();
        value.extend(self.id.iter().flat_map(|id| id.as_str().bytes()));
        value
    }

    fn read(text: &str, value: &[u8]) -> Self {
        let (key, id) = value.split_first_chunk().map_or((0, value), |(key, id)| (u64::from_le_bytes(*key), id));
        let unread = Unread::decode(id);
        let id = std::str::from_utf8(id).ok().and_then(|id| ConversationId::new(id).ok());
        Self { text: text.to_owned(), key: Some(key).filter(|key| *key > 0), id, unread }
    }
}

/// The findings of the open files.
#[derive(Debug)]
pub(crate) struct KnownFindings {
    state: Mutex<State>,
    /// The maximum number of findings. One more says that there are others.
    max: usize,
    /// Whether a conversation takes nothing new. Most stores never lock `state` in a commit because of this.
    blocks: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By their texts, with whether the table has them.
    findings: BTreeMap<String, (Finding, bool)>,
    keys: HashSet<u64>,
    ids: HashSet<ConversationId>,
    unread: Vec<Unread>,
}

/// The text of the last finding.
const TOO_MANY: &str = "more damage than can be noted, so no conversation takes anything new";

impl Default for KnownFindings {
    fn default() -> Self {
        Self::at_most(Self::MAX)
    }
}

impl KnownFindings {
    /// The maximum number of findings, which bounds the memory and the table. If there are more, no conversation takes
    /// anything new.
    const MAX: usize = 10_000;

    fn at_most(max: usize) -> Self {
        Self { state: Mutex::default(), max, blocks: AtomicBool::new(false) }
    }

    /// Reads the table.
    pub(crate) fn read(txn: &ReadTransaction) -> Result<Self, Failure> {
        let known = Self::default();
        let table = match txn.open_table(FINDINGS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(known),
            opened => opened?,
        };
        for row in table.iter()? {
            let (text, value) = row?;
            let (text, value) = (text.value(), value.value());
            // Even if the row is damaged, there was a finding.
            let finding = Finding::read(text, value.verify(&text).unwrap_or_default());
            drop(known.add_to(&mut known.state(), finding, true));
        }
        Ok(known)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a finding, or else one that there are too many. Returns what was added.
    fn add_to(&self, state: &mut State, mut finding: Finding, is_stored: bool) -> Option<Finding> {
        if !is_stored && state.findings.len() >= self.max && !state.findings.contains_key(&finding.text) {
            finding = Finding { text: TOO_MANY.to_owned(), key: None, id: None, unread: Some(Unread::ALL) };
        }
        state.keys.extend(finding.key);
        state.ids.extend(finding.id.clone());
        if let Some(unread) = finding.unread.filter(|unread| !state.unread.contains(unread)) {
            state.unread.push(unread);
        }
        if finding.key.is_some() || finding.id.is_some() || finding.unread.is_some() {
            self.blocks.store(true, Ordering::Release);
        }
        if state.findings.contains_key(&finding.text) {
            return None;
        }
        state.findings.insert(finding.text.clone(), (finding.clone(), is_stored));
        Some(finding)
    }

    /// Adds findings. Returns those that are new.
    pub(crate) fn add(&self, found: Vec<Finding>) -> Vec<Finding> {
        let mut state = self.state();
        found.into_iter().filter_map(|finding| self.add_to(&mut state, finding, false)).collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.state().findings.len() as u64
    }

    /// Returns whether a finding belongs or may belong to this conversation, so that it takes nothing new.
    pub(crate) fn block(&self, id: &ConversationId, key: Option<u64>) -> bool {
        if !self.blocks.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state();
        state.ids.contains(id)
            || key.is_some_and(|key| state.keys.contains(&key))
            || state.unread.iter().any(|unread| unread.has(key))
    }

    /// Returns the findings that the table lacks.
    pub(crate) fn unstored(&self) -> Vec<Finding> {
        let state = self.state();
        state.findings.values().filter(|(_, is_stored)| !is_stored).map(|(finding, _)| finding.clone()).collect()
    }

    /// Notes that the table has these findings.
    pub(crate) fn stored(&self, findings: &[Finding]) {
        let mut state = self.state();
        for finding in findings {
            if let Some((_, is_stored)) = state.findings.get_mut(&finding.text) {
                *is_stored = true;
            }
        }
    }
}

/// Writes findings to the table.
pub(crate) fn write(txn: &WriteTransaction, findings: &[Finding]) -> Result<(), Failure> {
    let mut table = txn.open_table(FINDINGS)?;
    for finding in findings {
        let text = finding.text.as_str();
        table.insert(text, row::seal(&text, &mut finding.value()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase};

    use super::*;

    fn finding(text: &str, key: Option<u64>, id: Option<&str>) -> Finding {
        Finding { text: text.into(), key, id: id.map(|id| ConversationId::new(id).unwrap()), unread: None }
    }

    #[test]
    fn unread_conversations_take_nothing_new_also_after_they_are_read_back() {
        for (unread, blocked) in [
            (Unread { from: 3, to: 5, are_ids_unknown: false }, [false, true, true, false, false]),
            (Unread { from: 3, to: 5, are_ids_unknown: true }, [false, true, true, false, true]),
            (Unread::ALL, [true; 5]),
        ] {
            let finding = Finding { unread: Some(unread), ..finding("some", None, None) };
            let read = Finding::read("some", &finding.value());
            assert_eq!(read, finding);
            let known = KnownFindings::default();
            known.add(vec![read]);
            let id = ConversationId::new("a").unwrap();
            assert_eq!([Some(2), Some(3), Some(5), Some(6), None].map(|key| known.block(&id, key)), blocked);
        }
    }

    #[test]
    fn findings_block_their_conversations_and_are_read_back() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let read = || KnownFindings::read(&database.begin_read().unwrap()).unwrap();
        assert_eq!(read().count(), 0, "without a table there is no finding");
        let known = KnownFindings::default();
        let id = |id: &str| ConversationId::new(id).unwrap();
        assert!(!known.block(&id("a"), Some(7)));
        let all = [finding("one", Some(7), None), finding("two", None, Some("b")), finding("three", None, None)];
        assert_eq!(known.add(all.to_vec()), all);
        assert!(known.add(all.to_vec()).is_empty(), "each finding is new once");
        assert_eq!(known.unstored().len(), 3);
        let txn = database.begin_write().unwrap();
        write(&txn, &known.unstored()).unwrap();
        txn.commit().unwrap();
        known.stored(&all);
        assert!(known.unstored().is_empty());
        for known in [known, read()] {
            assert_eq!(known.count(), 3);
            assert!(known.block(&id("a"), Some(7)) && known.block(&id("b"), None) && !known.block(&id("a"), Some(8)));
            assert!(known.unstored().is_empty());
        }
    }

    #[test]
    fn more_findings_than_can_be_noted_are_one_finding_of_all_conversations_which_is_stored() {
        let known = KnownFindings::at_most(2);
        let found = || (1..=5).map(|nth| finding(&nth.to_string(), Some(nth), None)).collect();
        let added = known.add(found());
        assert_eq!(added.iter().map(|finding| &*finding.text).collect::<Vec<_>>(), ["1", "2", TOO_MANY]);
        assert!(known.add(found()).is_empty(), "the next pass finds the same");
        assert_eq!((known.count(), known.unstored().len()), (3, 3));
        let read = Finding::read(TOO_MANY, &added[2].value());
        let id = ConversationId::new("a").unwrap();
        for (findings, is_blocked) in [(&added[..2], false), (&[read], true)] {
            let known = KnownFindings::default();
            known.add(findings.to_vec());
            assert_eq!((known.block(&id, Some(5)), known.block(&id, None)), (is_blocked, is_blocked));
        }
    }
}

//! The damage that scrubs have found and that no repair has mended yet: in the table of findings, and in memory.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
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
}

impl Finding {
    /// Returns the value of the row of this finding: the key, or 0, and then the id.
    fn value(&self) -> Vec<u8> {
        let mut value = self.key.unwrap_or_default().to_le_bytes().to_vec();
        value.extend(self.id.iter().flat_map(|id| id.as_str().bytes()));
        value
    }

    fn read(text: &str, value: &[u8]) -> Self {
        let (key, id) = value.split_first_chunk().map_or((0, value), |(key, id)| (u64::from_le_bytes(*key), id));
        let id = std::str::from_utf8(id).ok().and_then(|id| ConversationId::new(id).ok());
        Self { text: text.to_owned(), key: Some(key).filter(|key| *key > 0), id }
    }
}

/// The findings of the open files.
#[derive(Debug, Default)]
pub(crate) struct KnownFindings {
    state: Mutex<State>,
    /// Whether a conversation takes nothing new. Most stores never lock `state` in a commit because of this.
    blocks: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By their texts, with whether the table has them.
    findings: BTreeMap<String, (Finding, bool)>,
    keys: HashSet<u64>,
    ids: HashSet<ConversationId>,
    /// Hashes of the texts of the findings beyond [`KnownFindings::MAX`]. Each pass of a scrub finds them again.
    more: HashSet<u64>,
}

impl KnownFindings {
    /// The maximum number of findings that are stored. The conversations of further findings take nothing new until the
    /// files are closed, and then until the next scrub.
    pub(crate) const MAX: usize = 10_000;

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
            known.add_to(&mut known.state(), finding, true);
        }
        Ok(known)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the finding is new.
    fn add_to(&self, state: &mut State, finding: Finding, is_stored: bool) -> bool {
        state.keys.extend(finding.key);
        state.ids.extend(finding.id.clone());
        if finding.key.is_some() || finding.id.is_some() {
            self.blocks.store(true, Ordering::Release);
        }
        if state.findings.contains_key(&finding.text) {
            return false;
        }
        if state.findings.len() >= Self::MAX {
            state.more.insert(BuildHasherDefault::<DefaultHasher>::default().hash_one(&finding.text));
            return false;
        }
        state.findings.insert(finding.text.clone(), (finding, is_stored));
        true
    }

    /// Adds findings. Returns those that are new.
    pub(crate) fn add(&self, found: Vec<Finding>) -> Vec<Finding> {
        let mut state = self.state();
        found.into_iter().filter(|finding| self.add_to(&mut state, finding.clone(), false)).collect()
    }

    pub(crate) fn count(&self) -> u64 {
        let state = self.state();
        (state.findings.len() + state.more.len()) as u64
    }

    /// Returns whether a finding belongs to this conversation, so that it takes nothing new.
    pub(crate) fn block(&self, id: &ConversationId, key: Option<u64>) -> bool {
        if !self.blocks.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state();
        state.ids.contains(id) || key.is_some_and(|key| state.keys.contains(&key))
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
        Finding { text: text.into(), key, id: id.map(|id| ConversationId::new(id).unwrap()) }
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
    fn findings_beyond_the_limit_are_counted_and_block_too() {
        let known = KnownFindings::default();
        let many: Vec<_> =
            (1..=KnownFindings::MAX as u64 + 2).map(|nth| finding(&nth.to_string(), Some(nth), None)).collect();
        assert_eq!(known.add(Vec::clone(&many)).len(), KnownFindings::MAX);
        assert_eq!(known.count(), KnownFindings::MAX as u64 + 2);
        assert!(known.add(many).is_empty());
        assert_eq!(known.count(), KnownFindings::MAX as u64 + 2, "the next pass finds the same");
        assert!(known.block(&ConversationId::new("a").unwrap(), Some(KnownFindings::MAX as u64 + 2)));
    }
}

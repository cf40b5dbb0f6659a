use std::sync::{PoisonError, RwLock};

use super::open_files::Files;
use crate::store::fault::Fault;

/// Holds the open files for the threads that share them. After a failure the writer closes them and opens them again.
///
/// Other threads hold the lock only to look at the memtable or to begin a transaction, never while one runs.
#[derive(Debug)]
pub(crate) struct Slot(RwLock<State>);

#[derive(Debug)]
enum State {
    Open(Box<Files>),
    /// Why the files are closed.
    Empty(Fault),
}

impl Slot {
    pub(crate) fn new(files: Files) -> Self {
        Self(RwLock::new(State::Open(Box::new(files))))
    }

    /// Does something short with the files; `Err` says why they are closed.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Files) -> T) -> Result<T, Fault> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(files) => Ok(work(files)),
            State::Empty(cause) => Err(cause.clone()),
        }
    }

    pub(crate) fn fill(&self, files: Files) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = State::Open(Box::new(files));
    }

    /// Takes the files out, if there are any.
    pub(crate) fn take(&self, cause: Fault) -> Option<Files> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Empty(cause)) {
            State::Open(files) => Some(*files),
            State::Empty(_) => None,
        }
    }

    /// Closes the files. Reads under way fail.
    pub(crate) fn empty(&self, cause: Fault) {
        if let Some(files) = self.take(cause) {
            files.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fault::FaultKind;
    use crate::store::redb::files::location::Location;

    fn files() -> Files {
        Location::Memory.open(1 << 20).unwrap()
    }

    #[test]
    fn whoever_needs_the_files_is_told_why_they_are_closed_until_they_are_open_again() {
        let slot = Slot::new(files());
        let first = slot.with(Files::lineage).unwrap();
        slot.empty(Fault::new(FaultKind::Disk, "the disk failed"));
        assert_eq!(slot.with(Files::lineage).unwrap_err().to_string(), "the disk failed");
        let later = Fault::new(FaultKind::Closed, "the store is closed");
        assert!(slot.take(later).is_none(), "there is nothing to take");
        assert_eq!(slot.with(Files::lineage).unwrap_err().to_string(), "the store is closed", "the latest cause");
        slot.fill(files());
        assert_ne!(slot.with(Files::lineage).unwrap(), first, "these are other files");
        assert!(slot.take(Fault::new(FaultKind::Closed, "the store is closed")).is_some());
    }
}

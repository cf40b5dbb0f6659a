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

use std::sync::{Arc, PoisonError, RwLock};

use super::open_files::Files;
#[cfg(test)]
use crate::report::NoPrices;
use crate::report::SharedPriceBook;
use crate::store::fault::Fault;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::tally::Recent;
use crate::store::redb::tables::failure::Failure;

/// Holds the open files for the threads that share them. After a failure the writer closes them and opens them again.
///
/// Other threads hold the lock only to use the memtable or to begin a transaction, and never while a transaction runs.
#[derive(Debug)]
pub(crate) struct Slot {
    state: RwLock<State>,
    book: SharedPriceBook,
}

#[derive(Debug)]
enum State {
    Open(Box<Files>),
    /// Why the files are closed.
    Empty(Fault),
}

impl Slot {
    #[cfg(test)]
    pub(crate) fn new(files: Files) -> Self {
        Self::pricing(files, Arc::new(NoPrices))
    }

    /// Like [`Slot::new`], with the book that prices turns.
    pub(crate) fn pricing(files: Files, book: SharedPriceBook) -> Self {
        Self { state: RwLock::new(State::Open(Box::new(files))), book }
    }

    /// Returns the book that prices turns.
    pub(crate) fn book(&self) -> &SharedPriceBook {
        &self.book
    }

    /// Counts turns of the memtable that are not counted yet, at most `limit` of each of its two tables, and then calls
    /// `take` with the counts. `begin` is called while the memtable is locked. If all turns are counted, what `begin`
    /// returns and the counts show one state of the store.
    pub(crate) fn with_counted<B, T>(
        &self,
        limit: usize,
        begin: impl Fn(&Files, &Memtable) -> Result<B, Failure>,
        take: impl FnOnce(&mut Recent, B) -> T,
    ) -> Result<Result<T, Failure>, Fault> {
        loop {
            let shared = self.with(|files| Arc::clone(files.recent()))?;
            // If counting panicked before, some turns are in no tally. They are counted once the files are opened
            // again.
            let mut recent = shared.lock().map_err(|_| Fault::panicked("turns could not be counted"))?;
            let taken = self.with(|files| -> Result<_, Failure> {
                // The files were closed and opened again meanwhile, so these counts are not theirs.
                if !Arc::ptr_eq(files.recent(), &shared) {
                    return Ok(None);
                }
                let mut memtable = files.memtable_mut();
                let copy = begin(files, &memtable)?;
                Ok(Some((copy, memtable.take_uncounted(limit))))
            })?;
            let (copy, turns) = match taken {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(failure) => return Ok(Err(failure)),
            };
            if !turns.is_empty() {
                recent.count(&turns, &*self.book);
                self.with(|files| {
                    if Arc::ptr_eq(files.recent(), &shared) {
                        files.memtable_mut().counted(&recent);
                    }
                })?;
            }
            return Ok(Ok(take(&mut recent, copy)));
        }
    }

    /// Calls `work` with the files. `work` must be short, and must wait for no other lock than the memtable's. `Err`
    /// says why the files are closed.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Files) -> T) -> Result<T, Fault> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(files) => Ok(work(files)),
            State::Empty(cause) => Err(cause.clone()),
        }
    }

    pub(crate) fn fill(&self, files: Files) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Open(Box::new(files));
    }

    /// Takes the files out of the slot, if they are open.
    pub(crate) fn take(&self, cause: Fault) -> Option<Files> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Empty(cause)) {
            State::Open(files) => Some(*files),
            State::Empty(_) => None,
        }
    }

    /// Closes the files. Reads that are under way fail.
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
    use crate::store::redb::unwind;

    fn files() -> Files {
        Location::Memory.open(1 << 20).unwrap()
    }

    #[test]
    fn callers_get_the_reason_why_the_files_are_closed_until_they_are_open_again() {
        let slot = Slot::new(files());
        let first = slot.with(Files::lineage).unwrap();
        slot.empty(Fault::new(FaultKind::Disk, "the disk failed"));
        assert_eq!(slot.with(Files::lineage).unwrap_err().to_string(), "the disk failed");
        let later = Fault::new(FaultKind::Closed, "the store is closed");
        assert!(slot.take(later).is_none(), "the slot has files although it was emptied");
        assert_eq!(
            slot.with(Files::lineage).unwrap_err().to_string(),
            "the store is closed",
            "the error has not the latest cause"
        );
        slot.fill(files());
        assert_ne!(slot.with(Files::lineage).unwrap(), first, "the slot still has the old files");
        assert!(slot.take(Fault::new(FaultKind::Closed, "the store is closed")).is_some());
    }

    #[test]
    fn after_a_panic_in_counting_no_sums_are_shown_until_the_files_are_opened_again() {
        let slot = Slot::new(files());
        let count = || slot.with_counted(0, |_, _| Ok(()), |_, ()| ()).map(|_| ());
        assert_eq!(count(), Ok(()));
        let panicked =
            unwind::caught(|| slot.with_counted(0, |_, _| Ok(()), |_, ()| panic!("no")).map(|_: Result<(), _>| ()));
        assert!(panicked.is_err());
        assert_eq!(count().unwrap_err().kind(), FaultKind::Panicked);
        slot.empty(count().unwrap_err());
        slot.fill(files());
        assert_eq!(count(), Ok(()));
    }
}

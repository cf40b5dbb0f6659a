use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::open_files::{Counts, Files};
#[cfg(test)]
use crate::report::NoPrices;
use crate::report::SharedPriceBook;
use crate::store::fault::Fault;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::piece::Piece;
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

    /// Counts turns of the memtable that are not counted yet: those of each table whose records have about this many
    /// bytes. Waits while another thread counts.
    pub(crate) fn count(&self, bytes: usize) -> Result<(), Fault> {
        self.with_counting(|counts| self.count_first(counts, bytes))
    }

    /// Makes the active table of the memtable the immutable one, if there is no immutable table. Returns the pieces of
    /// the table. Counts all turns first, so that few records wait to be counted after their pieces were moved.
    pub(crate) fn freeze(&self) -> Result<Option<Vec<Arc<Piece>>>, Fault> {
        self.with_counting(|counts| {
            self.count_first(counts, usize::MAX)?;
            let mut recent = lock(&counts.recent)?;
            self.with(|files| {
                if !Arc::ptr_eq(files.counts(), counts) {
                    return None;
                }
                let frozen = files.memtable_mut().freeze();
                if frozen.is_some() {
                    recent.freeze();
                }
                frozen
            })
        })
    }

    /// Calls `work` while no other thread counts.
    pub(crate) fn with_counting<T>(&self, work: impl FnOnce(&Arc<Counts>) -> Result<T, Fault>) -> Result<T, Fault> {
        loop {
            let counts = self.with(|files| Arc::clone(files.counts()))?;
            let _counting = lock(&counts.counting)?;
            // If the files were closed and opened again meanwhile, these counts belong to the earlier files.
            if self.with(|files| Arc::ptr_eq(files.counts(), &counts))? {
                return work(&counts);
            }
        }
    }

    /// Counts the first turns. No lock that a read or a commit needs is held meanwhile, because counting takes a while.
    /// The turns count as uncounted until their sums are added.
    fn count_first(&self, counts: &Arc<Counts>, bytes: usize) -> Result<(), Fault> {
        let turns = self.with(|files| files.memtable().first_uncounted(bytes))?;
        if turns.is_empty() {
            return Ok(());
        }
        let counted = Recent::of(&turns, &*self.book);
        let mut recent = lock(&counts.recent)?;
        recent.absorb(counted);
        self.with(|files| {
            if Arc::ptr_eq(files.counts(), counts) {
                files.memtable_mut().counted(&turns, &recent);
            }
        })
    }

    /// Calls `take` with the sums over the turns that were counted so far. `begin` is called before, while the memtable
    /// is locked: what it returns and the sums show one state of the store.
    pub(crate) fn with_sums<B, T>(
        &self,
        begin: impl Fn(&Files, &Memtable) -> Result<B, Failure>,
        take: impl FnOnce(&mut Recent, B) -> T,
    ) -> Result<Result<T, Failure>, Fault> {
        loop {
            let counts = self.with(|files| Arc::clone(files.counts()))?;
            let mut recent = lock(&counts.recent)?;
            let found = self.with(|files| {
                // `None` if the files were closed and opened again meanwhile: these counts belong to the earlier files.
                Arc::ptr_eq(files.counts(), &counts).then(|| begin(files, &files.memtable()))
            })?;
            if let Some(begun) = found {
                return Ok(begun.map(|begun| take(&mut recent, begun)));
            }
        }
    }

    /// Calls `work` with the files. `work` must wait for no other lock than the memtable's. It may read or sync files: the
    /// lock is shared, and only closing and opening the files waits for it. `Err` says why the files are closed.
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

/// Locks counts of turns. If a thread panicked while it held the lock, the counts may be wrong until the files are
/// opened again.
fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, Fault> {
    mutex.lock().map_err(|_| Fault::panicked("turns could not be counted"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::report::{PicoDollars, PriceBook, PricedStep};
    use crate::store::contract::Version;
    use crate::store::fault::FaultKind;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::journal::entry::Entry;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::store::redb::tables::record::encode_sealed;
    use crate::store::redb::unwind;
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId, Usage};

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
        let read = || slot.with_sums(|_, _| Ok(()), |_, ()| ()).map(|_| ());
        let count = || slot.count(0);
        assert_eq!((read(), count()), (Ok(()), Ok(())));
        let panicked =
            unwind::caught(|| slot.with_sums(|_, _| Ok(()), |_, ()| panic!("no")).map(|_: Result<(), _>| ()));
        assert!(panicked.is_err());
        assert_eq!(read().unwrap_err().kind(), FaultKind::Panicked);
        assert_eq!(slot.freeze().unwrap_err().kind(), FaultKind::Panicked);
        slot.empty(read().unwrap_err());
        slot.fill(files());
        assert_eq!((read(), count()), (Ok(()), Ok(())));
    }

    /// Prices of a book that the test can stop: it waits for the test with each price.
    #[derive(Debug)]
    struct SlowBook(Mutex<Receiver<()>>);

    impl PriceBook for SlowBook {
        fn price(&self, _: &PricedStep<'_>) -> Option<PicoDollars> {
            let _ = self.0.lock().unwrap().recv();
            None
        }

        fn digest(&self) -> u64 {
            1
        }
    }

    #[test]
    fn neither_a_commit_nor_a_read_waits_while_turns_are_counted() {
        let (go_on, wait) = channel();
        let slot = Slot::pricing(files(), Arc::new(SlowBook(Mutex::new(wait))));
        let take = |turn: &str, version: u64| {
            let usage = Usage { input_tokens: 5.into(), ..Usage::default() };
            let done = Done { model: Some("m".into()), usage: Some(usage.into()), ..Done::because("stop") };
            let turn = OpenTurn::new(TurnId::new(turn).unwrap()).seal(&done, EpochMillis::new(1));
            let sealed = vec![encode_sealed(&turn).unwrap().into()];
            let id = ConversationId::new("c").unwrap();
            let conversation = ConversationRecord {
                version: Version(version),
                sealed_turns: version,
                ..ConversationRecord::begin(id)
            };
            let entry = Entry { conversation, erased: None, key: None, position: version, sealed, staged: Vec::new() };
            slot.with(|files| files.memtable_mut().take(entry).unwrap()).unwrap();
        };
        take("a", 1);
        let uncounted = || slot.with_sums(|_, memtable| Ok(memtable.uncounted()), |_, turns| turns).unwrap().unwrap();
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| slot.count(usize::MAX));
            // The thread has begun when it holds this lock. It then waits for the price.
            let counts = slot.with(|files| Arc::clone(files.counts())).unwrap();
            while counts.counting.try_lock().is_ok() {
                std::thread::yield_now();
            }
            take("b", 2);
            assert_eq!(uncounted(), 2);
            go_on.send(()).unwrap();
            counting.join().unwrap().unwrap();
        });
        assert_eq!(uncounted(), 1, "the turn that came meanwhile is counted later");
        drop(go_on);
        slot.freeze().unwrap();
        assert_eq!(uncounted(), 0);
    }
}

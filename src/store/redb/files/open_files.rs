use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, WriteTransaction};
use uuid::Uuid;

use super::in_place::InPlace;
use super::size::pack;
use crate::store::position::Lineage;
use crate::store::redb::memtable::Memtable;
use crate::store::redb::memtable::tally::Recent;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::findings::KnownFindings;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::journal_mark::JournalMark;
use crate::store::redb::tables::meta::{ReadMeta, WriteMeta};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::schema::{DROPPED, ROWS};
use crate::store::redb::tables::turn_filter::TurnFilter;
use crate::store::redb::tables::write::begin_write;
use crate::store::redb::unwind;
use crate::turn::RunningTime;

/// The open files of a store, and the memtable, which has the changes that are in the journal and not in the tables
/// yet.
#[derive(Debug)]
pub(crate) struct Files {
    tables: Database,
    journal: Database,
    memtable: RwLock<Memtable>,
    counts: Arc<Counts>,
    in_place: Arc<InPlace>,
    store_id: Uuid,
    lineage: Lineage,
    /// The running time in milliseconds.
    running_ms: AtomicU64,
    filter: Arc<TurnFilter>,
    findings: Arc<KnownFindings>,
    /// Whether turns were dropped, in some conversation.
    has_dropped: AtomicBool,
}

/// The sums over the turns of the memtable that were counted so far. The locks are taken in the order of the fields,
/// and before the memtable's lock. They are never taken while the slot's lock on the files is held.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Held while turns are counted, and while the active table becomes the immutable one. Reads do not wait for it.
    pub(crate) counting: Mutex<()>,
    /// Held while the sums of counted turns are added or copied.
    pub(super) recent: Mutex<Recent>,
}

/// How far the contents of the files reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    lineage: Lineage,
    /// The last row of the journal.
    last_row: JournalMark,
}

impl Extent {
    /// Returns whether files with this extent have everything that they had with an earlier one.
    pub(super) fn includes(self, earlier: Self) -> bool {
        let has_row = self.last_row.number > earlier.last_row.number || self.last_row == earlier.last_row;
        self.lineage == earlier.lineage && has_row
    }
}

impl Files {
    pub(crate) fn new(
        tables: Database,
        journal: Database,
        memtable: Memtable,
        store_id: Uuid,
        in_place: InPlace,
    ) -> Result<Self, Failure> {
        let meta = ReadMeta::of(&tables)?;
        let (running, lineage) = (meta.running_time()?, meta.lineage()?);
        drop(meta);
        // If the journal has a running time, it is the later one.
        let running = running.max(ReadMeta::of(&journal)?.running_time()?);
        let running_ms = AtomicU64::new(running.get());
        let filter = Arc::default();
        let findings = Arc::new(KnownFindings::read(&tables.begin_read()?)?);
        let has_dropped = AtomicBool::new(!tables.begin_read()?.open_table(DROPPED)?.is_empty()?);
        let (memtable, counts) = (RwLock::new(memtable), Arc::default());
        let in_place = Arc::new(in_place);
        let files = Self {
            tables,
            journal,
            memtable,
            counts,
            in_place,
            store_id,
            lineage,
            running_ms,
            filter,
            findings,
            has_dropped,
        };
        // One row is enough to see that a new store has none. The rows of a large store are read in the background.
        learn_turns(&files.filter, files.read_tables(), 1);
        Ok(files)
    }

    /// Returns whether turns were dropped, in some conversation.
    pub(crate) fn has_dropped(&self) -> bool {
        self.has_dropped.load(Ordering::Acquire)
    }

    /// Notes that turns are dropped.
    pub(crate) fn note_dropped(&self) {
        self.has_dropped.store(true, Ordering::Release);
    }

    /// Returns the durable running time.
    pub(crate) fn running_time(&self) -> RunningTime {
        RunningTime::new(self.running_ms.load(Ordering::Acquire))
    }

    /// Sets the durable running time. Call this once the running time is in the journal.
    pub(crate) fn set_running_time(&self, running: RunningTime) {
        self.running_ms.store(running.get(), Ordering::Release);
    }

    pub(crate) fn memtable(&self) -> RwLockReadGuard<'_, Memtable> {
        self.memtable.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn memtable_mut(&self) -> RwLockWriteGuard<'_, Memtable> {
        self.memtable.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sums over the turns of the memtable that were counted so far.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Returns what knows whether the names of these files still lead to them.
    pub(crate) fn in_place(&self) -> Arc<InPlace> {
        Arc::clone(&self.in_place)
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent { lineage: self.lineage, last_row: self.memtable().last_row() }
    }

    pub(crate) fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Returns the filter that knows of most new turns that they are not in the index. Every row of the index must be
    /// added to the filter before it is committed.
    pub(crate) fn filter(&self) -> Arc<TurnFilter> {
        Arc::clone(&self.filter)
    }

    /// Returns the damage that scrubs have found.
    pub(crate) fn findings(&self) -> Arc<KnownFindings> {
        Arc::clone(&self.findings)
    }

    pub(crate) fn hasher(&self) -> TurnHasher {
        TurnHasher::of(self.store_id)
    }

    /// Begins a read of the tables. If the memtable is locked meanwhile, the tables and the memtable together show one
    /// state of the store.
    pub(crate) fn read_tables(&self) -> Result<ReadTables, Failure> {
        let tables = ReadTables::new(self.tables.begin_read()?, self.hasher());
        Ok(tables.with_filter(self.filter()))
    }

    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, Failure> {
        Ok(self.tables.begin_read()?)
    }

    /// Returns the bytes of all rows of the tables.
    pub(crate) fn live_bytes(&self) -> Result<u64, Failure> {
        ReadMeta::of(&self.tables)?.live_bytes()
    }

    /// Makes the main file as small as it can be.
    pub(crate) fn pack(&mut self) {
        tracing::info!("most of the database file is free; the file is made smaller");
        if let Err(fault) = unwind::caught_as_fault(|| Ok(pack(&mut self.tables).map_err(Failure::from)?)) {
            tracing::warn!(error = fault.in_full(), "the database file could not be made smaller");
        }
    }

    /// Begins a transaction on the tables, whose commit returns when it is durable.
    pub(crate) fn write_tables(&self) -> Result<WriteTransaction, Failure> {
        begin_write(&self.tables)
    }

    /// Begins a transaction on the journal, whose commit returns when it is durable.
    pub(crate) fn write_journal(&self) -> Result<WriteTransaction, Failure> {
        let mut txn = self.journal.begin_write()?;
        txn.set_durability(redb::Durability::Immediate)?;
        Ok(txn)
    }

    /// Notes in the tables which row of the journal is the newest, unless they say so already. From then on, a copy of
    /// the journal without that row is refused.
    pub(crate) fn note_newest(&self) -> Result<(), Failure> {
        let newest = self.memtable().last_row();
        if ReadMeta::of(&self.tables)?.newest()? == newest {
            return Ok(());
        }
        let txn = self.write_tables()?;
        WriteMeta::write(&txn)?.note_newest(newest)?;
        Ok(txn.commit()?)
    }

    /// Notes in the tables that the store has no journal. Call this only if the tables have the contents of all rows.
    pub(crate) fn release_journal(&self) -> Result<(), Failure> {
        let last_row = self.memtable().last_row();
        let txn = self.write_tables()?;
        {
            let mut meta = WriteMeta::write(&txn)?;
            meta.set_running_time(self.running_time())?;
            meta.release_journal(last_row)?;
        }
        Ok(txn.commit()?)
    }

    /// Drops all rows of a journal that the store does not need any more.
    pub(crate) fn empty_journal(&self) -> Result<(), Failure> {
        let last_row = self.memtable().last_row();
        let txn = self.write_journal()?;
        txn.delete_table(ROWS)?;
        txn.open_table(ROWS)?;
        WriteMeta::write(&txn)?.set_base(last_row)?;
        Ok(txn.commit()?)
    }

    /// Closes both files. Reads that are under way fail.
    pub(crate) fn close(self) {
        for (name, database) in [("journal", self.journal), ("database", self.tables)] {
            // After a panic within redb, closing may panic too, on a lock that the first panic poisoned.
            let closed = unwind::caught_as_fault(|| Ok(database.close().map_err(Failure::from)?));
            if let Err(fault) = closed {
                tracing::warn!(
                    error = fault.in_full(),
                    "the {name} did not close cleanly; the next opening repairs it"
                );
            }
        }
    }
}

/// Adds the next rows of the index to the filter. The filter only saves time: if the index is damaged, the store goes
/// on without the filter, and only a look-up of a turn whose own row is damaged fails.
pub(crate) fn learn_turns(filter: &TurnFilter, tables: Result<ReadTables, Failure>, limit: usize) {
    if let Err(fault) = unwind::caught_as_fault(|| Ok(tables?.fill(filter, limit)?)) {
        tracing::warn!(
            error = fault.in_full(),
            "the index of turns cannot be read in full; every turn is looked up in it"
        );
        filter.give_up();
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase};

    use super::*;

    #[test]
    fn an_extent_includes_those_that_the_same_history_had_before() {
        let [lineage, other] = [1, 2].map(|id| Lineage(Uuid::from_u128(id)));
        let extent = |lineage, number, checksum| Extent { lineage, last_row: JournalMark { number, checksum } };
        let earlier = extent(lineage, 5, 7);
        assert!(extent(lineage, 5, 7).includes(earlier) && extent(lineage, 6, 1).includes(earlier));
        for extent in [extent(lineage, 4, 7), extent(lineage, 5, 8), extent(other, 6, 1)] {
            assert!(!extent.includes(earlier), "{extent:?}");
        }
    }

    #[test]
    fn an_index_that_cannot_be_read_costs_the_filter_alone() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        // This database has no index.
        let tables = ReadTables::new(database.begin_read().unwrap(), TurnHasher::of(Uuid::from_u128(1)));
        let filter = TurnFilter::default();
        learn_turns(&filter, Ok(tables), 1);
        assert!(!filter.is_learning() && !filter.is_complete());
    }
}

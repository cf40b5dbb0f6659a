//! Removes the rows of erased conversations, a few at a time.
//!
//! A flush erases a conversation by removing its id: then no read finds its rows any more. The rows of its key are
//! removed here, in small transactions: open turns, then turns with the sums that they have added, then the index. The
//! sums move to the sums of erased turns, so reports show the same as before.
//!
//! A cost can be moved only if it can be computed again. So nothing is removed while the stored costs are by other
//! prices than the present ones.

use std::sync::atomic::Ordering;

use redb::WriteTransaction;

use super::Checkpoint;
use crate::report::{ConversationSums, PriceBook};
use crate::store::fault::Fault;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::WriteTables;
use crate::store::redb::tables::write::removal::remove_lost;
use crate::store::redb::unwind;

/// The number of rows that one transaction removes, which takes some milliseconds.
const ROWS_AT_ONCE: usize = 500;

/// The bytes of records of turns after which a transaction removes no more.
pub(super) const BYTES_AT_ONCE: usize = 512 * 1024;

impl Checkpoint {
    /// Removes some rows of erased conversations. Like a flush in the background, stores a failure for the next commit.
    /// Returns whether further rows may have to be removed.
    pub(crate) fn erase_in_background(&self) -> bool {
        if !self.may_erase.load(Ordering::Relaxed) {
            return false;
        }
        let _one_at_a_time = self.pause();
        if self.failure().is_some() {
            return false;
        }
        unwind::caught_as_fault(|| self.erase_once()).unwrap_or_else(|cause| {
            *self.failure_of_background() = Some(cause);
            false
        })
    }

    fn erase_once(&self) -> Result<bool, Fault> {
        let begun = self.slot.with(|files| -> Result<_, Failure> { Ok((files.read_tables()?, files.hasher())) });
        let Ok(begun) = begun else { return Ok(false) };
        let (tables, hasher) = begun?;
        let book = self.slot.book();
        let Some(erasure) = next(&tables, book.digest())? else {
            self.may_erase.store(false, Ordering::Relaxed);
            return Ok(false);
        };
        let txn = self.slot.with(Files::write_tables)??;
        remove_some(&txn, hasher, &**book, erasure)?;
        txn.commit().map_err(Failure::from)?;
        Ok(true)
    }

    /// Removes all rows of erased conversations. If there are any and the prices have changed, computes all costs anew
    /// first. Everything must have been moved.
    pub(crate) fn erase_all(&self) -> Result<(), Fault> {
        let next = self.slot.with(|files| files.read_tables()?.next_erasure(u64::MAX));
        // A closed store has nothing to remove.
        let Ok(next) = next else { return Ok(()) };
        let has_erasures = next?.is_some();
        while has_erasures && (self.reprice_in_background() || self.erase_in_background()) {}
        self.failure().map_or(Ok(()), Err)
    }
}

/// Returns the next erasure whose rows can be removed. `digest` is the digest of the price book.
fn next(tables: &ReadTables, digest: u64) -> Result<Option<Erasure>, Failure> {
    let meta = tables.meta()?;
    // The tables have the sums of all turns up to the checkpoint, because a checkpoint moves sums last.
    let Some(erasure) = tables.next_erasure(meta.checkpoint()?.number)? else { return Ok(None) };
    Ok(is_priced(tables, digest)?.then_some(erasure))
}

/// Returns whether all costs in the tables are by the price book with this digest.
pub(super) fn is_priced(tables: &ReadTables, digest: u64) -> Result<bool, Failure> {
    let meta = tables.meta()?;
    Ok(!meta.costs()?.is_repricing(digest) && meta.repricing()?.is_none())
}

/// Removes some rows of an erased conversation. With the last one, the erasure ends.
fn remove_some(
    txn: &WriteTransaction,
    hasher: TurnHasher,
    book: &dyn PriceBook,
    Erasure { life, key, .. }: Erasure,
) -> Result<(), Failure> {
    let mut tables = WriteTables::open(txn, hasher)?;
    let mut rollups = WriteRollups::open(txn)?;
    let generation = tables.meta().costs()?.generation;
    let mut left = ROWS_AT_ONCE;
    left -= tables.remove_open(key, left)?;
    if left > 0 {
        let (mut tally, mut sums) = (Tally::default(), ConversationSums::default());
        let (removed, is_all) = tables.remove_turns(key, (left, BYTES_AT_ONCE), |turn| match turn {
            Ok(turn) => sums.add(&tally.count_parts(&turn, book)),
            // Its part stays among the sums of turns that are not erased, where a check finds it.
            Err(damaged) => tracing::warn!(%damaged, "a turn was erased that could not be read"),
        })?;
        left = if is_all { left - removed } else { 0 };
        rollups.erase(generation, tally.parts())?;
        rollups.take_from_conversation(generation, key, &sums)?;
    }
    if left > 0 {
        left -= tables.remove_index(key, left)?;
    }
    if left > 0 {
        left -= remove_lost(txn, key, left)?;
    }
    if left > 0 {
        rollups.remove_conversation(generation, key)?;
        tables.forget_dropped(key)?;
        tables.end_erasure(life)?;
        tracing::debug!("all rows of an erased conversation are removed");
    }
    tables.grow_by(rollups.growth());
    tables.finish_without_journal()
}

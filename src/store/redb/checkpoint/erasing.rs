//! Removes the rows of erased conversations, a few at a time.
//!
//! A flush erases a conversation by removing its id: then no read finds its rows any more. The rows of its key are
//! removed here, in small transactions: open turns, then turns with the sums that they have added, then the index. The
//! sums move to the sums of erased turns, so reports show the same as before.
//!
//! A cost can be moved only if it can be computed again. So nothing is removed while the stored costs are by other
//! prices than the present ones.

use redb::WriteTransaction;

use crate::report::{ConversationSums, PriceBook};
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::erasure::Erasure;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::{WriteTables, remove_lost};

/// The number of rows that one transaction removes, which takes some milliseconds.
const ROWS_AT_ONCE: usize = 500;

/// The bytes of records of turns after which a transaction removes no more.
pub(super) const BYTES_AT_ONCE: usize = 512 * 1024;

/// Returns the next erasure whose rows can be removed. `digest` is the digest of the price book.
pub(super) fn next(tables: &ReadTables, digest: u64) -> Result<Option<Erasure>, Failure> {
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
pub(super) fn remove_some(
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

//! A filter in memory that says of most new turns that they are not sealed. Otherwise each new turn would be looked up
//! on a random page of the index.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::ReadableTable;

use super::failure::Failure;
use super::indexed::Indexed;
use super::record::damaged::{DamagedRecord, RecordFlaw};

/// A Bloom filter over the rows of the index, with ten bits for each turn. It has segments, so that it can grow with
/// the index.
///
/// The filter is complete once it has read the rows that existed when the files were opened. Rows that are written
/// meanwhile are added as they are written.
#[derive(Debug, Default)]
pub(crate) struct TurnFilter {
    segments: RwLock<Vec<Segment>>,
    /// The key of the last row that was read; `None` before the first row is read.
    read_up_to: Mutex<Option<(u64, u64)>>,
    is_complete: AtomicBool,
    has_failed: AtomicBool,
}

/// A block of the size of a cache line. All bits of an element are in one block.
type Block = [u64; 8];

#[derive(Debug)]
struct Segment {
    blocks: Box<[Block]>,
    /// The number of rows that the segment still has room for.
    room: usize,
}

impl TurnFilter {
    /// Adds the next rows of the index, at most `limit`.
    ///
    /// A damaged row is an error, since it may be the row of any turn.
    pub(crate) fn read(&self, index: &impl ReadableTable<(u64, u64), Indexed>, limit: usize) -> Result<(), Failure> {
        let mut read_up_to = self.read_up_to.lock().unwrap_or_else(PoisonError::into_inner);
        let from = read_up_to.map_or(Bound::Unbounded, Bound::Included);
        let mut rows = index.range::<(u64, u64)>((from, Bound::Unbounded))?;
        if let Some(last) = *read_up_to {
            // No row leaves the index. If a search for the last row leads elsewhere, it went the wrong way.
            let found = rows.next().transpose()?.map(|(place, _)| place.value());
            if found != Some(last) {
                return Err(DamagedRecord::new(Indexed::WHAT, RecordFlaw::Hidden).into());
            }
        }
        for _ in 0..limit {
            let Some(row) = rows.next() else {
                self.is_complete.store(true, Ordering::Release);
                return Ok(());
            };
            let (place, ordinal) = row?;
            let (key, hash) = place.value();
            ordinal.value().verify((key, hash))?;
            if read_up_to.is_some_and(|last| last >= (key, hash)) {
                return Err(DamagedRecord::new(Indexed::WHAT, RecordFlaw::Hidden).into());
            }
            self.add(key, hash);
            *read_up_to = Some((key, hash));
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Returns whether there are more rows of the index to read.
    pub(crate) fn is_learning(&self) -> bool {
        !self.is_complete() && !self.has_failed.load(Ordering::Relaxed)
    }

    /// Gives up because the index could not be read: from now on the filter excludes no turn, so every turn is looked
    /// up.
    pub(crate) fn give_up(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Adds a row. To be called before the row is committed.
    pub(crate) fn add(&self, key: u64, hash: u64) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if segments.last().is_none_or(|last| last.room == 0) {
            let next = Segment::after(segments.last());
            segments.push(next);
        }
        if let Some(last) = segments.last_mut() {
            last.add(mixed(key, hash));
        }
    }

    /// Returns whether there is certainly no such row.
    pub(crate) fn excludes(&self, key: u64, hash: u64) -> bool {
        if !self.is_complete() {
            return false;
        }
        let element = mixed(key, hash);
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        !segments.iter().any(|segment| segment.has(element))
    }
}

impl Segment {
    const BITS_PER_ROW: usize = 10;
    const MIN_ROWS: usize = 1 << 14;
    const MAX_ROWS: usize = 1 << 22;
    const BITS_PER_BLOCK: usize = 8 * size_of::<Block>();

    /// Returns a segment twice as large as the one before, so that there are few segments.
    fn after(before: Option<&Self>) -> Self {
        let rows_of = |before: &Self| before.blocks.len() * Self::BITS_PER_BLOCK / Self::BITS_PER_ROW;
        let rows = before.map_or(0, rows_of).saturating_mul(2).clamp(Self::MIN_ROWS, Self::MAX_ROWS);
        let blocks = (rows * Self::BITS_PER_ROW).div_ceil(Self::BITS_PER_BLOCK);
        Self { blocks: vec![Block::default(); blocks].into(), room: rows }
    }

    fn block(&self, element: u64) -> usize {
        let place = (u128::from(element) * self.blocks.len() as u128) >> 64;
        usize::try_from(place).unwrap_or_default()
    }

    fn add(&mut self, element: u64) {
        let block = self.block(element);
        for (word, bit) in bits(element) {
            self.blocks[block][word] |= bit;
        }
        self.room -= 1;
    }

    fn has(&self, element: u64) -> bool {
        let block = &self.blocks[self.block(element)];
        bits(element).all(|(word, bit)| block[word] & bit != 0)
    }
}

/// Returns the bits of an element in its block: one bit in each of six words.
fn bits(element: u64) -> impl Iterator<Item = (usize, u64)> {
    // The upper bits of the element choose its block, so the bits in the block must depend on other bits too.
    let bits = mixed(element, 0x5851_f42d_4c95_7f2d);
    (0..6).map(move |nth| (nth, 1 << (bits >> (6 * nth) & 63)))
}

/// Mixes a key and a hash so that each bit of the result depends on all bits of both. The hash of a turn's id is keyed
/// already, so nobody can choose it.
fn mixed(key: u64, hash: u64) -> u64 {
    let mut mixed = hash ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableDatabase};

    use super::*;
    use crate::store::redb::tables::indexed::StoredOrdinal;
    use crate::store::redb::tables::schema::INDEX;

    const ROWS: u64 = 50_000;

    #[test]
    fn no_row_is_ever_excluded_and_most_others_are() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        {
            let mut index = txn.open_table(INDEX).unwrap();
            (0..ROWS).for_each(|nth| {
                drop(index.insert((nth % 100, nth * 7), StoredOrdinal::seal((nth % 100, nth * 7), 1)).unwrap());
            });
        }
        txn.commit().unwrap();
        let txn = database.begin_read().unwrap();
        let index = txn.open_table(INDEX).unwrap();
        let filter = TurnFilter::default();
        filter.add(1000, 5);
        let mut reads = 0;
        while !filter.is_complete() {
            assert!(!filter.excludes(2000, 9), "nothing is excluded before all rows are known");
            filter.read(&index, 7_000).unwrap();
            reads += 1;
        }
        assert_eq!(reads, 8);
        assert!(!filter.is_learning());
        filter.add(1000, 6);
        assert!(!filter.excludes(1000, 5) && !filter.excludes(1000, 6));
        assert!((0..ROWS).all(|nth| !filter.excludes(nth % 100, nth * 7)));
        let excluded = (0..ROWS).filter(|nth| filter.excludes(nth % 100, nth * 7 + 1)).count();
        assert!(excluded > 46_000, "{excluded} of {ROWS}");
    }

    #[test]
    fn a_filter_that_gave_up_excludes_nothing_and_reads_no_more() {
        let filter = TurnFilter::default();
        filter.add(1, 1);
        assert!(filter.is_learning());
        filter.give_up();
        assert!(!filter.is_learning() && !filter.excludes(2, 2));
    }

    #[test]
    fn an_empty_index_is_known_at_once() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        drop(txn.open_table(INDEX).unwrap());
        txn.commit().unwrap();
        let filter = TurnFilter::default();
        filter.read(&database.begin_read().unwrap().open_table(INDEX).unwrap(), 1).unwrap();
        assert!(filter.excludes(1, 1));
    }
}

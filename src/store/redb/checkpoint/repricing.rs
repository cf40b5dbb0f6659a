//! Computes all costs anew after the prices have changed. Until all are computed, reads show the costs of the
//! generation before.
//!
//! Those costs are by the old prices for the turns that were in the rollups when the store was opened, and by the new
//! prices for all other turns: those that were still in the journal then, and those that were sealed since. The old
//! prices are not known any more, so no other cost can be computed for them.
//!
//! The turns that are in the rollups at the beginning are priced one after the other, in the order of their positions,
//! into rows of the next generation. The same transactions write the position that was reached. Turns that are rolled
//! up meanwhile add to both generations, both times at the new prices. When all turns are priced, one transaction
//! switches to the next generation; then the rows of other generations are removed.

use std::collections::BTreeMap;

use redb::WriteTransaction;

use crate::report::{ConversationSums, PriceBook};
use crate::store::redb::memtable::tally::Tally;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::guarded::Ascending;
use crate::store::redb::tables::index::TurnHasher;
use crate::store::redb::tables::meta::{CostState, PricedBy, Repricing, WriteMeta};
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record;
use crate::store::redb::tables::record::at_position::AtPosition;
use crate::store::redb::tables::rollups::WriteRollups;
use crate::store::redb::tables::write::WriteTables;

/// The number of turns that one transaction prices, which takes some milliseconds.
const TURNS_AT_ONCE: u64 = 500;
/// The number of rows of other generations that one transaction removes from each table.
const ROWS_AT_ONCE: usize = 2000;

/// The next step of the repricing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin a repricing of the turns up to `last`, the last turn in the rollups. Must not run while the rollups have
    /// only a part of an immutable table's sums.
    Begin { last: u64 },
    /// Price the next turns of a repricing.
    Price(Repricing),
    /// Remove rows of other generations.
    Clean,
}

impl Step {
    /// Returns the next step for a store whose price book has this digest. `None` if the stored costs are by that book.
    pub(super) fn next(tables: &ReadTables, digest: u64) -> Result<Option<Self>, Failure> {
        let meta = tables.meta()?;
        let state = meta.costs()?;
        Ok(match (meta.repricing()?, state.prices) {
            (Some(repricing), _) if repricing.digest == digest => Some(Self::Price(repricing)),
            (None, PricedBy::Book(of)) if of == digest => {
                let others = tables.rollups()?.has_other_generations(state.generation)?;
                others.then_some(Self::Clean)
            }
            (None, PricedBy::Nothing) => None,
            _ => Some(Self::Begin { last: meta.rolled_up()?.position }),
        })
    }

    /// Runs the step in this transaction.
    pub(super) fn write(
        self,
        txn: &WriteTransaction,
        tables: &ReadTables,
        hasher: TurnHasher,
        book: &dyn PriceBook,
    ) -> Result<(), Failure> {
        match self {
            Self::Begin { last } => {
                let mut meta = WriteMeta::write(txn)?;
                let state = meta.costs()?;
                let generation = state.latest.saturating_add(1);
                tracing::info!(turns = last, "the prices have changed; the costs of all turns are derived anew");
                meta.set_costs(CostState { latest: generation, ..state })?;
                meta.set_repricing(Some(Repricing { generation, digest: book.digest(), last, done: 0 }))
            }
            Self::Price(repricing) => price(txn, tables, hasher, book, repricing),
            Self::Clean => {
                let mut write = WriteTables::open(txn, hasher)?;
                let generation = write.meta().costs()?.generation;
                let mut rollups = WriteRollups::open(txn)?;
                rollups.remove_other_generations(generation, ROWS_AT_ONCE)?;
                write.grow_by(rollups.growth());
                write.finish_without_journal()
            }
        }
    }
}

fn price(
    txn: &WriteTransaction,
    tables: &ReadTables,
    hasher: TurnHasher,
    book: &dyn PriceBook,
    repricing: Repricing,
) -> Result<(), Failure> {
    let Repricing { generation, last, done, .. } = repricing;
    let to = done.saturating_add(TURNS_AT_ONCE).min(last);
    let (mut tally, mut conversations) = (Tally::default(), BTreeMap::<u64, ConversationSums>::new());
    // redb treats a range that begins after its end as an error.
    let rows = if done < to { Some(tables.positions()?.range(done + 1..=to)?) } else { None };
    let mut order = Ascending::<u64>::new();
    for row in rows.into_iter().flatten() {
        let (position, value) = row?;
        // A page of an earlier moment has positions again.
        if value.value().verify(&position.value()).is_ok() && !order.follows(&position.value()) {
            continue;
        }
        // A turn that cannot be read has no cost in the new generation. A repair computes all costs anew.
        let at = value.value().verify(&position.value()).and_then(AtPosition::decode);
        let Ok(AtPosition::Sealed { key, ordinal }) = at else { continue };
        let Some(row) = tables.turns()?.get((key, ordinal.get()))? else { continue };
        let record = row.value().verify(&(key, ordinal.get()));
        let Ok(turn) = record.and_then(|record| record::decode_sealed(ordinal, record)) else { continue };
        conversations.entry(key).or_default().add(&tally.count_parts(&turn, book));
    }
    let mut write = WriteTables::open(txn, hasher)?;
    let mut rollups = WriteRollups::open(txn)?;
    rollups.add_costs(generation, tally.parts().map(|(quarter, label, part)| (quarter, label, &part.cost)))?;
    for (key, sums) in conversations {
        rollups.add_to_conversation(generation, key, &sums)?;
    }
    write.grow_by(rollups.growth());
    if to < last {
        write.meta().set_repricing(Some(Repricing { done: to, ..repricing }))?;
    } else {
        let state = write.meta().costs()?;
        let prices = PricedBy::Book(repricing.digest);
        write.meta().set_costs(CostState { generation, prices, ..state })?;
        write.meta().set_repricing(None)?;
        tracing::info!(turns = last, "the costs of all turns were derived anew");
    }
    write.finish_without_journal()
}

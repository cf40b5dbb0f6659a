use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cost::{Cost, PicoDollars};
use super::label::{Grouping, RollupLabel, Selection};
use super::quarter::Period;
use super::rollup::Rollup;

/// The rows of a report: sums and costs, one row for each period and each label of the report's grouping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breakdown {
    grouping: Grouping,
    selection: Selection,
    rows: BTreeMap<(Period, RollupLabel), BreakdownRow>,
    /// The number of counts in the distributions of the rows.
    counts: usize,
}

/// One row of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BreakdownRow {
    /// The sums from which its figures are computed.
    pub rollup: Rollup,
    /// The cost of the row's tokens.
    pub cost: Cost,
}

impl BreakdownRow {
    /// Adds another row.
    pub fn add(&mut self, other: &Self) {
        self.rollup.add(&other.rollup);
        self.cost.add(&other.cost);
    }

    /// Returns what has to be added to `before` to make it this row. The smallest and the largest values are those of both,
    /// and no model without a price is taken away.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut rollup = self.rollup.clone();
        rollup.subtract(&before.rollup);
        Self { rollup, cost: self.cost.since(&before.cost) }
    }

    /// Returns whether a row from outside can be added to others: each number is so small that the sum over very many such
    /// rows does not overflow, and its distributions are in order.
    pub(crate) fn is_plausible(&self) -> bool {
        self.rollup.is_plausible() && self.cost.is_plausible()
    }

    /// Returns how much more the row's tokens with a price would have cost without a cache. `None` if no tokens have a
    /// price, or no step reported a cache counter.
    pub fn cache_saved(&self) -> Option<PicoDollars> {
        self.cost.cache_saved().filter(|_| self.rollup.has_cache_counter())
    }
}

impl Breakdown {
    /// Returns a report without rows.
    pub fn new(grouping: Grouping, selection: Selection) -> Self {
        Self { grouping, selection, rows: BTreeMap::new(), counts: 0 }
    }

    /// Adds a rollup, if the report selects its label.
    pub fn add(&mut self, period: Period, label: &RollupLabel, rollup: &Rollup) {
        if let Some(row) = self.row(period, label) {
            let before = row.rollup.counts();
            row.rollup.add(rollup);
            let after = row.rollup.counts();
            self.counts = (self.counts + after).saturating_sub(before);
        }
    }

    /// Adds a cost, if the report selects its label.
    pub fn add_cost(&mut self, period: Period, label: &RollupLabel, cost: &Cost) {
        if let Some(row) = self.row(period, label) {
            row.cost.add(cost);
        }
    }

    fn row(&mut self, period: Period, label: &RollupLabel) -> Option<&mut BreakdownRow> {
        let label = self.selection.selects(label).then(|| self.grouping.group(label))?;
        Some(self.rows.entry((period, label)).or_default())
    }

    /// Returns about how many bytes of memory the breakdown takes.
    pub(crate) fn bytes(&self) -> usize {
        /// With labels and names of the maximum length, the breakdown takes twice as much.
        const ROW_BYTES: usize = 1200;
        const COUNT_BYTES: usize = 16;
        self.rows.len() * ROW_BYTES + self.counts * COUNT_BYTES
    }

    /// Returns the rows by period, and within a period by label. A period without turns has none.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (Period, &RollupLabel, &BreakdownRow)> {
        self.rows.iter().map(|((period, label), row)| (*period, label, row))
    }
}

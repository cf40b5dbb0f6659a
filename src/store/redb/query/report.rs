use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::LeftOut;
use crate::report::{Breakdown, BreakdownRow, Level, Period, PriceBook, Quarter, RollupLabel, Selection};
use crate::store::contract::{Report, ReportQuestion};
use crate::store::redb::memtable::tally::{Lacking, Recent, TurnsToCount};
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::read::ReadTables;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::tables::rollups::ReadRollups;

/// A report: the tables, and the sums over turns of the memtable that are not in the tables yet.
pub(crate) struct ReportQuery {
    tables: ReadTables,
    recent: Vec<(Quarter, RollupLabel, Arc<BreakdownRow>)>,
    /// The turns of the memtable that are not counted yet.
    uncounted: TurnsToCount,
    /// Which sums over turns of the immutable table the tables lack.
    lacking: Lacking,
}

impl ReportQuery {
    /// `lacking` says which sums of the memtable's immutable table the tables lack.
    pub(crate) fn of(
        recent: &Recent,
        uncounted: TurnsToCount,
        tables: ReadTables,
        lacking: &Lacking,
        question: &ReportQuestion,
    ) -> Self {
        let mut parts = Vec::new();
        let bounds = question.periods.first().zip(question.periods.last());
        let whole = bounds.and_then(|(first, last)| Period::new(first.start(), last.end()).ok());
        if let Some(whole) = whole {
            let immutable = recent.immutable.in_period(whole);
            let immutable = immutable.filter(|(quarter, label, _)| lacking.has_part(*quarter, label));
            let all = immutable.chain(recent.active.in_period(whole));
            parts.extend(all.map(|(quarter, label, part)| (quarter, label.clone(), Arc::clone(part))));
        }
        Self { tables, recent: parts, uncounted, lacking: lacking.clone() }
    }

    /// Returns `None` if the report has too many rows.
    pub(crate) fn read(
        self,
        question: &ReportQuestion,
        book: &dyn PriceBook,
        left_out: &mut LeftOut,
    ) -> Result<Option<Report>, Failure> {
        let costs = self.tables.meta()?.costs()?;
        let generation = costs.generation;
        let is_repricing = costs.is_repricing(book.digest());
        let rollups = self.tables.rollups()?;
        let labels = Labels { rollups: &rollups, selection: &question.selection, known: RefCell::default() };
        let is_selected = |hash| labels.is_selected(hash);
        let mut breakdown = Breakdown::new(question.grouping, question.selection.clone());
        // A report that is too large is refused, so the ranges after the one that made it too large are not read.
        let is_over = Report::is_too_large;
        for period in &question.periods {
            for (level, range) in Level::cover(*period) {
                let mut damaged = |flaw: DamagedRecord| {
                    left_out.add(&flaw, || format!("the sums from quarter {} on", range.start().get()));
                };
                rollups.each_rollup(level, range, is_selected, |hash, rollup| {
                    if is_over(&breakdown) {
                        return Ok(());
                    }
                    match (labels.get(hash)?, rollup) {
                        (Ok(label), Ok(rollup)) => breakdown.add(*period, &label, &rollup),
                        (Err(flaw), _) | (_, Err(flaw)) => damaged(flaw),
                    }
                    Ok(())
                })?;
                rollups.each_cost(generation, level, range, is_selected, |hash, cost| {
                    if is_over(&breakdown) {
                        return Ok(());
                    }
                    match (labels.get(hash)?, cost) {
                        (Ok(label), Ok(cost)) => breakdown.add_cost(*period, &label, &cost),
                        (Err(flaw), _) | (_, Err(flaw)) => damaged(flaw),
                    }
                    Ok(())
                })?;
                if is_over(&breakdown) {
                    return Ok(None);
                }
            }
        }
        let uncounted = Recent::of(&self.uncounted, book).not_in(&self.lacking);
        let recent = self.recent.iter().map(|(quarter, label, part)| (*quarter, label, &**part));
        for (quarter, label, part) in recent.chain(uncounted.parts()) {
            if is_over(&breakdown) {
                return Ok(None);
            }
            let at = question.periods.partition_point(|period| period.end() <= quarter);
            if let Some(period) = question.periods.get(at).filter(|period| period.contains(quarter)) {
                breakdown.add(*period, label, &part.rollup);
                breakdown.add_cost(*period, label, &part.cost);
            }
        }
        Ok((!is_over(&breakdown)).then_some(Report { breakdown, is_repricing }))
    }
}

/// The labels that the report has met so far, by their hashes.
struct Labels<'a> {
    rollups: &'a ReadRollups,
    selection: &'a Selection,
    known: RefCell<HashMap<u64, Result<Arc<RollupLabel>, DamagedRecord>>>,
}

impl Labels<'_> {
    /// So many labels take some megabytes.
    const MAX_KNOWN: usize = 10_000;

    fn get(&self, hash: u64) -> Result<Result<Arc<RollupLabel>, DamagedRecord>, Failure> {
        if let Some(label) = self.known.borrow().get(&hash) {
            return Ok(label.clone());
        }
        let label = self.rollups.label(hash)?.map(Arc::new);
        let mut known = self.known.borrow_mut();
        // The number of labels has no limit, so the map is emptied when it is full.
        if known.len() >= Self::MAX_KNOWN {
            known.clear();
        }
        known.insert(hash, label.clone());
        Ok(label)
    }

    /// Returns whether the question selects a row. A row whose label cannot be read counts as selected, so that it is
    /// met later and counted as damaged.
    fn is_selected(&self, hash: u64) -> Result<bool, Failure> {
        Ok(self.get(hash)?.map_or(true, |label| self.selection.selects(&label)))
    }
}

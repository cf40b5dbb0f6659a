use std::ops::ControlFlow;

use super::{LIST_BYTES, LeftOut};
use crate::report::Quarter;
use crate::store::erased_sums::{ErasedSums, ErasedSumsId, ErasedSumsPage};
use crate::store::position::Lineage;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::read::ReadTables;

/// About how many bytes the sums of one label take without their distributions.
const ROW_BYTES: usize = 200;

/// About how many bytes a count in a distribution takes.
const COUNT_BYTES: usize = 4;

/// Reads a page of the sums of erased turns.
pub(crate) fn erased_sums(
    tables: &ReadTables,
    lineage: Lineage,
    after: Option<ErasedSumsId>,
    limit: usize,
    left_out: &mut LeftOut,
) -> Result<ErasedSumsPage, Failure> {
    let rollups = tables.rollups()?;
    let mut page = ErasedSumsPage { sums: Vec::new(), next: None, left_out: 0 };
    let mut bytes = 0;
    let mut last = None;
    let after = after.map(|id| (id.quarter.get(), id.label));
    rollups.each_erased(after, |(quarter, label), row| {
        if page.sums.len() >= limit || bytes >= LIST_BYTES {
            // At least this row follows.
            page.next = last;
            return Ok(ControlFlow::Break(()));
        }
        let id = ErasedSumsId { lineage, quarter: Quarter::new(quarter), label };
        let found = match row {
            Ok(sums) => rollups.label(label)?.map(|label| ErasedSums { id, label, sums }),
            Err(damaged) => Err(damaged),
        };
        match found {
            Ok(sums) => {
                bytes += ROW_BYTES + COUNT_BYTES * sums.sums.rollup.counts();
                last = Some(id);
                page.sums.push(sums);
            }
            // The key of a damaged row may be wrong too.
            Err(damaged) => {
                page.left_out += 1;
                left_out.add(&damaged, || format!("the sums of erased turns from quarter {quarter} on"));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

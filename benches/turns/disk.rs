//! How much space a turn takes on the disk.

use std::sync::Arc;
use std::time::Duration;

use turn_metrics::report::NoPrices;
use turn_metrics::store::compact;

use crate::report::{Report, Row, Unit};
use crate::store::Writers;

const TURNS: usize = 100_000;
/// The size of a turn in the store's own encoding, without its key or any overhead.
const RECORD_BYTES: f64 = 91.0;

pub(crate) fn run(report: &mut Report) {
    let name = format!("disk: a turn, {TURNS} turns stored and compacted");
    let row = Row::new(name, "the compact record alone", "250 B");
    if !report.wants(&row.name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // The size is the same in every run, so one run is enough. Only stored turns may count, as a turn that was refused
    // as overload takes no room. So few turns wait at a time that none is refused.
    let stored = Writers::new(directory.path(), 0, 0).round(TURNS, 64, Duration::MAX).done;
    let bytes = compact(directory.path(), Arc::new(NoPrices)).unwrap().bytes_after;
    report.add_pairs(&row, Unit::Bytes, &[(bytes as f64 / stored as f64, RECORD_BYTES)], "");
}

//! Makes turns durable through the interface of the store. Compared with a plain file that is synced once a batch.

use std::time::Duration;

use crate::file;
use crate::report::{FEW_ROUNDS, Report, Row, Unit, alternate};
use crate::store::Writers;

pub(crate) fn run(report: &mut Report) {
    bursts(report);
    sustained(report);
}

fn bursts(report: &mut Report) {
    let at_most = Duration::from_secs(2);
    for (appenders, count, goal) in [
        (1, 2_000, "0.6, p99 2"),
        (64, 50_000, "0.6, p99 2"),
        (256, 100_000, "0.5, p99 2"),
        (1024, 100_000, "0.5, p99 2"),
    ] {
        let name = format!("append: commits of one turn, {appenders} waiting");
        let directory = tempfile::tempdir().unwrap();
        let mut writers = Writers::new(directory.path(), 0, 0);
        let ours = || writers.round(count, appenders, at_most);
        report.compare(&Row::new(name, file::NAME, goal), ours, || file::append(count, appenders, at_most));
    }
}

/// Appends far more turns than a store can buffer.
fn sustained(report: &mut Report) {
    let (count, at_most) = (300_000, Duration::from_secs(10));
    for (appenders, goal) in [(64, "0.6"), (1024, "0.5")] {
        let name = format!("append without a pause: {count} turns or 10 s, {appenders} waiting");
        if !report.wants(&name) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut writers = Writers::new(directory.path(), 0, 0);
        let ours = || writers.round(count, appenders, at_most);
        let pairs = alternate(FEW_ROUNDS, ours, || file::append(count, appenders, at_most));
        report.add_rates(&Row::new(&*name, file::NAME, goal), &pairs);
        let millis = |wait: Option<Duration>| wait.unwrap().as_secs_f64() * 1e3;
        let waits: Vec<_> = pairs.iter().map(|(ours, limit)| (millis(ours.worst), millis(limit.worst))).collect();
        let row = Row::new(format!("{name}: longest wait"), file::NAME, "50 ms");
        report.add_pairs(&row, Unit::Milliseconds, &waits, "");
        let refused = pairs.iter().map(|(ours, _)| ours.refused as f64 / (ours.refused + ours.done) as f64 * 1e2);
        let row = Row::new(name + ": commits refused", "", "");
        report.add_values(&row, Unit::Percent, &refused.collect::<Vec<_>>());
    }
}

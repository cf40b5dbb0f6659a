//! What a turn takes on the disk.

use std::fs;
use std::time::Duration;

use crate::report::{Report, Row, Unit};
use crate::store::Writers;

const TURNS: u32 = 100_000;
/// A turn in the store's own encoding, and nothing else.
const RECORD_BYTES: f64 = 91.0;

pub(crate) fn run(report: &mut Report) {
    let name = format!("disk: a turn, {TURNS} turns stored and the store closed");
    let row = Row::new(name, "the compact record alone", "250 B");
    if !report.wants(&row.name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // The same in every run, so that one is enough.
    Writers::new(directory.path(), 0, 0).round(TURNS as usize, 1024, Duration::MAX);
    let files = fs::read_dir(directory.path()).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    report.add_pairs(&row, Unit::Bytes, &[(bytes as f64 / f64::from(TURNS), RECORD_BYTES)], "");
}

//! The time from the start of the process to its first answer.

use std::time::Instant;

use crate::client::{ask, get};
use crate::report::{ROUNDS, Report, Row, Unit};
use crate::service::Service;

pub(crate) fn run(report: &mut Report) {
    let row = Row::new("start: to the answer of GET /health, empty directory", "", "100 ms");
    if !report.wants(&row.name) {
        return;
    }
    let times: Vec<_> = (0..ROUNDS).map(|_| start()).collect();
    report.add_values(&row, Unit::Milliseconds, &times);
}

fn start() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let service = Service::start(directory.path());
    let answer = ask(service.address, &get("/health", "")).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    begin.elapsed().as_secs_f64() * 1e3
}

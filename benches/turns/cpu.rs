//! How much processor time the service takes for a turn, over all of its threads. Linux only, because it reads `/proc`.

use std::env;
use std::ffi::OsStr;

use crate::client::{drive, post_events};
use crate::report::{FEW_ROUNDS, Report, Row, Unit};
use crate::service::Service;
use crate::work::turns;

/// The environment variable with the path of another build of the program. If it is set, the rows compare the two
/// builds.
const OTHER: &str = "OTHER_BUILD";

pub(crate) fn run(report: &mut Report) {
    let rows = [
        ("cpu: a durable turn, 64 turns a request", 64, 1, 32_000, "8 us"),
        ("cpu: a durable turn, one turn a request, 64 connections", 1, 64, 10_000, "35 us"),
        ("cpu: a durable turn, one turn a request, one connection", 1, 1, 4_000, "200 us"),
    ];
    let ours = OsStr::new(env!("CARGO_BIN_EXE_turn-metrics"));
    let other = env::var_os(OTHER);
    for (name, turns_a_request, connections, count, goal) in rows {
        let row = Row::new(name, if other.is_some() { "another build" } else { "" }, goal);
        if !report.wants(&row.name) {
            continue;
        }
        let measure = |program: &OsStr| microseconds(program, turns_a_request, connections, count);
        if let Some(other) = &other {
            let pairs: Vec<_> = (0..FEW_ROUNDS).map(|_| (measure(ours), measure(other))).collect();
            report.add_pairs(&row, Unit::Microseconds, &pairs, "");
        } else {
            let values: Vec<_> = (0..FEW_ROUNDS).map(|_| measure(ours)).collect();
            report.add_values(&row, Unit::Microseconds, &values);
        }
    }
}

/// Posts this many turns to a new service. Returns the processor time of one turn, without the time of the start.
fn microseconds(program: &OsStr, turns_a_request: usize, connections: usize, count: usize) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start_program(program, directory.path(), &[]);
    let turns = turns(0, count);
    let lines =
        turns.chunks(turns_a_request).map(|some| some.iter().map(|turn| turn.lines.as_str()).collect::<String>());
    let requests: Vec<_> = lines.map(|lines| post_events(&lines)).collect();
    let before = service.cpu_seconds();
    drive(service.address, connections, requests.iter(), 200).unwrap();
    (service.cpu_seconds() - before) * 1e6 / count as f64
}

//! The first page of the dashboard: how long the server takes, and how large it is.

use crate::client::{ask, body, drive, get};
use crate::load::load_as;
use crate::report::{FEW_ROUNDS, Report, Row, Unit};
use crate::server::Serving;
use crate::work::{CONVERSATIONS, MODELS, at_random};

/// The first page, for the month in which the turns ended. This is what it shows by default, but of fixed days.
const PATH: &str = "/?first=2026-01-01&last=2026-01-30&tz=UTC";
/// The number of pages in a round. They are asked for one after the other.
const PAGES: usize = 10;

pub(crate) fn run(report: &mut Report, turns: u64) {
    let name = format!("dashboard: the overview of a month by day and by {MODELS} models, {turns} turns stored");
    let time = Row::new(format!("{name}, time"), "", "100 ms");
    let size = Row::new(format!("{name}, size"), "", "100 kB");
    if !report.wants(&time.name) && !report.wants(&size.name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    load_as(directory.path(), CONVERSATIONS, turns, at_random);
    let server = Serving::ours(directory.path());
    // This first page is not timed. It brings the pages of the file into the cache.
    let html = String::from_utf8(body(&ask(server.address, &get(PATH, "")).unwrap())).unwrap();
    assert!(html.contains("Tokens per day by model") && html.contains("Latest turns"), "{html}");
    // Browsers take compressed pages.
    let request = get(PATH, "accept-encoding: gzip, deflate, br, zstd\r\n");
    let size_of_page = body(&ask(server.address, &request).unwrap()).len();
    let round = |_| {
        let round = drive(server.address, 1, std::iter::repeat_n(&request, PAGES), 200).unwrap();
        round.took.as_secs_f64() * 1e3 / PAGES as f64
    };
    let millis: Vec<_> = (0..FEW_ROUNDS).map(round).collect();
    server.stop();
    report.add_values(&time, Unit::Milliseconds, &millis);
    report.add_values(&size, Unit::Bytes, &[size_of_page as f64]);
}

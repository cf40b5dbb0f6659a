//! Exports and imports. Compared with reading and writing the same bytes as a file.

use std::fs::File;
use std::io::{Read, Write};
use std::iter::{from_fn, once};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::client::{ask, body, drive, get, post_events};
use crate::load::load;
use crate::report::{FEW_ROUNDS, Report, Round, Row, Unit, alternate};
use crate::server::Serving;
use crate::work::{CONVERSATIONS, Random, Turn};

const TURNS: u64 = 100_000;

pub(crate) fn run(report: &mut Report) {
    let export = Row::new(format!("export: {TURNS} turns"), "reading the same bytes from a file", "100 k turns/s");
    let import = Row::new(format!("import: {TURNS} turns"), "a file with the same bytes, synced once", "50 k turns/s");
    let wait = Row::new("import: the longest wait of another post meanwhile".to_owned(), "", "50 ms");
    if ![&export, &import, &wait].iter().any(|row| report.wants(&row.name)) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    load(directory.path(), CONVERSATIONS, TURNS);
    let server = Serving::ours(directory.path());
    let request = get("/export", "");
    // This export is not timed. It brings the pages of the file into the cache.
    let exported = body(&ask(server.address, &request).unwrap());
    assert_eq!(memchr::memchr_iter(b'\n', &exported).count() as u64, TURNS + 1);
    let file = directory.path().join("export.ndjson");
    std::fs::write(&file, &exported).unwrap();
    report.compare(
        &export,
        || timed(|| assert_eq!(drive(server.address, 1, once(&request), 200).unwrap().done, 1)),
        || timed(|| drop(read(&file))),
    );
    server.stop();
    if !report.wants(&import.name) && !report.wants(&wait.name) {
        return;
    }
    let mut request = format!(
        "POST /import HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        exported.len()
    )
    .into_bytes();
    request.extend_from_slice(&exported);
    let rates = alternate(FEW_ROUNDS, || import_alone(&request), || timed(|| write(&exported)));
    report.add_rates(&import, &rates);
    if report.wants(&wait.name) {
        let waits: Vec<_> = (0..FEW_ROUNDS).map(|_| longest_wait(&request)).collect();
        report.add_values(&wait, Unit::Milliseconds, &waits);
    }
}

fn timed(work: impl FnOnce()) -> Round {
    let start = Instant::now();
    work();
    Round::timed(usize::try_from(TURNS).unwrap(), start.elapsed(), Vec::new())
}

/// Imports into an empty store.
fn import_alone(request: &[u8]) -> Round {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::ours(directory.path());
    let round = timed(|| assert_eq!(drive(server.address, 1, once(request), 200).unwrap().done, 1));
    server.stop();
    round
}

/// Imports into an empty store while another client posts turns of other conversations, one a request. Returns the longest
/// time in milliseconds that one of its requests took.
fn longest_wait(request: &[u8]) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::ours(directory.path());
    let (address, is_done) = (server.address, AtomicBool::new(false));
    let round = thread::scope(|scope| {
        scope.spawn(|| {
            drive(address, 1, once(request), 200).unwrap();
            is_done.store(true, Ordering::Relaxed);
        });
        let (mut turn, mut random) = (10 * TURNS, Random(1));
        let posts = from_fn(|| {
            turn += 1;
            (!is_done.load(Ordering::Relaxed)).then(|| post_events(&Turn::new(turn, &mut random).lines))
        });
        drive(address, 1, posts, 200).unwrap()
    });
    server.stop();
    round.worst.unwrap().as_secs_f64() * 1e3
}

fn read(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn write(bytes: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.sync_data().unwrap();
}

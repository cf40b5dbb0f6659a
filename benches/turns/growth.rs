//! Work whose cost must not grow with the number of stored turns: appends, reads, and opening after a kill.

use std::iter::repeat_with;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{drive, get, post_events};
use crate::load::load;
use crate::report::{FEW_ROUNDS, Report, Round, Row, Unit, alternate};
use crate::server::Serving;
use crate::service::Service;
use crate::store::Writers;
use crate::work::{CONVERSATIONS, Random, Turn, conversation_id};

const FEW_TURNS: u64 = 100_000;
const APPENDS: usize = 10_000;
const APPENDERS: usize = 64;
const READS: usize = 10_000;
const READ_TURNS: u64 = 10;
const CONNECTIONS: usize = 16;

pub(crate) fn run(report: &mut Report, turns: u64) {
    let few = "100000 stored";
    let appends = Row::new(format!("growth: commits of one turn, 64 waiting, {turns} stored"), few, "0.8");
    let reads = Row::new(format!("growth: GET turns, {READ_TURNS} of them, {turns} stored"), few, "0.8");
    let opening = Row::new(format!("open: {turns} turns after kill -9, to an acknowledgement"), "", "200 ms");
    if ![&appends, &reads, &opening].iter().any(|row| report.wants(&row.name)) {
        return;
    }
    let (many, few) = (Store::load(turns), Store::load(FEW_TURNS));
    // Measure this first, because reads add no turns to either store.
    if report.wants(&reads.name) {
        let (many, few) = (many.serve(), few.serve());
        report.add_rates(&reads, &alternate(FEW_ROUNDS, || many.read(), || few.read()));
        many.server.stop();
        few.server.stop();
    }
    if report.wants(&appends.name) {
        let (mut many, mut few) = (many.writers(), few.writers());
        let round = |writers: &mut Writers| writers.round(APPENDS, APPENDERS, Duration::from_secs(2));
        report.add_rates(&appends, &alternate(FEW_ROUNDS, || round(&mut many), || round(&mut few)));
    }
    if report.wants(&opening.name) {
        // These turn numbers are far from those of the other rows.
        let mut turn = turns * 2;
        let times: Vec<_> = (0..FEW_ROUNDS).map(|_| open_killed(many.directory.path(), &mut turn)).collect();
        report.add_values(&opening, Unit::Milliseconds, &times);
    }
}

struct Store {
    directory: tempfile::TempDir,
    turns: u64,
    commits: u64,
}

impl Store {
    fn load(turns: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let commits = load(directory.path(), CONVERSATIONS, turns);
        Self { directory, turns, commits }
    }

    fn writers(&self) -> Writers {
        Writers::new(self.directory.path(), self.commits, self.turns)
    }

    fn serve(&self) -> Reader {
        Reader { server: Serving::ours(self.directory.path()), turns_each: self.turns / CONVERSATIONS }
    }
}

struct Reader {
    server: Serving,
    /// The number of turns of each conversation.
    turns_each: u64,
}

impl Reader {
    fn read(&self) -> Round {
        let mut random = Random(0);
        let starts = self.turns_each - READ_TURNS + 1;
        let read = || {
            let (id, after) = (conversation_id(random.next() % CONVERSATIONS), random.next() % starts);
            get(&format!("/conversations/{id}/turns?after={after}&limit={READ_TURNS}"), "")
        };
        let requests: Vec<_> = repeat_with(read).take(READS).collect();
        drive(self.server.address, CONNECTIONS, requests.iter(), 200).unwrap()
    }
}

/// Kills the process while it has much work, and starts it again. Returns the time until it is open.
fn open_killed(directory: &Path, turn: &mut u64) -> f64 {
    const KILLED_AT: u64 = 20_000;
    let mut service = Service::start(directory);
    let (address, mut random, first) = (service.address, Random(*turn), *turn);
    let mut post = || {
        *turn += 1;
        post_events(&Turn::new(*turn, &mut random).lines)
    };
    let requests = repeat_with(&mut post).enumerate().map(|(n, request)| {
        if n as u64 == KILLED_AT {
            service.kill();
        }
        request
    });
    assert!(drive(address, 64, requests, 200).is_err(), "it was not killed after turn {first}");
    let last = post();
    let begin = Instant::now();
    let service = Service::start(directory);
    drive(service.address, 1, std::iter::once(last), 200).unwrap();
    begin.elapsed().as_secs_f64() * 1e3
}

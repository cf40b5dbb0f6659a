//! How much memory the process uses.

use std::iter::repeat_with;
use std::path::Path;

use crate::client::{drive, get, post_events};
use crate::load::load;
use crate::report::{FEW_ROUNDS, Report, Row, Unit};
use crate::service::Service;
use crate::work::{CONVERSATIONS, Random, Turn, conversation_id};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
const CONNECTIONS: usize = 64;

pub(crate) fn run(report: &mut Report, turns: u64) {
    idle(report);
    posted(report);
    stored(report, turns);
}

/// Measures the memory of an actor by doing the same work twice: once all conversations are still active at the end,
/// once none is.
fn idle(report: &mut Report) {
    const COUNT: u32 = 50_000;
    let row = Row::new(format!("memory: an idle conversation, {COUNT} active"), "", "1024 B");
    if !report.wants(&row.name) {
        return;
    }
    let resident = |idle_after| {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::start_with(directory.path(), &[("TURNS__IDLE_AFTER", idle_after)]);
        let mut random = Random(0);
        let requests = (0..u64::from(COUNT)).step_by(100).map(|first| {
            let turns = (first..first + 100).map(|n| Turn::in_conversation(conversation_id(n), n, &mut random));
            let lines = turns.map(|turn| turn.counting_lines());
            post_events(&lines.collect::<String>())
        });
        // So few turns wait at the same time that none is refused.
        drive(service.address, 4, requests, 200).unwrap();
        service.resident_bytes()
    };
    let each = |_| (resident("1h") - resident("1ms")) / f64::from(COUNT);
    let values: Vec<_> = (0..FEW_ROUNDS).map(each).collect();
    report.add_values(&row, Unit::Bytes, &values);
}

fn posted(report: &mut Report) {
    const COUNT: usize = 100_000;
    let after = Row::new(format!("memory: after {COUNT} turns were posted"), "", "60 MiB");
    let peak = Row::new(format!("memory: the most while {COUNT} turns were posted"), "", "");
    if !report.wants(&after.name) && !report.wants(&peak.name) {
        return;
    }
    let post = |_| {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::start(directory.path());
        post_turns(&service, 0, COUNT);
        (service.resident_bytes() / MEBIBYTE, service.peak_bytes() / MEBIBYTE)
    };
    let (resident, most): (Vec<_>, Vec<_>) = (0..FEW_ROUNDS).map(post).unzip();
    report.add_values(&after, Unit::Mebibytes, &resident);
    report.add_values(&peak, Unit::Mebibytes, &most);
}

/// Measures the memory for work on a large store. It has `turns` turns, ten in each conversation.
fn stored(report: &mut Report, turns: u64) {
    let conversations = turns / 10;
    let row = Row::new(
        format!("memory: after 10000 posts and 10000 reads, {conversations} conversations stored"),
        "10000 stored",
        "1.0, 300 MiB",
    );
    if !report.wants(&row.name) {
        return;
    }
    let (many, few) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    load(many.path(), conversations, conversations * 10);
    load(few.path(), CONVERSATIONS, CONVERSATIONS * 10);
    let mut first = turns;
    let mut resident = |directory: &Path, conversations: u64| {
        let service = Service::start(directory);
        first += 10_000;
        post_turns(&service, first, 10_000);
        let mut random = Random(first);
        let read = || get(&format!("/conversations/{}/metrics", conversation_id(random.next() % conversations)), "");
        drive(service.address, CONNECTIONS, repeat_with(read).take(10_000), 200).unwrap();
        service.resident_bytes() / MEBIBYTE
    };
    let pair = |_| (resident(many.path(), conversations), resident(few.path(), CONVERSATIONS));
    let pairs: Vec<_> = (0..FEW_ROUNDS).map(pair).collect();
    report.add_pairs(&row, Unit::Mebibytes, &pairs, "");
}

/// Posts one turn in each request.
fn post_turns(service: &Service, first: u64, count: usize) {
    let mut random = Random(first);
    let requests = (first..).take(count).map(|n| post_events(&Turn::new(n, &mut random).lines));
    drive(service.address, CONNECTIONS, requests, 200).unwrap();
}

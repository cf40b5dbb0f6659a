//! Lines to events, and lines to sealed turns, in memory on one core.

use std::collections::HashMap;
use std::hint::black_box;

use turn_metrics::turn::{EpochMillis, EventReader, KernelEvent, OpenTurn, TurnEventKind, TurnId};

use crate::report::{Report, Round, Row};
use crate::work::{Turn, turns};

pub(crate) fn run(report: &mut Report) {
    let turns = turns(0, 4000);
    let body: String = turns.iter().map(|turn| &*turn.lines).collect();
    let deltas: String = body.split_inclusive('\n').filter(|line| line.contains("text-delta")).collect();
    let counting: String = turns.iter().map(Turn::counting_lines).collect();

    let limit = |body: &str| Round::of(|| memchr::memchr_iter(b'\n', body.as_bytes()).map(black_box).count());
    let row = |name, goal| Row::new(name, "splitting lines with memchr", goal);
    let all = row("fold: lines to sealed turns", "10 M/s and 0.3");
    report.compare(&row("parse: deltas", ""), || Round::of(|| parse(&deltas)), || limit(&deltas));
    report.compare(&row("parse: events that count", ""), || Round::of(|| parse(&counting)), || limit(&counting));
    report.compare(&all, || Round::of(|| fold(&body)), || limit(&body));
}

fn lines(body: &str) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', body.as_bytes()).map(move |end| {
        let line = &body.as_bytes()[start..end];
        start = end + 1;
        line
    })
}

fn parse(body: &str) -> usize {
    let mut reader = EventReader::default();
    let mut count = 0;
    for line in lines(body) {
        black_box(&reader.read(line)).as_ref().unwrap();
        count += 1;
    }
    count
}

fn fold(body: &str) -> usize {
    let mut open: HashMap<TurnId, OpenTurn> = HashMap::new();
    let mut reader = EventReader::default();
    let mut count = 0;
    for line in lines(body) {
        count += 1;
        let event = match reader.read(line) {
            Ok(Some(KernelEvent { event, .. })) => event,
            Ok(None) => continue,
            Err(error) => panic!("{error}"),
        };
        let turn = open.entry(event.turn_id).or_insert_with_key(|id| OpenTurn::new(id.clone()));
        match event.kind {
            TurnEventKind::Progress(progress) => turn.fold(&progress),
            TurnEventKind::Done(done) => {
                let id = turn.id.clone();
                black_box(turn.seal(&done, EpochMillis::new(1)));
                open.remove(&id);
            }
        }
    }
    assert!(open.is_empty());
    count
}

//! Parses lines to events and folds lines to sealed turns, in memory on one core.

use std::collections::HashMap;
use std::hint::black_box;

use serde::de::IgnoredAny;
use turn_metrics::turn::{EpochMillis, EventReader, KernelEvent, OpenTurn, TurnEventKind, TurnId};

use crate::report::{Report, Round, Row};
use crate::work::{Turn, turns};

pub(crate) fn run(report: &mut Report) {
    let turns = turns(0, 4000);
    let body: String = turns.iter().map(|turn| &*turn.lines).collect();
    let deltas: String = body.split_inclusive('\n').filter(|line| line.contains("text-delta")).collect();
    let counting: String = turns.iter().map(Turn::counting_lines).collect();

    // The same lines with the deltas of 8 turns interleaved, as in a batch from several kernels.
    let mixed: String = deltas_side_by_side(&turns, 8);

    let rival = |body: &str| Round::of(|| ignore(body));
    let row = |name, goal| Row::new(name, "`serde_json` into `IgnoredAny`", goal);
    let compare = |report: &mut Report, name, goal, body: &str| {
        report.compare(&row(name, goal), || Round::of(|| parse(body)), || rival(body));
    };
    compare(report, "parse: deltas, structure followed", "2", &deltas);
    compare(report, "parse: deltas of 8 turns side by side", "2", &mixed);
    compare(report, "parse: events that count", "", &counting);
    let all = row("fold: lines to sealed turns", "2, and 8 M/s");
    report.compare(&all, || Round::of(|| fold(&body)), || rival(&body));
}

fn deltas_side_by_side(turns: &[Turn], count: usize) -> String {
    let mut mixed = String::new();
    for group in turns.chunks(count) {
        let mut deltas: Vec<_> = group
            .iter()
            .map(|turn| turn.lines.split_inclusive('\n').filter(|line| line.contains("text-delta")))
            .collect();
        while deltas.iter_mut().filter_map(Iterator::next).map(|line| mixed.push_str(line)).count() > 0 {}
    }
    mixed
}

/// Parses each line with `serde_json`, and ignores the result.
fn ignore(body: &str) -> usize {
    let mut count = 0;
    for line in lines(body) {
        black_box(serde_json::from_slice::<IgnoredAny>(line)).unwrap();
        count += 1;
    }
    count
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

//! Durable turns, against a plain file that is synced once a batch.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use turn_metrics::actors::Observe;
use turn_metrics::runtime::Runtime;

use crate::report::{Report, Round};
use crate::work::turns;

/// A sealed turn of this work as JSON.
const TURN_BYTES: usize = 749;

pub(crate) fn run(report: &mut Report) {
    for (appenders, count) in [(1, 300), (64, 10_000), (256, 20_000), (1024, 20_000)] {
        let name = format!("append: durable turns, {appenders} waiting");
        if !report.wants(&name) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut first = 0;
        let ours = || {
            first += count as u64;
            observe(directory.path(), first, count, appenders)
        };
        let limit = || plain_file(count, appenders);
        report.compare(&name, "a plain file, one fdatasync a batch", ours, limit);
    }
}

fn observe(directory: &std::path::Path, first: u64, count: usize, appenders: usize) -> Round {
    let turns = turns(first, count).into_iter();
    let observes: Vec<_> =
        turns.map(|turn| Observe { conversation_id: turn.conversation_id.clone(), events: turn.events() }).collect();
    actix::System::new().block_on(async {
        let runtime = Runtime::builder().data_dir(directory).start().await.unwrap();
        let mut times = Vec::with_capacity(count);
        let mut round = Round::of_async(async {
            let mut answers = stream::iter(observes)
                .map(|observe| {
                    let sent = Instant::now();
                    let answer = runtime.handles().observe.send(observe);
                    async move {
                        answer.await.unwrap().unwrap();
                        sent.elapsed()
                    }
                })
                .buffer_unordered(appenders);
            while let Some(time) = answers.next().await {
                times.push(time);
            }
            times.len()
        })
        .await;
        runtime.shutdown().await;
        round.p99 = p99(times);
        round
    })
}

/// Each batch is what `appenders` that wait together bring.
fn plain_file(count: usize, appenders: usize) -> Round {
    let mut file = tempfile::tempfile().unwrap();
    let batch = vec![b'x'; TURN_BYTES * appenders];
    let mut times = Vec::new();
    let mut round = Round::of(|| {
        for _ in 0..count.div_ceil(appenders) {
            let start = Instant::now();
            append(&mut file, &batch);
            times.push(start.elapsed());
        }
        count.div_ceil(appenders) * appenders
    });
    round.p99 = p99(times);
    round
}

fn append(file: &mut File, batch: &[u8]) {
    file.write_all(batch).unwrap();
    file.sync_data().unwrap();
}

fn p99(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied()
}

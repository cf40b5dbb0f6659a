//! Makes turns durable through all actors. Compared with a plain file that is synced once a batch.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use turn_metrics::actors::ObserveError;
use turn_metrics::runtime::Runtime;

use crate::file;
use crate::report::{Report, Round, Row};
use crate::store::RETRY_AFTER;
use crate::work::{Turn, turns};

pub(crate) fn run(report: &mut Report) {
    for (appenders, count) in [(1, 300), (64, 10_000), (256, 20_000), (1024, 20_000)] {
        let name = format!("observe: durable turns through all actors, {appenders} waiting");
        let directory = tempfile::tempdir().unwrap();
        let mut first = 0;
        let ours = || {
            first += count as u64;
            observe(directory.path(), first, count, appenders)
        };
        report.compare(&Row::new(name, file::NAME, ""), ours, || file::append(count, appenders, Duration::MAX));
    }
}

fn observe(directory: &Path, first: u64, count: usize, appenders: usize) -> Round {
    let observes: Vec<_> = turns(first, count).iter().map(Turn::observe).collect();
    actix::System::new().block_on(async {
        let runtime = Runtime::builder().data_dir(directory).start().await.unwrap();
        let answers = stream::iter(observes).map(|observe| {
            let recipient = runtime.handles().intake.observe.clone();
            async move {
                loop {
                    let sent = Instant::now();
                    match recipient.send(observe.clone()).await.unwrap() {
                        Err(ObserveError::Overloaded) => actix_rt::time::sleep(RETRY_AFTER).await,
                        answer => break answer.map(|_| sent.elapsed()).unwrap(),
                    }
                }
            }
        });
        let round = Round::of_each(answers.buffer_unordered(appenders).collect()).await;
        runtime.shutdown().await;
        round
    })
}

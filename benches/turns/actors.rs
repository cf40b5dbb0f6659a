//! Messages through all actors, with the store in memory.

use std::hint::black_box;

use futures_util::{StreamExt, stream};
use turn_metrics::actors::Observe;
use turn_metrics::runtime::Runtime;
use turn_metrics::turn::{EpochMillis, OpenTurn, TurnEventKind};

use crate::report::{Report, Round, Row};
use crate::work::{Turn, turns};

const TURNS: usize = 4000;
const AT_ONCE: usize = 64;

pub(crate) fn run(report: &mut Report) {
    let name = "actors: messages of one turn, 64 at a time, store in memory";
    let row = Row::new(name, "the fold alone", "0.3");
    let mut first = 0;
    let ours = || {
        first += TURNS as u64;
        let observes = observes(first);
        actix::System::new().block_on(async {
            let runtime = Runtime::builder().start().await.unwrap();
            let round = Round::of_async(async {
                let sent = stream::iter(observes).map(|observe| runtime.handles().intake.observe.send(observe));
                sent.buffer_unordered(AT_ONCE).map(|answer| answer.unwrap().unwrap()).count().await
            });
            let round = round.await;
            runtime.shutdown().await;
            round
        })
    };
    let limit = || {
        let observes = observes(0);
        Round::of(|| {
            for observe in &observes {
                black_box(fold(observe));
            }
            observes.len()
        })
    };
    report.compare(&row, ours, limit);
}

fn observes(first: u64) -> Vec<Observe> {
    turns(first, TURNS).iter().map(Turn::observe).collect()
}

fn fold(observe: &Observe) -> Option<turn_metrics::turn::SealedTurn> {
    let mut turn = OpenTurn::new(observe.events.first()?.turn_id.clone());
    let mut sealed = None;
    for event in &observe.events {
        match &event.kind {
            TurnEventKind::Progress(progress) => turn.fold(progress),
            TurnEventKind::Done(done) => sealed = Some(turn.seal(done, EpochMillis::new(1))),
        }
    }
    sealed
}

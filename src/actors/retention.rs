//! Retention: causes turns to be dropped that are older than the operator wants to keep.

use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, Recipient, ResponseActFuture,
    WrapFuture,
};
use tokio::time::{Instant, sleep};

use crate::clock::SharedClock;
use crate::settings::RetentionSettings;
use crate::store::{DropError, DropTurns};

/// The longest time between the beginnings of two sweeps.
const MAX_PERIOD: Duration = Duration::from_hours(1);

/// The shortest time between the beginnings of two sweeps.
const MIN_PERIOD: Duration = Duration::from_millis(10);

/// The pause after a step, as a multiple of the time of the step. So a sweep takes little of the store's time.
const PAUSE: u32 = 4;

/// The shortest pause after a step.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Sweeps the store for turns that are too old, at its start and then at an interval. A sweep consists of steps with
/// pauses. Without an age in the settings, it does nothing.
pub struct Retention {
    store: Recipient<DropTurns>,
    clock: SharedClock,
    settings: RetentionSettings,
    report: RetentionReport,
    is_sweeping: bool,
}

impl Retention {
    /// Returns a retention that has not started yet. Ages are counted by `clock`.
    pub fn new(store: Recipient<DropTurns>, clock: SharedClock, settings: RetentionSettings) -> Self {
        let report = RetentionReport { keep: settings.turns, ..RetentionReport::default() };
        Self { store, clock, settings, report, is_sweeping: false }
    }

    fn sweep(&mut self, keep: Duration) -> ResponseActFuture<Self, ()> {
        if std::mem::replace(&mut self.is_sweeping, true) {
            return Box::pin(actix::fut::ready(()));
        }
        let swept = sweep(self.store.clone(), self.clock.clone(), keep);
        Box::pin(swept.into_actor(self).map(|swept, retention, _| retention.swept(swept)))
    }

    fn swept(&mut self, Swept { dropped, end }: Swept) {
        self.is_sweeping = false;
        self.report.dropped_turns += dropped;
        if dropped > 0 {
            tracing::info!(turns = dropped, "turns were dropped because of their age");
        }
        let ahead = match end {
            Ok(is_whole) => {
                self.report.sweeps += u64::from(is_whole);
                None
            }
            Err(DropError::ClockAhead { by }) => Some(by),
            Err(error @ (DropError::Repricing | DropError::Exporting)) => {
                tracing::debug!(%error, "old turns are dropped later");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "old turns could not be dropped; trying again later");
                return;
            }
        };
        match (self.report.clock_ahead_by, ahead) {
            (None, Some(by)) => tracing::warn!(
                "no turns are dropped, as {}; set the clock right, or turns are dropped again after a day of running",
                DropError::ClockAhead { by }
            ),
            (Some(_), None) => tracing::info!("the clock is trusted again, and old turns are dropped"),
            _ => {}
        }
        self.report.clock_ahead_by = ahead;
    }
}

impl Actor for Retention {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(keep) = self.settings.turns else { return };
        let first = self.sweep(keep);
        ctx.spawn(first);
        let period = (keep / 100).clamp(MIN_PERIOD, MAX_PERIOD);
        ctx.run_interval(period, move |retention, ctx| {
            let next = retention.sweep(keep);
            ctx.spawn(next);
        });
    }
}

/// The outcome of a sweep.
struct Swept {
    dropped: u64,
    /// Whether all conversations were searched. If not, the store has ended.
    end: Result<bool, DropError>,
}

async fn sweep(store: Recipient<DropTurns>, clock: SharedClock, keep: Duration) -> Swept {
    let mut dropped = 0;
    loop {
        let begun = Instant::now();
        let end = match store.send(DropTurns { keep, now: clock.now() }).await {
            Ok(Ok(step)) => {
                dropped += step.turns;
                step.is_done.then_some(Ok(true))
            }
            Ok(Err(error)) => Some(Err(error)),
            // The store has ended.
            Err(_) => Some(Ok(false)),
        };
        if let Some(end) = end {
            return Swept { dropped, end };
        }
        sleep((begun.elapsed() * PAUSE).max(MIN_PAUSE)).await;
    }
}

/// Ask the retention for its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectRetention;

/// What the retention has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionReport {
    /// How long turns are kept; `None` for ever.
    pub keep: Option<Duration>,
    /// How many times all conversations were searched for old turns.
    pub sweeps: u64,
    /// How many turns were dropped.
    pub dropped_turns: u64,
    /// By how much the clock is ahead of the running time, if turns are not dropped for that reason.
    pub clock_ahead_by: Option<Duration>,
}

impl Message for InspectRetention {
    type Result = RetentionReport;
}

impl Handler<InspectRetention> for Retention {
    type Result = MessageResult<InspectRetention>;

    fn handle(&mut self, _: InspectRetention, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.report)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use actix::Addr;

    use super::*;
    use crate::store::{DroppedTurns, Fault, FaultKind};
    use crate::testing::{Probe, TestClock};
    use crate::turn::EpochMillis;

    const DAY: Duration = Duration::from_hours(24);

    async fn report(retention: &Addr<Retention>) -> RetentionReport {
        retention.send(InspectRetention).await.unwrap()
    }

    fn start(probe: &Probe<DropTurns>, keep: Option<Duration>) -> Addr<Retention> {
        let settings = RetentionSettings { turns: keep };
        Retention::new(probe.recipient(), Arc::new(TestClock::at(5000)), settings).start()
    }

    #[actix_rt::test]
    async fn a_sweep_goes_on_until_all_conversations_were_searched_and_the_next_one_comes_later() {
        tokio::time::pause();
        let steps = AtomicU64::new(0);
        let store = Probe::<DropTurns>::start(move |_| {
            let step = steps.fetch_add(1, Ordering::Relaxed);
            ready(Ok(DroppedTurns { turns: 10, is_done: step % 3 == 2 }))
        });
        let retention = start(&store, Some(90 * DAY));
        sleep(Duration::from_mins(1)).await;
        let question = DropTurns { keep: 90 * DAY, now: EpochMillis::new(5000) };
        assert_eq!(store.seen(), [question; 3]);
        let expected = RetentionReport { keep: Some(90 * DAY), sweeps: 1, dropped_turns: 30, clock_ahead_by: None };
        assert_eq!(report(&retention).await, expected);
        sleep(MAX_PERIOD).await;
        assert_eq!(report(&retention).await, RetentionReport { sweeps: 2, dropped_turns: 60, ..expected });
    }

    #[actix_rt::test]
    async fn nothing_is_dropped_for_ever_without_an_age() {
        tokio::time::pause();
        let store = Probe::<DropTurns>::start(|_| ready(Ok(DroppedTurns { turns: 1, is_done: true })));
        let retention = start(&store, None);
        sleep(3 * MAX_PERIOD).await;
        assert_eq!((report(&retention).await, store.seen()), (RetentionReport::default(), vec![]));
    }

    #[actix_rt::test]
    async fn a_clock_that_is_ahead_is_told_until_it_is_trusted_and_a_failing_store_is_asked_again() {
        tokio::time::pause();
        let asked = AtomicU64::new(0);
        let store = Probe::<DropTurns>::start(move |_| {
            ready(match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(DropError::ClockAhead { by: 3 * DAY }),
                1 => Err(Fault::new(FaultKind::Disk, "the disk failed").into()),
                2 => Err(DropError::Repricing),
                _ => Ok(DroppedTurns { turns: 1, is_done: true }),
            })
        });
        let retention = start(&store, Some(90 * DAY));
        sleep(MAX_PERIOD / 2).await;
        assert_eq!(report(&retention).await.clock_ahead_by, Some(3 * DAY));
        sleep(MAX_PERIOD).await;
        assert_eq!(report(&retention).await.clock_ahead_by, Some(3 * DAY), "a failure says nothing about the clock");
        sleep(MAX_PERIOD).await;
        assert_eq!(report(&retention).await.sweeps, 0, "a sweep that has to wait does not count");
        sleep(MAX_PERIOD).await;
        let RetentionReport { sweeps, dropped_turns, clock_ahead_by, .. } = report(&retention).await;
        assert_eq!((sweeps, dropped_turns, clock_ahead_by), (1, 1, None));
    }
}

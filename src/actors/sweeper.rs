//! The sweeper: counts the running time, and causes abandoned and failed turns to be sealed.

use std::collections::HashMap;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, Recipient, ResponseActFuture,
    WrapFuture,
};

use super::conversation::{Abandon, ObserveError};
use super::directory::Drain;
use super::store::{ListStaleTurns, Tick};
use crate::clock::{RunningClock, SharedStopwatch};
use crate::settings::TurnSettings;
use crate::store::StaleBefore;
use crate::turn::{ConversationId, TurnId};

/// How many stale turns the sweeper asks the store for at one time.
const PAGE: usize = 1000;

/// The three messages that a sweeper sends, each with its recipient.
#[derive(Clone)]
pub struct SweeperRecipients {
    /// Adds to the running time.
    pub tick: Recipient<Tick>,
    /// Finds stale turns.
    pub stale: Recipient<ListStaleTurns>,
    /// Seals the stale turns.
    pub abandon: Recipient<Abandon>,
}

/// Searches the store for abandoned and failed turns: once at its start, then at an interval.
///
/// Ages are measured in running time. At each tick, the store adds the time since the last tick, but at most one period
/// of the sweeper. So time in which the process was suspended hardly counts. The store keeps the sum, so ages continue
/// after a restart.
pub struct Sweeper {
    recipients: SweeperRecipients,
    running: RunningClock,
    stopwatch: SharedStopwatch,
    settings: TurnSettings,
    /// The time of the stopwatch at the last tick.
    ticked_at: Duration,
    /// What the sweeper has done. While a sweep is in progress, no other begins.
    report: SweeperReport,
}

impl Sweeper {
    /// Returns a sweeper that has not started yet. It advances `running` and measures the time with `stopwatch`.
    pub fn new(
        recipients: SweeperRecipients,
        running: RunningClock,
        stopwatch: SharedStopwatch,
        settings: TurnSettings,
    ) -> Self {
        let ticked_at = stopwatch.elapsed();
        Self { recipients, running, stopwatch, settings, ticked_at, report: SweeperReport::default() }
    }

    /// Returns the time between two ticks: a quarter of the shortest age that the sweeper acts on. A suspension of the
    /// process ages a turn by at most this time, however long the suspension is.
    fn period(&self) -> Duration {
        let shortest = self.settings.abandon_after.min(self.settings.fail_after);
        (shortest / 4).max(Duration::from_millis(1))
    }

    /// Sends the time since the last tick to the store.
    fn tick(&mut self) -> ResponseActFuture<Self, ()> {
        let now = self.stopwatch.elapsed();
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.ticked_at, now)).min(self.period());
        let ticked = self.recipients.tick.send(Tick { elapsed });
        Box::pin(ticked.into_actor(self).map(|ticked, sweeper, _| match ticked {
            Ok(Ok(running)) => sweeper.running.advance_to(running),
            // If the store fails here, it takes no events either, so no turn ages.
            Ok(Err(error)) => tracing::debug!(%error, "the running time could not be counted"),
            Err(_) => {}
        }))
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.report.sweeping, true) {
            return;
        }
        // A turn has the running time of the last tick before its event. So it may look older than it is, by up to one
        // period.
        let now = self.running.now().saturating_sub(self.period());
        let before = StaleBefore {
            open: now.saturating_sub(self.settings.abandon_after),
            failed: now.saturating_sub(self.settings.fail_after),
        };
        let swept = sweep(self.recipients.clone(), before);
        ctx.spawn(swept.into_actor(self).map(|sealed, sweeper, _| {
            sweeper.report.sweeping = false;
            sweeper.report.sweeps += 1;
            sweeper.report.sealed_turns += sealed;
            if sealed > 0 {
                tracing::info!(sealed, "turns sealed: abandoned, or failed");
            }
        }));
    }
}

impl Actor for Sweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sweep(ctx);
        ctx.run_interval(self.settings.sweep_every, Self::sweep);
        ctx.run_interval(self.period(), |sweeper, ctx| {
            let ticked = sweeper.tick();
            ctx.spawn(ticked);
        });
    }
}

/// Returns how many turns this sweep sealed.
async fn sweep(recipients: SweeperRecipients, before: StaleBefore) -> u64 {
    let SweeperRecipients { stale: store, abandon: directory, .. } = recipients;
    let mut sealed = 0;
    let mut after = None;
    loop {
        let stale = match store.send(ListStaleTurns { before, after, limit: PAGE }).await {
            Ok(Ok(stale)) => stale,
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not look for abandoned turns; trying again later");
                return sealed;
            }
            Err(_) => return sealed,
        };
        let is_last = stale.len() < PAGE;
        after = stale.last().cloned();
        let mut by_conversation: HashMap<ConversationId, Vec<TurnId>> = HashMap::new();
        for turn in stale {
            by_conversation.entry(turn.conversation_id).or_default().push(turn.turn_id);
        }
        for (conversation_id, turn_ids) in by_conversation {
            match directory.send(Abandon { conversation_id, turn_ids, before }).await {
                Ok(Ok(receipt)) => sealed += receipt.sealed.len() as u64,
                Ok(Err(ObserveError::ShuttingDown)) | Err(_) => return sealed,
                Ok(Err(error)) => tracing::warn!(%error, "could not seal abandoned turns; trying again later"),
            }
        }
        if is_last {
            return sealed;
        }
    }
}

impl Handler<Drain> for Sweeper {
    type Result = ResponseActFuture<Self, ()>;

    /// Counts the time since the last tick. So the running times of many short runs add up.
    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.tick()
    }
}

/// Ask the sweeper for its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectSweeper;

/// What the sweeper has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweeperReport {
    /// Whether a sweep is in progress.
    pub sweeping: bool,
    /// How many sweeps have ended.
    pub sweeps: u64,
    /// How many turns the sweeper has sealed, as abandoned or failed.
    pub sealed_turns: u64,
}

impl Message for InspectSweeper {
    type Result = SweeperReport;
}

impl Handler<InspectSweeper> for Sweeper {
    type Result = MessageResult<InspectSweeper>;

    fn handle(&mut self, _: InspectSweeper, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.report)
    }
}

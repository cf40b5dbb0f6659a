//! The sweeper: has turns sealed that no event comes for any more.

use std::collections::HashMap;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, MessageResult, Recipient, WrapFuture};

use super::{Abandon, InspectSweeper, ListStaleTurns, ObserveError, SweeperReport};
use crate::clock::SharedClock;
use crate::settings::TurnSettings;
use crate::turn::{ConversationId, EpochMillis, TurnId};

/// How many turns are looked at with one question to the store.
const PAGE: usize = 1000;

/// Looks through the store for abandoned turns, at its start and from time to time.
///
/// What it goes by is in the store, so turns are abandoned in time whenever the process was last restarted.
pub struct Sweeper {
    store: Recipient<ListStaleTurns>,
    directory: Recipient<Abandon>,
    clock: SharedClock,
    settings: TurnSettings,
    /// What it has done. While a sweep is under way, the next one leaves it alone.
    report: SweeperReport,
}

impl Sweeper {
    /// A sweeper that has not started yet.
    pub fn new(
        store: Recipient<ListStaleTurns>,
        directory: Recipient<Abandon>,
        clock: SharedClock,
        settings: TurnSettings,
    ) -> Self {
        Self { store, directory, clock, settings, report: SweeperReport::default() }
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.report.sweeping, true) {
            return;
        }
        let idle_since = self.clock.now().saturating_sub(self.settings.abandon_after);
        let swept = sweep(self.store.clone(), self.directory.clone(), idle_since);
        ctx.spawn(swept.into_actor(self).map(|sealed, sweeper, _| {
            sweeper.report.sweeping = false;
            sweeper.report.sweeps += 1;
            sweeper.report.sealed_turns += sealed;
        }));
    }
}

impl Actor for Sweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.sweep(ctx);
        ctx.run_interval(self.settings.sweep_every, Self::sweep);
    }
}

/// Tells how many turns were sealed.
async fn sweep(store: Recipient<ListStaleTurns>, directory: Recipient<Abandon>, idle_since: EpochMillis) -> u64 {
    let mut sealed = 0;
    let mut after = None;
    loop {
        let stale = match store.send(ListStaleTurns { idle_since, after, limit: PAGE }).await {
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
            match directory.send(Abandon { conversation_id, turn_ids, idle_since }).await {
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

impl Handler<InspectSweeper> for Sweeper {
    type Result = MessageResult<InspectSweeper>;

    fn handle(&mut self, _: InspectSweeper, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.report)
    }
}

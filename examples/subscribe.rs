//! Follows the sealed turns of a system, both in a loop and as messages to an actor.

use actix::{Actor, Context, Handler};
use tokio::sync::oneshot;
use turn_metrics::actors::{Fact, Observe};
use turn_metrics::runtime::Runtime;
use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};

/// Counts turns, and reports the count when the system ends.
struct Account {
    turns: u64,
    missed: u64,
    report: Option<oneshot::Sender<(u64, u64)>>,
}

impl Actor for Account {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(report) = self.report.take() {
            let _ = report.send((self.turns, self.missed));
        }
    }
}

impl Handler<Fact> for Account {
    type Result = ();

    fn handle(&mut self, fact: Fact, _: &mut Self::Context) {
        match fact {
            Fact::TurnSealed(_) => self.turns += 1,
            // The subscriber was too slow. The turns that it missed are in the store, after the last ordinal that it
            // has seen.
            Fact::Missed(count) => self.missed += count,
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    actix::System::new().block_on(async {
        let runtime = Runtime::builder().start().await?;

        // The actor receives each fact as a message, one at a time.
        let (report, reported) = oneshot::channel();
        let account = Account { turns: 0, missed: 0, report: Some(report) }.start();
        actix_rt::spawn(runtime.subscribe().forward(account.recipient()));

        // A task receives one fact after another.
        let mut subscription = runtime.subscribe();
        let following = actix_rt::spawn(async move {
            while let Some(fact) = subscription.next().await {
                if let Fact::TurnSealed(sealed) = fact {
                    println!("{} {} {}", sealed.conversation_id, sealed.turn.ordinal, sealed.turn.metrics.turn_id);
                }
            }
        });

        for turn_id in ["first", "second", "third"] {
            let kind = TurnEventKind::Done(Done::because("stop"));
            let events = vec![TurnEvent { turn_id: TurnId::new(turn_id)?, kind }];
            runtime
                .handles()
                .intake
                .observe
                .send(Observe { conversation_id: ConversationId::new("c")?, events })
                .await??;
        }
        // Both receive the remaining facts, and then the end of the subscription.
        runtime.shutdown().await;
        following.await?;
        let (turns, missed) = reported.await?;
        println!("the actor counted {turns} turns and missed {missed}");
        Ok(())
    })
}

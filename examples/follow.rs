//! Follows all sealed turns from a position on, in a loop and as messages to an actor, and goes on after a restart.

use actix::{Actor, Context, Handler};
use turn_metrics::actors::{FeedStart, Observe};
use turn_metrics::runtime::Runtime;
use turn_metrics::store::{Position, PositionedTurn};
use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};

/// Copies turns to another system. It would keep its last position there, together with the turns.
struct Copier;

impl Actor for Copier {
    type Context = Context<Self>;
}

impl Handler<PositionedTurn> for Copier {
    type Result = ();

    fn handle(&mut self, turn: PositionedTurn, _: &mut Self::Context) {
        println!("copied {} of {}", turn.turn.metrics.turn_id, turn.conversation_id);
    }
}

async fn seal(runtime: &Runtime, turn_id: &str) -> Result<(), Box<dyn std::error::Error>> {
    let kind = TurnEventKind::Done(Done::because("stop"));
    let events = vec![TurnEvent { turn_id: TurnId::new(turn_id)?, kind }];
    let observe = Observe { conversation_id: ConversationId::new("c")?, events };
    runtime.handles().intake.observe.send(observe).await??;
    Ok(())
}

/// Takes this many turns, and returns the position of the last one.
async fn take(runtime: &Runtime, start: FeedStart, count: usize) -> Result<Position, Box<dyn std::error::Error>> {
    let mut feed = runtime.feed(start).await?;
    let mut last = None;
    for _ in 0..count {
        let turn = feed.next().await?.ok_or("the system has shut down")?;
        println!("{} {}", turn.position.number, turn.turn.metrics.turn_id);
        last = Some(turn.position);
    }
    last.ok_or_else(|| "no turn was taken".into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    actix::System::new().block_on(async {
        let start = || Runtime::builder().data_dir(directory.path()).start();
        let runtime = start().await?;
        for turn_id in ["first", "second", "third"] {
            seal(&runtime, turn_id).await?;
        }
        let last = take(&runtime, FeedStart::First, 2).await?;
        runtime.shutdown().await;

        // Nothing was missed meanwhile, and nothing comes twice.
        let runtime = start().await?;
        seal(&runtime, "fourth").await?;
        take(&runtime, FeedStart::After(last), 2).await?;

        // The actor receives each turn as a message, one at a time. A slow actor delays nobody.
        let copying = actix_rt::spawn(runtime.feed(FeedStart::First).await?.forward(Copier.start().recipient()));
        take(&runtime, FeedStart::First, 4).await?;
        runtime.shutdown().await;
        copying.await?;
        Ok(())
    })
}

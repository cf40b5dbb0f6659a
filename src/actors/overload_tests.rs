//! More work than the store can take: the directory holds a bounded number of messages and refuses the others at once.
//! When the store works again, the directory takes new messages again.

use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr};
use tokio::sync::Semaphore;

use super::*;
use crate::settings::{StoreSettings, TurnSettings};
use crate::store::{Commit, Location, RedbEngine, TurnRange};
use crate::testing::{Probe, TestClock};
use crate::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};

const MAX_IN_FLIGHT: usize = 10;
const SENT: usize = 2000;

struct Setup {
    engine: RedbEngine,
    commits: Probe<Arc<Commit>>,
    directory: Addr<Directory>,
}

fn setup(gate: &Rc<Semaphore>) -> Setup {
    setup_with(gate, MAX_IN_FLIGHT)
}

/// Starts a directory over a store in memory. Each commit waits for a permit of `gate`.
fn setup_with(gate: &Rc<Semaphore>, max_in_flight: usize) -> Setup {
    let engine = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
    let store = Store::new(Arc::new(engine.clone())).start();
    let (to, gate) = (store.clone(), Rc::clone(gate));
    let commits = Probe::<Arc<Commit>>::start(move |commit| {
        let (gate, to) = (Rc::clone(&gate), to.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            to.send(commit).await.unwrap()
        }
    });
    let recipients =
        StoreRecipients { open: store.clone().recipient(), commit: commits.recipient(), erase: store.recipient() };
    let settings = TurnSettings { max_in_flight, ..TurnSettings::default() };
    let directory = Directory::new(recipients, Arc::new(TestClock::at(1)), settings).start();
    Setup { engine, commits, directory }
}

fn done(conversation: usize, turn: usize) -> Observe {
    let kind = TurnEventKind::Done(Done::because("stop"));
    let events = vec![TurnEvent { turn_id: TurnId::new(format!("t{turn}")).unwrap(), kind }];
    Observe { conversation_id: ConversationId::new(format!("c{conversation}")).unwrap(), events }
}

fn is_bounded(counts: WorkCounts) -> bool {
    counts.in_flight <= MAX_IN_FLIGHT && counts.active_conversations <= MAX_IN_FLIGHT
}

#[actix_rt::test]
async fn control_a_directory_without_a_limit_is_caught() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup_with(&gate, usize::MAX);
    let sent: Vec<_> =
        (0..2 * MAX_IN_FLIGHT).map(|n| tokio::task::spawn_local(setup.directory.send(done(n, 0)))).collect();
    setup.commits.wait_for(sent.len()).await;
    assert!(!is_bounded(setup.directory.send(CountWork).await.unwrap()));
}

#[actix_rt::test]
async fn however_much_is_sent_to_a_store_that_stands_still_no_more_than_the_limit_is_held() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup(&gate);
    // Send far more messages at once than a mailbox is meant to hold, to few conversations and to many.
    let sent: Vec<_> = (0..SENT)
        .map(|n| {
            let conversation = if n % 2 == 0 { n % 6 } else { n };
            (conversation, tokio::task::spawn_local(setup.directory.send(done(conversation, n))))
        })
        .collect();
    // While the gate is shut, all messages are answered except those that wait for it.
    while sent.iter().filter(|(_, sent)| sent.is_finished()).count() < SENT - MAX_IN_FLIGHT {
        let counts = setup.directory.send(CountWork).await.unwrap();
        assert!(is_bounded(counts), "{counts:?}");
    }
    let counts = setup.directory.send(CountWork).await.unwrap();
    assert_eq!(counts.in_flight, MAX_IN_FLIGHT);
    assert!(is_bounded(counts), "{counts:?}");
    assert!(setup.commits.seen().len() <= MAX_IN_FLIGHT);
    assert_eq!(setup.directory.send(done(0, SENT)).await.unwrap(), Err(ObserveError::Overloaded));

    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut acknowledged = 0;
    for (conversation, sent) in sent {
        match sent.await.unwrap().unwrap() {
            Ok(receipt) => {
                acknowledged += 1;
                let turn = &receipt.sealed[0];
                let conversation_id = ConversationId::new(format!("c{conversation}")).unwrap();
                let after = turn.ordinal.get() - 1;
                let stored = setup.engine.turns(&TurnRange::after(conversation_id, after, 1)).unwrap();
                assert_eq!(stored[0].metrics.turn_id, turn.turn_id, "what was acknowledged is there");
            }
            Err(error) => assert_eq!(error, ObserveError::Overloaded),
        }
    }
    assert_eq!(acknowledged, MAX_IN_FLIGHT);
    // The directory takes the next message: refused messages no longer count.
    setup.directory.send(done(0, SENT)).await.unwrap().unwrap();
    assert_eq!(setup.directory.send(CountWork).await.unwrap().in_flight, 0);
}

#[actix_rt::test]
async fn a_directory_that_is_full_can_be_drained() {
    let gate = Rc::new(Semaphore::new(0));
    let setup = setup(&gate);
    let sent: Vec<_> =
        (0..2 * MAX_IN_FLIGHT).map(|n| tokio::task::spawn_local(setup.directory.send(done(n, 0)))).collect();
    setup.commits.wait_for(MAX_IN_FLIGHT).await;
    let drained = tokio::task::spawn_local(setup.directory.send(Drain));
    assert_eq!(setup.directory.send(done(0, 1)).await.unwrap(), Err(ObserveError::ShuttingDown));
    assert!(!drained.is_finished(), "drained with work in flight");
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    drained.await.unwrap().unwrap();
    let mut acknowledged = 0;
    for sent in sent {
        acknowledged += usize::from(sent.await.unwrap().unwrap().is_ok());
    }
    assert_eq!(acknowledged, MAX_IN_FLIGHT, "what was taken before is finished");
}

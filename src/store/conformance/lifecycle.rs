//! Cases about the running time of a store, and about closing it.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::report::{Grouping, Selection};
use crate::store::{FaultKind, Health};

/// How long a case waits for a store to close. It is no promise of speed: it ends the test if a store never closes.
const PATIENCE: Duration = Duration::from_secs(30);

const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn the_running_time_is_the_sum_of_its_ticks(store: &StoreUnderTest) {
    let engine = store.engine();
    assert_eq!(engine.running_time(), RunningTime::default());
    assert_eq!(engine.tick(SECOND).get().await, Ok(RunningTime::new(1000)));
    // A tick counts even if nobody waits for its answer.
    drop(engine.tick(SECOND));
    assert_eq!(engine.tick(SECOND / 2).get().await, Ok(RunningTime::new(2500)));
    assert_eq!(engine.running_time(), RunningTime::new(2500));
}

pub(crate) async fn a_store_that_works_shows_that_it_can_write(store: &StoreUnderTest) {
    assert_eq!(store.engine().check_write().get().await, Ok(()));
    assert_eq!(*store.engine().health().borrow(), Health::Running);
    assert_eq!(store.revision(&conversation("c")).await.sealed_turns, 0);
}

pub(crate) async fn closing_writes_what_waits_and_then_nothing_is_answered(store: &StoreUnderTest) {
    let waiting = store.commit(commit("c", 0, &["open"], &["x"]));
    let engine = store.engine();
    engine.close().get().await;
    assert_eq!(waiting.await.map(|committed| committed.version), Ok(Version(1)));
    assert_eq!(*engine.health().borrow(), Health::Closed);

    let refused = |error| if let CommitError::Unavailable(fault) = error { Some(fault.kind()) } else { None };
    let closed = Some(FaultKind::Closed);
    assert_eq!(store.commit(commit("c", 1, &[], &["y"])).await.map_err(refused), Err(closed));
    assert_eq!(engine.check_write().get().await.map_err(refused), Err(closed));
    assert_eq!(engine.tick(SECOND).get().await.map_err(refused), Err(closed));
    let (id, all) = (conversation("c"), RunningTime::new(99).into());
    let range = TurnRange::after(id.clone(), 0, 9);
    let faults = [
        engine.open(id.clone(), Vec::new()).get().await.map(drop),
        engine.turns(range).get().await.map(drop),
        engine.revision(id).get().await.map(drop),
        engine.stale_turns(all, None, 9).get().await.map(drop),
        engine.conversations(ConversationQuestion::first(ConversationOrder::Recent, 9)).get().await.map(drop),
    ];
    assert_eq!(faults.map(|read| read.map_err(|fault| fault.kind())), [Err(FaultKind::Closed); 5]);
    let unlisted = store.sealed(None, 9).await;
    assert!(matches!(&unlisted, Err(ListSealedError::Read(fault)) if fault.kind() == FaultKind::Closed));
    let (grouping, selection) = (Grouping::default(), Selection::default());
    let unsummed = store.report(ReportQuestion { periods: Vec::new(), grouping, selection }).await;
    assert!(matches!(&unsummed, Err(ReportError::Read(fault)) if fault.kind() == FaultKind::Closed));
    assert!(engine.back_up().get().await.is_err());
    assert_eq!(engine.running_time(), RunningTime::default());
    engine.close().get().await;
}

pub(crate) async fn a_close_whose_answer_is_dropped_takes_effect(store: &StoreUnderTest) {
    let mut health = store.engine().health();
    drop(store.engine().close());
    let ended = timeout(PATIENCE, health.wait_for(|health| *health != Health::Running)).await.unwrap();
    assert_eq!(*ended.unwrap(), Health::Closed);
}

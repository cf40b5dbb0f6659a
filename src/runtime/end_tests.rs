//! How a running system reports its own end.

use std::pin::pin;
use std::task::{Context, Waker};

use super::*;
use crate::actors::{CheckWrite, Die, Observe, ObserveError};
use crate::store::CommitError;
use crate::turn::parse_line;

#[test]
fn a_panic_while_the_store_was_opened_is_reported_in_full() {
    let error = StartError::Panicked(Fault::panicked("the lock of /srv/x is poisoned"));
    assert_eq!(error.to_string(), "the store could not be opened: the lock of /srv/x is poisoned");
}

fn done() -> Observe {
    let line = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    let event = parse_line(line).unwrap().unwrap();
    Observe { conversation_id: event.conversation_id, events: vec![event.event] }
}

#[actix_rt::test]
async fn a_dead_writer_is_reported_and_nothing_is_acknowledged_any_more() {
    let runtime = Runtime::with_dying_writer();
    runtime.failed().await;
    let observed = runtime.handles().intake.observe.send(done()).await.unwrap();
    assert!(matches!(observed, Err(ObserveError::StoreUnavailable(_))), "{observed:?}");
    let checked = runtime.handles().operations.check_write.send(CheckWrite).await.unwrap();
    assert!(matches!(checked, Err(CommitError::Unavailable(_))), "{checked:?}");
    runtime.failed().await;
    runtime.shutdown().await;
}

#[actix_rt::test]
async fn a_dead_directory_or_store_is_reported() {
    let runtime = Runtime::builder().start().await.unwrap();
    let failed = runtime.failed();
    assert!(runtime.directory.send(Die).await.is_err());
    failed.await;
    runtime.shutdown().await;

    let runtime = Runtime::builder().start().await.unwrap();
    let failed = runtime.failed();
    assert!(runtime.store.send(Die).await.is_err());
    failed.await;
    runtime.shutdown().await;
}

#[actix_rt::test]
async fn a_system_that_was_stopped_has_not_failed() {
    let runtime = Runtime::builder().start().await.unwrap();
    let mut failed = pin!(runtime.failed());
    let mut poll = || failed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!poll());
    runtime.handles().intake.observe.send(done()).await.unwrap().unwrap();
    runtime.shutdown().await;
    assert!(!poll());
}

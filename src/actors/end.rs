//! How others learn that an actor has ended.

use actix::{Actor, Message, ResponseActFuture};

/// Ask an actor to answer never: the error that the asker gets says that the actor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwaitEnd;

impl Message for AwaitEnd {
    type Result = ();
}

/// Returns the answer to [`AwaitEnd`]. The actor holds it, so it is dropped with the actor.
pub(super) fn never<A: Actor>() -> ResponseActFuture<A, ()> {
    Box::pin(actix::fut::wrap_future(std::future::pending()))
}

//! How an actor learns that another actor has ended.

use actix::{Actor, Message, ResponseActFuture};

/// A question that an actor never answers. The asker gets an error when the actor has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwaitEnd;

impl Message for AwaitEnd {
    type Result = ();
}

/// Returns the pending answer to [`AwaitEnd`]. The actor holds it, so the answer is dropped when the actor ends.
pub(super) fn never<A: Actor>() -> ResponseActFuture<A, ()> {
    Box::pin(actix::fut::wrap_future(std::future::pending()))
}

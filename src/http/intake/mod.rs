//! From the bytes of a posted body to the events in it, by conversation.
//!
//! Invariants: a line is parsed as it arrives, so only events that count are kept. Nothing here sends a message to an actor.
//!
//! - `budget`: the memory for bodies, shared by all requests. It does not grow.
//! - `inflate`: gzip bodies.
//! - `body`: reads a body as it arrives, within its limits in bytes and time.
//! - `body_events`: the events of a body, by conversation. A second format of bodies would become the same.
//! - `refused`: the lines that were refused, and the turns that they mention.

pub(crate) mod body;
pub(crate) mod body_events;
pub(crate) mod budget;
pub(crate) mod inflate;
pub(crate) mod refused;

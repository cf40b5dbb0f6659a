//! Turns the bytes of a posted body into events, grouped by conversation.
//!
//! Invariants: a line is parsed while it arrives, so only events that count are kept. Nothing here sends a message to
//! an actor.
//!
//! - `budget`: the memory for bodies, which all requests share. It does not grow.
//! - `inflate`: inflates gzip bodies.
//! - `body`: reads a body while it arrives, within its limits in bytes and in time.
//! - `body_events`: the events of a body, by conversation. A second body format would produce the same type.
//! - `refused`: the refused lines, and the turns that they mention.

pub(crate) mod body;
pub(crate) mod body_events;
pub(crate) mod budget;
pub(crate) mod inflate;
pub(crate) mod refused;

//! From the bytes of a posted body to a batch of events.
//!
//! - `budget`: the memory for bodies, over all requests. It does not grow;
//! - `inflate`: gzip bodies;
//! - `body`: reads a body as it arrives, within its limits in bytes and time;
//! - `batch`: the events of a body, by conversation. A second format of bodies becomes a batch too;
//! - `refused`: the lines that were refused, and the turns that they mention.
//!
//! A line is parsed while the body arrives, so that only events are kept. Nothing here sends a message to an actor.

pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod budget;
pub(crate) mod inflate;
pub(crate) mod refused;

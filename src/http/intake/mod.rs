//! Turns the bytes of a posted body into events or turns, grouped by conversation.
//!
//! Invariants: a line is parsed while it arrives, so only events that count are kept, or the turns of one batch. Nothing
//! here sends a message to an actor.
//!
//! - `budget`: the memory for bodies, which all requests share. It does not grow.
//! - `inflate`: inflates gzip bodies.
//! - `arrival`: the chunks of a body as they arrive, within its limits in time.
//! - `body`: reads a body of events while it arrives, within its limits in bytes.
//! - `body_events`: the events of a body, by conversation. A second body format would produce the same type.
//! - `event_chunks`: the events of one conversation, as they gather.
//! - `refused`: the refused lines, and the turns that they mention.
//! - `lines`: splits a text into lines.
//! - `import_line`: reads a line of an import. Pure.
//! - `import_batch`: the turns that are imported together, by conversation.

pub(crate) mod arrival;
pub(crate) mod body;
pub(crate) mod body_events;
pub(crate) mod budget;
pub(crate) mod event_chunks;
pub(crate) mod import_batch;
pub(crate) mod import_line;
pub(crate) mod inflate;
pub(crate) mod lines;
pub(crate) mod refused;

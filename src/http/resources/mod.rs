//! The resources: one file each, which asks the actors and writes the answer.
//!
//! - `events`, `metrics`, `turns`, `backup`, `health`: the resources;
//! - `path_id`: the conversation in a path;
//! - `cache`: answers of `metrics` that are kept;
//! - `api`: what the resources share;
//! - `mount`: the routes. A resource that is not mounted from a [`Route`](super::access::Route) does not exist.
//!
//! No resource reads the store except by a message.

pub(crate) mod api;
pub(crate) mod backup;
pub(crate) mod cache;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod path_id;
pub(crate) mod turns;

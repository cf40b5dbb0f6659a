//! The service over HTTP: kernel events in, turn metrics out.
//!
//! [`serve`] runs the whole of it. A program with an actix server of its own mounts the resources alone, under any
//! scope, with `.configure(http::resources(&api.on_this_thread()))`, and [`backup_resource`] if it wants that too.
//!
//! # Layout
//!
//! - `api`: what the resources share, and where each of them is mounted;
//! - one file a resource: `events`, `metrics`, `turns`, `backup`, `health`;
//! - parts of a resource: `admission`, `body` and `inflate` (reading a posted body within its limits), `batch` and
//!   `refused` (its events, and what was refused of it), `bodies` (answers that are kept), `path_id` (the conversation in
//!   a path), `error` (every failure as JSON);
//! - middleware around all resources: `server`, `framing`, `request`, `unread`, `host`, `page`, `cors`;
//! - what is below them: `connection` (time limits on a client's connection), `refusal` (what the framework refuses).

mod admission;
mod api;
mod backup;
mod batch;
mod bodies;
mod body;
mod connection;
mod cors;
mod error;
mod events;
mod framing;
mod health;
mod host;
mod inflate;
mod metrics;
mod page;
mod path_id;
mod refusal;
mod refused;
mod request;
mod server;
#[cfg(test)]
mod stand_in;
mod turns;
mod unread;

pub use api::{Api, backup_resource, resources};
pub use server::serve;

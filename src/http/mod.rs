//! The service over HTTP: kernel events in, turn metrics out.
//!
//! [`serve`] runs the whole service. A program with an actix server of its own mounts only the resources, under any
//! scope, with `.configure(http::resources(&api.on_this_thread()))`. It adds [`backup_resource`] if it wants backups
//! too. Only [`serve`] has the pages of the dashboard.
//!
//! # Parts
//!
//! A part uses only the parts before it.
//!
//! - `access`: the routes, and which web pages may use each route.
//! - `acknowledged`: the body of the answer to `POST /events`.
//! - `error`: every failure as JSON. An answer never contains an internal cause.
//! - `long_work`: threads for work that would hold up a worker.
//! - `intake`: turns the bytes of a posted body into events.
//! - `middleware`: the code that every request passes.
//! - `resources`: answers the requests of programs.
//! - `pages`: the dashboard, for people.
//! - `transport`: connections and the server.
//! - `stand_in`: a system for tests, which answers as the test says.
//!
//! # A request
//!
//! A request passes, from the outside in: the time limits of its connection, the framing of the answer, the request id
//! and the span, the check for an unread body, the host check, the origin check, the check of its `Expect` header,
//! CORS, the resource. A middleware that refuses a request lies inside the middleware that gives the refusal its id and
//! turns it into JSON.

mod access;
mod acknowledged;
pub(crate) mod error;
mod intake;
mod long_work;
mod middleware;
mod pages;
mod resources;
#[cfg(test)]
mod stand_in;
mod transport;

pub(crate) use intake::body_events::{BadLines, SKIP_ADVICE};
pub use resources::api::Api;
pub use resources::mount::{backup_resource, resources};
pub use transport::server::serve;
pub(crate) use transport::server::{accepted_connections, with_headroom, worker_count};

//! The service over HTTP: kernel events in, turn metrics out.
//!
//! [`serve`] runs the whole of it. A program with an actix server of its own mounts the resources alone, under any
//! scope, with `.configure(http::resources(&api.on_this_thread()))`, and [`backup_resource`] if it wants that too.
//!
//! # Rooms
//!
//! A room uses only those before it.
//!
//! - `access`: every route, and which web pages may use it.
//! - `acknowledged`: the answer to posted events.
//! - `error`: every failure as JSON. An answer never holds a cause within the service.
//! - `intake`: from the bytes of a posted body to its events.
//! - `middleware`: what every request passes.
//! - `resources`: answers a request.
//! - `transport`: connections and the server.
//! - `stand_in`: a system that answers as a test tells it to.
//!
//! # A request
//!
//! It passes, from the outside in: the time limits of its connection, the framing of the answer, the request id and span,
//! the check for an unread body, the host, the origin, CORS, the resource. The middleware that refuses a request is
//! inside the one that gives the refusal its id and makes it JSON.

mod access;
mod acknowledged;
mod error;
mod intake;
mod middleware;
mod resources;
#[cfg(test)]
mod stand_in;
mod transport;

pub(crate) use intake::body_events::{BadLines, SKIP_ADVICE};
pub use resources::api::Api;
pub use resources::mount::{backup_resource, resources};
pub use transport::server::serve;
pub(crate) use transport::server::{accepted_connections, with_headroom, worker_count};

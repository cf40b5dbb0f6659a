//! The service over HTTP: kernel events in, turn metrics out.
//!
//! [`serve`] runs the whole of it. A program with an actix server of its own mounts the resources alone, under any
//! scope, with `.configure(http::resources(&api.on_this_thread()))`, and [`backup_resource`] if it wants that too.
//!
//! # Rooms
//!
//! - `access`: every route, and which web pages may use it;
//! - `acknowledged`, `error`: the answer to posted events, and every failure as JSON;
//! - `intake`: from the bytes of a posted body to its events;
//! - `middleware`: what every request passes;
//! - `resources`: what answers a request;
//! - `transport`: connections and the server.
//!
//! A room uses only those before it.
//!
//! # A request
//!
//! From the outside in: the limits in time of its connection, the framing of the answer, the id and the span, an unread
//! body, the host, the origin, CORS, the resource. The middleware that refuses a request stands inside the one that
//! gives the refusal its id and makes it JSON.

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

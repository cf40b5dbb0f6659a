//! Middleware: what every request passes on its way to a resource, whichever that is.
//!
//! Invariant: no middleware knows a resource. What a web page may do with a route is declared with the route, in
//! [`access`](super::access).
//!
//! - `trace`: the request's id and span; makes failures JSON.
//! - `unread`: closes a connection whose body was left unread.
//! - `host`: refuses requests for another host.
//! - `origin`: refuses requests of web pages that may not make them.
//! - `expect`: refuses requests that expect what the server cannot do.
//! - `cors`: lets pages of allowed origins read.

pub(crate) mod cors;
pub(crate) mod expect;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod trace;
pub(crate) mod unread;

//! Middleware: what every request passes on its way to a resource, whichever that is.
//!
//! - `trace`: the request's id and span; failures become JSON;
//! - `unread`: closes a connection whose body was left unread;
//! - `host`: refuses requests for another host;
//! - `origin`: refuses requests of web pages that may not make them;
//! - `cors`: lets pages of allowed origins read.
//!
//! No middleware knows a resource: what a page may do stands beside its route, in [`access`](super::access).

pub(crate) mod cors;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod trace;
pub(crate) mod unread;

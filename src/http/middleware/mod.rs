//! Middleware: the code that every request passes on its way to a resource.
//!
//! Invariant: no middleware knows a resource. What a web page may do with a route is declared with the route, in
//! [`access`](super::access).
//!
//! - `flow`: limits what is read ahead of the answers; a request waits until the answer before it is written.
//! - `trace`: gives a request its id and its span, and turns failures into JSON.
//! - `unread`: closes a connection if a body on it was left unread.
//! - `host`: refuses requests for another host.
//! - `origin`: refuses requests that a web page may not make.
//! - `expect`: refuses requests that expect something which the server cannot do.
//! - `cors`: lets pages of allowed origins read answers.

pub(crate) mod cors;
pub(crate) mod expect;
pub(crate) mod flow;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod trace;
pub(crate) mod unread;

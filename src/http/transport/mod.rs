//! The server: connections, their limits in time, and the order of the middleware.
//!
//! The framework can build a server by itself, `HttpServer`. This one is put together by hand from the same parts,
//! because a connection needs what the framework lacks: a time limit on the head of every request and not only of the
//! first, a time limit on a client that does not read its answer, and a JSON body for the requests that the framework
//! refuses by itself. All of that is in one type of stream, [`connection::Connection`], under which another stream such
//! as one with TLS fits.
//!
//! - `refusal`: the framework's own refusals, as JSON;
//! - `framing`: answers without chunks for clients of HTTP/1.0;
//! - `connection`: a client's connection and its limits in time;
//! - `server`: workers, connections and middleware.

pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod refusal;
pub(crate) mod server;

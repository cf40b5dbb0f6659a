//! The server: connections, their limits in time, and the order of the middleware.
//!
//! actix-web's `HttpServer` is not used. This server is put together from the same parts, because a connection needs four
//! things that `HttpServer` lacks: a time limit on the head of every request and not only of the first, a time limit on a
//! client that does not read its answer, an end when others need its place, and a JSON body for the requests that
//! actix-http refuses by itself. All of them are in one type of stream, [`connection::Connection`], under which another stream, such as one with TLS, would fit.
//!
//! - `refusal`: actix-http's own refusals, as JSON.
//! - `framing`: answers without chunks for clients of HTTP/1.0.
//! - `open_connections`: the connections of a worker, of which the idlest makes room for others.
//! - `connection`: a client's connection and its limits in time.
//! - `server`: workers, connections and middleware.

pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod open_connections;
pub(crate) mod refusal;
pub(crate) mod server;

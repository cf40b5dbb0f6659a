//! The server: connections, their limits in time, and the order of the middleware.
//!
//! actix-web's `HttpServer` is not used. This server is put together from the same parts, because a connection needs
//! six things that `HttpServer` lacks: a time limit on the head of every request and not only of the first; a time
//! limit on a client that does not read its answer; a limit on the bytes that are read ahead of the answers; an end as
//! soon as the client has reset the connection; the closing of an idle connection when others need its place; and a
//! JSON body for the requests that actix-http refuses by itself. One stream type, [`connection::Connection`], has all
//! six. It wraps any other stream, such as one with TLS.
//!
//! - `refusal`: turns actix-http's own refusals into JSON.
//! - `framing`: sends answers without chunks to clients of HTTP/1.0.
//! - `open_connections`: the open connections of a worker. The one that is idle for longest makes room for others.
//! - `connection`: a client's connection, with its time limits.
//! - `server`: puts workers, connections and middleware together.

pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod open_connections;
pub(crate) mod refusal;
pub(crate) mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Limits and times of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where the service listens.
    pub listen: SocketAddr,
    /// How many threads answer requests; 0 is one for each core.
    pub workers: usize,
    /// The most connections of the process. It is shared out evenly among the workers; one more waits to be accepted.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a client may take to send the body of a request, all of it.
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// How long a shutdown waits for requests that are being answered; rounded up to whole seconds.
    pub shutdown_timeout: Duration,
    /// The most bytes of a posted body.
    pub max_body_bytes: usize,
    /// The most bytes of one event.
    pub max_line_bytes: usize,
    /// The most bytes of posted bodies that are held at one time, over all requests; more is refused as overload.
    pub max_buffered_bytes: usize,
    /// The origins whose pages may read, such as `https://dispatch.example`; empty for any origin.
    pub allowed_origins: Vec<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 24210)),
            workers: 0,
            max_connections: 1024,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            shutdown_timeout: Duration::from_secs(10),
            max_body_bytes: 16 * 1024 * 1024,
            max_line_bytes: 4 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
            allowed_origins: Vec::new(),
        }
    }
}

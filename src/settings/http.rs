use std::time::Duration;

use super::{HostName, WebOrigin};

/// The most conversations of one request that are worked on at one time.
///
/// Without it a request that mentions more than the service takes on at once would be refused however often it came
/// again. For the same reason `turns.max_in_flight`, `turns.max_active_conversations` and `store.queue_commits` cannot
/// be set lower. Large enough that one fsync serves many conversations of a request.
pub const CONVERSATIONS_AT_ONCE: usize = 128;

/// Limits and times of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// How many threads answer requests.
    pub workers: Workers,
    /// The most connections of the process. It is shared out evenly among the workers; one more waits to be accepted.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, be it the first of its connection or a later one.
    pub header_timeout: Duration,
    /// How long a client may take to send the whole body of a request. A body longer than
    /// [`max_body_bytes`](Self::max_body_bytes) gets this time once more for each multiple of that.
    pub body_timeout: Duration,
    /// How long a connection may be idle between two requests, and how long a client may take none of its answer.
    pub keep_alive: Duration,
    /// How long a shutdown waits for requests that are being answered; rounded up to whole seconds.
    pub shutdown_timeout: Duration,
    /// The maximum bytes of those events of a posted body that count. Ignored lines are dropped as they arrive.
    pub max_body_bytes: usize,
    /// The maximum bytes of a posted body in total, after inflating.
    pub max_transfer_bytes: usize,
    /// The maximum bytes of one event that counts.
    pub max_line_bytes: usize,
    /// The maximum bytes of posted bodies held at one time, over all requests; more is refused as overload.
    pub max_buffered_bytes: usize,
    /// The most bytes of answers that are kept to be given again, over all conversations; one of them may take a
    /// sixteenth.
    pub cache_bytes: usize,
    /// The origins whose pages may read; empty for any origin.
    pub allowed_origins: Vec<WebOrigin>,
    /// The hosts that requests may name in addition to those of this machine. If this is empty and the server listens
    /// on an address that other machines can reach, requests may name any host.
    pub host_names: Vec<HostName>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            max_connections: 1024,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            shutdown_timeout: Duration::from_secs(10),
            max_body_bytes: 16 * 1024 * 1024,
            max_transfer_bytes: 1024 * 1024 * 1024,
            max_line_bytes: 4 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
            cache_bytes: 16 * 1024 * 1024,
            allowed_origins: Vec::new(),
            host_names: Vec::new(),
        }
    }
}

/// How many threads answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each core that the process may use.
    Auto,
    /// This many.
    Exactly(usize),
}

impl Workers {
    /// The most threads that answer requests: the HTTP server has no more.
    pub const MAX: usize = 512;
}

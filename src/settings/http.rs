use std::time::Duration;

use super::section::section;
use super::{HostName, WebOrigin};

section! {
    /// Limits of the HTTP server.
    pub struct HttpSettings in "http" {
        /// Threads that answer requests; "auto" means one for each core that the process may use.
        workers: Workers = Workers::Auto;

        /// Connections that may be open at one time, shared evenly among the workers; a further one waits to be
        /// accepted. Each needs a file descriptor, so raise `ulimit -n` too.
        max_connections: usize = 1024, 1..=1_000_000;

        /// The time limit for the headers of a request, on a new connection or a kept one. A client that takes longer
        /// is stuck, or wants to occupy the connection.
        header_timeout: Duration = Duration::from_secs(5);

        /// The time limit for the body of a request. A body longer than `max_body_bytes` gets this time once more for
        /// each multiple of that size, so that a long body of ignored events has enough time. A stalled upload is
        /// ended; the sender sends the same events again.
        body_timeout: Duration = Duration::from_secs(30);

        /// The time after which a connection is closed if it is idle, or if its client does not read the answer. Longer
        /// than the pause between two turns of a busy kernel.
        keep_alive: Duration = Duration::from_secs(75);

        /// How long requests in flight may take to finish when the process is told to stop, rounded up to whole
        /// seconds. Many supervisors kill after 30 seconds; this leaves time to close the store.
        shutdown_timeout: Duration = Duration::from_secs(10);

        /// Bytes of the events in one request that count for metrics (16 MiB): some 80,000 events, a long batch but a
        /// small part of memory. Ignored events are dropped as they arrive and do not count here, however long they
        /// are.
        max_body_bytes: usize = 16 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of one request's body in total (1 GiB), after decompression, including ignored events and white space.
        /// This limits the work, not the memory: only events that count are held.
        max_transfer_bytes: usize = 1024 * 1024 * 1024, BYTES;

        /// Bytes of one event that counts (4 MiB); most have a few hundred. Up to this many bytes of a line are held
        /// until its type is known. A longer line, such as a tool's result, is accepted if it is ignored.
        max_line_bytes: usize = 4 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of all request bodies held in memory at one time (256 MiB): the lines that count and the events parsed
        /// from them, counted as they arrive. Beyond it requests get 503 and should be sent again.
        max_buffered_bytes: usize = 256 * 1024 * 1024, BYTES;

        /// Bytes of answers to `GET /conversations/{id}/metrics` that are cached (16 MiB): some 20,000 turns of the
        /// conversations that are looked at. An answer larger than a sixteenth of this is not cached.
        cache_bytes: usize = 16 * 1024 * 1024, BYTES;

        /// Origins whose pages may read conversations, as browsers send them, such as `["https://app.example"]`. An
        /// empty list allows any origin, since reading changes nothing.
        allowed_origins: Vec<WebOrigin> = Vec::new();

        /// Hosts that requests may name in `Host`, without a port, such as `["metrics.example"]`. `localhost`,
        /// `127.0.0.1`, `[::1]` and the address of `listen` are always allowed; a request for another host is refused
        /// with 421. Otherwise a web page could make its own name resolve to this machine, and read everything as if it
        /// were a page of this server. Add the name that a reverse proxy passes on. If the list is empty and other
        /// machines can reach the address, any host is allowed.
        host_names: Vec<HostName> = Vec::new();
    }
}

/// How many threads answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each core that the process may use.
    Auto,
    /// Exactly this many.
    Exactly(usize),
}

impl Workers {
    /// The maximum number of threads that answer requests, which is a limit of the HTTP server.
    pub const MAX: usize = 512;
}

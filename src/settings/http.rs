use std::time::Duration;

use super::section::section;
use super::{HostName, WebOrigin};

section! {
    /// Limits of the HTTP server.
    pub struct HttpSettings in "http" {
        /// Threads that answer requests; "auto" means one for each core that the process may use.
        workers: Workers = Workers::Auto;

        /// Connections that may be open at one time, shared evenly among the workers. If one more client connects, the
        /// connection that has been idle for longest is closed. If none is idle, an eighth more connections are
        /// accepted, and the rest wait. Each connection needs a file descriptor: the limit of the process (`ulimit -n`)
        /// is raised as far as the system allows.
        max_connections: usize = 1024, 1..=1_000_000;

        /// The time limit for the headers of a request, whether the connection is new or was used before. A client that
        /// takes longer is stuck, or wants to occupy the connection.
        header_timeout: Duration = Duration::from_secs(5);

        /// The time limit for the body of a request. A body longer than `max_body_bytes` gets this time once more for
        /// each multiple of that size, so that a long body of ignored events has enough time. A client whose body was
        /// ended should send the same events again. The body of an import has no limit, as long as it arrives at
        /// `min_bytes_per_second`.
        body_timeout: Duration = Duration::from_secs(30);

        /// A body that stalls for this time, or falls this far behind `min_bytes_per_second`, is ended, because the
        /// part that has arrived takes memory that other requests need.
        stall_timeout: Duration = Duration::from_secs(10);

        /// The minimum rate, in bytes a second, at which a client must send its body and read its answer.
        min_bytes_per_second: usize = 1024, 1..=1 << 30;

        /// A connection is closed when it has been idle for this time, or when its client reads nothing of an answer
        /// for this time or falls this far behind `min_bytes_per_second`. Longer than the pause between two turns of a
        /// busy kernel.
        keep_alive: Duration = Duration::from_secs(75);

        /// The time limit for a backup, from its request to the last byte of the answer. Until the answer ends, no
        /// other backup is made, and the copy takes up disk space.
        backup_timeout: Duration = Duration::from_hours(1);

        /// Clients that may read `GET /feed` at one time, but never more than half of `max_connections`, because each
        /// occupies a connection. Further clients get 503.
        max_feed_readers: usize = 512, 1..=1_000_000;

        /// Imports that are read at one time. Each may take the memory of some long turns. Further imports get 503 and
        /// should be sent again.
        max_imports: usize = 8, 1..=10_000;

        /// A stream of `GET /feed` ends after this time. Browsers and other clients continue where it ended, so
        /// connections are renewed now and then.
        feed_timeout: Duration = Duration::from_hours(1);

        /// How often a stream of `GET /feed` has a comment, so that proxies do not take it for idle and the server
        /// notices that a client has gone.
        feed_heartbeat: Duration = Duration::from_secs(15);

        /// How long requests in flight may take to finish when the process is told to stop, rounded up to whole
        /// seconds. Many supervisors kill after 30 seconds; this leaves time to close the store.
        shutdown_timeout: Duration = Duration::from_secs(10);

        /// Bytes of the events in one request that count for metrics (16 MiB): some 80,000 events, a long batch but a
        /// small part of memory. Ignored events are dropped as they arrive and do not count here, however long they
        /// are.
        max_body_bytes: usize = 16 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of one request's body in total (1 GiB), after decompression, including ignored events and white space.
        /// This limits the work, not the memory: only events that count are held. An import has no such limit.
        max_transfer_bytes: usize = 1024 * 1024 * 1024, BYTES;

        /// Bytes of one event that counts (4 MiB); most have a few hundred. Up to this many bytes of a line are held until
        /// the type of its event is known. A longer line, such as a tool's result, is accepted if its event is ignored. A
        /// line of an import has a whole turn and may be six times as long.
        max_line_bytes: usize = 4 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of all request bodies held in memory at one time (128 MiB): the lines that count and the events parsed
        /// from them, counted from their arrival until the answer is sent. An eighth is reserved for bodies of at most
        /// 64 KiB. Requests beyond this get 503 and should be sent again.
        max_buffered_bytes: usize = 128 * 1024 * 1024, BYTES;

        /// Bytes of a page of `GET /conversations`, `GET /conversations/{id}/turns` or `GET /turns` (4 MiB). The page
        /// ends with the conversation or the turn that reaches this size, and the next page begins after it. An export
        /// has no such limit.
        max_page_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes of answers held in memory at one time for clients that have not read them yet (64 MiB), in addition to
        /// the 64 KiB that each connection may hold. When this memory is used up, long answers are sent in smaller
        /// parts. A turn larger than 64 KiB then waits until there is room. An answer that begins with such a turn is
        /// 503, and should be requested again.
        max_read_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Bytes of answers to `GET /conversations/{id}/metrics` that are cached (16 MiB): some 20,000 turns of the
        /// conversations that clients read. An answer larger than a sixteenth of this is not cached.
        cache_bytes: usize = 16 * 1024 * 1024, BYTES;

        /// Origins whose pages may read conversations, turns (`GET /turns` too), reports and prices, as browsers send
        /// them, such as `["https://app.example"]`. An empty list allows any origin, since reading changes nothing.
        /// Pages of other origins never read `GET /export`, `GET /feed` and `GET /backup`.
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
    /// One thread for each core that the process may use.
    Auto,
    /// Exactly this many.
    Exactly(usize),
}

impl Workers {
    /// The maximum number of threads that answer requests, which is a limit of the HTTP server.
    pub const MAX: usize = 512;
}

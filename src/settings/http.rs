use std::time::Duration;

use super::section::section;
use super::{HostName, WebOrigin};

section! {
    /// Limits and times of the HTTP side.
    pub struct HttpSettings in "http" {
        /// Threads that answer requests; "auto" is one for each core that the process may use.
        workers: Workers = Workers::Auto;

        /// Connections open at one time, shared out evenly among the workers. For one more the idlest is closed; an eighth
        /// more are accepted if none is idle, and further ones wait. Each costs a file descriptor: the limit of the
        /// process (`ulimit -n`) is raised for them as far as it may be.
        max_connections: usize = 1024, 1..=1_000_000;

        /// For the headers of a request, the first of a connection or a later one. A client that takes longer is stuck,
        /// or wants to hold the connection.
        header_timeout: Duration = Duration::from_secs(5);

        /// For the whole body of a request. A body longer than `max_body_bytes` gets this time once more for each
        /// multiple of that, so that a long body of ignored events has enough. The sender of a body that is ended sends
        /// the same events again.
        body_timeout: Duration = Duration::from_secs(30);

        /// How long a body may stall, and how far it may fall behind `min_bytes_per_second`: what has arrived of it takes memory
        /// that others wait for.
        stall_timeout: Duration = Duration::from_secs(10);

        /// Bytes a second that have to arrive of a body, and that a client has to take of its answer.
        min_bytes_per_second: usize = 1024, 1..=1 << 30;

        /// An idle connection is closed after this time, and one whose client takes nothing of its answer, or falls this
        /// far behind `min_bytes_per_second`. Longer than the pause between two turns of a busy kernel.
        keep_alive: Duration = Duration::from_secs(75);

        /// For a whole backup, from its request to the last byte of the answer: until then there is no other, and the copy
        /// takes its space on the disk.
        backup_timeout: Duration = Duration::from_hours(1);

        /// How long requests in flight may take to finish when the process is told to stop; rounded up to whole seconds.
        /// Far enough below the 30 seconds after which many supervisors kill, that the store can be closed too.
        shutdown_timeout: Duration = Duration::from_secs(10);

        /// Bytes of those events of one request that count (16 MiB): some 80,000 events, a long batch but no large part of
        /// memory. Ignored events are dropped as they arrive and do not add to this, however long they are.
        max_body_bytes: usize = 16 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of one request's body in total (1 GiB), after inflating, with ignored events and white space. This bounds
        /// the work, not the memory: only events that count are held.
        max_transfer_bytes: usize = 1024 * 1024 * 1024, BYTES;

        /// Bytes of one event that counts (4 MiB); most have a few hundred. Up to this much of a line is held until its
        /// type is known. A longer line is accepted if it is ignored, such as a tool's result.
        max_line_bytes: usize = 4 * 1024 * 1024, 1024..=1 << 30;

        /// Bytes of all bodies held in memory at one time (256 MiB): the lines that count and the events parsed from them,
        /// counted as they arrive, until the answer is sent. An eighth is for bodies of at most 64 KiB alone. Past it:
        /// 503, to be sent again.
        max_buffered_bytes: usize = 256 * 1024 * 1024, BYTES;

        /// Bytes of a page of `GET /conversations/{id}/turns` (4 MiB): the page ends with the turn that brings it to this,
        /// and the next page goes on after that turn.
        max_page_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes of answers held in memory at one time for clients that have not read them yet (64 MiB), besides the 128
        /// KiB that each connection may hold. Past it, long answers are sent in smaller parts, a turn larger than that
        /// is read when there is room, and an answer that would begin with such a turn is 503, to be asked for again.
        max_read_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Bytes of answers to `GET /conversations/{id}/metrics` kept to be given again (16 MiB): some 20,000 turns of the
        /// conversations that are looked at. An answer that would take more than a sixteenth is read anew each time.
        cache_bytes: usize = 16 * 1024 * 1024, BYTES;

        /// Origins whose pages may read conversations, as browsers send them, such as `["https://app.example"]`. Empty
        /// allows any origin, as reading changes nothing.
        allowed_origins: Vec<WebOrigin> = Vec::new();

        /// Hosts that requests may name in `Host`, without a port, such as `["metrics.example"]`. `localhost`,
        /// `127.0.0.1`, `[::1]` and the address of `listen` are always allowed; a request for another host is refused
        /// with 421. Otherwise a web page could let its own name resolve to this machine, and read everything as if it
        /// were a page of this server. Add the name that a reverse proxy passes on. If this is empty and other machines
        /// can reach the address, any host is allowed.
        host_names: Vec<HostName> = Vec::new();
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

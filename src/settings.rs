//! What can be set of the actors, the store, the journal and the HTTP side. `config/default.toml` gives the same defaults,
//! with reasons.

#[cfg(feature = "server")]
mod host_name;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod web_origin;

use std::time::Duration;

#[cfg(feature = "server")]
pub use host_name::{HostName, InvalidHostName};
#[cfg(feature = "server")]
pub use http::{CONVERSATIONS_AT_ONCE, HttpSettings, Workers};
#[cfg(feature = "server")]
pub use web_origin::{InvalidWebOrigin, WebOrigin};

/// The most turns of one request that are worked on at one time. The store takes at least this many at one time, however
/// slow it is, so that a request alone is never refused as too much, however large its body is.
pub const TURNS_AT_ONCE: usize = 256;

/// Limits and ages of turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnSettings {
    /// The most turns of one conversation that may be open side by side.
    pub max_open_turns: usize,
    /// The most steps of one turn.
    pub max_steps: usize,
    /// A conversation's actor is retired after this time without an event.
    pub idle_after: Duration,
    /// A turn without an event for this time, while the service runs, is sealed as abandoned.
    pub abandon_after: Duration,
    /// A turn whose latest event is an `error` is sealed with the reason `error` if no other event follows within this
    /// time.
    pub fail_after: Duration,
    /// The interval at which the sweeper looks for abandoned and failed turns.
    pub sweep_every: Duration,
    /// The most conversations that have an actor at one time.
    pub max_active_conversations: usize,
    /// The most batches of events that are being worked on at one time, over all conversations.
    pub max_in_flight: usize,
}

impl Default for TurnSettings {
    fn default() -> Self {
        Self {
            max_open_turns: 256,
            max_steps: 4096,
            idle_after: Duration::from_mins(1),
            abandon_after: Duration::from_hours(24),
            fail_after: Duration::from_secs(30),
            sweep_every: Duration::from_secs(10),
            max_active_conversations: 100_000,
            max_in_flight: 20_000,
        }
    }
}

/// Sizes of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The most commits that wait for the writer; one more is refused as overload. Fewer may wait where so many would wait
    /// for long.
    pub queue_commits: usize,
    /// The most commits that the writer makes durable with one fsync.
    pub batch_commits: usize,
    /// How much of the database is cached in memory, in bytes.
    pub cache_bytes: usize,
    /// About how much may be in the journal and not in the tables yet, there and in memory, in bytes. Towards it commits
    /// are slowed down, past it they are refused as overload.
    pub journal_bytes: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            queue_commits: 20_000,
            batch_commits: 1024,
            cache_bytes: 4 * 1024 * 1024,
            journal_bytes: 20 * 1024 * 1024,
        }
    }
}

/// Sizes of the trace journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSettings {
    /// A file that would have more bytes than this is set aside, and a new one begun.
    pub max_file_bytes: usize,
    /// How many files are kept, with the present one.
    pub max_files: usize,
    /// The most lines that wait to be written; one more is counted and lost.
    pub queue_lines: usize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self { max_file_bytes: 64 * 1024 * 1024, max_files: 4, queue_lines: 10_000 }
    }
}

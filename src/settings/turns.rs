use std::time::Duration;

use super::section::section;

/// The maximum number of turns of one request that are processed at one time. The store accepts at least this many at
/// one time, however slow it is. So a large request is not refused as overload if nothing else is waiting.
pub const TURNS_AT_ONCE: usize = 256;

section! {
    /// Limits and ages of turns.
    pub struct TurnSettings in "turns" {
        /// Turns of one conversation that may be open at the same time. That is far more than a kernel runs at once,
        /// and few enough to hold in memory.
        max_open_turns: usize = 256, 1..=1_000_000;

        /// Steps of one turn; a long agent run has a few hundred.
        max_steps: usize = 4096, 1..=1_000_000;

        /// Bytes of one open turn (4 MiB). A turn counts 512 bytes and its texts (ids, models, providers, project), and
        /// so does each of its steps. That is about what they take in memory. So 4,096 steps with half a KiB of texts
        /// each just fit.
        max_turn_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes of all open turns of one conversation (8 MiB), counted in the same way: enough for 256 turns of 50 steps.
        max_open_bytes: usize = 8 * 1024 * 1024, BYTES;

        /// A conversation without an event for this time is dropped from memory. Its next event loads it again.
        idle_after: Duration = Duration::from_mins(1);

        /// An open turn without an event for this time is sealed with the reason `abandoned`, because its kernel is
        /// probably gone. The tokens that it reported were spent and are kept. Only time in which the service runs
        /// counts. The turn is sealed late by up to `sweep_every` and about a quarter of the shorter of `abandon_after`
        /// and `fail_after`.
        abandon_after: Duration = Duration::from_hours(24);

        /// A turn whose latest event is an `error` is sealed with the reason `error` if no other event follows within
        /// this time, because some kernels end a failed turn without a `done`. Only time in which the service runs
        /// counts. The turn is sealed late by up to `sweep_every` and about a quarter of the shorter of `abandon_after`
        /// and `fail_after`: some 18 s with the defaults.
        fail_after: Duration = Duration::from_secs(30);

        /// The interval at which the service looks for abandoned and failed turns.
        sweep_every: Duration = Duration::from_secs(10);

        /// Conversations held in memory at one time. Events of conversations beyond this get 503 and should be sent
        /// again. At least 128, because so many conversations of one request are processed at once.
        max_active_conversations: usize = 100_000, work_up_to(100_000_000);

        /// Bytes of the open turns of all conversations held in memory (64 MiB), counted in the same way. When more is
        /// needed, the conversations that have been without an event for longest are dropped from memory first. If that
        /// is not enough, events wait until other conversations are done.
        max_active_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Batches of events processed at one time. A request has one batch for each of its conversations. Requests
        /// beyond this get 503 and should be sent again. At least 128, for the same reason.
        max_in_flight: usize = 20_000, work_up_to(10_000_000);
    }
}

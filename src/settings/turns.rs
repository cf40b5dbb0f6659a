use std::time::Duration;

use super::section::section;

/// The most turns of one request that are worked on at one time. The store takes at least this many at one time, however
/// slow it is, so that a request alone is never refused as too much, however large its body is.
pub const TURNS_AT_ONCE: usize = 256;

section! {
    /// Limits and ages of turns.
    pub struct TurnSettings in "turns" {
        /// Turns of one conversation that may be open side by side: far more than a kernel runs, few enough to hold.
        max_open_turns: usize = 256, 1..=1_000_000;

        /// Steps of one turn: a long agent run has some hundred.
        max_steps: usize = 4096, 1..=1_000_000;

        /// Bytes of one open turn (4 MiB). A turn and each of its steps count 512 bytes and their texts (ids, models,
        /// providers, project): about what they take in memory. So 4,096 steps with half a KiB of texts each just fit.
        max_turn_bytes: usize = 4 * 1024 * 1024, BYTES;

        /// Bytes of all open turns of one conversation (8 MiB), counted likewise: 256 turns of 50 steps, with room.
        max_open_bytes: usize = 8 * 1024 * 1024, BYTES;

        /// A conversation without an event for this time is dropped from memory; the next event loads it again.
        idle_after: Duration = Duration::from_mins(1);

        /// An open turn without an event for this time is sealed with the reason `abandoned`: its kernel is gone. The
        /// tokens that it reported were spent and are kept. Only time in which the service runs counts. The turn is
        /// sealed late by up to `sweep_every` and about a quarter of the shorter of `abandon_after` and `fail_after`.
        abandon_after: Duration = Duration::from_hours(24);

        /// A turn whose latest event is an `error` is sealed with the reason `error` if no other event follows within
        /// this time: some kernels end a failed turn without a `done`. Only time in which the service runs counts. The
        /// turn is sealed late by up to `sweep_every` and about a quarter of the shorter of `abandon_after` and
        /// `fail_after`: some 18 s with the defaults.
        fail_after: Duration = Duration::from_secs(30);

        /// The interval at which abandoned and failed turns are looked for.
        sweep_every: Duration = Duration::from_secs(10);

        /// Conversations held in memory at one time. Past it events of further ones are answered with 503, to be sent
        /// again. At least 128: so many of one request are worked on at once, and it would never get through with less.
        max_active_conversations: usize = 100_000, work_up_to(100_000_000);

        /// Bytes of the open turns of all conversations held in memory (64 MiB), counted likewise. Past it, the conversations
        /// that have been without an event for longest are dropped from memory first; then events wait until others are
        /// done.
        max_active_bytes: usize = 64 * 1024 * 1024, BYTES;

        /// Batches of events, one a conversation and request, worked on at one time. Past it: 503, to be sent again. At
        /// least 128, for the same reason.
        max_in_flight: usize = 20_000, work_up_to(10_000_000);
    }
}

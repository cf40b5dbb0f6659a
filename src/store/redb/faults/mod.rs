//! Attacks on the promise of the store: an acknowledged turn is never lost, never stored twice, and never out of order.
//!
//! A disk crashes or fails at a given operation. A client works through a workload, remembers what was acknowledged,
//! and compares that with what the store answers afterwards. The client uses the store as every caller does: nothing
//! here uses a table or a key, so the tests hold for any layout of the files.
//!
//! Each attack has controls, which break the promise on purpose. The same check must catch them.
//!
//! - `workload`: the operations that are done with the store.
//! - `client`: does the operations, and compares the store with what it acknowledged.
//! - `disk`: a disk that crashes and fails.
//! - `crash`: crashes at random operations.
//! - `pieces`: a crash at each change of each flush of the checkpoint.
//! - `erasing`: a crash at each change of an erasure.
//! - `dropping`: a crash at each change while turns are dropped.
//! - `taking`: a crash at each change while sums of another store are taken in.
//! - `failing`: operations that fail.
//! - `damage`: damaged files.
//! - `flips`: single flipped bits, which the store must report.
//! - `unreadable`: pages that the disk can never read, which must not stop the scrub.

mod client;
mod crash;
mod damage;
mod disk;
mod dropping;
mod erasing;
mod failing;
mod flips;
mod pieces;
mod taking;
mod unreadable;
mod workload;

/// Returns a number that an environment variable sets, if it is set.
fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {value:?}")))
}

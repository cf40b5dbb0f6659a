//! The promise of the store, attacked: an acknowledged turn is never lost, never twice, never out of order.
//!
//! A disk crashes or fails at a given operation. A client works through a workload, remembers what was acknowledged, and
//! compares that with what the store answers afterwards. It only asks the store as every caller does: nothing here knows a
//! table or a key, so another layout has to keep the same promise.
//!
//! Each attack has controls beside it, which break the promise on purpose and must be caught by the same check.
//!
//! - `workload`: what is done with the store.
//! - `client`: does it, and compares.
//! - `disk`: a disk that crashes and fails.
//! - `crash`: crashes at random operations.
//! - `pieces`: a crash at each change of each flush of the checkpoint.
//! - `failing`: operations that fail.
//! - `damage`: damaged files.

mod client;
mod crash;
mod damage;
mod disk;
mod failing;
mod pieces;
mod workload;

/// A number that the environment may set.
fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {value:?}")))
}

//! The promise of the store, attacked: an acknowledged turn is never lost, never twice, never out of order.
//!
//! A [`Disk`](disk::Disk) crashes or fails at a given operation, a [`Client`](client::Client) does what comes of a
//! [`Workload`](workload::Workload) and remembers what it was told, and holds that against what the store says
//! afterwards. The store is only asked, as everyone asks it: nothing here knows a table or a key, so that another
//! layout has to keep the same promise.
//!
//! Each attack has controls beside it, which break the promise on purpose and must be caught by the same check.

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

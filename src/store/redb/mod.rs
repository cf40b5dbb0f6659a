//! The embedded engine, on redb.

pub(super) mod checkpoint;
pub(super) mod engine;
#[cfg(test)]
mod faults;
pub(super) mod files;
#[cfg(test)]
mod fixture;
pub(super) mod journal;
pub(super) mod maintenance;
pub(super) mod memtable;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod overload_tests;
pub(super) mod query;
pub(super) mod tables;
#[cfg(test)]
mod tests;
pub(super) mod unwind;
pub(super) mod writer;

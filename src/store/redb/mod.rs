//! The embedded engine: a store in two redb files, in one process.
//!
//! The rooms from the ground up. Each may use only those of the floors above it in this list, and no others on its own
//! floor; `tests/it/tidy.rs` checks that.
//!
//! | floor | room | what it is |
//! |---|---|---|
//! | 1 | `unwind` | turns a panic into an error, where it must not go further |
//! | 1 | `tables` | the tables of both files: definitions, records, what reads and writes rows |
//! | 2 | `read_threads` | threads for what takes long, started with the store |
//! | 2 | `journal` | what a commit appends, and how |
//! | 3 | `memtable` | what the journal has and the tables do not yet |
//! | 4 | `files` | where the two files are; makes, opens, replays and closes them |
//! | 5 | `checkpoint` | moves the memtable into the tables |
//! | 5 | `query` | reads: the tables, overlaid by the memtable |
//! | 6 | `writer` | the thread that makes commits durable, and how many may wait for it |
//! | 7 | `maintenance` | backup, check, repair, compaction |
//! | 8 | `engine` | the face: hands commits to the writer, and reads on the thread that calls it |
//! | 9 | `answers` | implements the trait `Engine`: what is read on the thread that asks, and what on another |
//!
//! Tests that go through all of it stand beside the rooms. They know no key and no table, so that another layout has to
//! keep the same promises:
//!
//! - `tests`: files, restarts, failures and damage.
//! - `conformance_tests`: the suite that every store passes.
//! - `model_tests`: the engine against the oracle.
//! - `overload_tests`: more commits than the store can take.
//! - `faults`: crashes, failing disks and damaged files.
//! - `fixture`: files of the format, kept to notice a change of it.

mod answers;
pub(super) mod checkpoint;
#[cfg(test)]
mod conformance_tests;
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
pub(super) mod read_threads;
pub(super) mod tables;
#[cfg(test)]
mod tests;
pub(super) mod unwind;
pub(super) mod writer;

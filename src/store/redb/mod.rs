//! The engine on redb: a store in two redb files, used by one process.
//!
//! The table lists the rooms from floor 1 up. A room may use only rooms of lower floors, and no other room of its own
//! floor; `tests/it/tidy.rs` checks that.
//!
//! | floor | room | what it is |
//! |---|---|---|
//! | 1 | `unwind` | turns a panic into an error |
//! | 1 | `tables` | the tables of both files: their definitions, their records, reading and writing of rows |
//! | 2 | `read_threads` | the threads for long reads, started with the store |
//! | 2 | `journal` | the rows of the journal, and how they are appended |
//! | 3 | `memtable` | the changes that are in the journal and not in the tables yet |
//! | 4 | `files` | makes, opens, replays and closes the two files |
//! | 5 | `checkpoint` | moves the memtable into the tables |
//! | 5 | `query` | reads: the tables, overlaid by the memtable |
//! | 6 | `writer` | the thread that makes commits durable, and the limits on waiting commits |
//! | 7 | `maintenance` | backup, check, repair, compaction, scrub |
//! | 8 | `engine` | the interface: passes commits to the writer, and reads on the caller's thread |
//! | 9 | `answers` | implements the trait `Engine`: decides which reads run on the caller's thread, and which on another |
//!
//! Some tests use the whole engine. They use no key and no table, so they hold for any layout of the files:
//!
//! - `tests`: tests of files, restarts, failures and damage.
//! - `conformance_tests`: the suite that every store passes.
//! - `model_tests`: compares the engine with the oracle, for random commits.
//! - `overload_tests`: more commits than the store can take.
//! - `faults`: crashes, failing disks, damaged files and flipped bits.
//! - `fixture`: files of the present format. Reading them shows a change of the format.

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

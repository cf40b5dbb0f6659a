//! Operations on a store as a whole.
//!
//! Invariant: nothing here starts a writer or needs one.
//!
//! - `backup`: copies all of a store while it works.
//! - `check`: verifies the files of a stopped store, and repairs them.
//! - `scrub`: compares the rows of a running store with each other, in the background.
//! - `compact`: makes the main file of a stopped store as small as it can be.
//! - `crash_tests`: crashes at each change that these operations make to files.
//! - `leftover_tests`: what a kill of these operations leaves is removed at the next start.
//! - `pair_tests`: main files and journals of two times.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod compact;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod leftover_tests;
#[cfg(test)]
mod pair_tests;
pub(crate) mod scrub;

//! What is done to a store as a whole.
//!
//! - `backup`: a copy of all of it, made while it works.
//! - `check`: verifies the files of a store that is not running, and repairs them.
//! - `compact`: makes its main file as small as it can be.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod compact;
#[cfg(test)]
mod crash_tests;

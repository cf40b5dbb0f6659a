//! The journal, to which commits append.
//!
//! Invariant: this module knows no file. A row is appended within the caller's transaction.
//!
//! - `entry`: what one commit changed, and a row of such entries as bytes.
//! - `chain`: each row holds the checksum of the one before it.
//! - `append`: adds a row, and drops rows that are no longer needed.

pub(crate) mod append;
pub(crate) mod chain;
pub(crate) mod entry;

//! The journal, to which commits append.
//!
//! Invariant: no file is known here. A row is appended in the transaction that is passed in.
//!
//! - `entry`: what one commit changed, and a row of such entries as bytes.
//! - `chain`: each row holds the checksum of the one before it.
//! - `append`: adds a row, and drops rows that are no longer needed.

pub(crate) mod append;
pub(crate) mod chain;
pub(crate) mod entry;

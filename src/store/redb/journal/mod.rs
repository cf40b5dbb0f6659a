//! The journal, to which commits append.
//!
//! Invariant: this module opens no file. It appends a row within the caller's transaction.
//!
//! - `entry`: what one commit changed, and a row of such entries as bytes.
//! - `chain`: the link from each row to the row before it.
//! - `append`: adds a row, and drops rows that are no longer needed.

pub(crate) mod append;
pub(crate) mod chain;
pub(crate) mod entry;

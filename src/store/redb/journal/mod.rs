//! The journal, to which commits append.
//!
//! - `entry`: what one commit changed, and a row of such entries as bytes.
//! - `append`: adds a row, and drops rows that are no longer needed.

pub(crate) mod append;
pub(crate) mod entry;

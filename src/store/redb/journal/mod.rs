//! The journal, to which commits append.

pub(crate) mod append;
pub(crate) mod entry;

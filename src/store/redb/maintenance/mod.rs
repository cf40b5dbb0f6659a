//! Backup, check, repair and compaction.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod compact;

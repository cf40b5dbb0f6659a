//! The two files of a store.

pub(crate) mod location;
pub(crate) mod overlay;
pub(crate) mod replay;
pub(crate) mod slot;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod storage;

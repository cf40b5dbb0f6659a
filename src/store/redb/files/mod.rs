//! The two files of a store.

pub(crate) mod create;
pub(crate) mod head;
pub(crate) mod location;
pub(crate) mod look;
pub(crate) mod open;
pub(crate) mod open_error;
pub(crate) mod open_files;
pub(crate) mod overlay;
pub(crate) mod path;
pub(crate) mod replay;
pub(crate) mod retire;
pub(crate) mod size;
pub(crate) mod slot;
pub(crate) mod stamp;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod storage;

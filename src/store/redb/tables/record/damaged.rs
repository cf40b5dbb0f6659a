use crate::store::fault::{Fault, FaultKind};

/// A value does not decode: it is damaged, or of a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {what} cannot be read: {why}")]
pub(crate) struct DamagedRecord {
    what: &'static str,
    why: String,
}

impl DamagedRecord {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }

    /// A record that others point to and that is not there.
    pub(crate) fn missing(what: &'static str) -> Self {
        Self { what, why: "it is missing".into() }
    }

    /// The same, without what is wrong with it.
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(FaultKind::Damaged, "a stored record cannot be read").about(self.what)
    }
}

impl From<DamagedRecord> for Fault {
    fn from(damaged: DamagedRecord) -> Self {
        damaged.fault().caused_by(damaged)
    }
}

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
}

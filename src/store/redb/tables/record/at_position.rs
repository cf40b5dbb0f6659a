use crate::turn::Ordinal;

/// The contents of a position in the order of all turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtPosition {
    /// A sealed turn.
    Sealed {
        /// The key of its conversation.
        key: u64,
        ordinal: Ordinal,
    },
    /// A turn that is no longer stored. Its position is not given again.
    Erased,
}

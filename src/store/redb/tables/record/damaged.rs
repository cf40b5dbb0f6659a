use crate::store::fault::{Fault, FaultKind};
use crate::turn::{ConversationId, InvalidId, InvalidMillis, InvalidTokenCount};

/// A stored value does not decode: it is damaged, or of a later version.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a stored {what} cannot be read: {flaw}")]
pub struct DamagedRecord {
    what: &'static str,
    flaw: RecordFlaw,
}

/// What is wrong with a stored value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RecordFlaw {
    /// The value is missing, but another row leads to it.
    #[error("it is missing")]
    Missing,
    #[error("it is empty")]
    Empty,
    #[error("it is too short for a checksum")]
    NoChecksum,
    #[error("its checksum does not fit")]
    Checksum,
    #[error("its key is none")]
    Key,
    #[error("it has no link")]
    NoLink,
    #[error("it has another length")]
    Length,
    #[error("its encoding is version {found}, and this program reads version {known}")]
    Version { found: u8, known: u8 },
    #[error(transparent)]
    Encoding(#[from] postcard::Error),
    #[error("{0} bytes follow it")]
    Trailing(usize),
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    TokenCount(#[from] InvalidTokenCount),
    #[error(transparent)]
    Millis(#[from] InvalidMillis),
    #[error("0 is no ordinal")]
    Ordinal,
    #[error("a step is missing")]
    NoStep,
    #[error("it has {found} steps, and its head says {said}")]
    StepCount { found: u32, said: u32 },
    #[error("it has {found} rows, and its definition says {said}")]
    RowCount { found: u64, said: u64 },
    #[error("its rows disagree with those of other tables")]
    Disagrees,
    #[error("a time is missing")]
    NoTime,
    #[error("{0} is no position")]
    Position(u64),
    #[error("it seals more turns than there are")]
    SealedTurns,
    #[error("{0} is of another life")]
    OtherLife(ConversationId),
    #[error("the journal has commits to its conversation")]
    InJournal,
    #[error("a backup would lack the commits to its conversation that the journal has")]
    LackingInBackup,
    #[error("it erases a conversation and has changes of it")]
    NotEmpty,
    #[error("it leads to another turn")]
    OtherTurn,
    #[error("the conversation has another")]
    OtherPlace,
    #[error("its key does not follow the key before it")]
    Order,
    #[error("a damaged key may hide it")]
    Hidden,
}

impl DamagedRecord {
    pub(crate) fn new(what: &'static str, flaw: impl Into<RecordFlaw>) -> Self {
        Self { what, flaw: flaw.into() }
    }

    /// Returns a fault that names the kind of the record and has no cause.
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(FaultKind::Damaged, "a stored record cannot be read").about(self.what)
    }
}

impl From<DamagedRecord> for Fault {
    fn from(damaged: DamagedRecord) -> Self {
        damaged.fault().caused_by(damaged)
    }
}

/// The number and the checksum of a row of the journal. Each row has the checksum of the row before it, so a mark
/// identifies all rows up to its own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct JournalMark {
    pub(crate) number: u64,
    pub(crate) checksum: u64,
}

impl JournalMark {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
        Self { number: number(0), checksum: number(8) }
    }
}

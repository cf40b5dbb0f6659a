use super::damaged::{DamagedRecord, RecordFlaw};
use crate::store::contract::Life;

/// The erasure of a conversation whose rows are not all removed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// The life that was erased.
    pub(crate) life: Life,
    /// The key that the conversation had.
    pub(crate) key: u64,
    /// The number of a row of the journal. The rows of the key may be removed once the tables and their sums have
    /// everything up to this row: then they have all turns of the life.
    pub(crate) row: u64,
}

impl Erasure {
    /// Returns the value of the erasure's row. The life is the key of the row.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.key, self.row].map(u64::to_le_bytes).as_flattened().to_vec()
    }

    pub(crate) fn decode(life: Life, bytes: &[u8]) -> Result<Self, DamagedRecord> {
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        match bytes.as_chunks() {
            ([key, row], []) => Ok(Self { life, key: number(key), row: number(row) }),
            _ => Err(DamagedRecord::new("erasure", RecordFlaw::Length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_reads_back_equal_and_not_at_all_with_another_length() {
        let erasure = Erasure { life: Life(7), key: 1 << 40, row: u64::MAX };
        let bytes = erasure.encode();
        assert_eq!(Erasure::decode(Life(7), &bytes), Ok(erasure));
        for length in [0, 8, 15] {
            assert!(Erasure::decode(Life(7), &bytes[..length]).is_err(), "{length}");
        }
    }
}

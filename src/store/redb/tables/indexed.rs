//! The value of a row of the index: the ordinal in 40 bits, and a checksum of 24 bits over the key and the ordinal.
//!
//! A longer checksum would make the rows larger, which fill most of the pages that a checkpoint writes. One of 16
//! million damaged rows looks sound; a scrub and a check compare the index with the turns.

use std::hash::Hasher;

use redb::{TypeName, Value};
use siphasher::sip::SipHasher13;

use super::record::damaged::{DamagedRecord, RecordFlaw};

/// The value of a row of the index.
#[derive(Debug)]
pub(crate) struct Indexed;

/// A value as it is in the file: an ordinal with a right or a wrong checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredOrdinal(u64);

/// The number of bits of an ordinal in a row. No conversation has so many turns.
const ORDINAL_BITS: u32 = 40;

impl Indexed {
    /// The name of a row in messages.
    pub(crate) const WHAT: &'static str = "row of the index";
}

impl Value for Indexed {
    type SelfType<'a> = StoredOrdinal;
    type AsBytes<'a> = [u8; 8];

    fn fixed_width() -> Option<usize> {
        Some(8)
    }

    fn from_bytes<'a>(bytes: &'a [u8]) -> StoredOrdinal
    where
        Self: 'a,
    {
        StoredOrdinal(u64::from_bytes(bytes))
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a StoredOrdinal) -> [u8; 8]
    where
        Self: 'b,
    {
        value.0.to_le_bytes()
    }

    fn type_name() -> TypeName {
        u64::type_name()
    }
}

impl StoredOrdinal {
    /// Returns the value of an ordinal that is about to be written under this key.
    pub(crate) fn seal(place: (u64, u64), ordinal: u64) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        for number in [place.0, place.1, ordinal] {
            hasher.write(&number.to_le_bytes());
        }
        Self(hasher.finish() << ORDINAL_BITS | ordinal)
    }

    /// Returns the ordinal, if its checksum fits this key.
    pub(crate) fn verify(self, place: (u64, u64)) -> Result<u64, DamagedRecord> {
        let ordinal = self.0 & ((1 << ORDINAL_BITS) - 1);
        if Self::seal(place, ordinal) == self {
            return Ok(ordinal);
        }
        Err(DamagedRecord::new(Indexed::WHAT, RecordFlaw::Checksum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_for_ever() {
        assert_eq!(StoredOrdinal::seal((1, 2), 3).0, 10_317_079_342_747_746_307);
    }

    #[test]
    fn each_flipped_bit_of_a_row_is_seen() {
        let place = (7, 0x0123_4567_89ab_cdef);
        let sealed = StoredOrdinal::seal(place, 115);
        assert_eq!(sealed.verify(place).unwrap(), 115);
        for bit in 0..64 {
            StoredOrdinal(sealed.0 ^ 1 << bit).verify(place).unwrap_err();
            sealed.verify((place.0 ^ 1 << bit, place.1)).unwrap_err();
            sealed.verify((place.0, place.1 ^ 1 << bit)).unwrap_err();
        }
    }
}

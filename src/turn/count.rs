use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of tokens: a whole number from 0 to 2^53 - 1, the largest integer that every JSON reader represents
/// exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenCount(u64);

/// The number given is larger than [`TokenCount::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token count is at most 9007199254740991, not {0}")]
pub struct InvalidTokenCount(u64);

impl TokenCount {
    /// No tokens.
    pub const ZERO: Self = Self(0);
    /// The largest count: 2^53 - 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Returns the count if it is at most [`TokenCount::MAX`].
    pub fn new(count: u64) -> Result<Self, InvalidTokenCount> {
        if count > Self::MAX.0 { Err(InvalidTokenCount(count)) } else { Ok(Self(count)) }
    }

    /// Returns the count as a plain number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the sum, or [`TokenCount::MAX`] if the sum is larger.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        // Two counts below 2^53 add up to less than 2^54.
        Self((self.0 + other.0).min(Self::MAX.0))
    }
}

impl From<u32> for TokenCount {
    fn from(count: u32) -> Self {
        Self(count.into())
    }
}

impl fmt::Display for TokenCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for TokenCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for TokenCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = TokenCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 9007199254740991")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<TokenCount, E> {
                TokenCount::new(count).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<TokenCount, E> {
                Err(E::invalid_value(de::Unexpected::Signed(count), &self))
            }

            // JSON has one kind of number, so `10.0` and `1e3` are integers too, as for JavaScript's
            // `Number.isSafeInteger`.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a whole float from 0 to 2^53 - 1 converts to a u64 exactly, and the bound to a float"
            )]
            fn visit_f64<E: de::Error>(self, count: f64) -> Result<TokenCount, E> {
                if count.fract() == 0.0 && (0.0..=TokenCount::MAX.0 as f64).contains(&count) {
                    Ok(TokenCount(count as u64))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(count), &self))
                }
            }
        }

        deserializer.deserialize_u64(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<u64> {
        serde_json::from_str::<TokenCount>(json).ok().map(TokenCount::get)
    }

    #[test]
    fn a_count_is_an_integer_from_0_to_2_pow_53_minus_1() {
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("9007199254740991"), Some(9_007_199_254_740_991));
        for integer in ["10.0", "1e1", "100e-1"] {
            assert_eq!(read(integer), Some(10), "{integer}");
        }
        assert_eq!(read("-0"), Some(0));
        for bad in
            ["-1", "1.5", "9007199254740992", "9007199254740992.0", "1e30", "1e999", "\"10\"", "null", "true", "[1]"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_sum_stays_in_range() {
        assert_eq!(TokenCount::MAX.saturating_add(TokenCount::from(1)), TokenCount::MAX);
        assert_eq!(TokenCount::MAX.saturating_add(TokenCount::MAX), TokenCount::MAX);
        assert_eq!(TokenCount::from(2).saturating_add(TokenCount::from(3)), TokenCount::from(5));
    }
}

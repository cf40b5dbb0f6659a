use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ecmascript::serialize_number;

/// A duration in milliseconds: a finite number of at least 0, which may have a fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Millis(f64);

// The number is never NaN, so every duration equals itself.
impl Eq for Millis {}

/// The number is negative, infinite or not a number.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a time in milliseconds is a finite number of at least 0, not {0}")]
pub struct InvalidMillis(f64);

impl Millis {
    /// Checks that `millis` is finite and not negative.
    pub fn new(millis: f64) -> Result<Self, InvalidMillis> {
        if millis.is_finite() && millis >= 0.0 {
            // -0.0 is not negative, but would be written with its sign.
            Ok(Self(millis + 0.0))
        } else {
            Err(InvalidMillis(millis))
        }
    }

    /// Reads a duration from a kernel. A duration that is null or negative counts as absent: a kernel's clock may step
    /// back.
    pub(crate) fn read_reported<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        let number: Option<f64> = Deserialize::deserialize(deserializer)?;
        match number {
            Some(number) if !number.is_finite() => Err(de::Error::custom("must be a finite number")),
            number => Ok(number.and_then(|number| Self::new(number).ok())),
        }
    }

    /// Returns the duration as a plain number of milliseconds.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<u32> for Millis {
    fn from(millis: u32) -> Self {
        Self(millis.into())
    }
}

impl From<std::time::Duration> for Millis {
    /// Converts a duration to milliseconds with a fraction, exact to the nanosecond as far as a float can be.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds are exact up to 104 days, and close enough beyond")]
    fn from(duration: std::time::Duration) -> Self {
        // One division gives the nearest float, so 0.1 ms is written as 0.1.
        Self(duration.as_nanos() as f64 / 1e6)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_number(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Millis;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a finite number of milliseconds of at least 0")
            }

            #[expect(clippy::cast_precision_loss, reason = "JSON numbers are floats; a time beyond 2^53 ms is rounded")]
            fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Millis, E> {
                Ok(Millis(millis as f64))
            }

            fn visit_i64<E: de::Error>(self, millis: i64) -> Result<Millis, E> {
                Err(E::invalid_value(de::Unexpected::Signed(millis), &self))
            }

            fn visit_f64<E: de::Error>(self, millis: f64) -> Result<Millis, E> {
                Millis::new(millis).map_err(|_| E::invalid_value(de::Unexpected::Float(millis), &self))
            }
        }

        deserializer.deserialize_f64(Visitor)
    }
}

/// A moment: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochMillis(u64);

impl EpochMillis {
    /// Returns the moment `millis` milliseconds after 1970-01-01T00:00:00Z.
    pub fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the moment `time` later, saturating at the maximum.
    #[must_use]
    pub fn saturating_add(self, time: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(json: &str) -> Option<String> {
        let millis: Millis = serde_json::from_str(json).ok()?;
        serde_json::to_string(&millis).ok()
    }

    #[test]
    fn a_time_keeps_its_fraction_and_a_whole_number_is_written_without_one() {
        for (read, written) in [
            ("50.25", "50.25"),
            ("500.0", "500"),
            ("500", "500"),
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("9007199254740994", "9007199254740994"),
            ("18446744073709549568", "18446744073709550000"),
        ] {
            assert_eq!(rewrite(read).as_deref(), Some(written), "{read}");
        }
    }

    #[test]
    fn a_time_is_finite_and_not_negative() {
        for bad in ["-1", "-0.5", "1e999", "-1e999", "\"1\"", "null", "true"] {
            assert_eq!(rewrite(bad), None, "{bad}");
        }
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Millis::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_written_as_ecmascript_writes_it() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/numbers.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 14);
        for case in cases {
            assert_eq!(rewrite(case["sent"].as_str().unwrap()).as_deref(), case["written"].as_str(), "{case}");
        }
    }

    #[test]
    fn a_duration_is_milliseconds_as_a_person_would_write_them() {
        let written = |nanos| serde_json::to_string(&Millis::from(std::time::Duration::from_nanos(nanos))).unwrap();
        assert_eq!([0, 1_000, 100_000, 1_100_000, 250_000_000].map(written), ["0", "0.001", "0.1", "1.1", "250"]);
        assert!(Millis::from(std::time::Duration::MAX).get().is_finite());
    }
}

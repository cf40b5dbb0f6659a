use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::EpochMillis;
use super::ecmascript::serialize_number;

/// A moment by a kernel's clock, as the kernel sent it: any finite number, meant as milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct KernelMoment(f64);

// The number is never NaN, so every moment equals itself.
impl Eq for KernelMoment {}

impl KernelMoment {
    /// The earliest plausible moment. A smaller number would be a moment before March 1973, and is more likely a moment
    /// in seconds.
    const EARLIEST: f64 = 1e11;
    /// The longest time by which a kernel's clock may be ahead of the service's clock.
    const MAX_AHEAD: Duration = Duration::from_hours(24);

    /// Returns the moment in whole milliseconds, rounded down. `None` if it is implausible: negative, probably in
    /// seconds, or more than a day after `now`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 10^11 and a day after now")]
    pub fn plausible(self, now: EpochMillis) -> Option<EpochMillis> {
        let whole = self.0.floor();
        // A moment beyond the range of `u64` becomes `u64::MAX`.
        let moment = (whole >= Self::EARLIEST).then_some(EpochMillis::new(whole as u64))?;
        (moment <= now.saturating_add(Self::MAX_AHEAD)).then_some(moment)
    }
}

impl From<EpochMillis> for KernelMoment {
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 287396")]
    fn from(moment: EpochMillis) -> Self {
        Self(moment.get() as f64)
    }
}

impl Serialize for KernelMoment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_number(self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for KernelMoment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        // All numbers in JSON are finite; other formats have infinite numbers and NaN.
        if number.is_finite() { Ok(Self(number)) } else { Err(de::Error::custom("must be a finite number")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_plausible_from_1973_to_a_day_ahead() {
        const DAY: u64 = 86_400_000;
        let now = EpochMillis::new(1_780_000_000_000);
        let plausible = |json: &str| {
            let moment: KernelMoment = serde_json::from_str(json).unwrap();
            moment.plausible(now).map(EpochMillis::get)
        };
        assert_eq!(plausible("1779999999999.9"), Some(1_779_999_999_999), "rounded down");
        assert_eq!(plausible("100000000000"), Some(100_000_000_000));
        assert_eq!(plausible(&(now.get() + DAY).to_string()), Some(now.get() + DAY));
        for bad in ["-1", "-1e300", "0", "1780000000", "99999999999.9", "1e300", &(now.get() + DAY + 1).to_string()] {
            assert_eq!(plausible(bad), None, "{bad}");
        }
        for bad in ["\"2026-01-01\"", "null", "1e999", "true"] {
            assert!(serde_json::from_str::<KernelMoment>(bad).is_err(), "{bad}");
        }
    }
}

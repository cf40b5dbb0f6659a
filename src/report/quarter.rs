use serde::{Deserialize, Serialize};

use crate::turn::EpochMillis;

/// A quarter of an hour in UTC, as a number counted from 1970. It is the unit of time of rollups.
///
/// Days and hours of every time zone consist of whole quarters, because today the offset of every zone is a whole
/// number of quarters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quarter(i64);

impl Quarter {
    /// The length of a quarter in milliseconds.
    pub const MILLIS: i64 = 15 * 60 * 1000;

    /// The first quarter that can be asked for: eight days before the year 100, so that its first week begins in every
    /// zone.
    pub const FIRST: Self = Self(-65_569_056);
    /// The end of the last quarter that can be asked for: a week after the year 9998.
    pub const LAST: Self = Self(281_523_744);

    /// Returns the quarter with this number. The quarter 0 is the first one of 1970.
    pub fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the number of the quarter; it is negative before 1970.
    pub fn get(self) -> i64 {
        self.0
    }

    /// Returns the quarter that contains a moment.
    pub fn of(moment: EpochMillis) -> Self {
        // A `u64` divided by more than 2 fits into an `i64`.
        Self((moment.get() / Self::MILLIS.unsigned_abs()).cast_signed())
    }

    /// Returns the quarter that contains a moment, given in milliseconds since 1970, which may be negative.
    pub(super) fn of_millis(millis: i64) -> Self {
        Self(millis.div_euclid(Self::MILLIS))
    }

    /// Returns when the quarter begins, in milliseconds since 1970. Saturates for quarters outside of every zone's
    /// calendar.
    pub fn start_millis(self) -> i64 {
        self.0.saturating_mul(Self::MILLIS)
    }
}

/// A half-open range of quarters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    start: Quarter,
    end: Quarter,
}

/// The range ends before it starts, or is not within the years 0100 to 9998.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a period must not end before it starts, and must lie in the years 0100 to 9998")]
pub struct InvalidPeriod;

impl Period {
    /// Returns the period from `start` to before `end`.
    pub fn new(start: Quarter, end: Quarter) -> Result<Self, InvalidPeriod> {
        let is_valid = Quarter::FIRST <= start && start <= end && end <= Quarter::LAST;
        is_valid.then_some(Self { start, end }).ok_or(InvalidPeriod)
    }

    /// Returns the quarters that contain a moment from `from` to before `to`, both in milliseconds since 1970. A bound
    /// in the middle of a quarter is moved outward.
    pub fn around(from: i64, to: i64) -> Result<Self, InvalidPeriod> {
        if to < from {
            return Err(InvalidPeriod);
        }
        let end = Quarter::of_millis(to);
        let end = if end.start_millis() == to { end } else { Quarter(end.0 + 1) };
        Self::new(Quarter::of_millis(from), end)
    }

    /// Returns the first quarter of the period.
    pub fn start(self) -> Quarter {
        self.start
    }

    /// Returns the first quarter after the period.
    pub fn end(self) -> Quarter {
        self.end
    }

    /// Returns whether the period has no quarter.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Returns whether the period contains a quarter.
    pub fn contains(self, quarter: Quarter) -> bool {
        self.start <= quarter && quarter < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_begins_at_its_start_and_ends_before_the_next() {
        let quarter = Quarter::of(EpochMillis::new(1_780_001_099_999));
        assert_eq!(quarter.start_millis(), 1_780_000_200_000);
        assert_eq!(Quarter::of(EpochMillis::new(1_780_000_200_000)), quarter);
        assert_eq!(Quarter::of(EpochMillis::new(1_780_000_199_999)).get(), quarter.get() - 1);
        assert_eq!(Quarter::of_millis(-1), Quarter::new(-1));
        assert!(Quarter::of(EpochMillis::new(u64::MAX)) > Quarter::LAST);
    }

    #[test]
    fn the_years_that_can_be_asked_for_are_100_to_9998_with_a_week_on_either_side() {
        let millis = |date: &str| date.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert_eq!(Quarter::FIRST.start_millis(), millis("0099-12-24T00:00Z"));
        assert_eq!(Quarter::LAST.start_millis(), millis("9999-01-08T00:00Z"));
    }

    #[test]
    fn a_period_is_moved_outward_to_quarters() {
        const Q: i64 = Quarter::MILLIS;
        let around = |from, to| Period::around(from, to).map(|period| (period.start().get(), period.end().get()));
        assert_eq!(around(Q, 2 * Q), Ok((1, 2)));
        assert_eq!(around(Q + 1, 2 * Q + 1), Ok((1, 3)));
        assert_eq!(around(-1, 0), Ok((-1, 0)));
        assert_eq!(around(2 * Q, Q), Err(InvalidPeriod));
        assert_eq!(around(i64::MIN, 0), Err(InvalidPeriod));
        assert_eq!(around(0, i64::MAX), Err(InvalidPeriod));
    }
}

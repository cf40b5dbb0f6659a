use serde::{Deserialize, Serialize};

use super::quarter::{Period, Quarter};

/// The length of time that one row of the rollups covers. A row of a longer level is the sum of rows of the shorter
/// level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// A quarter of an hour.
    Quarter,
    /// An hour of UTC.
    Hour,
    /// A quarter of a day of UTC.
    SixHours,
    /// A day of UTC.
    Day,
}

impl Level {
    /// All levels, from the shortest to the longest.
    pub const ALL: [Self; 4] = [Self::Quarter, Self::Hour, Self::SixHours, Self::Day];

    /// The longest level. A row of any other level is within one row of the longest.
    pub const LONGEST: Self = Self::Day;

    /// Returns how many quarters of an hour one row covers.
    pub fn quarters(self) -> i64 {
        match self {
            Self::Quarter => 1,
            Self::Hour => 4,
            Self::SixHours => 24,
            Self::Day => 96,
        }
    }

    /// Returns the first quarter of the row that contains `quarter`.
    pub fn start_of(self, quarter: Quarter) -> Quarter {
        Quarter::new(quarter.get() - quarter.get().rem_euclid(self.quarters()))
    }

    fn next_start(self, quarter: Quarter) -> Quarter {
        Quarter::new(-self.start_of(Quarter::new(-quarter.get())).get())
    }

    /// Splits a period into ranges of whole rows, with rows as long as possible. There are at most seven ranges, in
    /// order and without a gap.
    ///
    /// The sum of the rows of all ranges, each at its level, is the sum of the period. So few rows have to be read.
    ///
    /// ```
    /// use turn_metrics::report::{Level, Period, Quarter};
    ///
    /// // From 05:30 to 13:15.
    /// let period = Period::new(Quarter::new(22), Quarter::new(53))?;
    /// let ranges = Level::cover(period).map(|(level, range)| (level, range.start().get(), range.end().get()));
    /// assert!(ranges.eq([
    ///     (Level::Quarter, 22, 24),
    ///     (Level::SixHours, 24, 48),
    ///     (Level::Hour, 48, 52),
    ///     (Level::Quarter, 52, 53),
    /// ]));
    /// # Ok::<(), turn_metrics::report::InvalidPeriod>(())
    /// ```
    pub fn cover(period: Period) -> impl Iterator<Item = (Self, Period)> {
        // The loop works from both ends inwards: longer rows have to fit between `front` and `back`.
        let (mut front, mut back) = (period.start(), period.end());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (level, longer) in [(Self::Quarter, Self::Hour), (Self::Hour, Self::SixHours), (Self::SixHours, Self::Day)]
        {
            let (start, end) = (longer.next_start(front).min(back), longer.start_of(back));
            if end < start {
                // No longer row fits.
                before.push((level, front, back));
                front = back;
                break;
            }
            before.push((level, front, start));
            after.push((level, end, back));
            (front, back) = (start, end);
        }
        before.push((Self::LONGEST, front, back));
        before.extend(after.into_iter().rev());
        // Each range lies within the period, so it is a valid period.
        before.into_iter().filter_map(|(level, start, end)| {
            let range = Period::new(start, end).ok()?;
            (!range.is_empty()).then_some((level, range))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cover_is_the_period_in_whole_rows_and_few_of_them(start in -200i64..200, length in 0i64..4000) {
            let period = Period::new(Quarter::new(start), Quarter::new(start + length)).unwrap();
            let cover: Vec<_> = Level::cover(period).collect();
            let mut at = period.start();
            let mut rows = 0;
            for (level, range) in &cover {
                prop_assert_eq!(range.start(), at, "no gap and no overlap");
                prop_assert_eq!(level.start_of(range.start()), range.start(), "whole rows");
                prop_assert_eq!(level.start_of(range.end()), range.end(), "whole rows");
                rows += (range.end().get() - range.start().get()) / level.quarters();
                at = range.end();
            }
            prop_assert_eq!(at, period.end());
            prop_assert!(cover.len() <= 7);
            // Each edge of the period needs at most 3 rows of quarters, 5 rows of hours and 3 rows of six hours.
            prop_assert!(rows <= length / 96 + 2 * (3 + 5 + 3), "{rows} rows for {length} quarters");
        }
    }
}

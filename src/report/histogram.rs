use serde::{Deserialize, Serialize};

use super::plausible::is_plausible_count;

/// The bounds of the buckets within one power of two. Entry j is 2^(127 + j/32), rounded down to a whole number.
///
/// For j > 0 the exact bound is irrational. So a whole number is at most the bound exactly if it is at most the entry.
const BOUNDS: [u128; 32] = [
    0x8000_0000_0000_0000_0000_0000_0000_0000,
    0x82cd_8698_ac2b_a1d7_3e2a_475b_4652_0bff,
    0x85aa_c367_cc48_7b14_c5c9_5b8c_2154_c1b2,
    0x8898_0e80_92da_8527_5df8_d76c_98c6_7562,
    0x8b95_c1e3_ea8b_d6e6_fbe4_6287_58a5_3c90,
    0x8ea4_398b_45cd_53c0_2dc0_144c_8783_d4c5,
    0x91c3_d373_ab11_c336_0fd6_d8e0_ae5a_c9d8,
    0x94f4_efa8_fef7_0961_2e8a_fad1_2551_de54,
    0x9837_f051_8db8_a96f_46ad_2318_2e42_f6f6,
    0x9b8d_39b9_d54e_5538_a2a8_17a2_a3cc_3f1f,
    0x9ef5_3260_91a1_11ad_a091_1f09_ebb9_fdd1,
    0xa270_4303_0c49_6818_9b7a_04ef_80cf_dea7,
    0xa5fe_d6a9_b151_38ea_1cbd_7f62_1710_701b,
    0xa9a1_5ab4_ea7c_0ef8_541e_24ec_3531_fa73,
    0xad58_3eea_42a1_4ac6_4980_a8c8_f59a_2ec4,
    0xb123_f581_d2ac_258f_87d0_37e9_6d21_5d8e,
    0xb504_f333_f9de_6484_597d_89b3_754a_be9f,
    0xb8fb_af47_62fb_9ee9_1b87_9778_566b_65a1,
    0xbd08_a39f_580c_36be_a881_1fb6_6d0f_af7a,
    0xc12c_4cca_6670_9456_7c45_7d59_a500_87b5,
    0xc567_2a11_5506_dadd_3e2a_d0c9_64dd_9f37,
    0xc9b9_bd86_6e2f_27a2_80e1_f92a_0511_697e,
    0xce24_8c15_1f84_80e3_e235_838f_95f2_c6ed,
    0xd2a8_1d91_f12a_e45a_1224_8e57_c3de_4028,
    0xd744_fcca_d69d_6af4_39a6_8bb9_902d_3fde,
    0xdbfb_b797_daf2_3755_3d84_0d5a_9e29_aa64,
    0xe0cc_deec_2a94_e111_0658_9504_8dd3_33ca,
    0xe5b9_06e7_7c83_48a8_1e5e_8f4a_4edb_b0ec,
    0xeac0_c6e7_dd24_392e_d02d_75b3_706e_54fa,
    0xefe4_b99b_dcda_f5cb_4656_1cf6_948d_b912,
    0xf525_7d15_2486_cc2c_7b9d_0c7a_ed98_0fc3,
    0xfa83_b2db_722a_033a_7c25_bb14_315d_7fcc,
];

/// The number of buckets in one power of two.
const BUCKETS_PER_DOUBLING: u16 = 32;

/// The number of a bucket: 0 for the value 0, else k + 1, where bucket k is the range (2^((k-1)/32), 2^(k/32)].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Place(u16);

impl Place {
    /// Returns the bucket of a value. It uses integers only.
    fn of(value: u128) -> Self {
        let Some(log) = value.checked_ilog2() else { return Self(0) };
        // Scale the value to the range from 2^127 to below 2^128.
        let scaled = value << (127 - log);
        let within = BOUNDS.partition_point(|bound| *bound < scaled);
        // `log` is below 128 and `within` at most 32, so neither is cut.
        #[expect(clippy::cast_possible_truncation, reason = "at most 127 * 32 + 32 + 1")]
        Self((log as u16) * BUCKETS_PER_DOUBLING + within as u16 + 1)
    }

    /// Returns the value that stands for the bucket: the geometric mean of its bounds. It is at most 1.1 % off any
    /// value in the bucket.
    fn middle(self) -> f64 {
        if self.0 == 0 {
            return 0.0;
        }
        let k = f64::from(self.0 - 1);
        ((k - 0.5) / f64::from(BUCKETS_PER_DOUBLING)).exp2()
    }
}

/// How many values fell into each bucket of an exponential scale. Empty buckets are not stored.
///
/// Histograms add and subtract exactly, in any order. A count may be negative in between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Histogram {
    /// The counts that are not 0, sorted by bucket, so that equal contents are equal values. Reading and merging a
    /// sorted list is several times as fast as a tree.
    counts: Vec<(Place, i64)>,
}

impl Histogram {
    /// Counts a value.
    pub(super) fn record(&mut self, value: u128) {
        self.change(Place::of(value), 1);
    }

    fn change(&mut self, place: Place, by: i64) {
        match self.counts.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) if self.counts[at].1 == -by => {
                self.counts.remove(at);
            }
            Ok(at) => self.counts[at].1 += by,
            Err(_) if by == 0 => {}
            Err(at) => self.counts.insert(at, (place, by)),
        }
    }

    /// Adds the counts of another histogram.
    pub(super) fn add(&mut self, other: &Self) {
        self.merge(&other.counts, 1);
    }

    /// Subtracts the counts of another histogram.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.merge(&other.counts, -1);
    }

    /// Adds the counts `other`, which are sorted too, each multiplied by `sign`.
    fn merge(&mut self, other: &[(Place, i64)], sign: i64) {
        // One turn has few values, and a row of many turns has many buckets. If `other` is much shorter, changing its
        // few buckets in place avoids a copy of all others.
        if other.len() <= 1 || other.len() * 8 <= self.counts.len() {
            for (place, count) in other {
                self.change(*place, sign * count);
            }
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len() + other.len());
        let (mut own, mut others) = (self.counts.iter().copied().peekable(), other.iter().copied().peekable());
        loop {
            let (place, count) = match (own.peek(), others.peek()) {
                (Some((one, count)), Some((other, more))) if one == other => (*one, count + sign * more),
                (Some((one, count)), Some((other, _))) if one < other => (*one, *count),
                (Some((one, count)), None) => (*one, *count),
                (_, Some((other, more))) => (*other, sign * more),
                (None, None) => break,
            };
            own.next_if(|(one, _)| *one == place);
            others.next_if(|(other, _)| *other == place);
            if count != 0 {
                merged.push((place, count));
            }
        }
        self.counts = merged;
    }

    /// Returns the number of counts that are not 0.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns the counts that are not 0, with the numbers of their buckets.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u16, i64)> {
        self.counts.iter().map(|(place, count)| (place.0, *count))
    }

    /// Returns whether a histogram from outside can be added to others: its buckets are in order, and it has few
    /// enough values.
    fn is_plausible(&self) -> bool {
        let total = self.counts.iter().try_fold(0i64, |sum, (_, count)| sum.checked_add(*count));
        self.counts.iter().all(|(place, count)| *place <= Place::of(u128::MAX) && *count > 0)
            && self.counts.is_sorted_by(|(one, _), (other, _)| one < other)
            && total.is_some_and(is_plausible_count)
    }

    /// Returns how many values are counted.
    pub(super) fn count(&self) -> i64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Returns the value at the nearest rank of `percent`, at most 1.1 % off. `None` if nothing is counted.
    pub(super) fn percentile(&self, percent: u8) -> Option<f64> {
        let count = self.count();
        // The nearest rank is the smallest rank that has at least this share of the values at or below it.
        let rank = (i128::from(count) * i128::from(percent)).div_euclid(100)
            + i128::from((i128::from(count) * i128::from(percent)).rem_euclid(100) > 0);
        let rank = rank.max(1);
        let mut below = 0;
        for (place, count) in &self.counts {
            below += i128::from(*count);
            if below >= rank {
                return Some(place.middle());
            }
        }
        None
    }
}

/// A histogram, with the smallest and the largest value that was ever recorded.
///
/// Values can be subtracted again; the extremes stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Distribution {
    histogram: Histogram,
    extremes: Option<(u128, u128)>,
}

impl Distribution {
    /// Returns the number of counts in the distribution that are not 0.
    pub(super) fn len(&self) -> usize {
        self.histogram.len()
    }

    /// Counts a value.
    pub(super) fn record(&mut self, value: u128) {
        self.histogram.record(value);
        self.widen(Some((value, value)));
    }

    /// Adds another distribution.
    pub(super) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram);
        self.widen(other.extremes);
    }

    /// Subtracts the values of another distribution. The extremes stay, and cover those of the other distribution too.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.histogram.subtract(&other.histogram);
        self.widen(other.extremes);
    }

    /// Returns whether a distribution from outside can be added to others.
    pub(super) fn is_plausible(&self) -> bool {
        let has_extremes = match self.extremes {
            Some((min, max)) => min <= max,
            None => self.histogram.counts.is_empty(),
        };
        has_extremes && self.histogram.is_plausible()
    }

    fn widen(&mut self, other: Option<(u128, u128)>) {
        self.extremes = match (self.extremes, other) {
            (Some((min, max)), Some((other_min, other_max))) => Some((min.min(other_min), max.max(other_max))),
            (one, None) | (None, one) => one,
        };
    }

    /// Returns the counts.
    pub(super) fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// Returns the smallest and the largest value that was ever recorded.
    pub(super) fn extremes(&self) -> Option<(u128, u128)> {
        self.extremes
    }

    /// Returns the value at the nearest rank of `percent`, within the extremes. `None` if nothing is counted.
    pub(super) fn percentile(&self, percent: u8) -> Option<f64> {
        let (min, max) = self.extremes?;
        #[expect(clippy::cast_precision_loss, reason = "a bucket is far wider than what a float rounds")]
        self.histogram.percentile(percent).map(|value| value.clamp(min as f64, max as f64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Multiplies two numbers of base-2^32 digits, lowest digit first. That checks the bounds without floats.
    fn product(a: &[u32], b: &[u32]) -> Vec<u32> {
        let mut digits = vec![0u32; a.len() + b.len()];
        for (i, x) in a.iter().enumerate() {
            let mut carry = 0u64;
            for (j, y) in b.iter().enumerate() {
                let sum = u64::from(*x) * u64::from(*y) + u64::from(digits[i + j]) + carry;
                digits[i + j] = u32::try_from(sum & 0xffff_ffff).unwrap();
                carry = sum >> 32;
            }
            digits[i + b.len()] = u32::try_from(carry).unwrap();
        }
        digits
    }

    /// Compares `bound`^32 with 2^`exponent`.
    fn power_compared(bound: u128, exponent: usize) -> std::cmp::Ordering {
        let mut power: Vec<u32> = (0..4).map(|i| u32::try_from(bound >> (32 * i) & 0xffff_ffff).unwrap()).collect();
        for _ in 0..5 {
            power = product(&power, &power);
        }
        let mut two = vec![0u32; power.len()];
        two[exponent / 32] = 1 << (exponent % 32);
        power.iter().rev().cmp(two.iter().rev())
    }

    #[test]
    fn each_bound_is_the_root_rounded_down() {
        for (j, bound) in BOUNDS.iter().enumerate() {
            let exponent = 127 * 32 + j;
            assert!(power_compared(*bound, exponent).is_le(), "{j}");
            assert!(power_compared(*bound + 1, exponent).is_gt(), "{j}");
        }
    }

    #[test]
    fn a_power_of_two_ends_its_bucket_and_the_next_number_begins_another() {
        assert_eq!(Place::of(0), Place(0));
        for log in 0..128u16 {
            let power = 1u128 << log;
            assert_eq!(Place::of(power), Place(log * 32 + 1), "2^{log}");
            if log > 5 {
                assert_eq!(Place::of(power + 1), Place(log * 32 + 2), "2^{log} + 1");
            }
        }
        assert_eq!(Place::of(u128::MAX), Place(128 * 32 + 1));
        // 2^(1/32) * 2^20 is 1,071,536.03.
        assert_eq!(Place::of(1_071_536), Place(20 * 32 + 2));
        assert_eq!(Place::of(1_071_537), Place(20 * 32 + 3));
    }

    #[test]
    fn a_percentile_is_of_the_nearest_rank_and_within_the_extremes() {
        let mut distribution = Distribution::default();
        assert_eq!((distribution.percentile(50), distribution.histogram().count()), (None, 0));
        distribution.record(1_000);
        for percent in [0, 1, 50, 99, 100] {
            assert_eq!(distribution.percentile(percent), Some(1_000.0), "one value is all percentiles, exactly");
        }
        for value in [0, 0, 4_000] {
            distribution.record(value);
        }
        // The values are 0, 0, 1000 and 4000. By the nearest rank, the 50th percentile is the 2nd value, the 51st and
        // the 75th are the 3rd, and the 76th is the 4th.
        let near =
            |percent, expected: f64| (distribution.percentile(percent).unwrap() - expected).abs() / 1_000.0 < 0.05;
        assert_eq!(distribution.percentile(50), Some(0.0));
        assert!(near(51, 1_000.0) && near(75, 1_000.0) && near(76, 4_000.0));
        assert_eq!(distribution.histogram().count(), 4);
    }

    #[test]
    fn the_extremes_stay_when_values_are_taken_out() {
        let (mut all, mut part) = (Distribution::default(), Distribution::default());
        all.record(5);
        part.record(9);
        all.add(&part);
        all.subtract(&part);
        assert_eq!((all.extremes(), all.histogram().count()), (Some((5, 9)), 1));
    }

    fn value() -> impl Strategy<Value = u128> {
        prop_oneof![
            0u128..100,
            1_000_000u128..10_000_000_000,
            (0u32..128).prop_flat_map(|log| (1u128 << log)..=(1u128 << log).saturating_mul(2)),
        ]
    }

    proptest! {
        #[test]
        fn a_percentile_is_near_the_nearest_rank_of_the_plain_list(
            mut values in vec(value(), 1..200),
            percent in 0u8..=100,
        ) {
            let mut distribution = Distribution::default();
            for value in &values {
                distribution.record(*value);
            }
            values.sort_unstable();
            let rank = (values.len() * usize::from(percent)).div_ceil(100).max(1);
            #[expect(clippy::cast_precision_loss, reason = "within the tolerance")]
            let exact = values[rank - 1] as f64;
            let shown = distribution.percentile(percent).unwrap();
            prop_assert!((shown - exact).abs() <= 0.011 * exact, "{shown} for {exact}");
        }

        #[test]
        fn a_histogram_without_what_was_added_is_as_before(
            kept in vec(value(), 0..20), taken in vec(value(), 0..20),
        ) {
            let of = |values: &[u128]| {
                let mut histogram = Histogram::default();
                for value in values {
                    histogram.record(*value);
                }
                histogram
            };
            let (before, part) = (of(&kept), of(&taken));
            let mut after = before.clone();
            // The values are subtracted before they are added, so counts are negative in between.
            after.subtract(&part);
            after.add(&part);
            prop_assert_eq!(&after, &before);
            let bytes = postcard::to_stdvec(&before).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Histogram>(&bytes).unwrap(), before);
        }
    }
}

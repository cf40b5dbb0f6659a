//! Limits of sums that come from outside, so that adding very many of them cannot overflow. The sums of any real store are
//! far below the limits.

/// Returns whether a sum is so small that 2^26 such sums can be added.
pub(super) fn is_plausible_sum(sum: i128) -> bool {
    sum.unsigned_abs() <= 1 << 100
}

/// Returns whether the number of values of a histogram is so small that 2^22 such histograms can be added.
pub(super) fn is_plausible_count(count: i64) -> bool {
    (0..=1 << 40).contains(&count)
}

use std::ops::RangeInclusive;

/// The `SplitMix64` generator, implemented here so that a simulation stays the same with any version of a library.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, or 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The remainder makes small numbers slightly more likely, which does not matter in a simulation.
        usize::try_from(self.next() % (end as u64).max(1)).unwrap_or_default()
    }

    /// Returns a number within the range.
    pub(crate) fn within(&mut self, range: RangeInclusive<u32>) -> u32 {
        let span = u64::from(range.end() - range.start()) + 1;
        range.start() + u32::try_from(self.next() % span).unwrap_or_default()
    }

    /// Returns `true` once in `times` calls on average.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.next().is_multiple_of(u64::from(times))
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.get(self.below(from.len())).copied().unwrap_or_default()
    }
}

use std::fmt;

use crate::report::cost::{PicoDollars, PricedStep};

/// The price of a million tokens in whole pico-dollars, so that each decimal price is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(u64);

/// The text is not a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a price is a plain decimal number of dollars from 0 to 1000000, with at most 12 places")]
pub(super) struct InvalidRate;

const PLACES: usize = 12;
const TOKENS: u128 = 1_000_000;

impl Rate {
    /// The largest rate, a million dollars for a million tokens.
    const MAX: u64 = 1_000_000_000_000_000_000;

    /// Reads a price in dollars per million tokens, such as `3` or `0.075`, without using a float.
    pub(super) fn parse(dollars: &str) -> Result<Self, InvalidRate> {
        let (whole, places) = dollars.split_once('.').unwrap_or((dollars, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(places) || places.len() > PLACES {
            return Err(InvalidRate);
        }
        let pico_dollars = format!("{whole}{places:0<PLACES$}").parse().map_err(|_| InvalidRate)?;
        if pico_dollars <= Self::MAX { Ok(Self(pico_dollars)) } else { Err(InvalidRate) }
    }

    /// Returns the rate that is nearest to a number of dollars per million tokens. `None` if the number is out of
    /// range.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^18")]
    pub(super) fn nearest(dollars: f64) -> Option<Self> {
        (0.0..=1e6).contains(&dollars).then(|| Self((dollars * 1e12).round() as u64))
    }

    /// Returns the price of a million tokens in pico-dollars.
    pub fn get(self) -> u64 {
        self.0
    }

    fn times(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

/// Writes the price in dollars per million tokens, without trailing zeros.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = PicoDollars::new(self.0.into()).to_string();
        f.write_str(dollars.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The rates of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// The rate for tokens of a prompt that were neither read from a cache nor written to one.
    pub input: Rate,
    /// The rate for tokens that the model writes.
    pub output: Rate,
    /// The rate for tokens of a prompt that are read from the cache.
    pub cache_read: Rate,
    /// The rate for tokens of a prompt that are written to the cache.
    pub cache_write: Rate,
    /// The rate for tokens of a prompt that are written to the cache for an hour.
    pub cache_write_1h: Rate,
}

impl Rates {
    /// Returns the price of a step, rounded once. Half a pico-dollar is rounded up.
    pub(super) fn price(&self, step: &PricedStep<'_>) -> PicoDollars {
        let for_an_hour = step.cache_write_1h_tokens.min(step.cache_write_tokens);
        let uncached =
            step.prompt_tokens.saturating_sub(step.cache_read_tokens).saturating_sub(step.cache_write_tokens);
        // Each term is below 2^64 * 2^60, so the sum does not overflow.
        let sum = self.input.times(uncached)
            + self.output.times(step.output_tokens)
            + self.cache_read.times(step.cache_read_tokens)
            + self.cache_write.times(step.cache_write_tokens - for_an_hour)
            + self.cache_write_1h.times(for_an_hour);
        // After division by a million the sum fits into an `i128`.
        PicoDollars::new(((sum + TOKENS / 2) / TOKENS).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_exactly_and_written_back() {
        for (text, pico_dollars, written) in [
            ("3", 3_000_000_000_000, "3"),
            ("0.075", 75_000_000_000, "0.075"),
            ("3.750", 3_750_000_000_000, "3.75"),
            ("0", 0, "0"),
            ("10.0", 10_000_000_000_000, "10"),
            // As a float, neither number is exact.
            ("0.1", 100_000_000_000, "0.1"),
            ("0.083333333333", 83_333_333_333, "0.083333333333"),
            ("1000000", Rate::MAX, "1000000"),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.get(), rate.to_string().as_str()), (pico_dollars, written), "{text}");
        }
        for bad in [
            "",
            ".",
            "3.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "nan",
            "1,5",
            " 1",
            "0.0000000000001",
            "1000000.1",
            "99999999999999",
        ] {
            assert_eq!(Rate::parse(bad), Err(InvalidRate), "{bad}");
        }
    }

    #[test]
    fn a_float_becomes_the_decimal_that_it_stands_for() {
        assert_eq!(Rate::nearest(0.1 + 0.2).unwrap().to_string(), "0.3");
        for bad in [f64::NAN, -1.0, 1e7, f64::INFINITY] {
            assert_eq!(Rate::nearest(bad), None);
        }
    }
}

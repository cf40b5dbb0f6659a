use crate::readable;
use crate::report::PicoDollars;

/// What the values of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Whole numbers.
    Tokens,
    /// US dollars.
    Dollars,
    /// Milliseconds.
    Millis,
    /// Tokens per second.
    TokensPerSecond,
    /// A share from 0 to 1, shown in percent.
    Share,
}

impl Unit {
    /// Returns the words that stand at the axis.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Dollars => "US dollars",
            Self::Millis => "time",
            Self::TokensPerSecond => "tokens per second",
            Self::Share => "percent",
        }
    }

    /// Formats a value with its unit.
    pub(crate) fn text(self, value: f64) -> String {
        match self {
            Self::Tokens => format!("{} tokens", readable::short(value)),
            // The value was a whole number of pico-dollars. The text has few digits, so the float is exact enough.
            #[expect(clippy::cast_possible_truncation, reason = "shown with four places at most")]
            Self::Dollars => {
                let usd = PicoDollars::new((value * 1e12) as i128);
                format!("${}", readable::dollars(usd, readable::dollar_places(usd)))
            }
            Self::Millis => readable::duration(value),
            Self::TokensPerSecond => format!("{} tokens/s", readable::speed(value)),
            Self::Share => readable::share(value),
        }
    }

    /// Formats a value with few characters, as it stands above a bar. `top` is the end of the axis: the values of a chart have
    /// the same number of places.
    pub(crate) fn short(self, value: f64, top: f64) -> String {
        match self {
            Self::Tokens => readable::short(value),
            Self::Dollars if value >= 1000.0 => format!("${}", readable::short(value)),
            Self::Dollars if top < 1.0 => format!("${value:.4}"),
            Self::Dollars => format!("${value:.2}"),
            _ => self.text(value),
        }
    }

    /// Formats the value of a tick. All ticks of a scale use one unit.
    fn tick(self, value: f64, top: f64) -> String {
        match self {
            Self::Tokens | Self::TokensPerSecond => readable::short(value),
            Self::Dollars => format!("${}", readable::short(value)),
            Self::Millis if top >= 1000.0 => format!("{} s", readable::short(value / 1000.0)),
            Self::Millis => format!("{} ms", readable::short(value)),
            Self::Share => format!("{}%", readable::short(value * 100.0)),
        }
    }
}

/// The values from 0 to a round number above the largest value, with ticks at round numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    /// The value at the end of the axis; above 0.
    pub(crate) top: f64,
    /// Values with their texts, from 0 on. The last one is `top`.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// Returns a scale for values up to the largest one.
    pub(crate) fn new(unit: Unit, largest: f64) -> Self {
        /// The number of parts that a scale has at least, if its values are not all small whole numbers.
        const PARTS: f64 = 3.0;
        let largest = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
        let largest = if unit == Unit::Share { 1.0 } else { largest };
        let smallest_step = if unit == Unit::Tokens { 1.0 } else { f64::MIN_POSITIVE };
        let step = match unit {
            Unit::Share => 0.25,
            _ => round_down(largest / PARTS).max(smallest_step),
        };
        let parts = (largest / step - 1e-9).ceil().max(1.0);
        let top = step * parts;
        let mut ticks = Vec::new();
        let mut part = 0.0;
        while part <= parts {
            ticks.push((part * step, unit.tick(part * step, top)));
            part += 1.0;
        }
        Self { top, ticks }
    }

    /// Returns where a value lies, from 0 to 1.
    pub(crate) fn share(&self, value: f64) -> f64 {
        (value / self.top).clamp(0.0, 1.0)
    }
}

/// Returns the largest number that is at most `number` and is 1, 2 or 5 times a power of ten.
fn round_down(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    let factor = [5.0, 2.0].into_iter().find(|factor| number >= factor * power).unwrap_or(1.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(unit: Unit, largest: f64) -> Vec<String> {
        Scale::new(unit, largest).ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_in_one_unit() {
        assert_eq!(texts(Unit::Tokens, 1_234_567.0), ["0", "200k", "400k", "600k", "800k", "1M", "1.2M", "1.4M"]);
        assert_eq!(texts(Unit::Dollars, 0.9), ["$0", "$0.2", "$0.4", "$0.6", "$0.8", "$1"]);
        assert_eq!(texts(Unit::Millis, 480.0), ["0 ms", "100 ms", "200 ms", "300 ms", "400 ms", "500 ms"]);
        assert_eq!(texts(Unit::Millis, 1600.0), ["0 s", "0.5 s", "1 s", "1.5 s", "2 s"]);
        assert_eq!(texts(Unit::TokensPerSecond, 60.0), ["0", "20", "40", "60"]);
        assert_eq!(texts(Unit::Share, 0.3), ["0%", "25%", "50%", "75%", "100%"]);
    }

    #[test]
    fn a_value_above_a_bar_is_short() {
        let dollars = |top| [0.004, 0.996, 123_456.0].map(|usd| Unit::Dollars.short(usd, top));
        assert_eq!(dollars(2.0), ["$0.00", "$1.00", "$123k"]);
        assert_eq!(dollars(0.999), ["$0.0040", "$0.9960", "$123k"], "the values of a chart have the same places");
        assert_eq!(Unit::Tokens.short(1_234_567.0, 2e6), "1.23M");
        assert_eq!([0.25, 1.25].map(|usd| Unit::Dollars.text(usd)), ["$0.2500", "$1.25"]);
    }

    #[test]
    fn tokens_are_whole_and_no_scale_is_empty() {
        assert_eq!(texts(Unit::Tokens, 2.0), ["0", "1", "2"]);
        for nothing in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(texts(Unit::Tokens, nothing), ["0", "1"]);
        }
    }

    #[test]
    fn every_scale_holds_its_values_and_has_few_ticks() {
        for exponent in -12..300 {
            for factor in [1.0, 1.5, 1.999_999, 3.0, 5.0, 7.3, 9.99] {
                let largest = factor * 10_f64.powi(exponent);
                for unit in [Unit::Dollars, Unit::Millis, Unit::Tokens] {
                    let scale = Scale::new(unit, largest);
                    assert!(scale.top >= largest * (1.0 - 1e-9), "{largest} is above {scale:?}");
                    assert!((2..=9).contains(&scale.ticks.len()), "{largest}: {scale:?}");
                    assert!(scale.ticks.is_sorted_by(|one, other| one.0 < other.0));
                }
            }
        }
    }

    #[test]
    fn a_value_lies_within_the_scale() {
        let scale = Scale::new(Unit::Tokens, 100.0);
        for (value, expected) in [(-5.0, 0.0), (0.0, 0.0), (60.0, 60.0 / scale.top), (1e9, 1.0)] {
            assert!((scale.share(value) - expected).abs() < 1e-12, "{value}");
        }
    }
}

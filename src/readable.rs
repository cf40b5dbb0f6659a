//! Figures as people read them: few digits, with a unit where one is needed. Programs read the exact figures from JSON
//! and CSV.

use crate::report::PicoDollars;

/// Numbers from this limit on are shown as a power of ten, so that a kernel's absurd value does not take much room. As
/// milliseconds, the limit is 31 years.
const LONGEST: f64 = 1e12;

/// Returns a sum as a float.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub(crate) fn float(sum: i128) -> f64 {
    sum as f64
}

/// Formats a number with three digits. A number that is rounded up to one more digit has one decimal place less.
fn three_digits(number: f64) -> String {
    match number.abs() {
        99.95.. => format!("{number:.0}"),
        9.995.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Formats a count in millions, with at least three digits. Counts below a million are written whole.
pub(crate) fn in_millions(count: i128) -> String {
    if count.abs() < 1_000_000 { count.to_string() } else { three_digits(float(count) / 1e6) + "M" }
}

/// Formats a number with at most three digits, and a letter for thousands, millions and so on. It has no zeros at its
/// end, as on the axis of a chart.
pub(crate) fn short(number: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    /// From this part of a unit on, three digits are rounded up to the whole unit.
    const NEARLY_ONE: f64 = 0.9995;
    if number.abs() >= 1e15 {
        return format!("{number:.1e}");
    }
    let (unit, letter) = UNITS.into_iter().find(|(unit, _)| number.abs() >= unit * NEARLY_ONE).unwrap_or((1.0, ""));
    let digits = three_digits(number / unit);
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{letter}")
}

/// Formats a count. Counts of five digits and more are shortened to three digits and a letter.
pub(crate) fn count(count: i128) -> String {
    if count.abs() < 10_000 { grouped(count) } else { short(float(count)) }
}

/// Formats a count with all its digits, in groups of three.
pub(crate) fn grouped(count: i128) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::from(if count < 0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats dollars with this number of places, at most 12, rounded half up. An amount above zero is never shown as
/// zero.
pub(crate) fn dollars(usd: PicoDollars, places: u32) -> String {
    let unit = 10_i128.pow(12 - places);
    let (pico, scale) = (usd.get(), 10_i128.pow(places));
    let units = (pico + unit / 2).div_euclid(unit);
    if units == 0 && pico > 0 {
        return format!("<0.{:0>width$}", 1, width = places as usize);
    }
    let sign = if units < 0 { "-" } else { "" };
    let units = units.abs();
    format!("{sign}{}.{:0>width$}", units / scale, units % scale, width = places as usize)
}

/// Returns with how many places an amount of dollars is shown: in cents, or with four places if it is less than a dollar.
pub(crate) fn dollar_places(usd: PicoDollars) -> u32 {
    if usd.get().abs() < PicoDollars::PER_DOLLAR { 4 } else { 2 }
}

/// Formats the price of a million tokens, without trailing zeros.
pub(crate) fn rate(usd: PicoDollars) -> String {
    let text = usd.to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Formats a share in percent.
pub(crate) fn share(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Formats a time in milliseconds, without its unit. The fraction matters only for times below a hundredth of a second.
pub(crate) fn millis(millis: f64) -> String {
    match millis {
        LONGEST.. => format!("{millis:.1e}"),
        10.0.. => format!("{millis:.0}"),
        _ => format!("{millis:.2}"),
    }
}

/// Formats a time in milliseconds with the unit that suits it.
pub(crate) fn duration(millis: f64) -> String {
    const SECOND: f64 = 1000.0;
    const MINUTE: f64 = 60.0 * SECOND;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let two = |large: f64, large_name: &str, small: f64, small_name: &str| {
        let smalls = (millis / small).round();
        let in_a_large = (large / small).round();
        format!("{} {large_name} {} {small_name}", (smalls / in_a_large).floor(), smalls % in_a_large)
    };
    match millis {
        LONGEST.. => format!("{millis:.1e} ms"),
        _ if millis >= 2.0 * DAY => format!("{} days", three_digits(millis / DAY)),
        _ if millis >= HOUR - 30.0 * SECOND => two(HOUR, "h", MINUTE, "min"),
        _ if millis >= MINUTE - SECOND / 2.0 => two(MINUTE, "min", SECOND, "s"),
        // Three digits of a second.
        _ if millis >= 999.5 => format!("{} s", three_digits(millis / SECOND)),
        _ => format!("{} ms", self::millis(millis)),
    }
}

/// Formats a rate in tokens per second, without its unit.
pub(crate) fn speed(speed: f64) -> String {
    if speed < LONGEST { format!("{speed:.1}") } else { format!("{speed:.1e}") }
}

/// Formats a number of bytes.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.into_iter().find(|(power, _)| bytes >> power > 0) {
        Some((power, unit)) => {
            format!("{} {unit}", three_digits(float(bytes.into()) / float(1_i128 << power)))
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_millions_have_at_least_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999_999, "999999"),
            (1_000_000, "1.00M"),
            (9_994_999, "9.99M"),
            (9_995_001, "10.0M"),
            (99_949_000, "99.9M"),
            (99_950_001, "100M"),
            (1_234_567_890, "1235M"),
            (-2_500_000, "-2.50M"),
        ] {
            assert_eq!(in_millions(number), text);
        }
    }

    #[test]
    fn counts_are_short_or_have_groups_of_digits() {
        for (number, short, whole) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (9_999, "9,999", "9,999"),
            (10_000, "10k", "10,000"),
            (12_345, "12.3k", "12,345"),
            (999_499, "999k", "999,499"),
            (999_500, "1M", "999,500"),
            (1_234_567, "1.23M", "1,234,567"),
            (5_000_000_000, "5B", "5,000,000,000"),
            (-12_345, "-12.3k", "-12,345"),
            (i128::MAX, "1.7e38", "170,141,183,460,469,231,731,687,303,715,884,105,727"),
        ] {
            assert_eq!((count(number).as_str(), grouped(number).as_str()), (short, whole));
        }
        assert_eq!([0.25, 2.5, 100.0, 250_000.0].map(short), ["0.25", "2.5", "100", "250k"]);
    }

    #[test]
    fn dollars_are_rounded_half_up_and_never_shown_as_nothing() {
        for (pico, text) in [
            (50_400_000_000, "0.0504"),
            (50_450_000_000, "0.0505"),
            (1, "<0.0001"),
            (0, "0.0000"),
            (-50_400_000_000, "-0.0504"),
        ] {
            assert_eq!(dollars(PicoDollars::new(pico), 4), text);
        }
    }

    #[test]
    fn a_rate_has_no_zeros_at_its_end() {
        for (pico, text) in [(0, "0"), (3_000_000_000_000, "3"), (300_000_000_000, "0.3"), (1, "0.000000000001")] {
            assert_eq!(rate(PicoDollars::new(pico)), text);
        }
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        for (millis, text) in [
            (0.0, "0.00 ms"),
            (9.994, "9.99 ms"),
            (850.4, "850 ms"),
            (999.4, "999 ms"),
            (999.5, "1.00 s"),
            (1240.0, "1.24 s"),
            (59_499.0, "59.5 s"),
            (59_500.0, "1 min 0 s"),
            (125_000.0, "2 min 5 s"),
            (3_569_000.0, "59 min 29 s"),
            (3_570_000.0, "1 h 0 min"),
            (11_520_000.0, "3 h 12 min"),
            (172_800_000.0, "2.00 days"),
            (1e12, "1.0e12 ms"),
            (f64::MAX, "1.8e308 ms"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn shares_speeds_and_bytes_have_few_digits() {
        assert_eq!(share(0.7249), "72.5%");
        assert_eq!([1000.0, 1e308].map(speed), ["1000.0", "1.0e308"]);
        assert_eq!([9.994, 10.4, 999_999_999_999.0, 1e12].map(millis), ["9.99", "10", "999999999999", "1.0e12"]);
        assert_eq!(
            [0, 1023, 1024, 1_500_000, 1 << 40].map(bytes),
            ["0 bytes", "1023 bytes", "1.00 KiB", "1.43 MiB", "1.00 TiB"]
        );
    }
}

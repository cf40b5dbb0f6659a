//! Writes numbers as ECMAScript's `JSON.stringify` does, so that equal metrics are equal bytes in both languages.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// 2^53. Whole numbers below it are exact as floats, and every implementation writes them alike.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns the number as an integer if it is whole and below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 2^53")]
pub(super) fn exact_whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..EXACT).contains(&number)).then_some(number as u64)
}

/// Writes a finite number.
pub(crate) fn serialize_number<S: Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(whole) = exact_whole(number) {
        return serializer.serialize_u64(whole);
    }
    // `serde_json` and ECMAScript write fractions from 1e-5 to 2^53 alike. Other numbers are passed on as raw text. A
    // binary format writes its own numbers.
    if (1e-5..EXACT).contains(&number) || !serializer.is_human_readable() {
        return serializer.serialize_f64(number);
    }
    match RawValue::from_string(ryu_js::Buffer::new().format_finite(number).to_owned()) {
        Ok(text) => text.serialize(serializer),
        Err(_) => serializer.serialize_f64(number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Number(f64);

    impl Serialize for Number {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serialize_number(self.0, serializer)
        }
    }

    proptest! {
        #[test]
        fn every_number_is_written_as_ecmascript_does(
            number in prop_oneof![
                any::<f64>().prop_filter("a finite number", |number| number.is_finite()),
                -1e-4..1e-4,
                0.0..1e24,
                (-1e17..1e17).prop_map(f64::trunc),
                (0u64..1 << 60).prop_map(|whole| f64::from_bits(whole.cast_signed().cast_unsigned()).max(0.0)),
            ],
        ) {
            let written = serde_json::to_string(&Number(number)).unwrap();
            let mut buffer = ryu_js::Buffer::new();
            prop_assert_eq!(written, buffer.format_finite(number));
        }
    }
}

//! The place of a sealed turn in the order of all turns, and its text.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The id of one history of a store. Positions and revisions of different histories cannot be compared.
///
/// A store draws a new lineage when it is created, restored from a backup, or repaired, since it may then lack turns
/// that readers have seen. Each restore draws another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage(pub Uuid);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// The place of a sealed turn in the order in which all turns of a store became durable. A reader who has seen a
/// position has missed nothing before it.
///
/// Displays as a text of fixed length that begins with the lineage. Within a lineage, sorting
/// the texts by their bytes sorts the positions.
///
/// ```
/// use turn_metrics::store::Position;
///
/// let text = "0198c5a2b8f94c1e8d1f2a3b4c5d6e7f-000000000000002a";
/// let position: Position = text.parse()?;
/// assert_eq!((position.number, position.to_string().as_str()), (42, text));
/// # Ok::<(), turn_metrics::store::InvalidPosition>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The history that the position belongs to.
    pub lineage: Lineage,
    /// The turns have the numbers 1, 2, 3, ... without a gap. 0 is the place before all turns.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.lineage, self.number)
    }
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is 32 hexadecimal digits, a hyphen and 16 more, all in lower case")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (lineage, number) = text.split_once('-').ok_or(InvalidPosition)?;
        let lineage = Uuid::try_parse(lineage).map_err(|_| InvalidPosition)?;
        let number = u64::from_str_radix(number, 16).map_err(|_| InvalidPosition)?;
        let position = Self { lineage: Lineage(lineage), number };
        // A second text for the same position would sort differently.
        if position.to_string() == text { Ok(position) } else { Err(InvalidPosition) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(lineage: u128, number: u64) -> Position {
        Position { lineage: Lineage(Uuid::from_u128(lineage)), number }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_equal_and_its_text_sorts_as_it_does(
            lineage in any::<u128>(),
            one in any::<u64>(),
            other in any::<u64>(),
        ) {
            let texts = [one, other].map(|number| position(lineage, number).to_string());
            prop_assert_eq!(texts[0].parse(), Ok(position(lineage, one)));
            prop_assert!(texts[0].starts_with(&Lineage(Uuid::from_u128(lineage)).to_string()));
            prop_assert_eq!(texts[0].as_bytes().cmp(texts[1].as_bytes()), one.cmp(&other));
        }
    }

    #[test]
    fn no_other_text_is_a_position() {
        let text = position(0xab, 0xcd).to_string();
        assert_eq!(text, "000000000000000000000000000000ab-00000000000000cd");
        let others = [
            "",
            "-",
            "7",
            &text.to_uppercase(),
            &text[1..],
            &text[..48],
            &format!("{text}0"),
            &format!(" {text}"),
            &text.replace("-0", "-+"),
            &text.replace('-', ""),
            &format!("{{{text}"),
            &text.replace('a', "g"),
        ];
        for other in others {
            assert_eq!(other.parse::<Position>(), Err(InvalidPosition), "{other:?}");
        }
    }
}

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A free text of a turn, such as the reason of its end or the name of its model.
///
/// The crate does not interpret the text. The text may be empty. A text longer than [`Label::MAX_BYTES`] is cut.
/// Cloning a label is cheap.
#[derive(Clone)]
pub struct Label {
    text: Arc<str>,
    /// Whether the original text was longer. Comparisons ignore this field.
    is_cut: bool,
}

impl Label {
    /// The maximum length in bytes. A longer text is cut at a character boundary.
    pub const MAX_BYTES: usize = 256;

    /// The name of the newtype struct that a label asks its deserializer for. It lets a deserializer know that a label
    /// is read.
    pub(super) const NAME: &'static str = "Label";

    /// Returns the label as a text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the text was cut.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        let kept = &text[..text.floor_char_boundary(Self::MAX_BYTES)];
        Self { text: kept.into(), is_cut: kept.len() < text.len() }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Label {}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({:?})", &*self.text)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Label, D::Error> {
                Ok(String::deserialize(deserializer)?.as_str().into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(text.into())
            }
        }

        deserializer.deserialize_newtype_struct(Self::NAME, Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character_boundary_and_marked_as_cut() {
        let longest = Label::from("x".repeat(Label::MAX_BYTES).as_str());
        assert_eq!((longest.as_str().len(), longest.is_cut()), (Label::MAX_BYTES, false));
        let longer = Label::from(format!("{longest}y").as_str());
        assert_eq!((&longer, longer.is_cut()), (&longest, true));
        // 255 bytes, then a two-byte character.
        let label = Label::from(format!("{}é", "x".repeat(255)).as_str());
        assert_eq!((label.as_str().len(), label.is_cut()), (255, true));
        let read: Label = serde_json::from_str(&format!("\"{}\"", "é".repeat(200))).unwrap();
        assert_eq!((read.as_str().len(), read.is_cut()), (256, true));
    }
}

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a valid id. An id has 1 to 256 bytes of UTF-8 and no control characters, and is not `.` or `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than an id may be.
    #[error("an id has at most {max} bytes, this one has {len}")]
    TooLong {
        /// The length of the text in bytes.
        len: usize,
        /// The maximum length of an id in bytes.
        max: usize,
    },
    /// The text contains a control character.
    #[error("an id must not hold a control character, this one has one at byte {at}")]
    Control {
        /// The position of the first control character, in bytes.
        at: usize,
    },
    /// The text is `.` or `..`. Clients remove these from URLs, so no URL could name the id.
    #[error("an id must not be `.` or `..`")]
    Dots,
}

/// The maximum length of an id in bytes.
const MAX_BYTES: usize = 256;

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(InvalidId::TooLong { len: text.len(), max: MAX_BYTES });
    }
    if matches!(text, "." | "..") {
        return Err(InvalidId::Dots);
    }
    // Nearly all ids are printable ASCII. A loop without an early exit checks many bytes at once.
    if text.bytes().fold(true, |printable, byte| printable & matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(InvalidId::Control { at }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $expecting:literal) => {
        $(#[$doc])*
        ///
        /// An opaque text of 1 to 256 bytes with no control characters, but not `.` or `..`. Cloning an id is cheap.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes it an id.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(text.into()))
            }

            /// Returns the id as a text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

id! {
    /// Names a conversation: the thread of turns between a user and an agent.
    ConversationId, "a conversation id"
}
id! {
    /// Names a turn within its conversation.
    TurnId, "a turn id"
}
id! {
    /// Names a step within its turn. The kernel chooses this id; this crate never parses it.
    StepId, "a step id"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_256_bytes_and_no_control_character() {
        assert_eq!(TurnId::new(""), Err(InvalidId::Empty));
        assert!(TurnId::new("é".repeat(128)).is_ok());
        assert_eq!(TurnId::new("a".repeat(257)), Err(InvalidId::TooLong { len: 257, max: 256 }));
        assert_eq!(TurnId::new("é".repeat(129)), Err(InvalidId::TooLong { len: 258, max: 256 }));
        for control in ['\0', '\n', '\x1f', '\x7f', '\u{85}'] {
            assert_eq!(TurnId::new(format!("a{control}")), Err(InvalidId::Control { at: 1 }), "{control:?}");
        }
        assert!(TurnId::new("a b/c?%2F#0 \u{1f980}\u{200d}").is_ok());
        for dots in [".", ".."] {
            assert_eq!(TurnId::new(dots), Err(InvalidId::Dots));
        }
        assert!(TurnId::new("...").is_ok());
    }
}

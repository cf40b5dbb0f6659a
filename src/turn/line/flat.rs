//! The short way through a flat line: an object of strings that begins with its type, as a kernel writes a delta.
//!
//! It is compact JSON, and no key has an escape. Any other line is given up here, and its structure followed.

use super::text::{plain_len, string_rest_len};

/// The front of a flat line that was ignored, up to its last string. The deltas of a turn have it in common.
#[derive(Debug, Default)]
pub(in crate::turn) struct Front(Vec<u8>);

/// A longer front is not kept.
const MAX_FRONT_BYTES: usize = 1024;

impl Front {
    /// Whether a line has this front and is flat, so that it is ignored too.
    #[inline]
    pub(in crate::turn) fn is_repeated_in(&self, line: &[u8]) -> bool {
        // The same bytes have the same structure again. What is left is a string and the last brace.
        let rest = if self.0.is_empty() { None } else { line.strip_prefix(&*self.0) };
        rest.is_some_and(|rest| string_rest_len(rest).is_some_and(|len| rest[len..] == *b"}"))
    }

    /// Whether a line of an ignored type is flat; if so its front is kept. `rest` is what comes after its type.
    pub(in crate::turn) fn learn(&mut self, line: &[u8], rest: &[u8]) -> bool {
        let Some(last) = last_string(rest) else { return false };
        let front = &line[..line.len() - last];
        self.0.clear();
        if front.len() <= MAX_FRONT_BYTES {
            self.0.extend_from_slice(front);
        }
        true
    }
}

/// The length of what follows the first quote of the last string, in a flat line. `rest` is what comes after its type.
fn last_string(mut rest: &[u8]) -> Option<usize> {
    let mut last = None;
    while rest != b"}" {
        rest = rest.strip_prefix(b",\"")?;
        let key_len = plain_len(rest);
        if rest[..key_len] == *b"type" {
            return None;
        }
        rest = rest[key_len..].strip_prefix(b"\":\"")?;
        last = Some(rest.len());
        rest = &rest[string_rest_len(rest)?..];
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::leading_type;
    use super::*;

    fn learns(front: &mut Front, line: &str) -> bool {
        front.learn(line.as_bytes(), leading_type(line.as_bytes()).unwrap().1)
    }

    #[test]
    fn a_delta_is_flat_and_the_next_one_of_its_turn_has_its_front() {
        let delta =
            |text: &str| format!(r#"{{"type":"text-delta","conversationId":"c","turnId":"t","delta":"{text}"}}"#);
        let mut front = Front::default();
        assert!(!front.is_repeated_in(delta("a").as_bytes()));
        assert!(learns(&mut front, &delta(r#"say \"hi\" \u0041"#)));
        for text in ["", "b", "\u{e9}", r"\\", r"\n\uD83d", &"long ".repeat(100)] {
            assert!(front.is_repeated_in(delta(text).as_bytes()), "{text}");
        }
        for wrong in [r"\", r"\x", r"\u12", "\n", "\"", r#"","type":"done"#, r#"","x":"y"#, r#""}{""#] {
            assert!(!front.is_repeated_in(delta(wrong).as_bytes()), "{wrong}");
        }
        assert!(!front.is_repeated_in(&delta("b").as_bytes()[..delta("b").len() - 1]));
    }

    #[test]
    fn a_line_of_another_shape_is_given_up() {
        for line in [
            r#"{"type":"x"}"#,
            r#"{"type":"x","a":1}"#,
            r#"{"type":"x", "a":"b"}"#,
            r#"{"type":"x","\u0061":"b"}"#,
            r#"{"type":"x","a":"b","type":"c"}"#,
            r#"{"type":"x","a":"b""#,
            r#"{"type":"x","a":"b"} "#,
        ] {
            assert!(!learns(&mut Front::default(), line) || line == r#"{"type":"x"}"#, "{line}");
        }
    }
}

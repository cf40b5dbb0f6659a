//! The fast path for a flat line: an object of strings that begins with its type. Kernels write deltas like this.
//!
//! A flat line is compact JSON, and its keys have no escapes. The parser in `structure` reads any other line.

use super::text::{plain_len, string_rest_len};

/// The fronts of ignored flat lines. A front is the bytes of a line up to its last string. The deltas of a turn share a
/// front.
#[derive(Debug, Default)]
pub(in crate::turn) struct Fronts {
    fronts: Vec<Vec<u8>>,
    /// The index of the latest front.
    latest: usize,
}

/// The maximum number of fronts that are kept, and so of interleaved turns that are read fast.
const MAX_FRONTS: usize = 8;
/// The maximum length of a front that is kept.
const MAX_FRONT_BYTES: usize = 1024;

impl Fronts {
    /// Returns whether a line begins with the latest front and is flat. Such a line has the same type as an ignored
    /// line before, so it is ignored too.
    #[inline]
    pub(in crate::turn) fn is_repeated_in(&self, line: &[u8]) -> bool {
        self.fronts.get(self.latest).is_some_and(|front| has_front(line, front))
    }

    /// Returns whether a line of an ignored type is flat. `rest` begins after its type.
    pub(in crate::turn) fn is_flat(&mut self, line: &[u8], rest: &[u8]) -> bool {
        // Interleaved turns usually alternate, so the front after the latest is the most likely one.
        let count = self.fronts.len();
        let mut others = (1..count).map(|nth| (self.latest + nth) % count);
        if let Some(known) = others.find(|other| has_front(line, &self.fronts[*other])) {
            self.latest = known;
            return true;
        }
        let Some(last) = last_string(rest) else { return false };
        let front = &line[..line.len() - last];
        if front.len() <= MAX_FRONT_BYTES {
            self.keep(front);
        }
        true
    }

    fn keep(&mut self, front: &[u8]) {
        if self.fronts.len() < MAX_FRONTS {
            self.latest = self.fronts.len();
            self.fronts.push(front.to_vec());
        } else {
            self.latest = (self.latest + 1) % MAX_FRONTS;
            self.fronts[self.latest].clear();
            self.fronts[self.latest].extend_from_slice(front);
        }
    }
}

/// Returns whether a line begins with this front and is flat. The front was checked in an earlier line, so only the
/// last string and the closing brace remain to be checked.
#[inline]
fn has_front(line: &[u8], front: &[u8]) -> bool {
    let rest = line.strip_prefix(front);
    rest.is_some_and(|rest| string_rest_len(rest).is_some_and(|len| rest[len..] == *b"}"))
}

/// Returns the length of a flat line up to its last string, or `None` if the line is not flat. `rest` begins after its
/// type.
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

    fn learns(front: &mut Fronts, line: &str) -> bool {
        front.is_flat(line.as_bytes(), leading_type(line.as_bytes()).unwrap().1)
    }

    #[test]
    fn a_delta_is_flat_and_the_next_one_of_its_turn_has_its_front() {
        let delta =
            |text: &str| format!(r#"{{"type":"text-delta","conversationId":"c","turnId":"t","delta":"{text}"}}"#);
        let mut front = Fronts::default();
        assert!(!front.is_repeated_in(delta("a").as_bytes()));
        assert!(learns(&mut front, &delta(r#"say \"hi\" \u0041"#)));
        for text in ["", "b", "\u{e9}", r"\\", r"\n\uD83d", &"long ".repeat(100)] {
            assert!(front.is_repeated_in(delta(text).as_bytes()), "{text}");
        }
        let other = delta("c").replace(r#""t""#, r#""u""#);
        assert!(learns(&mut front, &other) && !front.is_repeated_in(delta("b").as_bytes()));
        assert!(learns(&mut front, &delta("d")) && front.fronts.len() == 2, "both fronts must be known");
        for wrong in [r"\", r"\x", r"\u12", "\n", "\"", r#"","type":"done"#, r#"","x":"y"#, r#""}{""#] {
            assert!(!front.is_repeated_in(delta(wrong).as_bytes()), "{wrong}");
        }
        assert!(!front.is_repeated_in(&delta("b").as_bytes()[..delta("b").len() - 1]));
    }

    #[test]
    fn the_number_of_fronts_is_limited() {
        let mut fronts = Fronts::default();
        for turn in 0..100 {
            let id = "t".repeat(if turn % 3 == 0 { 2 * MAX_FRONT_BYTES } else { 5 });
            let line = format!(r#"{{"type":"text-delta","turnId":"{id}{turn}","delta":"x"}}"#);
            assert!(learns(&mut fronts, &line));
        }
        assert_eq!(fronts.fronts.len(), MAX_FRONTS);
        assert!(fronts.fronts.iter().all(|front| front.capacity() <= MAX_FRONT_BYTES));
    }

    #[test]
    fn a_line_of_another_shape_is_not_flat() {
        for line in [
            r#"{"type":"x"}"#,
            r#"{"type":"x","a":1}"#,
            r#"{"type":"x", "a":"b"}"#,
            r#"{"type":"x","\u0061":"b"}"#,
            r#"{"type":"x","a":"b","type":"c"}"#,
            r#"{"type":"x","a":"b""#,
            r#"{"type":"x","a":"b"} "#,
        ] {
            assert!(!learns(&mut Fronts::default(), line) || line == r#"{"type":"x"}"#, "{line}");
        }
    }
}

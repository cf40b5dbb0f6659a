use std::fmt;

use memchr::memchr;

use super::encoding::Encoding;

/// The form of a text that is not one event a line. The first line of the text shows the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WrongForm {
    Encoding(Encoding),
    /// One JSON array of events.
    Array {
        /// Whether the latest line ended with a comma, so that the next line has an item of the array.
        is_after_comma: bool,
    },
    /// Events that span several lines each. The first line has only the opening brace.
    Spread,
}

impl WrongForm {
    /// Returns the form of a text. `head` is the first bytes of the text, and `line` its first line, which is not an
    /// event.
    pub(super) fn of_lines(head: &[u8], line: &[u8]) -> Option<Self> {
        let array =
            || is_array(line).unwrap_or(!line.is_empty()).then(|| Self::Array { is_after_comma: line.ends_with(b",") });
        let spread = || (line == b"{").then_some(Self::Spread);
        Encoding::of(head).map(Self::Encoding).or_else(array).or_else(spread)
    }

    /// Returns whether the form ends with this line, so that the next lines are read by themselves. An encoding never
    /// ends, since a text has the same encoding to its end.
    pub(super) fn is_over_after(self, line: &[u8], has_form: bool) -> bool {
        match self {
            Self::Encoding(_) => false,
            Self::Array { .. } => !has_form || line.ends_with(b"]"),
            Self::Spread => !has_form,
        }
    }

    /// Returns whether this further line has the form too. The last item of an array has no comma after it, so the line
    /// after it may be an event by itself.
    pub(super) fn goes_on_in(&mut self, line: &[u8], is_event: bool) -> bool {
        match self {
            Self::Encoding(Encoding::Gzip) | Self::Spread => !is_event,
            Self::Encoding(_) => !is_event && memchr(0, line).is_some(),
            Self::Array { is_after_comma } => {
                let was_after_comma = std::mem::replace(is_after_comma, line.ends_with(b","));
                !is_event || was_after_comma
            }
        }
    }
}

impl fmt::Display for WrongForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(encoding) => encoding.fmt(f),
            Self::Array { .. } => f.write_str(ARRAY),
            Self::Spread => f.write_str(
                "each event must be on one line, but the first line has only its `{` (`jq -c .` puts each on one line)",
            ),
        }
    }
}

/// The message about a text that is a JSON array, with advice.
pub(crate) const ARRAY: &str = "the text is a JSON array, but must have one event a line, without brackets around or \
                                commas between the events (`jq -c '.[]'` turns the one into the other)";

/// Returns whether a text that begins with these bytes is a JSON array of objects or an empty array. Returns `None` if
/// more bytes are needed.
pub(crate) fn is_array(start: &[u8]) -> Option<bool> {
    match start.trim_ascii_start() {
        [] => None,
        [b'[', inner @ ..] => Some(matches!(inner.trim_ascii_start().first()?, b'{' | b']')),
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_objects_is_told_from_other_texts() {
        for (start, expected) in [
            ("[\n  {", Some(true)),
            (" \r\n[{\"type\"", Some(true)),
            ("[ ]", Some(true)),
            ("[2026-01-01] started", Some(false)),
            ("[[1]]", Some(false)),
            ("{\"a\":[{}]}", Some(false)),
            ("[", None),
            ("\n [\t", None),
            ("", None),
        ] {
            assert_eq!(is_array(start.as_bytes()), expected, "{start:?}");
        }
    }
}

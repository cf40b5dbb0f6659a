//! Texts that would deceive a person who reads them on a terminal or in a log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns whether a character changes how a reader sees the text around it: it changes the direction of writing, ends
/// a line, or is a control character that JSON allows unescaped.
pub(crate) fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes deceptive characters as JSON does, because ids and labels may contain them. If the text is a line of JSON,
/// its meaning does not change. Escape sequences of a terminal stay.
pub(crate) fn undeceptive(text: &str) -> Cow<'_, str> {
    // Fast path: nearly all texts have no byte with which a deceptive character begins. A loop without an early exit checks
    // many bytes at once.
    let may_begin_one = |byte: u8| matches!(byte, 0x7f | 0xc2 | 0xd8 | 0xe2);
    if !text.bytes().fold(false, |found, byte| found | may_begin_one(byte)) || !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_deceptive(c) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Makes a text from outside safe for a terminal or a page: one line, without control characters and without characters
/// that change the direction of text.
#[cfg(feature = "server")]
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_characters_are_escaped_and_json_keeps_its_meaning() {
        assert!(matches!(undeceptive("a\u{1b}[31m é✓\n"), Cow::Borrowed(_)));
        let text = "a\u{202e}b\u{2066}\u{61c}\u{200f}\u{9b}\u{2028}\u{7f}é";
        let json = serde_json::to_string(text).unwrap();
        let escaped = undeceptive(&json);
        assert_eq!(escaped, r#""a\u202eb\u2066\u061c\u200f\u009b\u2028\u007fé""#);
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn each_deceptive_character_alone_is_escaped() {
        for c in ('\0'..=char::MAX).filter(|c| is_deceptive(*c)) {
            assert_eq!(undeceptive(&c.to_string()), format!("\\u{:04x}", u32::from(c)));
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn no_control_character_is_left_in_a_plain_text() {
        let text = plain("a\u{1b}[31m\n\u{9b}b\u{7f}\u{202e}c é✓");
        assert_eq!(text, "a\\u{1b}[31m\\u{a}\\u{9b}b\\u{7f}\\u{202e}c é✓");
    }
}

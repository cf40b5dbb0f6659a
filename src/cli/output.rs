//! What is written for people and pipes.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

use super::CliError;

/// Writes to standard output. A reader that has gone, as `head` does, has seen all that it wanted.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::system("write to standard output")(error)),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, if anyone reads that.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A text that came from outside, made harmless to a terminal: one line, no control characters, and none of those
/// that turn the direction of what follows.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_directional(c) { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain
}

/// A JSON text in which the control characters that JSON lets stand, such as U+009B, are escaped as JSON escapes.
pub(super) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() {
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

fn is_directional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\n\u{9b}b\u{7f}\u{202e}c é✓"), "a\\u{1b}[31m\\u{a}\\u{9b}b\\u{7f}\\u{202e}c é✓");
        let text = "\u{1b}\u{7f}\u{9b}é";
        let json = plain_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, "\"\\u001b\\u007f\\u009bé\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}

use std::fmt;

use super::super::output::plain;
use crate::turn::{Mention, mentions, type_name};

/// The types of the first lines of an input in which no event counts. They help a user who sent the wrong file.
#[derive(Debug, Default)]
pub(super) struct EventTypes {
    types: Vec<(String, u64)>,
    lines: u64,
    others: u64,
    has_known: bool,
    has_foreign: bool,
}

/// The types of all events of a kernel.
const KNOWN_TYPES: [&str; 15] = [
    "turn-start",
    "usage",
    "step-complete",
    "done",
    "error",
    "status",
    "user-message",
    "text-delta",
    "reasoning-delta",
    "tool-call",
    "tool-result",
    "tool-output",
    "provider-retry",
    "steering",
    "turn-sealed",
];

/// The maximum numbers of lines to examine and of types to name.
const MAX_LINES: u64 = 1000;
const MAX_TYPES: usize = 8;
const MAX_NAME_CHARS: usize = 40;

impl EventTypes {
    /// Examines the lines of a batch.
    pub(super) fn look_at(&mut self, body: &[u8]) {
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            if self.lines == MAX_LINES {
                return;
            }
            self.lines += 1;
            let Some(name) = type_name(line) else {
                // An array may contain events of a kernel, but it is not an event.
                let is_object = line.trim_ascii_start().starts_with(b"{");
                self.add_other(is_object && !mentions(line).is_empty());
                continue;
            };
            self.add(KNOWN_TYPES.contains(&&*name));
            let name = plain(&name.chars().take(MAX_NAME_CHARS).collect::<String>());
            match self.types.iter().position(|(known, _)| *known == name) {
                Some(at) => self.types[at].1 += 1,
                None if self.types.len() < MAX_TYPES => self.types.push((name, 1)),
                None => self.others += 1,
            }
        }
    }

    /// Counts a long bad line.
    pub(super) fn look_at_long(&mut self, mentions: &[Mention]) {
        if self.lines < MAX_LINES {
            self.lines += 1;
            self.add_other(!mentions.is_empty());
        }
    }

    fn add_other(&mut self, is_known: bool) {
        self.others += 1;
        self.add(is_known);
    }

    fn add(&mut self, is_known: bool) {
        self.has_known |= is_known;
        self.has_foreign |= !is_known;
    }

    /// Returns whether no line is an event of a kernel, not even a torn one.
    pub(super) fn is_foreign(&self) -> bool {
        self.has_foreign && !self.has_known
    }

    /// Returns whether all lines are events of a kernel.
    pub(super) fn is_known(&self) -> bool {
        self.has_known && !self.has_foreign
    }
}

impl fmt::Display for EventTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<_> =
            self.types.iter().map(|(name, count)| format!("{count} of the type `{name}`")).collect();
        match (self.lines, self.others) {
            (0, _) => return f.write_str("all are long lines that are ignored"),
            (1, 1) => return f.write_str("the first line is not an event"),
            (lines, others) if lines == others => return write!(f, "none of the first {lines} lines is an event"),
            (_, 0) => {}
            (_, 1) => parts.push("1 other".to_owned()),
            (_, others) => parts.push(format!("{others} others")),
        }
        write!(f, "the first {} are {}", self.lines, parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_foreign_records_are_counted() {
        let mut types = EventTypes::default();
        types.look_at(
            b"{\"type\":\"user\"}\n\n{\"type\":\"assistant\"}\n{\"type\":\"user\",\"x\":{\"type\":\"y\"}}\nno event\n",
        );
        assert_eq!(types.to_string(), "the first 4 are 2 of the type `user`, 1 of the type `assistant`, 1 other");
    }

    #[test]
    fn only_the_types_that_are_shown_are_kept() {
        let mut types = EventTypes::default();
        for nth in 0..5000 {
            types.look_at(format!("{{\"type\":\"{nth}{}\"}}", "\\u001b".repeat(100)).as_bytes());
        }
        let text = types.to_string();
        assert!(text.starts_with("the first 1000 are") && text.ends_with("992 others"), "{text}");
        assert!(text.len() < 4000 && !text.contains('\u{1b}'), "{text}");
    }
}

use memchr::memchr;

use crate::turn::{Framing, LONG_LINE_BYTES};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Splits a text that arrives in pieces into its lines.
pub(crate) struct Lines {
    framing: Framing,
    max_line_bytes: usize,
    /// The latest piece, after the line that has begun before it.
    bytes: Vec<u8>,
    /// The lines before this place were taken.
    start: usize,
    /// The bytes from `start` to here have no line break.
    searched: usize,
    /// The number of the next line, from 1.
    number: u64,
}

/// A line without the white space and the byte order mark around it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextLine<'a> {
    /// The number of the line, from 1, blank lines included.
    pub(crate) number: u64,
    pub(crate) text: &'a [u8],
}

/// A line is longer than the maximum.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineTooLong {
    /// The number of the line.
    pub(crate) number: u64,
}

impl Lines {
    pub(crate) fn new(framing: Framing, max_line_bytes: usize) -> Self {
        Self { framing, max_line_bytes, bytes: Vec::new(), start: 0, searched: 0, number: 1 }
    }

    /// Returns the number of the next line.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the allocated memory in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds the next piece. The lines of the piece before it must have been taken.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// Returns whether the next line is long, and has ended.
    pub(crate) fn ends_long_line(&self) -> bool {
        self.is_in_long_line()
            && self.framing == Framing::Lines
            && memchr(b'\n', &self.bytes[self.searched..])
                .is_some_and(|at| self.searched + at - self.start > LONG_LINE_BYTES)
    }

    /// Returns whether there are more bytes than a line has that is not long.
    pub(crate) fn is_in_long_line(&self) -> bool {
        self.bytes.len() - self.start > LONG_LINE_BYTES
    }

    /// Takes the next line that has ended. Skips blank lines.
    pub(crate) fn next(&mut self) -> Result<Option<TextLine<'_>>, LineTooLong> {
        let (place, number) = loop {
            let end = match self.framing {
                Framing::Lines => memchr(b'\n', &self.bytes[self.searched..]).map(|at| self.searched + at),
                Framing::Whole => None,
            };
            let line = self.start..end.unwrap_or(self.bytes.len());
            let number = self.number;
            if line.len() > self.max_line_bytes {
                return Err(LineTooLong { number });
            }
            if end.is_none() {
                self.searched = line.end;
                return Ok(None);
            }
            (self.start, self.searched) = (line.end + 1, line.end + 1);
            self.number += 1;
            if !trimmed(&self.bytes[line.clone()]).is_empty() {
                break (line, number);
            }
        };
        Ok(Some(TextLine { number, text: trimmed(&self.bytes[place]) }))
    }

    /// Returns the last line, which the end of the text ends. `None` if it is blank.
    pub(crate) fn last(&self) -> Option<TextLine<'_>> {
        let text = trimmed(&self.bytes[self.start..]);
        (!text.is_empty()).then_some(TextLine { number: self.number, text })
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines of a text that arrives in pieces of this size.
    fn lines(framing: Framing, text: &str, size: usize, max: usize) -> Result<Vec<(u64, String)>, LineTooLong> {
        let mut lines = Lines::new(framing, max);
        let mut found = Vec::new();
        let owned = |line: TextLine<'_>| (line.number, String::from_utf8(line.text.to_vec()).unwrap());
        for piece in text.as_bytes().chunks(size) {
            lines.push(piece);
            while let Some(line) = lines.next()? {
                found.push(owned(line));
            }
        }
        found.extend(lines.last().map(owned));
        Ok(found)
    }

    #[test]
    fn lines_are_numbered_and_trimmed_and_blank_ones_are_skipped_however_the_text_arrives() {
        let text = "\u{feff}a\r\n\r\n \n\u{feff}b c \n\nd";
        for size in 1..=text.len() {
            let found = lines(Framing::Lines, text, size, 100).unwrap();
            assert_eq!(found, [(1, "a".to_owned()), (4, "b c".to_owned()), (6, "d".to_owned())], "{size}");
            assert_eq!(lines(Framing::Lines, &(text.to_owned() + "\n"), size, 100).unwrap(), found);
            let whole = lines(Framing::Whole, "\u{feff}{\n1\n}\n", size, 100).unwrap();
            assert_eq!(whole, [(1, "{\n1\n}".to_owned())]);
        }
        for blank in ["", "\n", "\u{feff}", " \r\n\r\n"] {
            assert_eq!(lines(Framing::Lines, blank, 1, 100), Ok(vec![]), "{blank:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_before_its_end() {
        for size in 1..20 {
            assert!(lines(Framing::Lines, "\n1234\n1234\n1234", size, 4).is_ok());
            let too_long = lines(Framing::Lines, "\n1234\n12345678901234", size, 4);
            assert_eq!(too_long, Err(LineTooLong { number: 3 }));
        }
        let mut lines = Lines::new(Framing::Lines, 10);
        for _ in 0..100 {
            lines.push(b"12345\n123");
            while lines.next().unwrap().is_some() {}
        }
        assert!(lines.memory_bytes() < 100, "lines that were taken are not kept");
    }
}

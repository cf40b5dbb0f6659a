use memchr::{Memchr, memchr_iter};

/// The lines of a body that are not blank, each with its number, counted from 1 with the blank ones.
///
/// A line ends with `\n`, before which there may be a `\r`; the last one may go without.
pub(super) struct Lines<'a> {
    body: &'a [u8],
    ends: Memchr<'a>,
    /// Where the next line begins; `None` after the last one.
    begin: Option<usize>,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn of(body: &'a [u8]) -> Self {
        Self { body, ends: memchr_iter(b'\n', body), begin: Some(0), number: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let begin = self.begin?;
            let end = self.ends.next();
            self.begin = end.map(|end| end + 1);
            self.number += 1;
            let line = &self.body[begin..end.unwrap_or(self.body.len())];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !is_blank(line) {
                return Some((self.number, line));
            }
        }
    }
}

/// Whether `text` holds nothing but white space.
pub(super) fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(body: &[u8]) -> Vec<(usize, &[u8])> {
        let mut lines = Vec::new();
        for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
            let line = if line.ends_with(b"\r") { &line[..line.len() - 1] } else { line };
            if !String::from_utf8_lossy(line).trim_ascii().is_empty() {
                lines.push((index + 1, line));
            }
        }
        lines
    }

    #[test]
    fn blank_lines_count_but_do_not_come_out() {
        let lines: Vec<_> = Lines::of(b"\n \t\r\n{a}\r\n\n{b}\r\r\n{c}").collect();
        assert_eq!(lines, [(3, &b"{a}"[..]), (5, &b"{b}\r"[..]), (6, &b"{c}"[..])]);
        assert_eq!(Lines::of(b"").count(), 0);
        assert_eq!(Lines::of(b"\n\n").count(), 0);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_naive_split(
            body in prop::collection::vec(prop::sample::select(&b"\n\n\n\r\r \t{}a\xff"[..]), 0..300)
        ) {
            prop_assert_eq!(Lines::of(&body).collect::<Vec<_>>(), naive(&body));
        }
    }
}

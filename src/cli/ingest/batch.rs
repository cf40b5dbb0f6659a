use std::mem;

/// How large a batch becomes before it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) lines: u64,
    pub(super) bytes: usize,
    /// The most bytes of one line, which has to be held before it can be sent. Such a line may be a batch of its own.
    pub(super) line_bytes: usize,
}

/// Whole lines that are sent at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Where the first of them stands in the input, counted from 1.
    pub(super) first_line: u64,
    pub(super) lines: u64,
    pub(super) body: Vec<u8>,
}

/// A line is longer than any event may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong {
    pub(super) line: u64,
}

/// Cuts a stream of bytes into batches, at the ends of lines.
pub(super) struct Batcher {
    limits: BatchLimits,
    /// What the next batch consists of: whole lines, and nothing past the limits unless it is one line alone.
    whole: Vec<u8>,
    whole_lines: u64,
    first_line: u64,
    /// What follows, of which no line has been looked for before `searched`.
    rest: Vec<u8>,
    searched: usize,
}

impl Batcher {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self { limits, whole: Vec::new(), whole_lines: 0, first_line: 1, rest: Vec::new(), searched: 0 }
    }

    /// Takes in what the input has next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Whether whole lines wait to be sent.
    pub(super) fn has_lines(&self) -> bool {
        self.whole_lines > 0
    }

    /// A batch that is as large as it may become, if there is one.
    pub(super) fn next_full(&mut self) -> Result<Option<Batch>, LineTooLong> {
        let mut taken = 0;
        let mut full = false;
        while let Some(end) = self.rest[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + end + 1;
            let length = end - taken;
            if length > self.limits.line_bytes {
                return Err(self.too_long());
            }
            if self.whole_lines > 0 && self.whole.len() + length > self.limits.bytes {
                full = true;
                break;
            }
            self.whole.extend_from_slice(&self.rest[taken..end]);
            self.whole_lines += 1;
            (taken, self.searched) = (end, end);
            if self.whole_lines == self.limits.lines || self.whole.len() >= self.limits.bytes {
                full = true;
                break;
            }
        }
        self.rest.drain(..taken);
        self.searched -= taken;
        if full {
            return Ok(self.take());
        }
        self.searched = self.rest.len();
        if self.rest.len() > self.limits.line_bytes { Err(self.too_long()) } else { Ok(None) }
    }

    /// The whole lines that wait, however few.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.whole_lines == 0 {
            return None;
        }
        let batch = Batch {
            first_line: self.first_line,
            lines: mem::take(&mut self.whole_lines),
            body: mem::take(&mut self.whole),
        };
        self.first_line += batch.lines;
        Some(batch)
    }

    /// What is left at the end of the input, where the last line may lack its line break; to be called until there is
    /// no more.
    pub(super) fn finish(&mut self) -> Option<Batch> {
        let fits = self.whole_lines == 0 || self.whole.len() + self.rest.len() <= self.limits.bytes;
        if fits && !self.rest.is_empty() {
            self.whole.append(&mut self.rest);
            self.whole_lines += 1;
        }
        self.take()
    }

    fn too_long(&self) -> LineTooLong {
        LineTooLong { line: self.first_line + self.whole_lines }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(lines: u64, bytes: usize) -> BatchLimits {
        BatchLimits { lines, bytes, line_bytes: 20 }
    }

    /// The batches that an input becomes when it comes in pieces of these lengths.
    fn cut(limits: BatchLimits, input: &[u8], pieces: &[usize]) -> Result<Vec<Batch>, LineTooLong> {
        let mut batcher = Batcher::new(limits);
        let mut all = Vec::new();
        let mut rest = input;
        let mut lengths = pieces.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            batcher.push(piece);
            while let Some(batch) = batcher.next_full()? {
                all.push(batch);
            }
        }
        all.extend(std::iter::from_fn(|| batcher.finish()));
        Ok(all)
    }

    fn batch(first_line: u64, lines: u64, body: &str) -> Batch {
        Batch { first_line, lines, body: body.into() }
    }

    #[test]
    fn a_batch_ends_at_its_limit_of_lines() {
        let batches = cut(limits(2, 100), b"a\nb\n\nc\nd", &[100]).unwrap();
        assert_eq!(batches, [batch(1, 2, "a\nb\n"), batch(3, 2, "\nc\n"), batch(5, 1, "d")]);
    }

    #[test]
    fn a_batch_ends_before_it_passes_its_limit_of_bytes_unless_it_is_one_line() {
        let batches = cut(limits(100, 5), b"aa\nb\ncccccccc\nd\n", &[3]).unwrap();
        assert_eq!(batches, [batch(1, 2, "aa\nb\n"), batch(3, 1, "cccccccc\n"), batch(4, 1, "d\n")]);
    }

    #[test]
    fn a_line_without_end_is_told_before_it_fills_memory() {
        for input in ["a\nb\nxxxxxxxxxxxxxxxxxxxxxxxxx", "a\nb\nxxxxxxxxxxxxxxxxxxxxxxxxx\n"] {
            assert_eq!(cut(limits(2, 100), input.as_bytes(), &[4]), Err(LineTooLong { line: 3 }));
            assert_eq!(cut(limits(9, 100), input.as_bytes(), &[100]), Err(LineTooLong { line: 3 }));
        }
    }

    #[test]
    fn whole_lines_can_be_taken_before_the_batch_is_full() {
        let mut batcher = Batcher::new(limits(10, 100));
        batcher.push(b"a\nb");
        assert_eq!(batcher.next_full(), Ok(None));
        assert!(batcher.has_lines());
        assert_eq!(batcher.take(), Some(batch(1, 1, "a\n")));
        assert!(!batcher.has_lines());
        batcher.push(b"b\n");
        assert_eq!(batcher.next_full(), Ok(None));
        assert_eq!(batcher.take(), Some(batch(2, 1, "bb\n")));
        assert_eq!(batcher.finish(), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_moved_however_the_input_comes(
            lines in prop::collection::vec("[a-z]{0,15}", 0..40),
            pieces in prop::collection::vec(1_usize..30, 1..5),
            max_lines in 1_u64..6,
            max_bytes in 1_usize..40,
        ) {
            let input = lines.join("\n");
            let batches = cut(limits(max_lines, max_bytes), input.as_bytes(), &pieces).unwrap();
            let mut next_line = 1;
            for batch in &batches {
                prop_assert_eq!(batch.first_line, next_line);
                next_line += batch.lines;
                prop_assert!(batch.lines <= max_lines);
                prop_assert!(batch.body.len() <= max_bytes || batch.lines == 1);
            }
            prop_assert_eq!(batches.iter().flat_map(|batch| &batch.body).copied().collect::<Vec<_>>(), input.as_bytes());
            prop_assert_eq!(next_line - 1, input.split_inclusive('\n').count() as u64);
        }
    }
}

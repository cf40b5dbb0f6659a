use std::collections::VecDeque;
use std::mem;

use crate::turn::{Mention, Shape, keep_edges, mentions};

/// The limits of a batch and of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) lines: u64,
    pub(super) bytes: usize,
    /// Lines from this length on are examined while they arrive, so that an ignored line need not be held.
    pub(super) followed_bytes: usize,
    /// The maximum length of a line that is not ignored. A line of this length is sent as a batch of its own.
    pub(super) line_bytes: usize,
    /// The first line to send. Earlier lines are skipped.
    pub(super) from_line: u64,
}

/// Whole lines that are sent in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LineBatch {
    /// The number of its first line in the input, counted from 1.
    pub(super) first_line: u64,
    pub(super) lines: u64,
    /// The number of long ignored lines. The body has a blank line in place of each.
    pub(super) dropped: u64,
    pub(super) body: Vec<u8>,
}

impl LineBatch {
    /// Splits the batch after its first `lines` lines.
    pub(super) fn split(&self, lines: u64) -> (Self, Self) {
        let mut end = 0;
        let mut count = 0;
        for line in self.body.split_inclusive(|byte| *byte == b'\n').take(usize::try_from(lines).unwrap_or(usize::MAX))
        {
            end += line.len();
            count += 1;
        }
        let (before, after) = self.body.split_at(end);
        let first = Self { first_line: self.first_line, lines: count, dropped: self.dropped, body: before.to_vec() };
        let second =
            Self { first_line: self.first_line + count, lines: self.lines - count, dropped: 0, body: after.to_vec() };
        (first, second)
    }
}

/// A part of the input, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InputPart {
    Batch(LineBatch),
    /// A long line that is a bad event.
    BadLine {
        line: u64,
        error: String,
        /// The turns that the start and the end of the line mention.
        mentions: Vec<Mention>,
    },
}

/// Splits a stream of bytes into batches, at the ends of lines.
pub(super) struct Batcher {
    limits: BatchLimits,
    /// The completed parts.
    ready: VecDeque<InputPart>,
    /// The batch that is being filled with whole lines. It exceeds the limits only if it is a single line.
    next: LineBatch,
    /// The number of the current line, which has not ended yet.
    number: u64,
    line: PartialLine,
}

/// The current line, which has not ended yet.
#[derive(Default)]
struct PartialLine {
    has_begun: bool,
    /// The bytes of the line. If the line is not kept, only its start and its end.
    bytes: Vec<u8>,
    /// The state of the parser that follows the structure of a long line.
    shape: Option<Shape>,
    state: LineState,
}

/// What happens to the current line.
#[derive(Debug, Default, PartialEq, Eq)]
enum LineState {
    /// The line is kept for the batch.
    #[default]
    Kept,
    /// The line is ignored, and is dropped while it arrives.
    Ignored,
    Bad(String),
}

impl Batcher {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self { limits, ready: VecDeque::new(), next: LineBatch::default(), number: 1, line: PartialLine::default() }
    }

    /// Adds the next bytes of the input.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.go_on(end);
                    self.end_line(true);
                }
                None => self.go_on(piece),
            }
        }
    }

    /// Returns the number of lines of the input, once it has ended.
    pub(super) fn lines(&self) -> u64 {
        self.number - 1
    }

    /// Returns whether the unfinished batch has whole lines.
    pub(super) fn has_lines(&self) -> bool {
        self.next.lines > 0
    }

    /// Returns the next complete part: a full batch, or a line that cannot be sent.
    pub(super) fn next_ready(&mut self) -> Option<InputPart> {
        self.ready.pop_front()
    }

    /// Returns the whole lines of the unfinished batch.
    pub(super) fn take(&mut self) -> Option<LineBatch> {
        if self.next.lines == 0 { None } else { Some(mem::take(&mut self.next)) }
    }

    /// Ends the input. The last line may have no line break.
    pub(super) fn finish(&mut self) {
        if self.line.has_begun {
            self.end_line(false);
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(batch) = self.take() {
            self.ready.push_back(InputPart::Batch(batch));
        }
    }

    /// Appends bytes to the current line.
    fn go_on(&mut self, piece: &[u8]) {
        let line = &mut self.line;
        line.has_begun = true;
        if self.number < self.limits.from_line {
            return;
        }
        match line.state {
            LineState::Kept => line.bytes.extend_from_slice(piece),
            LineState::Ignored => keep_edges(&mut line.bytes, piece),
            LineState::Bad(_) => return keep_edges(&mut line.bytes, piece),
        }
        let max_bytes = self.limits.line_bytes;
        let new = match line.shape {
            Some(_) => piece,
            None if line.bytes.len() > self.limits.followed_bytes => &line.bytes,
            None => return,
        };
        let shape = line.shape.get_or_insert_default();
        if let Err(error) = shape.feed(new) {
            line.state = LineState::Bad(error.to_string());
        } else if shape.nesting_bytes() > max_bytes {
            let limit = max_bytes.saturating_mul(8);
            line.state =
                LineState::Bad(format!("it nests its brackets too deeply: at most {limit} may be open at once"));
        } else if shape.is_ignored() {
            line.state = LineState::Ignored;
        } else if line.bytes.len() > max_bytes {
            line.state = LineState::Bad(format!("it is longer than {max_bytes} bytes and not ignored"));
        }
        if line.state != LineState::Kept {
            keep_edges(&mut line.bytes, &[]);
        }
    }

    fn end_line(&mut self, has_line_break: bool) {
        let PartialLine { mut bytes, shape, state, .. } = mem::take(&mut self.line);
        let line = self.number;
        self.number += 1;
        if line < self.limits.from_line {
            return;
        }
        let state = match (state, shape.map(|shape| shape.finish())) {
            (LineState::Kept | LineState::Ignored, Some(Err(error))) => LineState::Bad(error.to_string()),
            (state, _) => state,
        };
        match state {
            LineState::Kept => {}
            LineState::Ignored => {
                self.next.dropped += 1;
                bytes.clear();
            }
            LineState::Bad(error) => {
                self.flush();
                return self.ready.push_back(InputPart::BadLine { line, error, mentions: mentions(&bytes) });
            }
        }
        if has_line_break {
            bytes.push(b'\n');
        }
        self.add(line, &bytes);
    }

    fn add(&mut self, number: u64, line: &[u8]) {
        if self.next.lines > 0 && self.next.body.len() + line.len() > self.limits.bytes {
            self.flush();
        }
        if self.next.lines == 0 {
            self.next.first_line = number;
        }
        self.next.body.extend_from_slice(line);
        self.next.lines += 1;
        if self.next.lines == self.limits.lines || self.next.body.len() >= self.limits.bytes {
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(lines: u64, bytes: usize) -> BatchLimits {
        BatchLimits { lines, bytes, followed_bytes: 100, line_bytes: 200, from_line: 1 }
    }

    /// Splits an input that arrives in pieces of these lengths.
    fn parts_of(limits: BatchLimits, input: &[u8], pieces: &[usize]) -> Vec<InputPart> {
        let mut batcher = Batcher::new(limits);
        let mut rest = input;
        let mut lengths = pieces.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            batcher.push(piece);
            assert!(batcher.line.bytes.len() <= limits.line_bytes.max(3 * 1024));
        }
        batcher.finish();
        std::iter::from_fn(|| batcher.next_ready()).collect()
    }

    fn batch(first_line: u64, lines: u64, body: &str) -> InputPart {
        InputPart::Batch(LineBatch { first_line, lines, dropped: 0, body: body.into() })
    }

    #[test]
    fn a_batch_ends_at_its_limit_of_lines() {
        let batches = parts_of(limits(2, 100), b"a\nb\n\nc\nd", &[100]);
        assert_eq!(batches, [batch(1, 2, "a\nb\n"), batch(3, 2, "\nc\n"), batch(5, 1, "d")]);
    }

    #[test]
    fn a_batch_ends_before_it_exceeds_its_limit_of_bytes_unless_it_is_one_line() {
        let batches = parts_of(limits(100, 5), b"aa\nb\ncccccccc\nd\n", &[3]);
        assert_eq!(batches, [batch(1, 2, "aa\nb\n"), batch(3, 1, "cccccccc\n"), batch(4, 1, "d\n")]);
    }

    #[test]
    fn a_long_ignored_line_is_dropped_as_it_arrives() {
        let long = "x".repeat(500);
        let line = format!(r#"{{"type":"tool-result","result":"{long}"}}"#);
        let batches = parts_of(limits(100, 100), format!("a\n{line}\nb\n{line}").as_bytes(), &[30]);
        let one = LineBatch { first_line: 1, lines: 4, dropped: 2, body: b"a\n\nb\n".to_vec() };
        assert_eq!(batches, [InputPart::Batch(one)]);
    }

    #[test]
    fn a_long_line_that_is_bad_or_counts_is_reported_after_the_lines_before_it() {
        let long = "x".repeat(500);
        let cut_off = format!(r#"{{"type":"tool-result","result":"{long}"#);
        let glued = format!(r#"{{"type":"tool-result","result":"{long}"}}{{"type":"done"}}"#);
        let counts = format!(r#"{{"type":"done","x":"{long}"}}"#);
        let (open, close) = ("[".repeat(2000), "]".repeat(2000));
        let nested = format!(r#"{{"type":"tool-result","x":{open}{close}}}"#);
        for (bad, why) in
            [(cut_off, "cut off"), (glued, "another object"), (counts, "than 200 bytes"), (nested, "at most 1600")]
        {
            let parts = parts_of(limits(100, 100), format!("a\n{bad}\nb").as_bytes(), &[30]);
            assert_eq!((&parts[0], &parts[2]), (&batch(1, 1, "a\n"), &batch(3, 1, "b")));
            let InputPart::BadLine { line: 2, error, mentions } = &parts[1] else { panic!("{parts:?}") };
            assert!(error.contains(why) && mentions.is_empty(), "{error}: {mentions:?}");
        }
    }

    #[test]
    fn the_turns_of_a_long_bad_line_are_found_at_its_start_and_its_end() {
        let long = "x".repeat(50_000);
        let done = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
        let counts = done.replace("stop", &long);
        let torn = format!(r#"{{"type":"tool-result","x":"{long}{done}"#);
        let glued = format!(r#"{{"type":"tool-result","x":"{long}"}}{done}{}"#, " ".repeat(500));
        for line in [counts, torn, glued] {
            for size in [7, 1000, 200_000] {
                let parts = parts_of(limits(100, 100), line.as_bytes(), &[size]);
                let [InputPart::BadLine { line: 1, mentions, .. }] = &*parts else { panic!("{parts:?}") };
                let found: Vec<_> = mentions.iter().map(|found| (found.turn_id.as_str(), found.is_done)).collect();
                assert_eq!(found, [("t", true)], "{size} {}", &line[..30]);
            }
        }
    }

    #[test]
    fn lines_before_the_first_requested_one_are_skipped() {
        let limits = BatchLimits { from_line: 3, ..limits(2, 100) };
        let input = format!("{}\nb\nc\nd\ne", "x".repeat(1000));
        assert_eq!(parts_of(limits, input.as_bytes(), &[7]), [batch(3, 2, "c\nd\n"), batch(5, 1, "e")]);
        assert_eq!(parts_of(limits, b"a\n", &[7]), []);
        for (input, lines) in [("", 0), ("a\n", 1), ("a\nb", 2), ("a\nb\nc\n", 3)] {
            let mut batcher = Batcher::new(limits);
            batcher.push(input.as_bytes());
            batcher.finish();
            assert_eq!(batcher.lines(), lines, "{input:?}");
        }
    }

    #[test]
    fn whole_lines_can_be_taken_before_the_batch_is_full() {
        let mut batcher = Batcher::new(limits(10, 100));
        batcher.push(b"a\nb");
        assert_eq!(batcher.next_ready(), None);
        assert!(batcher.has_lines());
        assert_eq!(batcher.take().map(InputPart::Batch), Some(batch(1, 1, "a\n")));
        assert!(!batcher.has_lines());
        batcher.push(b"b\n");
        assert_eq!(batcher.take().map(InputPart::Batch), Some(batch(2, 1, "bb\n")));
        batcher.finish();
        assert_eq!(batcher.next_ready(), None);
    }

    #[test]
    fn a_batch_is_split_at_a_line() {
        let InputPart::Batch(batch) = batch(5, 3, "a\n\nc") else { unreachable!() };
        let (first, second) = batch.split(2);
        assert_eq!((first.first_line, first.lines, &*first.body), (5, 2, &b"a\n\n"[..]));
        assert_eq!((second.first_line, second.lines, &*second.body), (7, 1, &b"c"[..]));
        assert_eq!(batch.split(9).1.lines, 0);
        assert_eq!(batch.split(0).1, batch);
    }

    proptest! {
        #[test]
        fn no_line_is_lost_or_moved_whatever_pieces_the_input_arrives_in(
            lines in prop::collection::vec("[a-z]{0,15}", 0..40),
            pieces in prop::collection::vec(1_usize..30, 1..5),
            max_lines in 1_u64..6,
            max_bytes in 1_usize..40,
        ) {
            let input = lines.join("\n");
            let mut next_line = 1;
            let mut bytes = Vec::new();
            for part in parts_of(limits(max_lines, max_bytes), input.as_bytes(), &pieces) {
                let InputPart::Batch(batch) = part else { panic!("{part:?}") };
                prop_assert_eq!(batch.first_line, next_line);
                next_line += batch.lines;
                prop_assert!(batch.lines <= max_lines);
                prop_assert!(batch.body.len() <= max_bytes || batch.lines == 1);
                bytes.extend(batch.body);
            }
            prop_assert_eq!(bytes, input.as_bytes());
            prop_assert_eq!(next_line - 1, input.split_inclusive('\n').count() as u64);
        }
    }
}

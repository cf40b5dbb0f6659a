use std::mem;

use memchr::{memchr, memchr_iter};

use super::super::wire::EventType;
use super::super::{EventReader, KernelEvent};
use super::edges::keep_edges;
use super::encoding::Encoding;
use super::structure::Structure;
use super::structure_error::StructureError;
use super::wrong_form::WrongForm;
use super::{BadEvent, bad_structure, find_type};

/// Where events begin and end in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each line is one event.
    Lines,
    /// A single event, on any number of lines.
    Whole,
}

/// Reads the events of a stream that arrives in pieces, line by line.
///
/// At most `max_line_bytes` of an unfinished line are kept. As soon as it is clear that a line will be ignored, its
/// bytes are dropped and only its structure is followed. Blank lines are skipped.
pub(crate) struct EventStream {
    framing: Framing,
    max_line_bytes: usize,
    reader: EventReader,
    /// The number of the current line, from 1.
    number: u64,
    line: PartialLine,
    /// The first bytes of the stream.
    head: Vec<u8>,
    /// Whether a line that is not blank has been read.
    is_begun: bool,
    /// The form of the text, if the text is not one event a line.
    wrong_form: Option<WrongForm>,
}

/// A line that has been read.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// The number of the line in the stream, from 1, blank lines included. For a bad event on several lines, the number
    /// of the line with the error.
    pub(crate) number: u64,
    /// The bytes of the line that were kept. If the event counts, these are all its bytes.
    pub(crate) bytes: &'a [u8],
    pub(crate) event: Result<Option<KernelEvent>, BadEvent>,
    /// Whether the error is about the whole text and was reported for an earlier line already.
    pub(crate) is_same_error: bool,
}

/// The current line, which has not ended yet.
#[derive(Default)]
struct PartialLine {
    structure: Structure,
    /// The bytes of the line that are kept, without leading white space.
    bytes: Vec<u8>,
    state: LineState,
    /// The length of the line so far, and the number of bytes of its byte order mark.
    len: usize,
    mark: usize,
    /// The number of line breaks before the kept bytes.
    skipped_lines: u64,
}

/// What is known about a line. The state decides how much of the line is kept.
#[derive(Debug, Default, PartialEq)]
enum LineState {
    /// The whole line is kept.
    #[default]
    Kept,
    /// The line is ignored, and nothing of it is kept.
    Ignored,
    /// The line exceeds the limit, so it is either ignored or too long. Its edges are kept.
    OverLimit,
    /// The line is a bad event. Its edges are kept.
    Bad(StructureError),
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The length beyond which a line is long. Kernels write events of some hundred bytes.
pub(crate) const LONG_LINE_BYTES: usize = 64 * 1024;

impl EventStream {
    pub(crate) fn new(framing: Framing, max_line_bytes: usize) -> Self {
        Self {
            framing,
            max_line_bytes,
            reader: EventReader::default(),
            number: 1,
            line: PartialLine::default(),
            head: Vec::with_capacity(Encoding::HEAD_BYTES),
            is_begun: false,
            wrong_form: None,
        }
    }

    /// Returns the size of the kept bytes and of the open brackets of the current line.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.line.bytes.len() + self.nesting_bytes()
    }

    /// Returns the size of the open brackets of the current line, an eighth of a byte each.
    pub(crate) fn nesting_bytes(&self) -> usize {
        self.line.structure.nesting_bytes()
    }

    /// Returns the heap memory in bytes that is allocated for the current line.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.line.bytes.capacity() + self.line.structure.heap_bytes()
    }

    /// Returns whether the current line is kept and so long that parsing it takes a millisecond or more.
    pub(crate) fn is_in_long_line(&self) -> bool {
        self.line.bytes.len() > LONG_LINE_BYTES
    }

    /// Returns whether this piece would end such a line.
    pub(crate) fn ends_long_line(&self, piece: &[u8]) -> bool {
        let kept = self.line.bytes.len();
        // Nothing is kept of a line that will be ignored.
        kept > 0
            && self.framing == Framing::Lines
            && kept + piece.len() > LONG_LINE_BYTES
            && memchr(b'\n', piece).is_some_and(|end| kept + end > LONG_LINE_BYTES)
    }

    /// Reads the next piece, and calls `take` with each line that ends in the piece.
    pub(crate) fn push(&mut self, mut piece: &[u8], take: &mut impl FnMut(Line<'_>)) {
        if self.head.len() < Encoding::HEAD_BYTES {
            let missing = Encoding::HEAD_BYTES - self.head.len();
            self.head.extend_from_slice(&piece[..missing.min(piece.len())]);
        }
        if self.framing == Framing::Whole {
            return self.line.push(piece, self.max_line_bytes);
        }
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end);
            piece = &rest[1..];
            if self.line.len > 0 {
                self.line.push(line, self.max_line_bytes);
                self.end_line(take);
            } else {
                self.take_whole(line, take);
            }
            self.number += 1;
        }
        if !piece.is_empty() {
            self.line.push(piece, self.max_line_bytes);
        }
    }

    /// Ends the stream and its last line.
    pub(crate) fn finish(&mut self, take: &mut impl FnMut(Line<'_>)) {
        // A body that must be one event must not be empty.
        if self.line.len > 0 || self.framing == Framing::Whole {
            self.end_line(take);
        }
    }

    /// Ends a stream whose rest is missing. The last line is reported as bad with the reason `why`, since its end is
    /// unknown.
    pub(crate) fn break_off(&mut self, why: &str, take: &mut impl FnMut(Line<'_>)) {
        let line = mem::take(&mut self.line);
        self.hand_on(self.number, trim(&line.bytes), Err(BadEvent::new(why.to_owned(), 1)), take);
    }

    /// Reads a line that is complete in one piece.
    fn take_whole(&mut self, line: &[u8], take: &mut impl FnMut(Line<'_>)) {
        let line = trim(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line));
        if line.is_empty() {
            return;
        }
        let event = if line.len() <= self.max_line_bytes {
            self.reader.read(line)
        } else {
            unless_too_long(find_type(line), self.max_line_bytes)
        };
        self.hand_on(self.number, line, event, take);
    }

    /// Reads a line that arrived in several pieces.
    fn end_line(&mut self, take: &mut impl FnMut(Line<'_>)) {
        let PartialLine { structure, bytes, state, mark, skipped_lines, .. } = mem::take(&mut self.line);
        let is_blank = structure.is_blank() && (mark == 0 || mark == BYTE_ORDER_MARK.len());
        if is_blank && state == LineState::Kept && self.framing == Framing::Lines {
            return;
        }
        let line = trim(&bytes);
        let mut skipped = 0;
        let event = match (state, structure.finish()) {
            (LineState::Kept, Err(_)) if is_blank => {
                Err(BadEvent::new("the body is empty, but must be one event".to_owned(), 1))
            }
            (LineState::Bad(error), _) | (_, Err(error)) => {
                let error = if self.framing == Framing::Whole { error.in_body() } else { error };
                Err(bad_structure(line, error))
            }
            (_, Ok(EventType::Ignored)) => Ok(None),
            (LineState::Kept, Ok(_)) if line.len() <= self.max_line_bytes => {
                skipped = skipped_lines;
                self.reader.read(line)
            }
            (_, Ok(_)) => Err(BadEvent::too_long(self.max_line_bytes)),
        };
        let number = match &event {
            Err(error) => self.number + skipped + error.line() as u64 - 1,
            Ok(_) => self.number,
        };
        self.hand_on(number, line, event, take);
    }

    fn hand_on(
        &mut self,
        number: u64,
        bytes: &[u8],
        event: Result<Option<KernelEvent>, BadEvent>,
        take: &mut impl FnMut(Line<'_>),
    ) {
        if mem::replace(&mut self.is_begun, true) {
            let is_event = event.is_ok();
            let is_same_error = self.wrong_form.as_mut().is_some_and(|form| form.goes_on_in(bytes, is_event));
            let event = match (event, self.wrong_form) {
                (Ok(_), Some(form)) if is_same_error => Err(BadEvent::new(form.to_string(), 1)),
                (event, _) => event,
            };
            self.wrong_form = self.wrong_form.filter(|form| !form.is_over_after(bytes, is_same_error));
            return take(Line { number, bytes, event, is_same_error });
        }
        let Err(error) = event else { return take(Line { number, bytes, event, is_same_error: false }) };
        // The first line of a text of a wrong form is always bad, so only there the form is looked for.
        let form = match self.framing {
            Framing::Lines => WrongForm::of_lines(&self.head, bytes),
            Framing::Whole => Encoding::of(&self.head).map(WrongForm::Encoding),
        };
        self.wrong_form = form.filter(|form| !form.is_over_after(bytes, true));
        let error = form.map_or(error, |form| BadEvent::new(form.to_string(), 1));
        take(Line { number, bytes, event: Err(error), is_same_error: false });
    }
}

/// Returns the event of a line that exceeds the limit: such a line is accepted only if it is ignored.
fn unless_too_long(kind: Result<EventType, BadEvent>, max_bytes: usize) -> Result<Option<KernelEvent>, BadEvent> {
    match kind? {
        EventType::Ignored => Ok(None),
        _ => Err(BadEvent::too_long(max_bytes)),
    }
}

impl PartialLine {
    fn push(&mut self, mut piece: &[u8], max_bytes: usize) {
        let is_mark_possible = self.len == self.mark;
        self.len = self.len.saturating_add(piece.len());
        if is_mark_possible {
            piece = self.skip_mark(piece);
        }
        if matches!(self.state, LineState::Bad(_)) {
            return keep_edges(&mut self.bytes, piece);
        }
        let was_over = self.structure.is_over();
        if let Err(error) = self.structure.feed(piece) {
            keep_edges(&mut self.bytes, piece);
            self.state = LineState::Bad(error);
            return;
        }
        // White space around an event is not kept.
        if self.bytes.is_empty() && self.state == LineState::Kept {
            let text = trim_start(piece);
            self.skipped_lines += memchr_iter(b'\n', &piece[..piece.len() - text.len()]).count() as u64;
            piece = text;
        }
        if self.structure.is_over() {
            piece = if was_over { &[] } else { trim_end(piece) };
        }
        match (&self.state, self.structure.event_type()) {
            (LineState::Kept | LineState::OverLimit, Some(EventType::Ignored)) => {
                self.state = LineState::Ignored;
                self.bytes = Vec::new();
            }
            (LineState::Kept, _) if self.bytes.len() + piece.len() <= max_bytes => {
                self.make_room(piece.len(), max_bytes);
                self.bytes.extend_from_slice(piece);
            }
            (LineState::Kept, _) => {
                keep_edges(&mut self.bytes, piece);
                self.state = LineState::OverLimit;
            }
            (LineState::OverLimit, _) => keep_edges(&mut self.bytes, piece),
            _ => {}
        }
    }

    /// Makes room for more bytes: doubles the capacity, up to the maximum length of a line.
    fn make_room(&mut self, more: usize, max_bytes: usize) {
        let wanted = self.bytes.len() + more;
        if wanted > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).min(max_bytes).max(wanted);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    /// Skips a byte order mark. It may arrive in pieces.
    fn skip_mark<'a>(&mut self, mut piece: &'a [u8]) -> &'a [u8] {
        while self.mark < BYTE_ORDER_MARK.len()
            && let [first, rest @ ..] = piece
            && *first == BYTE_ORDER_MARK[self.mark]
        {
            self.mark += 1;
            piece = rest;
        }
        if !piece.is_empty() && self.mark > 0 && self.mark < BYTE_ORDER_MARK.len() {
            // The bytes are not a byte order mark but another character. No event begins with it, so the structure
            // reports an error.
            if let Err(error) = self.structure.feed(&BYTE_ORDER_MARK[..self.mark]) {
                self.state = LineState::Bad(error);
            }
        }
        piece
    }
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim_start(line: &[u8]) -> &[u8] {
    &line[line.iter().position(|byte| !is_white(*byte)).unwrap_or(line.len())..]
}

fn trim_end(line: &[u8]) -> &[u8] {
    &line[..line.iter().rposition(|byte| !is_white(*byte)).map_or(0, |last| last + 1)]
}

/// Removes the white space around a line.
fn trim(line: &[u8]) -> &[u8] {
    trim_end(trim_start(line))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::parse_line;
    use super::*;

    const DONE: &str = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
    const DELTA: &str = r#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"x"}"#;

    type Read = (u64, Result<Option<KernelEvent>, String>);

    struct Reading {
        lines: Vec<Read>,
        most_kept: usize,
    }

    fn read(framing: Framing, max: usize, pieces: &[&[u8]]) -> Reading {
        let mut stream = EventStream::new(framing, max);
        let mut reading = Reading { lines: Vec::new(), most_kept: 0 };
        let lines = &mut reading.lines;
        let mut take = |line: Line<'_>| lines.push((line.number, line.event.map_err(|error| error.to_string())));
        for piece in pieces {
            stream.push(piece, &mut take);
            reading.most_kept = reading.most_kept.max(stream.memory_bytes());
        }
        stream.finish(&mut take);
        reading
    }

    fn whole(framing: Framing, body: &[u8]) -> Vec<Read> {
        read(framing, 1000, &[body]).lines
    }

    /// Returns the number of each line, and its kind: an event (`Some(true)`), ignored (`Some(false)`) or bad (`None`).
    fn outline(lines: &[Read]) -> Vec<(u64, Option<bool>)> {
        lines.iter().map(|(number, event)| (*number, event.as_ref().ok().map(Option::is_some))).collect()
    }

    #[test]
    fn blank_lines_are_numbered_but_not_passed_on() {
        let body = format!("\n \t\r\n{DONE}\r\n\n{DELTA}  \n\r\n{{}}\n{DONE}");
        let lines = whole(Framing::Lines, body.as_bytes());
        assert_eq!(outline(&lines), [(3, Some(true)), (5, Some(false)), (7, None), (8, Some(true))]);
        for blank in ["", "\n\n", "  ", "\r"] {
            assert_eq!(whole(Framing::Lines, blank.as_bytes()), []);
            assert_eq!(whole(Framing::Whole, blank.as_bytes()).len(), 1, "a body of one event must not be empty");
            let error = whole(Framing::Whole, blank.as_bytes())[0].1.clone().unwrap_err();
            assert_eq!(error, "the body is empty, but must be one event");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_of_a_line() {
        for framing in [Framing::Lines, Framing::Whole] {
            assert_eq!(outline(&whole(framing, format!("\u{feff}{DONE}").as_bytes())), [(1, Some(true))]);
            let nothing = if framing == Framing::Lines { vec![] } else { vec![(1, None)] };
            assert_eq!(outline(&whole(framing, "\u{feff}".as_bytes())), nothing);
            assert_eq!(outline(&whole(framing, b"\xef\xbb{}")), [(1, None)]);
        }
        let glued = format!("\u{feff}{DONE}\n\u{feff}{DELTA}\n {DELTA}\n \u{feff}{DELTA}");
        let lines = whole(Framing::Lines, glued.as_bytes());
        assert_eq!(outline(&lines), [(1, Some(true)), (2, Some(false)), (3, Some(false)), (4, None)]);
    }

    #[test]
    fn an_encoding_other_than_utf_8_is_named() {
        let utf_16: Vec<u8> = format!("{DONE}\n{DONE}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [b"\xff\xfe", &*utf_16].concat();
        let big: Vec<u8> = DONE.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let utf_32 = |write: fn(u32) -> [u8; 4]| DONE.chars().flat_map(|c| write(c.into())).collect::<Vec<_>>();
        let (little, wide) = (utf_32(u32::to_le_bytes), utf_32(u32::to_be_bytes));
        for body in [&*little, &[b"\xff\xfe\0\0", &*little].concat(), &wide, &[b"\0\0\xfe\xff", &*wide].concat()] {
            let error = whole(Framing::Lines, body)[0].1.clone().unwrap_err();
            assert!(error.contains("UTF-32"), "{error}");
        }
        for body in [&*utf_16, &marked, &big] {
            let error = whole(Framing::Lines, body)[0].1.clone().unwrap_err();
            assert!(error.contains("UTF-16"), "{error}");
            assert!(whole(Framing::Whole, body)[0].1.clone().unwrap_err().contains("UTF-16"));
        }
        let error = whole(Framing::Lines, b"\x1f\x8b\x08\0\0\n\n")[0].1.clone().unwrap_err();
        assert!(error.contains("gzip") && error.contains("content-encoding"), "{error}");
        let later = format!("{DONE}\n\u{fffe}");
        assert!(!whole(Framing::Lines, later.as_bytes())[1].1.clone().unwrap_err().contains("UTF-16"));
    }

    /// Returns the numbers of the events, and the numbers of the bad lines. Each bad line says whether it repeats an
    /// error about the whole text.
    fn errors(body: &[u8], size: usize) -> (Vec<u64>, Vec<(u64, bool)>) {
        let mut stream = EventStream::new(Framing::Lines, 1000);
        let (mut events, mut errors) = (Vec::new(), Vec::new());
        let mut take = |line: Line<'_>| match line.event {
            Ok(_) => events.push(line.number),
            Err(_) => errors.push((line.number, line.is_same_error)),
        };
        body.chunks(size).for_each(|piece| stream.push(piece, &mut take));
        stream.finish(&mut take);
        (events, errors)
    }

    #[test]
    fn an_error_about_the_whole_text_is_reported_for_its_first_line() {
        let text = format!("{DONE}\r\n{DELTA}\r\n\r\nx\r\n");
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect();
        let gzip = b"\x1f\x8b\x08\0\nsome\nbytes\0\n";
        let mut nul = vec![b'{', 0, 0, 0, b'\n'];
        nul.extend(format!("x\n{DONE}\n").as_bytes());
        for size in [1, 7, 1000] {
            for body in [&*little, &big, gzip] {
                let (events, errors) = errors(body, size);
                assert!(events.is_empty() && errors.len() >= 3, "{errors:?}");
                assert!(errors.iter().all(|(number, is_same)| *is_same == (*number > 1)), "{errors:?}");
            }
            let mixed = errors(&nul, size);
            assert_eq!(mixed, (vec![3], vec![(1, false), (2, false)]), "a line without NUL bytes is no UTF-32");
        }
    }

    #[test]
    fn an_array_is_reported_once_and_none_of_its_items_is_read() {
        let name = "the text is a JSON array, but must have one event a line";
        for body in [format!("[\n{DONE},\n{DELTA},\n {DONE}\n]\n"), format!("\u{feff}[{DONE},\r\n{DELTA},\r\n{DONE}]")]
        {
            assert!(whole(Framing::Lines, body.as_bytes())[0].1.clone().unwrap_err().starts_with(name), "{body}");
            for size in [1, 7, 1000] {
                let (events, errors) = errors(body.as_bytes(), size);
                assert!(events.is_empty() && errors.len() == body.lines().count(), "{errors:?}");
                assert!(errors.iter().all(|(number, is_same)| *is_same == (*number > 1)), "{errors:?}");
                // After the end of the array, each line is read by itself again.
                let more = format!("{body}\n{DONE}\n]\n");
                let last = u64::try_from(more.lines().count()).unwrap();
                let (events, errors) = self::errors(more.as_bytes(), size);
                assert_eq!((events, errors.last()), (vec![last - 1], Some(&(last, false))));
            }
        }
        // A stray bracket does not make an array of the events on the next lines.
        assert_eq!(errors(format!("[\n{DONE}\n{DELTA}\nx").as_bytes(), 7), (vec![2, 3], vec![(1, false), (4, false)]));
        // Each of these lines is an array by itself, so each is a bad event.
        let arrays = format!("[{DONE}]\n[{DONE}]\n{DONE}");
        assert_eq!(errors(arrays.as_bytes(), 1000), (vec![3], vec![(1, false), (2, false)]));
        let log = whole(Framing::Lines, b"[12:30] started\n");
        assert!(log[0].1.clone().unwrap_err().starts_with("an event must be a JSON object, not an array"));
        let one = whole(Framing::Whole, format!("[\n{DONE}\n]").as_bytes());
        let error = one[0].1.clone().unwrap_err();
        assert!(
            error.starts_with("an `application/json` body must be one event, not an array (post several"),
            "{error}"
        );
    }

    #[test]
    fn events_on_several_lines_are_reported_once() {
        let pretty = "{\n  \"type\": \"done\",\n  \"usage\": {\n    \"inputTokens\": 1\n  }\n}\n";
        let first = whole(Framing::Lines, pretty.as_bytes())[0].1.clone().unwrap_err();
        assert!(first.contains("only its `{`") && first.contains("`jq -c .`"), "{first}");
        let body = format!("{}{DONE}\nx\n", pretty.repeat(2));
        for size in [1, 7, 1000] {
            let (events, errors) = errors(body.as_bytes(), size);
            let told: Vec<_> = errors.iter().filter(|(_, is_same)| !is_same).map(|(number, _)| *number).collect();
            assert_eq!((events, told), (vec![13], vec![1, 14]));
        }
    }

    #[test]
    fn an_error_in_an_event_on_several_lines_names_the_line_of_the_error() {
        let body =
            "\n{\n\"conversationId\": \"c\",\r\n\"turnId\": \"t\",\n\"reason\": \"stop\",\n\"type\": \"done\"\n}\n";
        assert_eq!(outline(&whole(Framing::Whole, body.as_bytes())), [(1, Some(true))]);
        let bad = body.replace("\"stop\"", "7");
        assert_eq!(outline(&whole(Framing::Whole, bad.as_bytes())), [(5, None)]);
        let pieces: Vec<&[u8]> = bad.as_bytes().chunks(1).collect();
        assert_eq!(outline(&read(Framing::Whole, 1000, &pieces).lines), [(5, None)]);
        let follows = |between: &str, next: &str| {
            let lines = whole(Framing::Whole, format!("{DONE}{between}{next}").as_bytes());
            (lines[0].0, lines[0].1.clone().unwrap_err())
        };
        for (between, line) in [("\n", 2), ("", 1), ("\r", 1)] {
            let (number, error) = follows(between, DONE);
            assert_eq!(number, line);
            assert!(error.starts_with("another object follows the event: an `application/json` body must"), "{error}");
        }
        let (_, error) = follows("", ",");
        assert!(error.starts_with("`,` follows the event: an `application/json` body must be one event"), "{error}");
    }

    #[test]
    fn a_long_ignored_line_is_dropped_as_it_arrives_wherever_its_type_stands() {
        let long = "x".repeat(1_000_000);
        for line in [
            format!(r#"{{"type":"tool-result","conversationId":"c","result":"{long}"}}"#),
            format!(r#"{{"conversationId":"c","result":"{long}","type":"tool-result"}}"#),
            format!(r#"{{"result":["{long}",{{}}],"type":"tool-result"}}"#),
        ] {
            let body = format!("{line}\n{DONE}\n{line}");
            for pieces in [body.as_bytes().chunks(1000).collect::<Vec<_>>(), vec![body.as_bytes()]] {
                let reading = read(Framing::Lines, 5000, &pieces);
                assert_eq!(outline(&reading.lines), [(1, Some(false)), (2, Some(true)), (3, Some(false))]);
                assert!(pieces.len() == 1 || reading.most_kept <= 5000, "{}", reading.most_kept);
            }
            let torn = format!("{}\n{DONE}", &line[..line.len() - 1]);
            let pieces: Vec<_> = torn.as_bytes().chunks(1000).collect();
            assert_eq!(outline(&read(Framing::Lines, 5000, &pieces).lines), [(1, None), (2, Some(true))]);
            let pieces: Vec<_> = line.as_bytes().chunks(1000).collect();
            assert_eq!(outline(&read(Framing::Whole, 5000, &pieces).lines), [(1, Some(false))]);
        }
    }

    #[test]
    fn a_long_event_that_counts_is_refused_and_the_next_lines_are_read() {
        let long = format!(r#","x":"{}","#, "x".repeat(50_000));
        for line in [DONE.replacen(',', &long, 1), format!(r#"{{"x":{}{}"#, &long[5..], &DONE[1..])] {
            for size in [100, 1000, 100_000] {
                let body = format!("{line}\n{DONE}");
                let pieces: Vec<_> = body.as_bytes().chunks(size).collect();
                let reading = read(Framing::Lines, 5000, &pieces);
                assert_eq!(outline(&reading.lines), [(1, None), (2, Some(true))], "{size}");
                let error = reading.lines[0].1.clone().unwrap_err();
                assert_eq!(error, "an event that counts must have at most 5000 bytes");
                assert!(size > 1000 || reading.most_kept <= 5000, "{}", reading.most_kept);
            }
        }
    }

    #[test]
    fn the_turn_of_a_long_bad_line_is_found_at_either_end() {
        let long = "x".repeat(50_000);
        let first = format!(r#"{{"type":"done","conversationId":"c","turnId":"t","x":"{long}"}}"#);
        let last = format!(r#"{{"x":"{long}","conversationId":"c","turnId":"t","type":"done"}}"#);
        let torn = format!(r#"{{"type":"tool-result","x":"{long}{{"type":"done","conversationId":"c","turnId":"t"}}"#);
        // A line that first looks ignored and then turns out to be bad is kept only from that piece on.
        for (line, sizes) in [(first, vec![7, 1000, 100_000]), (last, vec![7, 1000, 100_000]), (torn, vec![100_000])] {
            for size in sizes {
                let mut stream = EventStream::new(Framing::Lines, 5000);
                let mut found = Vec::new();
                let mut take = |line: Line<'_>| found.extend(crate::turn::line::mentions(line.bytes));
                line.as_bytes().chunks(size).for_each(|piece| stream.push(piece, &mut take));
                stream.finish(&mut take);
                let turns: Vec<_> = found.iter().map(|mention| (mention.turn_id.as_str(), mention.is_done)).collect();
                assert_eq!(turns, [("t", true)], "{size} {}", &line[..20]);
            }
        }
    }

    #[test]
    fn white_space_around_an_event_is_neither_kept_nor_counted() {
        let white = " \t".repeat(50_000);
        let body = format!("{white}{DONE}{white}\n{white}\n{DONE}");
        for size in [7, 1000, 1_000_000] {
            let pieces: Vec<_> = body.as_bytes().chunks(size).collect();
            let reading = read(Framing::Lines, DONE.len(), &pieces);
            assert_eq!(outline(&reading.lines), [(1, Some(true)), (3, Some(true))], "{size}");
            assert!(reading.most_kept <= 1000, "{}", reading.most_kept);
        }
        assert_eq!(outline(&read(Framing::Lines, DONE.len() - 1, &[DONE.as_bytes()]).lines), [(1, None)]);
    }

    proptest! {
        #[test]
        fn a_stream_in_pieces_is_read_as_its_lines_are_one_by_one(
            lines in prop::collection::vec(select(&[
                DONE, DELTA, "", " ", "\r", "{}", "x", "{\"type\":\"x\"} ", " {\"type\":\"x\"}{\"type\":\"done\"}", "\u{feff}",
                "{\"type\":\"done\",\"conversationId\":7,\"turnId\":\"t\"}", "{\"a\":1,\"type\":\"x\"}\r", "\r{\"type\":\"x\"\r}\r",
            ][..]), 0..8),
            cuts in prop::collection::vec(any::<Index>(), 0..8),
        ) {
            let body = lines.join("\n");
            let expected: Vec<Read> = lines.iter().zip(1..).filter_map(|(line, number)| {
                let line = trim(line.strip_prefix('\u{feff}').unwrap_or(line).as_bytes());
                (!line.is_empty()).then(|| (number, parse_line(line).map_err(|error| error.to_string())))
            }).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &body.as_bytes()[cut[0]..cut[1]]).collect();
            let read = read(Framing::Lines, 1000, &pieces).lines;
            // For a line in pieces, the column counts leading white space and the byte order mark.
            let outlines = (outline(&read), outline(&expected));
            prop_assert_eq!(&outlines.0, &outlines.1, "{:?}", pieces);
        }
    }
}

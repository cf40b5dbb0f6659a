//! Server-sent events, read from a stream of bytes as the HTML standard describes it. Pure.

use std::time::Duration;

/// The maximum length of a line and of the data of an event, in bytes. A turn with the maximum number of steps has about
/// one megabyte.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The kind of the event; `message` if the stream gives none.
    pub(super) name: String,
    pub(super) data: String,
}

/// The stream has an event that is too long to be held.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the feed is longer than {MAX_BYTES} bytes")]
pub(super) struct TooLong;

/// Reads one stream, in parts of any length.
#[derive(Debug)]
pub(super) struct Parser {
    max_bytes: usize,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line end.
    after_return: bool,
    is_first_line: bool,
    name: String,
    data: String,
    /// The id of the event that is being read, or else of an earlier event.
    id: String,
    last_id: String,
    retry: Option<Duration>,
}

impl Parser {
    /// Returns the parser of a stream that goes on after the event with this id. The id is empty if there is none.
    pub(super) fn after(last_id: &str) -> Self {
        Self {
            max_bytes: MAX_BYTES,
            line: Vec::new(),
            after_return: false,
            is_first_line: true,
            name: String::new(),
            data: String::new(),
            id: last_id.to_owned(),
            last_id: last_id.to_owned(),
            retry: None,
        }
    }

    /// The id of the latest whole event, with which a client asks for the events after it. It may be of an event without
    /// data, which [`Self::push`] does not return.
    pub(super) fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long the server asks clients to wait before they connect again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes the next bytes. Returns the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let ends_line = match byte {
                b'\n' if self.after_return => false,
                b'\n' | b'\r' => true,
                byte if self.line.len() < self.max_bytes => {
                    self.line.push(*byte);
                    false
                }
                _ => return Err(TooLong),
            };
            self.after_return = *byte == b'\r';
            if ends_line {
                events.extend(self.end_line()?);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Result<Option<Event>, TooLong> {
        const BYTE_ORDER_MARK: &str = "\u{feff}";

        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let is_first = std::mem::replace(&mut self.is_first_line, false);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(&line);
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() > self.max_bytes {
                    return Err(TooLong);
                }
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            // A comment has an empty name.
            _ => {}
        }
        Ok(None)
    }

    fn end_event(&mut self) -> Option<Event> {
        self.last_id.clone_from(&self.id);
        let (mut name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        // The last line of the data has a line feed too.
        data.pop()?;
        if name.is_empty() {
            "message".clone_into(&mut name);
        }
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events_of(text: &[u8]) -> Vec<(String, String)> {
        let events = Parser::after("").push(text).unwrap();
        events.into_iter().map(|event| (event.name, event.data)).collect()
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn an_event_has_its_name_and_its_lines_of_data() {
        let text =
            "event: turn-sealed\ndata: {\"a\":1}\n\ndata\ndata:x\ndata:  y: z\n\nevent: erased\n\ndata: last\n\n";
        let expected = [event("turn-sealed", "{\"a\":1}"), event("message", "\nx\n y: z"), event("message", "last")];
        assert_eq!(events_of(text.as_bytes()), expected);
    }

    #[test]
    fn every_line_end_a_mark_at_the_beginning_and_comments_are_understood() {
        let text = "\u{feff}event: a\r\ndata: 1\r\r: comment\ndata: 2\r\n\r\nunknown: x\n:\ndata: \u{feff}3\n\n";
        assert_eq!(events_of(text.as_bytes()), [event("a", "1"), event("message", "2"), event("message", "\u{feff}3")]);
    }

    #[test]
    fn an_event_that_the_end_of_the_stream_cuts_off_is_none() {
        let mut parser = Parser::after("7");
        assert_eq!(parser.push(b"id: 8\ndata: x\n"), Ok(Vec::new()));
        assert_eq!(parser.last_id(), "7");
        assert_eq!(parser.push(b"\n").unwrap().len(), 1);
        assert_eq!(parser.last_id(), "8");
    }

    #[test]
    fn ids_count_without_data_and_stay_until_the_next_one() {
        let mut parser = Parser::after("");
        assert_eq!(parser.push(b"retry: 1500\nid: 3\n\n: nothing new\nid: 4\n\n"), Ok(Vec::new()));
        assert_eq!((parser.last_id(), parser.retry()), ("4", Some(Duration::from_millis(1500))));
        parser.push(b"data: x\n\nid: a\0b\nretry: soon\nretry:\ndata: y\n\n").unwrap();
        assert_eq!((parser.last_id(), parser.retry()), ("4", Some(Duration::from_millis(1500))));
        parser.push(b"id\n\n").unwrap();
        assert_eq!(parser.last_id(), "");
    }

    #[test]
    fn what_is_not_utf_8_does_not_end_the_stream() {
        assert_eq!(events_of(b"data: a\xffb\n\n"), [event("message", "a\u{fffd}b")]);
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let parser = || Parser { max_bytes: 10, ..Parser::after("") };
        assert_eq!(parser().push(b"data: 1234\n\n").unwrap().len(), 1);
        assert_eq!(parser().push(b"data: 12345\n\n"), Err(TooLong));
        assert_eq!(parser().push(b"data:123\ndata:123\ndata:123\n"), Err(TooLong));
    }

    fn line_end() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("\n"), Just("\r\n"), Just("\r")]
    }

    /// An event, and its text with some line end and with comments.
    fn written_event() -> impl Strategy<Value = (Event, String)> {
        let lines = prop::collection::vec("[ -~é✓:]{0,12}", 1..4);
        ("[a-z-]{1,8}", lines, line_end(), any::<u8>()).prop_map(|(name, lines, end, comments)| {
            let mut text = String::new();
            let fields = lines.iter().map(|line| format!("data: {line}"));
            for (nth, line) in [format!("event: {name}")].into_iter().chain(fields).chain([String::new()]).enumerate() {
                let comment = if comments >> nth & 1 == 1 { format!(": comment{end}") } else { String::new() };
                text += &(comment + &line + end);
            }
            (Event { name, data: lines.join("\n") }, text)
        })
    }

    proptest! {
        #[test]
        fn the_events_are_those_that_were_written_however_the_bytes_arrive(
            written in prop::collection::vec(written_event(), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let (expected, texts): (Vec<_>, Vec<_>) = written.into_iter().unzip();
            let text = texts.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut parser = Parser::after("");
            let (mut events, mut from) = (Vec::new(), 0);
            for to in cuts {
                events.extend(parser.push(&text.as_bytes()[from..to]).unwrap());
                from = to;
            }
            prop_assert_eq!(events, expected);
        }
    }
}

use indexmap::IndexMap;

use super::event_chunks::EventChunks;
use super::refused::RefusedLines;
use crate::turn::{ConversationId, EventStream, Framing, KernelEvent, Line, mentions};

/// How a body with a bad line is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadLines {
    /// The whole body is refused.
    Refuse,
    /// The bad lines are refused, and the other lines are taken in.
    Skip,
}

/// The end of the error message for a torn line, if the whole body is refused because of it.
pub(crate) const SKIP_ADVICE: &str = " (post with `?bad=skip` to have the other lines taken in)";

/// The events of one posted body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BodyEvents {
    /// How many events count for metrics.
    pub(crate) accepted: u64,
    /// How many events are ignored.
    pub(crate) ignored: u64,
    /// The events that count, by conversation. Conversations come in the order in which the body mentions them.
    pub(crate) conversations: IndexMap<ConversationId, ConversationEvents>,
    /// The refused lines, if bad lines are skipped.
    pub(crate) refused: RefusedLines,
}

/// The events of one conversation in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConversationEvents {
    pub(crate) first_line: u64,
    pub(crate) events: EventChunks,
}

/// The bad line because of which a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) number: u64,
    pub(crate) message: String,
}

/// Parses a body into events while it arrives. The reader keeps the events that count, and the part of an unfinished
/// line that [`EventStream`] keeps.
pub(crate) struct BodyReader {
    stream: EventStream,
    builder: BodyEventsBuilder,
}

/// The events so far.
struct BodyEventsBuilder {
    bad_lines: BadLines,
    bad: Option<BadLine>,
    events: BodyEvents,
    /// The index in `events` of the latest event's conversation.
    latest: usize,
    /// The bytes of the lines whose events count.
    counted_bytes: usize,
    /// The memory that is allocated for the events. It grows a little ahead of them.
    event_bytes: usize,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing, max_line_bytes: usize, bad_lines: BadLines) -> Self {
        Self {
            stream: EventStream::new(framing, max_line_bytes),
            builder: BodyEventsBuilder {
                bad_lines,
                bad: None,
                events: BodyEvents::default(),
                latest: 0,
                counted_bytes: 0,
                event_bytes: 0,
            },
        }
    }

    /// Parses the next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Self { stream, builder } = self;
        stream.push(piece, &mut |line| builder.take(line));
    }

    /// Returns whether the body is refused, whatever else follows in it.
    pub(crate) fn is_refused(&self) -> bool {
        self.builder.bad.is_some()
    }

    /// Returns whether the current line is so long that parsing it would hold up others.
    pub(crate) fn is_in_long_line(&self) -> bool {
        !self.is_refused() && self.stream.is_in_long_line()
    }

    /// Returns whether this piece would end such a line.
    pub(crate) fn ends_long_line(&self, piece: &[u8]) -> bool {
        !self.is_refused() && self.stream.ends_long_line(piece)
    }

    /// Returns how many bytes of lines are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.builder.counted_bytes.saturating_add(self.stream.kept_bytes())
    }

    /// Returns how many of the kept bytes stand for the open brackets of the current line.
    pub(crate) fn nesting_bytes(&self) -> usize {
        self.stream.nesting_bytes()
    }

    /// Returns the approximate memory in use: the kept lines, and the events that were parsed from them.
    pub(crate) fn memory_bytes(&self) -> usize {
        let BodyEventsBuilder { events, counted_bytes, event_bytes, .. } = &self.builder;
        // The map doubles as it grows. Then its entries are in memory twice, as they are copied.
        let conversation_bytes =
            events.conversations.len().saturating_mul(3 * size_of::<(ConversationId, ConversationEvents)>());
        let texts = counted_bytes.saturating_add(self.stream.memory_bytes());
        texts.saturating_add(*event_bytes).saturating_add(conversation_bytes)
    }

    /// Ends the body and returns its events.
    pub(crate) fn finish(mut self) -> Result<BodyEvents, BadLine> {
        let Self { stream, builder } = &mut self;
        stream.finish(&mut |line| builder.take(line));
        self.builder.into_events()
    }

    /// Ends a body whose rest is missing, and returns its events. The end of its last line is unknown, so that line is
    /// bad, for the reason `why`.
    pub(crate) fn break_off(mut self, why: &str) -> Result<BodyEvents, BadLine> {
        let Self { stream, builder } = &mut self;
        stream.break_off(why, &mut |line| builder.take(line));
        self.builder.into_events()
    }
}

impl BodyEventsBuilder {
    fn into_events(self) -> Result<BodyEvents, BadLine> {
        match self.bad {
            Some(bad) => Err(bad),
            None => Ok(self.events),
        }
    }

    fn take(&mut self, line: Line<'_>) {
        if self.bad.is_some() {
            return;
        }
        match (line.event, self.bad_lines) {
            (Ok(Some(event)), _) => {
                self.counted_bytes = self.counted_bytes.saturating_add(line.bytes.len());
                self.add(line.number, event);
            }
            (Ok(None), _) => self.events.ignored += 1,
            (Err(error), BadLines::Refuse) => {
                let advice = if error.is_torn() { SKIP_ADVICE } else { "" };
                self.bad = Some(BadLine { number: line.number, message: format!("{error}{advice}") });
                // None of this body's events will be taken in, so drop them while the rest of the body arrives.
                self.events = BodyEvents::default();
                self.counted_bytes = 0;
                self.event_bytes = 0;
            }
            (Err(error), BadLines::Skip) => {
                let named = if line.is_same_error { None } else { Some(&error) };
                self.events.refused.add_line(line.number, named, || mentions(line.bytes));
            }
        }
    }

    fn add(&mut self, line: u64, KernelEvent { conversation_id, event }: KernelEvent) {
        let Self { events, latest, .. } = self;
        events.accepted += 1;
        // Usually an event has the conversation of the event before it. Then both share one id.
        if events.conversations.get_index(*latest).is_none_or(|(id, _)| *id != conversation_id) {
            let entry = events.conversations.entry(conversation_id);
            *latest = entry.index();
            entry.or_insert_with(|| ConversationEvents { first_line: line, events: EventChunks::default() });
        }
        self.event_bytes += events.conversations[*latest].events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(conversation: &str, turn: &str) -> String {
        format!(r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"stop"}}"#)
    }

    fn reader(bad_lines: BadLines, body: &str) -> BodyReader {
        let mut reader = BodyReader::new(Framing::Lines, 1000, bad_lines);
        reader.push(body.as_bytes());
        reader
    }

    #[test]
    fn events_are_grouped_by_conversation_and_keep_their_order() {
        let body = [
            &done("b", "1"),
            r#"{"type":"text-delta","conversationId":"z"}"#,
            &done("a", "2"),
            "",
            &done("b", "3"),
            &done("b", "2"),
        ]
        .join("\r\n");
        let events = reader(BadLines::Refuse, &body).finish().unwrap();
        assert_eq!((events.accepted, events.ignored), (4, 1));
        let grouped: Vec<(&str, u64, Vec<&str>)> = events
            .conversations
            .iter()
            .map(|(id, said)| {
                (id.as_str(), said.first_line, said.events.iter().map(|event| event.turn_id.as_str()).collect())
            })
            .collect();
        assert_eq!(grouped, [("b", 1, vec!["1", "3", "2"]), ("a", 3, vec!["2"])]);
    }

    #[test]
    fn a_bad_line_is_named_by_its_place_among_all_lines_and_refuses_all() {
        let body = format!("{}\n\n \n{{\"type\":1}}\n{}\nworse", done("c", "1"), done("c", "2"));
        let reader = reader(BadLines::Refuse, &body);
        assert!(reader.is_refused());
        assert!(reader.kept_bytes() <= 16, "what is refused is not held");
        assert_eq!(reader.finish().unwrap_err().number, 4);
    }

    #[test]
    fn bad_lines_that_are_skipped_leave_the_others() {
        let body = format!("bad\n{}\n{{\"type\":1}}\n{}\nworse", done("c", "1"), done("c", "2"));
        let events = reader(BadLines::Skip, &body).finish().unwrap();
        assert_eq!((events.accepted, events.refused.count), (2, 3));
        assert_eq!(events.refused.named.iter().map(|refused| refused.line).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn what_is_ignored_is_not_kept() {
        let deltas = format!("{}\n", r#"{"type":"text-delta","conversationId":"z","delta":"x"}"#).repeat(1000);
        let mut reader = reader(BadLines::Refuse, &deltas);
        assert_eq!(reader.kept_bytes(), 0);
        assert_eq!(reader.memory_bytes(), 0);
        reader.push(done("c", "1").as_bytes());
        reader.push(b"\n");
        assert!(reader.kept_bytes() >= done("c", "1").len());
        assert!(reader.memory_bytes() > reader.kept_bytes());
    }

    #[test]
    fn the_memory_of_very_many_events_grows_with_them_and_not_by_doubling() {
        let failed = format!("{}\n", r#"{"type":"error","conversationId":"c","turnId":"t"}"#);
        let mut reader = reader(BadLines::Refuse, "");
        let event_bytes = size_of::<crate::turn::TurnEvent>();
        for count in 1..=40_000 {
            reader.push(failed.as_bytes());
            let needed = reader.kept_bytes() + count * event_bytes;
            let bytes = reader.memory_bytes();
            assert!(bytes >= needed && (count < 100 || bytes < needed / 4 * 5), "{bytes} bytes for {count} events");
        }
    }
}

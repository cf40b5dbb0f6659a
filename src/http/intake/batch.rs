use indexmap::IndexMap;

use super::refused::RefusedLines;
use crate::turn::{ConversationId, EventStream, Framing, KernelEvent, Line, TurnEvent, mentions};

/// How a body with a bad line is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadLines {
    /// The whole body is refused.
    Refuse,
    /// The bad lines are refused, the others are taken.
    Skip,
}

/// The end of the message about a torn line for which a whole body is refused.
pub(crate) const SKIP_ADVICE: &str = " (post with `?bad=skip` to have the other lines taken in)";

/// The events of one posted body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The number of events that count.
    pub(crate) accepted: u64,
    /// The number of events that do not count.
    pub(crate) ignored: u64,
    /// The events that count, by conversation, in the order of their first mention.
    pub(crate) conversations: IndexMap<ConversationId, Mentioned>,
    /// The refused lines, if bad lines are skipped.
    pub(crate) refused: RefusedLines,
}

/// The events of one conversation in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mentioned {
    pub(crate) first_line: u64,
    pub(crate) events: Vec<TurnEvent>,
}

/// The bad line because of which a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    pub(crate) number: u64,
    pub(crate) message: String,
}

/// Parses a body into a batch as it arrives. It keeps only the events that count, and the part of an unfinished line
/// that [`EventStream`] keeps.
pub(crate) struct BatchReader {
    stream: EventStream,
    gathering: Gathering,
}

/// The batch so far.
struct Gathering {
    bad_lines: BadLines,
    bad: Option<BadLine>,
    batch: Batch,
    /// The place in the batch of the latest event's conversation.
    latest: usize,
    /// The bytes of the lines that count.
    counted_bytes: usize,
}

impl BatchReader {
    pub(crate) fn new(framing: Framing, max_line_bytes: usize, bad_lines: BadLines) -> Self {
        Self {
            stream: EventStream::new(framing, max_line_bytes),
            gathering: Gathering { bad_lines, bad: None, batch: Batch::default(), latest: 0, counted_bytes: 0 },
        }
    }

    /// Parses the next piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Self { stream, gathering } = self;
        stream.push(piece, &mut |line| gathering.take(line));
    }

    /// Whether the body is refused already, whatever follows.
    pub(crate) fn is_refused(&self) -> bool {
        self.gathering.bad.is_some()
    }

    /// The bytes of the lines that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.gathering.counted_bytes.saturating_add(self.stream.kept_bytes())
    }

    /// The part of them that the open brackets of the current line take.
    pub(crate) fn nesting_bytes(&self) -> usize {
        self.stream.nesting_bytes()
    }

    /// The approximate memory in use: the lines that are kept and the events parsed from them.
    pub(crate) fn memory_bytes(&self) -> usize {
        let Gathering { batch, counted_bytes, .. } = &self.gathering;
        let events = usize::try_from(batch.accepted).unwrap_or(usize::MAX).saturating_mul(size_of::<TurnEvent>());
        let conversations = batch.conversations.len().saturating_mul(2 * size_of::<(ConversationId, Mentioned)>());
        let texts = counted_bytes.saturating_add(self.stream.memory_bytes());
        texts.saturating_add(events).saturating_add(conversations)
    }

    /// Ends the body.
    pub(crate) fn finish(mut self) -> Result<Batch, BadLine> {
        let Self { stream, gathering } = &mut self;
        stream.finish(&mut |line| gathering.take(line));
        self.gathering.into_batch()
    }

    /// Ends a body whose rest is missing. Its last line is cut off and therefore bad, with this reason.
    pub(crate) fn break_off(mut self, why: &str) -> Result<Batch, BadLine> {
        let Self { stream, gathering } = &mut self;
        stream.break_off(why, &mut |line| gathering.take(line));
        self.gathering.into_batch()
    }
}

impl Gathering {
    fn into_batch(self) -> Result<Batch, BadLine> {
        match self.bad {
            Some(bad) => Err(bad),
            None => Ok(self.batch),
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
            (Ok(None), _) => self.batch.ignored += 1,
            (Err(error), BadLines::Refuse) => {
                let advice = if error.is_torn() { SKIP_ADVICE } else { "" };
                self.bad = Some(BadLine { number: line.number, message: format!("{error}{advice}") });
                // Nothing of this body will be taken, so nothing is held while the rest of it arrives.
                self.batch = Batch::default();
                self.counted_bytes = 0;
            }
            (Err(error), BadLines::Skip) => {
                let named = if line.is_same_error { None } else { Some(&error) };
                self.batch.refused.add_line(line.number, named, || mentions(line.bytes));
            }
        }
    }

    fn add(&mut self, line: u64, KernelEvent { conversation_id, event }: KernelEvent) {
        let Self { batch, latest, .. } = self;
        batch.accepted += 1;
        // Usually the conversation is that of the last event, which shares its id.
        if batch.conversations.get_index(*latest).is_none_or(|(id, _)| *id != conversation_id) {
            let entry = batch.conversations.entry(conversation_id);
            *latest = entry.index();
            entry.or_insert_with(|| Mentioned { first_line: line, events: Vec::new() });
        }
        batch.conversations[*latest].events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(conversation: &str, turn: &str) -> String {
        format!(r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"stop"}}"#)
    }

    fn reader(bad_lines: BadLines, body: &str) -> BatchReader {
        let mut reader = BatchReader::new(Framing::Lines, 1000, bad_lines);
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
        let batch = reader(BadLines::Refuse, &body).finish().unwrap();
        assert_eq!((batch.accepted, batch.ignored), (4, 1));
        let grouped: Vec<(&str, u64, Vec<&str>)> = batch
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
        let batch = reader(BadLines::Skip, &body).finish().unwrap();
        assert_eq!((batch.accepted, batch.refused.count), (2, 3));
        assert_eq!(batch.refused.named.iter().map(|refused| refused.line).collect::<Vec<_>>(), [1, 3, 5]);
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
}

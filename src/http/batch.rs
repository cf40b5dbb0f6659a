use std::collections::HashMap;

use super::error::ApiError;
use super::lines::{Lines, is_blank};
use crate::actors::Observe;
use crate::turn::{BadEvent, ConversationId, EventReader, KernelEvent, parse_line};

/// How a posted body holds events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One event a line.
    Ndjson,
    /// One event, on any number of lines.
    Json,
}

/// The events of one posted body, checked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// How many events count.
    pub(super) accepted: usize,
    /// How many do not.
    pub(super) ignored: usize,
    /// Those that count, a message for each conversation, in the order of their first mention.
    pub(super) observes: Vec<Observe>,
}

impl Batch {
    /// Reads a whole body; one bad event refuses all of it.
    pub(super) fn parse(format: Format, body: &[u8], max_line_bytes: usize) -> Result<Self, ApiError> {
        let mut batch = Self::default();
        let mut places = Places::default();
        match format {
            Format::Ndjson => {
                let mut reader = EventReader::default();
                for (number, line) in Lines::of(body) {
                    check_length(line, number, max_line_bytes)?;
                    batch.add(reader.read(line), &mut places).map_err(|error| bad_event(number, &error))?;
                }
            }
            Format::Json if is_blank(body) => {}
            Format::Json => {
                check_length(body, 1, max_line_bytes)?;
                batch.add(parse_line(body), &mut places).map_err(|error| bad_event(error.line(), &error))?;
            }
        }
        Ok(batch)
    }

    fn add(&mut self, read: Result<Option<KernelEvent>, BadEvent>, places: &mut Places) -> Result<(), BadEvent> {
        let KernelEvent { conversation_id, event } = match read {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.ignored += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.accepted += 1;
        // Mostly it is the conversation of the event before, which shares its id.
        if self.observes.get(places.latest).is_none_or(|latest| latest.conversation_id != conversation_id) {
            places.latest = *places.all.entry(conversation_id).or_insert_with_key(|conversation_id| {
                self.observes.push(Observe { conversation_id: conversation_id.clone(), events: Vec::new() });
                self.observes.len() - 1
            });
        }
        self.observes[places.latest].events.push(event);
        Ok(())
    }
}

/// Where in a batch each conversation stands.
#[derive(Default)]
struct Places {
    all: HashMap<ConversationId, usize>,
    /// That of the latest event.
    latest: usize,
}

fn check_length(event: &[u8], line: usize, max_line_bytes: usize) -> Result<(), ApiError> {
    if event.len() > max_line_bytes {
        return Err(ApiError::BadEvent { line, message: format!("an event has at most {max_line_bytes} bytes") });
    }
    Ok(())
}

fn bad_event(line: usize, error: &BadEvent) -> ApiError {
    ApiError::BadEvent { line, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(conversation: &str, turn: &str) -> String {
        format!(r#"{{"type":"done","conversationId":"{conversation}","turnId":"{turn}","reason":"stop"}}"#)
    }

    fn refusal(format: Format, body: &[u8], max_line_bytes: usize) -> (usize, String) {
        match Batch::parse(format, body, max_line_bytes).unwrap_err() {
            ApiError::BadEvent { line, message } => (line, message),
            other => panic!("{other:?}"),
        }
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
        let batch = Batch::parse(Format::Ndjson, body.as_bytes(), 1000).unwrap();
        assert_eq!((batch.accepted, batch.ignored), (4, 1));
        let grouped: Vec<(&str, Vec<&str>)> = batch
            .observes
            .iter()
            .map(|o| (o.conversation_id.as_str(), o.events.iter().map(|e| e.turn_id.as_str()).collect()))
            .collect();
        assert_eq!(grouped, [("b", vec!["1", "3", "2"]), ("a", vec!["2"])]);
    }

    #[test]
    fn a_bad_line_is_named_by_its_place_among_all_lines() {
        let body = format!("{}\n\n \n{{\"type\":1}}\n{}", done("c", "1"), done("c", "2"));
        assert_eq!(refusal(Format::Ndjson, body.as_bytes(), 1000).0, 4);
    }

    #[test]
    fn a_line_may_have_as_many_bytes_as_the_limit() {
        let (first, second) = (done("c", "1"), done("c", "10"));
        let body = format!("{first}\r\n{second}");
        assert!(Batch::parse(Format::Ndjson, body.as_bytes(), second.len()).is_ok());
        let (line, message) = refusal(Format::Ndjson, body.as_bytes(), first.len());
        assert_eq!(line, 2);
        assert!(message.contains(&first.len().to_string()), "{message}");
        assert_eq!(refusal(Format::Json, first.as_bytes(), first.len() - 1).0, 1);
    }

    #[test]
    fn json_is_one_event_on_any_number_of_lines() {
        let body =
            "\n{\n\"conversationId\": \"c\",\r\n\"turnId\": \"t\",\n\"reason\": \"stop\",\n\"type\": \"done\"\n}\n";
        assert_eq!(Batch::parse(Format::Json, body.as_bytes(), 1000).unwrap().accepted, 1);
        let two = format!("{}\n{}", done("c", "1"), done("c", "2"));
        assert_eq!(refusal(Format::Json, two.as_bytes(), 1000).0, 2);
        let bad = body.replace("\"stop\"", "7");
        assert_eq!(refusal(Format::Json, bad.as_bytes(), 1000).0, 5);
        assert_eq!(refusal(Format::Json, b"{}", 1000).0, 1);
    }

    #[test]
    fn a_body_of_nothing_is_a_batch_of_nothing() {
        for format in [Format::Json, Format::Ndjson] {
            for body in [&b""[..], b"\n", b" \r\n\t\n"] {
                assert_eq!(Batch::parse(format, body, 10).unwrap(), Batch::default(), "{format:?} {body:?}");
            }
        }
    }
}

//! The JSON of kernel events, read and written.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    ConversationId, Done, KernelEvent, KernelMoment, Label, Millis, Progress, StepId, StepTimes, TokenCount, TurnEvent,
    TurnEventKind, TurnId, TurnLabels, UsageReport,
};

/// Why a line is no kernel event. Displays what is wrong and where in the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadEvent {
    message: String,
    line: usize,
}

/// The most bytes of a message: it may quote what was sent, and that has any length.
const MAX_MESSAGE_BYTES: usize = 300;

impl BadEvent {
    fn new(path: &str, error: &serde_json::Error) -> Self {
        let mut message = error.to_string();
        // An event is one line: the column alone says where.
        if let Some(end) = message.rfind(" at line ") {
            message.truncate(end);
        }
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push_str("...");
        }
        let place = if matches!(path, "" | "." | "?") { String::new() } else { format!("`{path}`: ") };
        // An error of the object as a whole stands nowhere in particular.
        Self { message: format!("{place}{message} (column {})", error.column()), line: error.line().max(1) }
    }

    /// The line at which the event goes wrong, from 1: larger only for an event that is written on several lines.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// Reads one event from a line of JSON.
///
/// `None` is an event that does not count for metrics, of a known type or an unknown one. Such a line is not looked
/// at beyond its `type`, wherever in the object that stands. A field that is not known is ignored, an explicit `null`
/// is an absent field.
///
/// ```
/// # use turn_metrics::turn::parse_line;
/// let delta = br#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"hello"}"#;
/// assert!(parse_line(delta)?.is_none());
/// let done = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
/// assert_eq!(parse_line(done)?.unwrap().event.turn_id.as_str(), "t");
/// # Ok::<(), turn_metrics::turn::BadEvent>(())
/// ```
///
/// For many lines an [`EventReader`](super::EventReader) is faster.
pub fn parse_line(line: &[u8]) -> Result<Option<KernelEvent>, BadEvent> {
    match leading_type(line).map_or_else(|| find_type(line), |(kind, _)| Ok(kind))? {
        EventType::TurnStart => read::<TurnStartLine>(line),
        EventType::Usage => read::<UsageLine>(line),
        EventType::StepComplete => read::<StepCompleteLine>(line),
        EventType::Done => read::<DoneLine>(line),
        EventType::Error => read::<ErrorLine>(line),
        EventType::Ignored => Ok(None),
    }
}

fn read<'a, L>(line: &'a [u8]) -> Result<Option<KernelEvent>, BadEvent>
where
    L: Deserialize<'a> + Into<Option<KernelEvent>>,
{
    match serde_json::from_slice::<L>(line) {
        Ok(event) => Ok(event.into()),
        Err(error) => Err(explain::<L>(line, &error)),
    }
}

/// Reads the line once more, now noting the way to the field that is wrong.
fn explain<'a, L: Deserialize<'a>>(line: &'a [u8], error: &serde_json::Error) -> BadEvent {
    let mut json = serde_json::Deserializer::from_slice(line);
    match serde_path_to_error::deserialize::<_, L>(&mut json) {
        Err(error) => BadEvent::new(&error.path().to_string(), error.inner()),
        // What is wrong comes after the object.
        Ok(_) => BadEvent::new("", error),
    }
}

/// The types of kernel event that are told apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventType {
    TurnStart,
    Usage,
    StepComplete,
    Done,
    Error,
    Ignored,
}

impl EventType {
    fn named(name: &[u8]) -> Self {
        match name {
            b"turn-start" => Self::TurnStart,
            b"usage" => Self::Usage,
            b"step-complete" => Self::StepComplete,
            b"done" => Self::Done,
            b"error" => Self::Error,
            _ => Self::Ignored,
        }
    }
}

/// Whether a line is a delta that begins with its type, as a kernel writes it. Nine lines in ten are and end here.
#[inline]
pub(super) fn is_delta(line: &[u8]) -> bool {
    line.starts_with(br#"{"type":"text-delta""#) || line.starts_with(br#"{"type":"reasoning-delta""#)
}

/// The type of a line that begins with it, and what comes after it.
pub(super) fn leading_type(line: &[u8]) -> Option<(EventType, &[u8])> {
    let rest = line.strip_prefix(br#"{"type":""#)?;
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (rest[end] == b'"').then(|| (EventType::named(&rest[..end]), &rest[end + 1..]))
}

/// The type of any line. Reads no further than it has to.
fn find_type(line: &[u8]) -> Result<EventType, BadEvent> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(line);
    let result = json.deserialize_map(TypeFinder { found: &mut found });
    match (found, result) {
        // With the type found the rest of the line was left unread, which the reader calls an error.
        (Some(kind), _) => Ok(kind),
        (None, Err(error)) => Err(BadEvent::new("", &error)),
        (None, Ok(())) => Err(BadEvent::new("", &de::Error::missing_field("type"))),
    }
}

struct TypeFinder<'a> {
    found: &'a mut Option<EventType>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Type,
    #[serde(other)]
    Other,
}

impl<'de> de::Visitor<'de> for TypeFinder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kernel event, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            match key {
                Key::Type => {
                    *self.found = Some(map.next_value()?);
                    return Ok(());
                }
                Key::Other => map.next_value::<IgnoredAny>()?,
            };
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = EventType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the event's type, which is a string")
            }

            fn visit_str<E>(self, name: &str) -> Result<EventType, E> {
                Ok(EventType::named(name.as_bytes()))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

// The lines that count. `tag` writes the type; reading has seen it already and skips it like an unknown field.

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "turn-start", rename_all = "camelCase")]
struct TurnStartLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Label>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "usage", rename_all = "camelCase")]
struct UsageLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<StepId>,
    usage: UsageReport,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "step-complete", rename_all = "camelCase")]
struct StepCompleteLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    step_id: StepId,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    decode_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    gen_total_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "done", rename_all = "camelCase")]
struct DoneLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    reason: Label,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    duration_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_size: Option<TokenCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<KernelMoment>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "error", rename_all = "camelCase")]
struct ErrorLine {
    conversation_id: ConversationId,
    /// A kernel that fails outside a turn names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_id: Option<TurnId>,
}

fn event(conversation_id: ConversationId, turn_id: TurnId, kind: TurnEventKind) -> KernelEvent {
    KernelEvent { conversation_id, event: TurnEvent { turn_id, kind } }
}

impl From<TurnStartLine> for Option<KernelEvent> {
    fn from(line: TurnStartLine) -> Self {
        let TurnStartLine { conversation_id, turn_id, model, provider, project } = line;
        let labels = TurnLabels { model, provider, project };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(Progress::Start(labels))))
    }
}

impl From<UsageLine> for Option<KernelEvent> {
    fn from(line: UsageLine) -> Self {
        let UsageLine { conversation_id, turn_id, step_id, usage: report, is_final } = line;
        let progress = Progress::Usage { step_id, report, is_final: is_final.unwrap_or_default() };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(progress)))
    }
}

impl From<StepCompleteLine> for Option<KernelEvent> {
    fn from(line: StepCompleteLine) -> Self {
        let StepCompleteLine { conversation_id, turn_id, step_id, ttft_ms, decode_ms, gen_total_ms, model, provider } =
            line;
        let times = StepTimes { ttft: ttft_ms, decode: decode_ms, gen_total: gen_total_ms };
        let progress = Progress::StepComplete { step_id, times, model, provider };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(progress)))
    }
}

impl From<DoneLine> for Option<KernelEvent> {
    fn from(line: DoneLine) -> Self {
        let done = Done {
            reason: line.reason,
            duration: line.duration_ms,
            usage: line.usage,
            context_size: line.context_size,
            model: line.model,
            provider: line.provider,
            ended_at: line.ended_at,
        };
        Some(event(line.conversation_id, line.turn_id, TurnEventKind::Done(done)))
    }
}

impl From<ErrorLine> for Option<KernelEvent> {
    fn from(line: ErrorLine) -> Self {
        let ErrorLine { conversation_id, turn_id } = line;
        Some(event(conversation_id, turn_id?, TurnEventKind::Progress(Progress::Failed)))
    }
}

impl Serialize for KernelEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let conversation_id = self.conversation_id.clone();
        let turn_id = self.event.turn_id.clone();
        match self.event.kind.clone() {
            TurnEventKind::Progress(Progress::Start(TurnLabels { model, provider, project })) => {
                TurnStartLine { conversation_id, turn_id, model, provider, project }.serialize(serializer)
            }
            TurnEventKind::Progress(Progress::Usage { step_id, report: usage, is_final }) => {
                let is_final = is_final.then_some(true);
                UsageLine { conversation_id, turn_id, step_id, usage, is_final }.serialize(serializer)
            }
            TurnEventKind::Progress(Progress::StepComplete { step_id, times, model, provider }) => {
                let StepTimes { ttft: ttft_ms, decode: decode_ms, gen_total: gen_total_ms } = times;
                StepCompleteLine {
                    conversation_id,
                    turn_id,
                    step_id,
                    ttft_ms,
                    decode_ms,
                    gen_total_ms,
                    model,
                    provider,
                }
                .serialize(serializer)
            }
            TurnEventKind::Progress(Progress::Failed) => {
                ErrorLine { conversation_id, turn_id: Some(turn_id) }.serialize(serializer)
            }
            TurnEventKind::Done(done) => {
                let Done { reason, duration: duration_ms, usage, context_size, model, provider, ended_at } = done;
                DoneLine {
                    conversation_id,
                    turn_id,
                    reason,
                    duration_ms,
                    usage,
                    context_size,
                    model,
                    provider,
                    ended_at,
                }
                .serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ignored(line: &str) -> bool {
        parse_line(line.as_bytes()).unwrap().is_none()
    }

    fn message(line: &[u8]) -> String {
        parse_line(line).unwrap_err().to_string()
    }

    #[test]
    fn an_ignored_event_is_not_looked_at_beyond_its_type_wherever_that_stands() {
        for line in [
            r#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"x"}"#,
            r#"{"type":"status"}"#,
            r#"{"type":"telepathy","usage":-1}"#,
            r#"{"type":""}"#,
            r#"{"type":"text-delta","conversationId":"", and no JSON"#,
            r#" { "conversationId" : 7, "deep" : [[{"type":"done"}]], "type" : "text-delta", and no JSON"#,
            r#"{"type":"text\u002ddelta"}"#,
        ] {
            assert!(is_ignored(line), "{line}");
        }
    }

    #[test]
    fn a_type_that_counts_is_found_however_it_is_written() {
        for line in [
            r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#,
            r#"{"conversationId":"c","turnId":"t","reason":"stop","x":{"type":"usage"},"type":"done"}"#,
            r#"  {  "type" : "done" , "conversationId":"c","turnId":"t","reason":"stop"}  "#,
            r#"{"\u0074ype":"d\u006fne","conversationId":"c","turnId":"t","reason":"stop"}"#,
        ] {
            let event = parse_line(line.as_bytes()).unwrap().unwrap().event;
            assert_eq!(event.kind, TurnEventKind::Done(Done::because("stop")), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let line = br#"{"type":"usage","conversationId":"c","turnId":"t","usage":{"inputTokens":-1,"outputTokens":0}}"#;
        assert_eq!(
            message(line),
            "`usage.inputTokens`: invalid value: integer `-1`, expected a whole number from 0 to 9007199254740991 (column 75)"
        );
        assert_eq!(
            message(b"[1,2]"),
            "invalid type: sequence, expected a kernel event, which is a JSON object (column 0)"
        );
        assert_eq!(message(b"{}"), "missing field `type` (column 0)");
        assert_eq!(message(br#"{"type":"done"}"#), "missing field `conversationId` (column 15)");
        assert_eq!(
            message(br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"} x"#),
            "trailing characters (column 67)"
        );
    }

    #[test]
    fn a_message_does_not_grow_with_what_was_sent() {
        let text = "é".repeat(10_000);
        let line = format!(r#"{{"type":"usage","conversationId":"c","turnId":"t","usage":"{text}"}}"#);
        assert!(message(line.as_bytes()).len() < 400);
    }

    #[test]
    fn invalid_utf8_is_a_bad_event() {
        let mut line = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"X"}"#.to_vec();
        let at = line.iter().position(|b| *b == b'X').unwrap();
        line[at] = 0xff;
        assert!(message(&line).contains("reason"), "{}", message(&line));
        assert!(parse_line(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_100_000_deep_value_neither_overflows_the_stack_nor_hides_the_type() {
        let deep = "[".repeat(100_000);
        assert!(parse_line(deep.as_bytes()).is_err());
        let closed = format!("{deep}{}", "]".repeat(100_000));
        let ignored = format!(r#"{{"x":{closed},"type":"text-delta"}}"#);
        assert!(is_ignored(&ignored));
        let done = format!(r#"{{"type":"done","x":{closed},"conversationId":"c","turnId":"t","reason":"stop"}}"#);
        assert!(parse_line(done.as_bytes()).unwrap().is_some());
        let usage = format!(r#"{{"type":"usage","conversationId":"c","turnId":"t","usage":{closed}}}"#);
        assert!(parse_line(usage.as_bytes()).is_err());
    }
}

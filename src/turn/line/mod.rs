//! Parses a line of JSON into the event in it.
//!
//! The *structure* of a line is its strings, brackets, colons and commas. The parser follows the structure of every
//! line to the last brace, even if the type of the line does not count. So no line can hide an event, such as a second
//! line glued to it, or a line that follows a torn one.
//!
//! Invariants: an ignored line is one JSON object with one `type`. Following a structure takes one bit of memory for
//! each open bracket, and no function here recurses over the input. Every message uses the terms of JSON.
//!
//! - `structure`: follows an object to its last brace and finds its `type`.
//! - `nesting`: the open brackets of a structure.
//! - `text`: scans JSON strings, many bytes at a time.
//! - `structure_error`: errors in a structure.
//! - `flat`: the fast path for deltas.
//! - `value`: reads the fields of an event whose structure is right.
//! - `bad_event`: why a line is not an event.
//! - `shape`: follows the structure of a long line that is not kept, for `ingest`.
//! - `stream`: splits bytes that arrive in pieces into events.
//! - `encoding`: detects bytes that are not UTF-8.
//! - `wrong_form`: detects a text that has another form than one event a line, such as a JSON array.
//! - `object`: reads a line that is no event but a sealed turn, by the same rules.
//! - `mention`: finds the turns that a bad line mentions.
//! - `edges`: keeps the start and the end of a long bad line, to find the turns in them.
//! - `tests`: lines that are complete, glued, cut and spliced.

pub(super) mod bad_event;
#[cfg(feature = "server")]
mod edges;
#[cfg(feature = "server")]
mod encoding;
pub(super) mod flat;
#[cfg(feature = "server")]
mod mention;
mod nesting;
#[cfg(feature = "server")]
mod object;
#[cfg(feature = "server")]
mod shape;
#[cfg(feature = "server")]
mod stream;
mod structure;
mod structure_error;
#[cfg(test)]
mod tests;
mod text;
mod value;
#[cfg(feature = "server")]
mod wrong_form;

use serde::Deserialize;

use super::wire::{DoneLine, EventType, StepCompleteLine, TurnStartLine, UsageLine};
use super::{BadEvent, ConversationId, KernelEvent, Progress, TurnEvent, TurnEventKind, TurnId};
use structure::Structure;
use structure_error::{StructureError, StructureErrorKind};
use value::{FieldError, Value};

#[cfg(feature = "server")]
pub(crate) use edges::keep_edges;
#[cfg(feature = "server")]
pub(crate) use encoding::Encoding;
#[cfg(feature = "server")]
pub(crate) use mention::{Mention, mentions};
#[cfg(feature = "server")]
pub(crate) use object::TurnObject;
#[cfg(feature = "server")]
pub(crate) use shape::{Shape, type_name};
#[cfg(feature = "server")]
pub(crate) use stream::{EventStream, Framing, LONG_LINE_BYTES, Line};
#[cfg(feature = "server")]
pub(crate) use wrong_form::{ARRAY, is_array};

/// Reads one event from a line of JSON.
///
/// Returns `None` for an event that does not count for metrics, whether its type is known or not. Only the structure of
/// such a line is checked: it must be one JSON object with one `type`. In an event that counts, an unknown field is
/// ignored, an explicit `null` means an absent field, and a known field that occurs twice is an error.
///
/// ```
/// # use turn_metrics::turn::parse_line;
/// let delta = br#"{"type":"text-delta","conversationId":"c","turnId":"t","delta":"hello"}"#;
/// assert!(parse_line(delta)?.is_none());
/// let done = br#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop"}"#;
/// assert_eq!(parse_line(done)?.unwrap().event.turn_id.as_str(), "t");
/// let glued = [&delta[..], done].concat();
/// assert!(parse_line(&glued).is_err());
/// # Ok::<(), turn_metrics::turn::BadEvent>(())
/// ```
///
/// To read many lines, use an [`EventReader`](super::EventReader), which is faster.
pub fn parse_line(line: &[u8]) -> Result<Option<KernelEvent>, BadEvent> {
    match find_type(line)? {
        EventType::TurnStart => read::<TurnStartLine>(line),
        EventType::Usage => read::<UsageLine>(line),
        EventType::StepComplete => read::<StepCompleteLine>(line),
        EventType::Done => read::<DoneLine>(line),
        EventType::Error => read_error(line),
        EventType::Ignored => Ok(None),
    }
}

/// Follows a line to its end and returns its type.
fn find_type(line: &[u8]) -> Result<EventType, BadEvent> {
    let mut structure = Structure::default();
    let followed = structure.feed(line).and_then(|()| structure.finish());
    followed.map_err(|error| bad_structure(line, error))
}

/// Returns the error of a line, with advice that depends on its contents.
fn bad_structure(line: &[u8], error: StructureError) -> BadEvent {
    const MAX_KEYS: usize = 8;
    if error.kind != StructureErrorKind::TypeMissing {
        return BadEvent::of_structure(error);
    }
    // The keys of the object show which other program wrote it.
    let keys = Value::of_event(line).fields().names(MAX_KEYS);
    let shown: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    let message = match shown.len() {
        0 => error.to_string(),
        _ => format!("{error}; the object has {}", shown.join(", ")),
    };
    BadEvent::new(message, error.line)
}

fn read<'a, L>(line: &'a [u8]) -> Result<Option<KernelEvent>, BadEvent>
where
    L: Deserialize<'a> + Into<Option<KernelEvent>>,
{
    match L::deserialize(Value::of_event(line)) {
        Ok(event) => Ok(event.into()),
        Err(error) => Err(BadEvent::of_field(line, &error)),
    }
}

/// Reads an `error`. Only its ids are used, so its other fields are not checked, as in an ignored line.
fn read_error(line: &[u8]) -> Result<Option<KernelEvent>, BadEvent> {
    let read = || {
        let [conversation_id, turn_id] = Value::of_event(line).fields().values_of(["conversationId", "turnId"])?;
        // An error outside a turn has no ids.
        let Some(turn_id) = turn_id else { return Ok(None) };
        let missing = || <FieldError as serde::de::Error>::missing_field("conversationId");
        let conversation_id = ConversationId::deserialize(conversation_id.ok_or_else(missing)?);
        let conversation_id = conversation_id.map_err(|error| error.within("conversationId"))?;
        let turn_id = TurnId::deserialize(turn_id).map_err(|error| error.within("turnId"))?;
        let event = TurnEvent { turn_id, kind: TurnEventKind::Progress(Progress::Failed) };
        Ok(Some(KernelEvent { conversation_id, event }))
    };
    read().map_err(|error: FieldError| BadEvent::of_field(line, &error))
}

/// Returns the type and the rest of a line that begins with its type in canonical form.
pub(super) fn leading_type(line: &[u8]) -> Option<(EventType, &[u8])> {
    let rest = line.strip_prefix(br#"{"type":""#)?;
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    (rest[end] == b'"').then(|| (EventType::named(&rest[..end]), &rest[end + 1..]))
}

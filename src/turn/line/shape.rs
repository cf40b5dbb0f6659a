use super::super::wire::EventType;
use super::BadEvent;
use super::structure::Structure;
use super::value::Value;

/// Follows a line that is too long to be kept, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Shape(Structure);

impl Shape {
    /// Takes in the next piece; after an error nothing more may come.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), BadEvent> {
        self.0.feed(piece).map_err(BadEvent::of_structure)
    }

    /// Whether the line is known to be ignored, if it is whole.
    pub(crate) fn is_ignored(&self) -> bool {
        self.0.event_type() == Some(EventType::Ignored)
    }

    /// Makes sure that the line is whole.
    pub(crate) fn finish(&self) -> Result<(), BadEvent> {
        self.0.finish().map(drop).map_err(BadEvent::of_structure)
    }
}

/// The `type` of a line, if it is an event.
pub(crate) fn type_name(line: &[u8]) -> Option<String> {
    let mut structure = Structure::default();
    structure.feed(line).ok()?;
    structure.finish().ok()?;
    Value::of_event(line).fields().string("type")
}

use super::super::wire::EventType;
use super::BadEvent;
use super::structure::Structure;
use super::value::Value;

/// Follows the structure of a line that is too long to keep, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Shape(Structure);

impl Shape {
    /// Follows the next piece. Must not be called after an error.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), BadEvent> {
        self.0.feed(piece).map_err(BadEvent::of_structure)
    }

    /// Returns whether the line will be ignored, provided that the rest of the line is valid.
    pub(crate) fn is_ignored(&self) -> bool {
        self.0.event_type() == Some(EventType::Ignored)
    }

    /// Returns the memory that the open brackets take, an eighth of a byte each.
    pub(crate) fn nesting_bytes(&self) -> usize {
        self.0.nesting_bytes()
    }

    /// Checks that the line is complete.
    pub(crate) fn finish(&self) -> Result<(), BadEvent> {
        self.0.finish().map(drop).map_err(BadEvent::of_structure)
    }
}

/// Returns the `type` of a line that is one object with one `type`.
pub(crate) fn type_name(line: &[u8]) -> Option<String> {
    let mut structure = Structure::default();
    structure.feed(line).ok()?;
    structure.finish().ok()?;
    Value::of_event(line).fields().string("type")
}

use super::structure_error::StructureError;
use super::value::{FieldError, Value};

/// Why a line is not a kernel event. Displays as a message in terms of JSON; errors of structure have the position in
/// the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadEvent {
    message: String,
    line: usize,
    is_torn: bool,
}

/// The maximum length of a message, since a message may quote parts of the line, which may be long.
const MAX_MESSAGE_BYTES: usize = 300;

impl BadEvent {
    pub(super) fn new(mut message: String, line: usize) -> Self {
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push_str("...");
        }
        Self { message, line, is_torn: false }
    }

    /// Returns the line of the error, counted from 1 within the event. It is larger than 1 only for an event that spans
    /// several lines.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns whether the line looks like a record that a crash cut off, alone or with the next record after it.
    #[cfg(feature = "server")]
    pub(crate) fn is_torn(&self) -> bool {
        self.is_torn
    }
}

impl BadEvent {
    /// Returns the error of a broken structure.
    pub(super) fn of_structure(error: StructureError) -> Self {
        Self { is_torn: error.is_torn, ..Self::new(error.to_string(), error.line) }
    }

    /// Returns the error of a field of `event`.
    pub(super) fn of_field(event: &[u8], error: &FieldError) -> Self {
        let before = event.get(..error.at()).unwrap_or(event);
        let line = before.split(|byte| *byte == b'\n').count();
        let message = match error.missing_field() {
            Some(name) if Value::of_event(event).fields().any_named(name) => {
                format!("`{name}` is null, which counts as missing")
            }
            Some(name) if Value::of_event(event).fields().any_named(&snake_case(name)) => {
                format!("{error}; `{}` is no field of an event", snake_case(name))
            }
            _ => error.to_string(),
        };
        Self::new(message, line)
    }

    /// Returns the error of an event that counts for metrics and is longer than the maximum.
    #[cfg(feature = "server")]
    pub(super) fn too_long(max_bytes: usize) -> Self {
        Self::new(format!("an event that counts must have at most {max_bytes} bytes"), 1)
    }
}

/// Spells a name in the style of Python: `turnId` as `turn_id`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

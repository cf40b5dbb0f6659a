use super::fault::Fault;
use super::value::FieldError;

/// Why a line is no kernel event. Displays what is wrong, in the words of JSON, and where in the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadEvent {
    message: String,
    line: usize,
}

/// The most bytes of a message: it may name what was sent, and that has any length.
const MAX_MESSAGE_BYTES: usize = 300;

impl BadEvent {
    pub(super) fn new(mut message: String, line: usize) -> Self {
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push_str("...");
        }
        Self { message, line }
    }

    /// The line at which the event goes wrong, from 1: larger only for an event that is written on several lines.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl BadEvent {
    /// What is wrong with the structure of a line.
    pub(super) fn of_structure(fault: Fault) -> Self {
        Self::new(fault.to_string(), fault.line)
    }

    /// What is wrong with a field of `event`.
    pub(super) fn of_field(event: &[u8], error: &FieldError) -> Self {
        let before = event.get(..error.at()).unwrap_or(event);
        let line = before.split(|byte| *byte == b'\n').count();
        Self::new(error.to_string(), line)
    }

    /// An event that counts and has more bytes than it may.
    #[cfg(feature = "server")]
    pub(super) fn too_long(max_bytes: usize) -> Self {
        Self::new(format!("an event that counts must have at most {max_bytes} bytes"), 1)
    }
}

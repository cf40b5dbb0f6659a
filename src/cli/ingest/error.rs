use std::io;

use crate::cli::send::SendError;
use crate::turn::ARRAY;

/// The reason why an input was not sent completely, and how much of it was sent.
#[derive(Debug, thiserror::Error)]
#[error("{input}: {failure}{}", self.outcome())]
pub struct IngestError {
    /// The name of the input.
    pub input: String,
    /// What went wrong.
    pub failure: IngestFailure,
    /// The number of lines from the start of the input that are acknowledged or were refused.
    pub acknowledged_lines: u64,
    /// Whether some of these lines were refused.
    pub is_any_refused: bool,
    /// The line from which a new run may continue. `None` if a new run must begin with the first line.
    pub next_line: Option<u64>,
}

/// The reason why an input was not sent completely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestFailure {
    /// The input could not be opened.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// The input could not be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The input is UTF-16.
    #[error("the text is UTF-16, but must be UTF-8")]
    Utf16,
    /// The input is UTF-32.
    #[error("the text is UTF-32, but must be UTF-8")]
    Utf32,
    /// The input is one JSON array.
    #[error("{ARRAY}")]
    Array,
    /// The input ends before the first line to send.
    #[error("there is no line {from_line} to begin with: the last line is {lines}")]
    NoSuchLine {
        /// The first line to send.
        from_line: u64,
        /// How many lines the input has.
        lines: u64,
    },
    /// An event is refused.
    #[error("line {line} is refused: {error} (correct it, or go on after it with `--from-line {}` or `--skip-bad`)", line.saturating_add(1))]
    BadLine {
        /// The line of the input.
        line: u64,
        /// The reason for which the line is refused.
        error: String,
    },
    /// Conversations are over a limit of the server. All other events were taken in.
    #[error("{conversations} conversations are refused, the first at line {line}; all others were taken in")]
    OverLimit {
        /// The number of these conversations.
        conversations: usize,
        /// The first line of the first such conversation.
        line: u64,
    },
    /// More conversations are over a limit than `ingest` can remember.
    #[error("more than {limit} conversations are refused")]
    TooManyRefused {
        /// The maximum number of such conversations.
        limit: usize,
    },
    /// The input has no event that counts.
    #[error("none of its events{} counts: {event_types}", if *.from_line > 1 { format!(" from line {from_line} on") } else { String::new() })]
    NothingCounts {
        /// The line with which the run began.
        from_line: u64,
        /// The types of the lines that the input has instead.
        event_types: String,
    },
    /// A batch was not acknowledged.
    #[error("lines {first} to {last}: {}", with_cause(.cause))]
    Batch {
        /// The first line of the batch.
        first: u64,
        /// The last line of the batch.
        last: u64,
        /// The reason why the batch was not acknowledged.
        cause: Box<SendError>,
    },
}

impl IngestError {
    /// Describes how much of the input was sent. Empty if nothing was sent, or if all inputs were read to their ends.
    fn outcome(&self) -> String {
        match self.failure {
            IngestFailure::Open(_)
            | IngestFailure::Utf16
            | IngestFailure::Utf32
            | IngestFailure::Array
            | IngestFailure::NoSuchLine { .. }
            | IngestFailure::OverLimit { .. } => String::new(),
            _ => {
                let acknowledged = acknowledged(self.acknowledged_lines, self.is_any_refused);
                format!("; {acknowledged}{}", to_go_on(self.next_line))
            }
        }
    }
}

/// Returns the error, and the reason why the last of several tries failed.
fn with_cause(error: &SendError) -> String {
    match error {
        SendError::GaveUp { source, .. } => format!("{error}: {source}"),
        error => error.to_string(),
    }
}

/// Describes how a new run can continue from a line; empty if it cannot.
pub(super) fn to_go_on(next_line: Option<u64>) -> String {
    match next_line {
        None => String::new(),
        Some(1) => "; to go on, begin with this input".into(),
        Some(line) => format!("; to go on, begin with this input and `--from-line {line}`"),
    }
}

pub(super) fn acknowledged(lines: u64, is_any_refused: bool) -> String {
    match lines {
        0 => "no line is acknowledged".into(),
        lines if is_any_refused => format!("all lines up to {lines} are acknowledged, except for the refused ones"),
        lines => format!("all lines up to {lines} are acknowledged"),
    }
}

impl IngestFailure {
    /// Returns whether the file as a whole is wrong, so that the other files can still be sent.
    pub(super) fn is_of_the_file(&self) -> bool {
        match self {
            Self::Open(_)
            | Self::Read(_)
            | Self::Utf16
            | Self::Utf32
            | Self::Array
            | Self::NoSuchLine { .. }
            | Self::NothingCounts { .. } => true,
            Self::BadLine { .. } | Self::OverLimit { .. } | Self::TooManyRefused { .. } | Self::Batch { .. } => false,
        }
    }

    /// Returns whether the remaining lines can just be sent later. This is not so after a refusal, which the user has
    /// to deal with first.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Batch { .. })
    }
}

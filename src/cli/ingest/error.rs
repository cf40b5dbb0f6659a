use std::io;

use super::MAX_LINE_BYTES;

/// Why an input was not taken in whole, and how far it got.
#[derive(Debug, thiserror::Error)]
#[error("{input}: {failure}; {}", acknowledged(*.acknowledged_lines))]
pub struct IngestError {
    /// The name of the input.
    pub input: String,
    /// What went wrong.
    pub failure: IngestFailure,
    /// The number of lines from its start that are acknowledged.
    pub acknowledged_lines: u64,
}

/// Why an input was not taken in whole.
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
    #[error("the text is UTF-16, and must be UTF-8")]
    Utf16,
    /// A line is longer than any event may be.
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes and not ignored")]
    LineTooLong {
        /// The line.
        line: u64,
    },
    /// An event is refused.
    #[error("line {line} is refused: {error} (correct it, or go on after it with `--from-line {}` or `--skip-bad`)", line.saturating_add(1))]
    BadLine {
        /// The line of the input.
        line: u64,
        /// What is wrong with it.
        error: String,
    },
    /// Conversations are over a limit of the server. All other events were taken in.
    #[error("{conversations} conversations are refused, the first at line {line}; all others were taken in")]
    OverLimit {
        /// How many conversations.
        conversations: usize,
        /// The first line of the first of them.
        line: u64,
    },
    /// More conversations are over a limit than `ingest` can remember.
    #[error("more than {limit} conversations are refused")]
    TooManyRefused {
        /// The maximum number of such conversations.
        limit: usize,
    },
    /// No line of the input counts.
    #[error("none of its events counts: {seen}")]
    NothingCounts {
        /// What the input has instead.
        seen: String,
    },
    /// A batch was not acknowledged.
    #[error("lines {first} to {last}: {cause}")]
    Batch {
        /// The first line of the batch.
        first: u64,
        /// Its last line.
        last: u64,
        /// The cause, with its own causes.
        cause: String,
    },
}

pub(super) fn acknowledged(lines: u64) -> String {
    match lines {
        0 => "no line is acknowledged".into(),
        lines => format!("all lines up to {lines} are acknowledged"),
    }
}

impl IngestFailure {
    /// Whether the file is wrong as a whole, so that the others can still be sent.
    pub(super) fn is_of_the_file(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Read(_) | Self::Utf16 | Self::NothingCounts { .. })
    }
}

use std::io::{self, BufWriter, Write};

use super::{EventLost, EventSink, MAX_WAITING};
use crate::line_queue::{self, LineLost, LineQueue, LineWriter};
use crate::turn::KernelEvent;

/// A sink that writes events as lines of JSON, as a kernel sends them to `POST /events`.
///
/// A separate thread writes the lines; at most `limit` lines wait for that thread. A clone is the same sink.
///
/// ```
/// use turn_metrics::recorder::{NdjsonSink, Recorder};
/// use turn_metrics::turn::{ConversationId, TurnId, TurnLabels};
///
/// let file = tempfile::NamedTempFile::new()?;
/// let (sink, writer) = NdjsonSink::start(file.reopen()?, 1000)?;
/// let turn = Recorder::new(sink).start_turn(ConversationId::new("c")?, TurnId::new("t")?, TurnLabels::of_model("some-model"))?;
/// drop(turn);
/// drop(writer);
/// let lines = std::fs::read_to_string(file.path())?;
/// assert!(lines.starts_with(
///     r#"{"type":"turn-start","conversationId":"c","turnId":"t","model":"some-model"}
/// {"type":"done","conversationId":"c","turnId":"t","reason":"aborted","durationMs":"#
/// ));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct NdjsonSink {
    queue: LineQueue,
}

/// The thread behind an [`NdjsonSink`]. Dropping the writer waits until all events that the sink took are written.
/// After that, the sink refuses events.
#[derive(Debug)]
pub struct NdjsonWriter(#[expect(dead_code, reason = "the drop ends the thread")] LineWriter);

impl NdjsonSink {
    /// Starts the thread that writes to `writer`. At most `limit` lines wait, limited to the range from 1 to 2^20.
    /// Fails if the thread cannot be started.
    pub fn start(writer: impl Write + Send + 'static, limit: usize) -> io::Result<(Self, NdjsonWriter)> {
        let (queue, writer) = line_queue::start("events-writer", limit.clamp(1, MAX_WAITING), BufWriter::new(writer))?;
        Ok((Self { queue }, NdjsonWriter(writer)))
    }

    /// Returns the number of events that the sink took but could not write. Events count while it is unknown whether
    /// they were written; a later successful write clears such doubts.
    pub fn failures(&self) -> u64 {
        self.queue.failures()
    }
}

impl EventSink for NdjsonSink {
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost> {
        // Events have only texts and finite numbers, so serializing them cannot fail.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        self.queue.offer(line).map_err(|lost| match lost {
            LineLost::Full => EventLost::Full,
            LineLost::Closed => EventLost::Gone,
        })
    }
}

//! The span log: a rotating file with a line of JSON for every closed span. jq, DuckDB or SQLite can read it.
//!
//! ```
//! use turn_metrics::span_log::SpanLog;
//! use turn_metrics::settings::SpanLogSettings;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let directory = tempfile::tempdir()?;
//! let file = directory.path().join("spans.ndjson");
//! let (layer, writer) = SpanLog::start(&file, &SpanLogSettings::default())?;
//! let subscriber = tracing_subscriber::registry().with(layer);
//! tracing::subscriber::with_default(subscriber, || drop(tracing::info_span!("turn", turnId = "t", tokens = 7)));
//! drop(writer);
//!
//! let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
//! assert_eq!((&line["name"], &line["turnId"], &line["attributes"]["tokens"]), (&"turn".into(), &"t".into(), &7.into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A line has `name`, `parent` (the name of the enclosing span), `conversationId`, `turnId` and `stepId` (of the span
//! or of the nearest enclosing span that has them), `startMs` (since 1970), `durationMs`, and `attributes`: all other
//! fields of the span under their own names. A value that is not known is left out.
//!
//! # Files
//!
//! - `fields`: the fields of a span as JSON values.
//! - `rotating`: a file that is renamed when it is full.
//! - `tests`: the lines of nested spans.

mod fields;
mod rotating;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tracing::Subscriber;
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use self::fields::Fields;
use self::rotating::RotatingFile;
use crate::clock::{Clock, SharedClock, SharedStopwatch, SystemClock, SystemStopwatch};
use crate::deceptive::undeceptive;
use crate::line_queue::{self, LineQueue, LineWriter};
use crate::settings::SpanLogSettings;
use crate::turn::{EpochMillis, Millis};

/// The layer that writes the span log. Closing a span never waits, because a separate thread writes. If the queue of
/// the thread is full, lines are lost and counted.
pub struct SpanLog {
    queue: LineQueue,
    clock: SharedClock,
    stopwatch: SharedStopwatch,
}

/// The thread that writes the span log. Dropping this value waits until every span that was closed before is written;
/// [`SpanLogWriter::close_within`] limits the wait.
#[derive(Debug)]
pub struct SpanLogWriter {
    /// Dropping this ends the thread.
    writer: LineWriter,
    queue: LineQueue,
}

impl SpanLog {
    /// Opens the file to append to it, and starts the thread. Fails if the file cannot be opened. The length of the
    /// queue is limited to the range from one line to ten million.
    pub fn start(file: &Path, settings: &SpanLogSettings) -> io::Result<(Self, SpanLogWriter)> {
        let rotating = RotatingFile::open(file, settings.max_file_bytes, settings.max_files)?;
        let (queue, writer) = line_queue::start("span-log", settings.queue_lines, rotating)?;
        let span_log = Self {
            queue: queue.clone(),
            clock: Arc::new(SystemClock),
            stopwatch: Arc::new(SystemStopwatch::default()),
        };
        Ok((span_log, SpanLogWriter { writer, queue }))
    }

    /// Replaces the sources of time: moments come from `clock`, durations from `stopwatch`.
    #[must_use]
    pub fn timed_by(mut self, clock: impl Clock, stopwatch: SharedStopwatch) -> Self {
        self.clock = Arc::new(clock);
        self.stopwatch = stopwatch;
        self
    }
}

impl SpanLogWriter {
    /// Returns how many spans are missing in the span log because the queue was full or writing failed. It includes
    /// spans in doubt until a later write succeeds.
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Waits until every span that was closed before is written, but no longer than `patience`, because a failing disk
    /// may never finish. Returns whether the spans are written.
    pub fn close_within(&mut self, patience: Duration) -> bool {
        self.writer.close_within(patience)
    }
}

/// The data of an open span.
struct OpenSpan {
    start: EpochMillis,
    /// The start of the span by the stopwatch.
    started: Duration,
    fields: Fields,
}

/// The fields that identify the conversation, turn and step. Child spans inherit them.
const PLACE: [&str; 3] = ["conversationId", "turnId", "stepId"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanLine<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<Value>,
    start_ms: EpochMillis,
    duration_ms: Millis,
    attributes: BTreeMap<&'static str, Value>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(OpenSpan { start: self.clock.now(), started: self.stopwatch.elapsed(), fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<OpenSpan>()
        {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let [conversation_id, turn_id, step_id] = PLACE.map(|name| inherited(&span, name));
        let Some(open) = span.extensions_mut().remove::<OpenSpan>() else { return };
        let parent = span.parent();
        let line = SpanLine {
            name: span.name(),
            parent: parent.as_ref().map(SpanRef::name),
            conversation_id,
            turn_id,
            step_id,
            start_ms: open.start,
            duration_ms: self.stopwatch.elapsed().saturating_sub(open.started).into(),
            attributes: open.fields.into_iter().filter(|(name, _)| !PLACE.contains(name)).collect(),
        };
        // Lines have only texts and numbers, so serializing them cannot fail.
        let line = serde_json::to_string(&line).unwrap_or_default();
        // The queue counts the lines that it refuses.
        let _ = self.queue.offer(format!("{}\n", undeceptive(&line)).into_bytes());
    }
}

/// Returns the field of the span or of the nearest enclosing span that has it.
fn inherited<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>, name: &str) -> Option<Value> {
    span.scope().find_map(|span| span.extensions().get::<OpenSpan>()?.fields.get(name).cloned())
}

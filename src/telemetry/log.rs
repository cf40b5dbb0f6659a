//! The log: one thread writes lines to standard error, and no other thread waits for it.

use std::fmt::{Display, Write as _};
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::whole_lines::WholeLines;
use crate::deceptive::undeceptive;
use crate::line_queue::{self, LineLost, LineQueue, LineWriter};

/// The maximum number of lines that wait. They cover a few seconds of a busy service and take about two megabytes.
const QUEUE_LINES: usize = 4096;

/// How long the end of the process waits for queued lines. It is enough for a reader that reads at all.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(1);

/// The log of this process, once set.
static LOG: OnceLock<Log> = OnceLock::new();

/// Queues lines for standard error; never waits.
#[derive(Debug, Clone)]
pub(super) struct Log {
    queue: LineQueue,
    style: Style,
}

/// The format of lines that do not come from the `tracing` subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    Json,
}

impl Log {
    /// Starts the thread that writes.
    pub(super) fn start(style: Style) -> io::Result<(Self, LineWriter)> {
        let notice = Box::new(move |lost, error: Option<&io::Error>| style.notice(lost, error));
        let stderr = WholeLines::new(io::stderr());
        let (queue, writer) = line_queue::start_with_notice("log", QUEUE_LINES, stderr, notice)?;
        Ok((Self { queue, style }, writer))
    }

    /// Makes this value the log of the process. From now on it receives panics and the lines of [`note`].
    pub(super) fn install(self) {
        // A second log is ignored, because a process sets up its telemetry once.
        if LOG.set(self).is_ok() {
            std::panic::set_hook(Box::new(super::panic::log));
        }
    }

    /// The log of this process.
    pub(super) fn installed() -> Option<&'static Self> {
        LOG.get()
    }

    /// Adds a line that the program writes at every log level.
    pub(super) fn add(&self, level: Level, message: &str, fields: &[(&str, Value)]) {
        // The queue counts the lines that it refuses.
        let _ = offer(&self.queue, &self.style.line(level, message, fields));
    }

    /// Waits until the lines added so far are written, but no longer than `patience`.
    pub(super) fn flush_within(&self, patience: Duration) {
        self.queue.flush_within(patience);
    }
}

/// Adds a plain line for a human reader. Returns `false` if the process has no log.
pub(crate) fn note(line: &str) -> bool {
    let Some(log) = LOG.get() else { return false };
    let _ = offer(&log.queue, format!("{line}\n").as_bytes());
    true
}

/// Queues a line, with all deceptive characters in it escaped.
fn offer(queue: &LineQueue, line: &[u8]) -> Result<(), LineLost> {
    queue.offer(match std::str::from_utf8(line) {
        Ok(text) => undeceptive(text).into_owned().into_bytes(),
        Err(_) => line.to_vec(),
    })
}

/// Waits for the log for at most [`END_PATIENCE`], when the process ends without closing the log.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.flush_within(END_PATIENCE);
    }
}

impl Style {
    /// Formats the notice about lost lines.
    fn notice(self, lost: u64, error: Option<&io::Error>) -> Vec<u8> {
        let message = match lost {
            1 => "1 log line was dropped".to_owned(),
            lost => format!("{lost} log lines were dropped"),
        };
        let mut fields = vec![("lines", json!(lost))];
        fields.extend(error.map(|error| ("error", json!(error.to_string()))));
        self.line(Level::WARN, &message, &fields)
    }

    /// Formats a line as the subscriber does. It is for lines that cannot go through the subscriber, because the
    /// subscriber would call itself.
    fn line(self, level: Level, message: &str, fields: &[(&str, Value)]) -> Vec<u8> {
        let mut time = String::new();
        // If the clock cannot be read, the line has no time.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let target = module_path!();
        let line = match self {
            Self::Text => {
                let mut line = format!("{time} {level:>5} {target}: {}", OneLine(message));
                for (name, value) in fields {
                    let _ = write!(line, " {name}={value}");
                }
                line
            }
            Self::Json => {
                let (time, level, message) = (json!(time), json!(level.as_str()), json!(message));
                let mut line = format!(r#"{{"timestamp":{time},"level":{level},"message":{message}"#);
                for (name, value) in fields {
                    let _ = write!(line, r#","{name}":{value}"#);
                }
                let _ = write!(line, r#","target":"{target}"}}"#);
                line
            }
        };
        (line + "\n").into_bytes()
    }
}

/// A text that is written without control characters.
struct OneLine<'a>(&'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.queue)
    }
}

/// A writer that takes one line in each call of `write`.
pub(super) struct Line<'a>(&'a LineQueue);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The queue counts the lines that it refuses. If this returned an error, the subscriber would write to standard
        // error itself, and wait.
        let _ = offer(self.0, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &[u8]) -> String {
        String::from_utf8(line.to_vec()).unwrap()
    }

    #[test]
    fn a_notice_is_a_line_like_the_others() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let line = shown(&Style::Json.notice(12, Some(&full)));
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "12 log lines were dropped");
        assert_eq!(
            (&line["level"], &line["lines"], &line["error"]),
            (&"WARN".into(), &12.into(), &full.to_string().into())
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");

        let line = shown(&Style::Text.notice(1, None));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{line}");
        assert_eq!(rest, " WARN turn_metrics::telemetry::log: 1 log line was dropped lines=1\n");
    }

    #[test]
    fn a_message_of_several_lines_is_one_line_of_text() {
        let line = shown(&Style::Text.line(Level::ERROR, "a\nb\u{1b}[31m", &[("place", json!("c\nd"))]));
        assert!(line.ends_with("ERROR turn_metrics::telemetry::log: a\\nb\\u{1b}[31m place=\"c\\nd\"\n"), "{line}");
    }
}

//! Sets up `tracing`: events go to standard error, spans to the span log.
//!
//! No thread that serves requests waits for standard error or the span log. Each has a bounded queue and a thread that
//! writes. The end of the process waits for both, but only for a limited time, because a pipe may have no reader, a
//! terminal may be stopped, and a disk may fail.
//!
//! # Files
//!
//! - `log`: the lines on standard error.
//! - `fields`: the fields of a line of text.
//! - `panic`: logs panics through the same queue.
//! - `whole_lines`: starts each line on a new line, even if the line before was cut off.

mod fields;
mod log;
mod panic;
mod whole_lines;

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use self::fields::TextFields;
use self::log::{END_PATIENCE, Log, Style};
pub(crate) use self::log::{flush, note};
use crate::line_queue::LineWriter;
use crate::settings::{LogFormat, LogLevel, LogSettings, SpanLogSettings};
use crate::span_log::{SpanLog, SpanLogWriter};
use crate::terminal;

/// How long the end of the process waits for the span log. Its disk may be slow for a while.
const SPAN_LOG_PATIENCE: Duration = Duration::from_secs(5);

/// The reason why the telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `RUST_LOG` is not a valid filter.
    #[error(
        "bad value RUST_LOG = {value:?}; allowed: a level or `target=level` pairs, such as `info` or `turn_metrics=debug`"
    )]
    BadFilter {
        /// The value of the variable.
        value: String,
    },
    /// `RUST_LOG` is not UTF-8.
    #[error("the value of RUST_LOG is not valid UTF-8")]
    NotUnicode,
    /// The process already has a subscriber for tracing events.
    #[error("tracing is set up already")]
    AlreadySet(#[source] TryInitError),
    /// The thread that writes the log cannot be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The span log cannot be opened.
    #[error("the span log {path} cannot be opened")]
    SpanLog {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// The threads that write the log and the span log. Dropping this value waits until both have written everything that
/// was queued before, but only for a few seconds.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Telemetry {
    span_log: Option<SpanLogWriter>,
    log: LineWriter,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Close the span log first, because its failures go to the log.
        if let Some(span_log) = &mut self.span_log {
            if !span_log.close_within(SPAN_LOG_PATIENCE) {
                tracing::warn!(patience = ?SPAN_LOG_PATIENCE, "the span log was not written in time");
            }
            let lost = span_log.lost();
            if lost > 0 {
                tracing::warn!(lost, "spans are missing in the span log");
            }
        }
        // A timeout means that nobody reads the log, so it cannot be reported.
        let _ = self.log.close_within(END_PATIENCE);
    }
}

/// From now on, sends the tracing events and the panics of this process to standard error, and its spans to the span
/// log if there is one.
///
/// `RUST_LOG`, if set, replaces the level; it does not affect the span log. Logging never waits for standard error:
/// lines that standard error does not take in time are dropped and counted, and a notice in the log reports how many.
pub fn init(settings: LogSettings, span_log: Option<(&Path, &SpanLogSettings)>) -> Result<Telemetry, TelemetryError> {
    let filter = match env::var("RUST_LOG") {
        Ok(value) => filter(&value, settings.level)?,
        Err(VarError::NotPresent) => filter("", settings.level)?,
        Err(VarError::NotUnicode(_)) => return Err(TelemetryError::NotUnicode),
    };
    let on_terminal = io::stderr().is_terminal();
    let style = style(settings.format, on_terminal);
    let (log, log_writer) = Log::start(style).map_err(TelemetryError::Thread)?;
    // Without this, the layer would write its own error messages directly to standard error.
    let layer = fmt::layer().with_writer(log.clone()).log_internal_errors(false);
    let layer = match style {
        // The fields are at the top level, where log collectors look for them.
        Style::Json => layer.json().flatten_event(true).boxed(),
        Style::Text => layer.with_ansi(on_terminal && terminal::is_color_wanted()).fmt_fields(TextFields).boxed(),
    };
    let opened = span_log.map(|(path, settings)| {
        let opened = SpanLog::start(path, settings);
        opened.map_err(|source| TelemetryError::SpanLog { path: path.to_owned(), source })
    });
    let (span_log, span_log_writer) = opened.transpose()?.unzip();
    let spans = Targets::new().with_target("turn_metrics", LevelFilter::INFO);
    let all = tracing_subscriber::registry().with(layer.with_filter(filter));
    all.with(span_log.map(|span_log| span_log.with_filter(spans))).try_init().map_err(TelemetryError::AlreadySet)?;
    log.install();
    Ok(Telemetry { span_log: span_log_writer, log: log_writer })
}

fn style(format: LogFormat, on_terminal: bool) -> Style {
    match format {
        LogFormat::Auto if on_terminal => Style::Text,
        LogFormat::Text => Style::Text,
        LogFormat::Auto | LogFormat::Json => Style::Json,
    }
}

/// Leaves out the events about requests that are no HTTP.
const MALFORMED_REQUESTS: &str = "actix_http::h1::dispatcher=off";

fn filter(rust_log: &str, level: LogLevel) -> Result<EnvFilter, TelemetryError> {
    let text = match (rust_log.trim(), level) {
        ("", LogLevel::Off) => level.as_str().to_owned(),
        // Events of libraries below a warning are only useful to the libraries' developers. The HTTP library logs an error
        // for each request that it cannot read, so anybody, even a web page, could fill the log.
        ("", LogLevel::Error) => format!("{level},{MALFORMED_REQUESTS}"),
        ("", _) => format!("warn,turn_metrics={level},{MALFORMED_REQUESTS}"),
        (given, _) => given.to_owned(),
    };
    EnvFilter::builder().parse(&text).map_err(|_| TelemetryError::BadFilter { value: text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rust_log: &str, level: LogLevel) -> String {
        filter(rust_log, level).unwrap().to_string()
    }

    #[test]
    fn the_level_applies_to_events_of_this_program_and_rust_log_replaces_it() {
        assert_eq!(shown("", LogLevel::Error), "actix_http::h1::dispatcher=off,error");
        assert_eq!(shown("", LogLevel::Off), "off");
        for level in [LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(shown(" ", level), format!("actix_http::h1::dispatcher=off,turn_metrics={level},warn"));
        }
        assert_eq!(shown("actix=trace", LogLevel::Error), "actix=trace");
    }

    #[test]
    fn a_bad_rust_log_is_a_clear_error() {
        let error = filter("turn_metrics=loud", LogLevel::Info).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad value RUST_LOG = \"turn_metrics=loud\"; \
             allowed: a level or `target=level` pairs, such as `info` or `turn_metrics=debug`"
        );
    }

    #[test]
    fn auto_is_text_for_people_and_json_for_programs() {
        assert_eq!(style(LogFormat::Auto, true), Style::Text);
        assert_eq!(style(LogFormat::Auto, false), Style::Json);
        assert_eq!(style(LogFormat::Text, false), Style::Text);
        assert_eq!(style(LogFormat::Json, true), Style::Json);
    }
}

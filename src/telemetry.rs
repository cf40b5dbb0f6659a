//! What the program tells about itself while it runs: tracing events on stderr, spans in the trace journal.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::journal::{JournalWriter, TraceJournal};
use crate::settings::JournalSettings;

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `RUST_LOG` is no filter.
    #[error(
        "bad value RUST_LOG = {value:?}; allowed: a level or `target=level` pairs, such as `info` or `turn_metrics=debug`"
    )]
    BadFilter {
        /// Its value.
        value: String,
    },
    /// `RUST_LOG` is not UTF-8.
    #[error("the value of RUST_LOG is not valid UTF-8")]
    NotUnicode,
    /// The process has a subscriber for tracing events already.
    #[error("tracing is set up already")]
    AlreadySet(#[source] TryInitError),
    /// The trace journal cannot be written.
    #[error("the trace journal {path} cannot be opened")]
    Journal {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Sends this process's tracing events to stderr from now on, and its spans to the trace journal if that has a file.
///
/// `RUST_LOG`, if it is set, takes the place of the level; the journal does not mind either. Its writer, if there is
/// one, has to be kept until the end of the process.
pub fn init(
    settings: LogSettings,
    journal: Option<(&Path, &JournalSettings)>,
) -> Result<Option<JournalWriter>, TelemetryError> {
    let filter = match env::var("RUST_LOG") {
        Ok(value) => filter(&value, settings.level)?,
        Err(VarError::NotPresent) => filter("", settings.level)?,
        Err(VarError::NotUnicode(_)) => return Err(TelemetryError::NotUnicode),
    };
    let on_terminal = io::stderr().is_terminal();
    let log = fmt::layer().with_writer(io::stderr);
    let log = if is_json(settings.format, on_terminal) {
        // The fields stand beside the level and the time, where a collector looks for them.
        log.json().flatten_event(true).boxed()
    } else {
        log.with_ansi(on_terminal && is_color_wanted(env::var_os("NO_COLOR").as_deref())).boxed()
    };
    let opened = journal.map(|(path, settings)| {
        let opened = TraceJournal::start(path, settings);
        opened.map_err(|source| TelemetryError::Journal { path: path.to_owned(), source })
    });
    let (journal, writer) = opened.transpose()?.unzip();
    let spans = Targets::new().with_target("turn_metrics", LevelFilter::INFO);
    let all = tracing_subscriber::registry().with(log.with_filter(filter));
    all.with(journal.map(|journal| journal.with_filter(spans))).try_init().map_err(TelemetryError::AlreadySet)?;
    Ok(writer)
}

/// Whether the value of `NO_COLOR` lets output be coloured: any value but an empty one forbids it.
pub(crate) fn is_color_wanted(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
}

fn is_json(format: LogFormat, on_terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

fn filter(rust_log: &str, level: LogLevel) -> Result<EnvFilter, TelemetryError> {
    let text = match (rust_log.trim(), level) {
        ("", LogLevel::Off | LogLevel::Error) => level.as_str().to_owned(),
        // What libraries tell below a warning is for their authors.
        ("", _) => format!("warn,turn_metrics={level}"),
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
    fn the_level_is_that_of_this_programs_events_and_rust_log_takes_its_place() {
        assert_eq!(shown("", LogLevel::Error), "error");
        assert_eq!(shown("", LogLevel::Off), "off");
        for level in [LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            assert_eq!(shown(" ", level), format!("turn_metrics={level},warn"));
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
        assert!(!is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Auto, false));
        assert!(!is_json(LogFormat::Text, false));
        assert!(is_json(LogFormat::Json, true));
    }

    #[test]
    fn no_color_forbids_colour_unless_it_is_empty() {
        assert!(is_color_wanted(None));
        assert!(is_color_wanted(Some("".as_ref())));
        assert!(!is_color_wanted(Some("1".as_ref())));
    }
}

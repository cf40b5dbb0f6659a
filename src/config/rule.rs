//! Every setting: where it is kept, and what it can be set to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use super::input::Input;
use super::{LogFormat, LogLevel, Settings};
use crate::settings::{CONVERSATIONS_AT_ONCE, HostName, WebOrigin, Workers};

/// The sections, in the order in which they are shown.
pub(super) const SECTIONS: &[&str] = &["http", "turns", "store", "log", "trace"];

/// The longest duration: longer is a mistake, and far from where adding durations overflows.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// A setting.
pub(super) struct Rule {
    /// Section and name, such as `http.listen`.
    pub(super) key: &'static str,
    kind: Kind,
}

/// What a setting holds, and where.
enum Kind {
    Count {
        at: fn(&mut Settings) -> &mut usize,
        min: u64,
        max: u64,
    },
    Duration(fn(&mut Settings) -> &mut Duration),
    Workers(fn(&mut Settings) -> &mut Workers),
    Address(fn(&mut Settings) -> &mut SocketAddr),
    Origins(fn(&mut Settings) -> &mut Vec<WebOrigin>),
    Hosts(fn(&mut Settings) -> &mut Vec<HostName>),
    Directory(fn(&mut Settings) -> &mut PathBuf),
    /// A file, or none, for which the text is empty.
    File(fn(&mut Settings) -> &mut Option<PathBuf>),
    Level(fn(&mut Settings) -> &mut LogLevel),
    Format(fn(&mut Settings) -> &mut LogFormat),
}

const fn rule(key: &'static str, kind: Kind) -> Rule {
    Rule { key, kind }
}

const fn count(key: &'static str, min: u64, max: u64, at: fn(&mut Settings) -> &mut usize) -> Rule {
    rule(key, Kind::Count { at, min, max })
}

/// A limit in bytes, which has to let at least a small event pass.
const fn bytes(key: &'static str, max: u64, at: fn(&mut Settings) -> &mut usize) -> Rule {
    count(key, 1024, max, at)
}

/// A limit that one request has to fit in. Lower, and a request of many conversations would be refused as overload
/// however often it came again: so many of them are worked on at one time.
const fn work(key: &'static str, max: u64, at: fn(&mut Settings) -> &mut usize) -> Rule {
    count(key, CONVERSATIONS_AT_ONCE as u64, max, at)
}

const fn duration(key: &'static str, at: fn(&mut Settings) -> &mut Duration) -> Rule {
    rule(key, Kind::Duration(at))
}

/// Every setting, in the order in which they are shown.
pub(super) const RULES: &[Rule] = &[
    rule("http.listen", Kind::Address(|s| &mut s.listen)),
    rule("http.workers", Kind::Workers(|s| &mut s.http.workers)),
    count("http.max_connections", 1, 1_000_000, |s| &mut s.http.max_connections),
    duration("http.header_timeout", |s| &mut s.http.header_timeout),
    duration("http.body_timeout", |s| &mut s.http.body_timeout),
    duration("http.keep_alive", |s| &mut s.http.keep_alive),
    duration("http.shutdown_timeout", |s| &mut s.http.shutdown_timeout),
    bytes("http.max_body_bytes", 1 << 30, |s| &mut s.http.max_body_bytes),
    bytes("http.max_transfer_bytes", 1 << 40, |s| &mut s.http.max_transfer_bytes),
    bytes("http.max_line_bytes", 1 << 30, |s| &mut s.http.max_line_bytes),
    bytes("http.max_buffered_bytes", 1 << 40, |s| &mut s.http.max_buffered_bytes),
    bytes("http.cache_bytes", 1 << 40, |s| &mut s.http.cache_bytes),
    rule("http.allowed_origins", Kind::Origins(|s| &mut s.http.allowed_origins)),
    rule("http.host_names", Kind::Hosts(|s| &mut s.http.host_names)),
    count("turns.max_open_turns", 1, 1_000_000, |s| &mut s.turns.max_open_turns),
    count("turns.max_steps", 1, 1_000_000, |s| &mut s.turns.max_steps),
    duration("turns.idle_after", |s| &mut s.turns.idle_after),
    duration("turns.abandon_after", |s| &mut s.turns.abandon_after),
    duration("turns.fail_after", |s| &mut s.turns.fail_after),
    duration("turns.sweep_every", |s| &mut s.turns.sweep_every),
    work("turns.max_active_conversations", 100_000_000, |s| &mut s.turns.max_active_conversations),
    work("turns.max_in_flight", 10_000_000, |s| &mut s.turns.max_in_flight),
    rule("store.data_dir", Kind::Directory(|s| &mut s.data_dir)),
    work("store.queue_commits", 10_000_000, |s| &mut s.store.queue_commits),
    count("store.batch_commits", 1, 1_000_000, |s| &mut s.store.batch_commits),
    bytes("store.cache_bytes", 1 << 40, |s| &mut s.store.cache_bytes),
    bytes("store.journal_bytes", 1 << 40, |s| &mut s.store.journal_bytes),
    rule("log.level", Kind::Level(|s| &mut s.log.level)),
    rule("log.format", Kind::Format(|s| &mut s.log.format)),
    rule("trace.file", Kind::File(|s| &mut s.trace_file)),
    bytes("trace.max_file_bytes", 1 << 40, |s| &mut s.trace.max_file_bytes),
    count("trace.max_files", 1, 1000, |s| &mut s.trace.max_files),
    count("trace.queue_lines", 1, 10_000_000, |s| &mut s.trace.queue_lines),
];

/// Pairs of settings whose first must not exceed the second: a line must fit into a body, and a body into the memory
/// for all bodies and into the maximum transfer.
pub(super) const AT_MOST: &[(&str, &str)] = &[
    ("http.max_line_bytes", "http.max_body_bytes"),
    ("http.max_body_bytes", "http.max_buffered_bytes"),
    ("http.max_body_bytes", "http.max_transfer_bytes"),
];

impl Rule {
    pub(super) fn named(key: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.key == key)
    }

    pub(super) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// What can be set, in words.
    pub(super) fn allowed(&self) -> String {
        match self.kind {
            Kind::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Kind::Duration(_) => r#"a duration from "1ms" to "365days", such as "30s""#.into(),
            Kind::Workers(_) => format!(r#""auto" or a whole number from 1 to {}"#, Workers::MAX),
            Kind::Address(_) => r#"an IP address and a port, such as "127.0.0.1:24210" or "[::1]:24210""#.into(),
            Kind::Origins(_) => {
                r#"a list of origins as browsers send them: lower case, no path, no :443 of https or :80 of http, such as "https://app.example:8443""#.into()
            }
            Kind::Hosts(_) => r#"a list of hosts without a port, such as "metrics.example" or "[fd00::5]""#.into(),
            Kind::Directory(_) => "the path of a directory, in UTF-8".into(),
            Kind::File(_) => "the path of a file, in UTF-8, or an empty text for none".into(),
            Kind::Level(_) => names(LogLevel::ALL.iter().map(|level| level.as_str())),
            Kind::Format(_) => names(LogFormat::ALL.iter().map(|format| format.as_str())),
        }
    }

    /// Sets the value, if it is allowed. Tells whether it is.
    pub(super) fn apply(&self, settings: &mut Settings, input: &Input) -> bool {
        match self.kind {
            Kind::Count { at, min, max } => set(at(settings), read_count(input, min, max)),
            Kind::Duration(at) => set(at(settings), input.text().and_then(read_duration)),
            Kind::Workers(at) => {
                let auto = (input.text() == Some("auto")).then_some(Workers::Auto);
                set(at(settings), auto.or_else(|| read_count(input, 1, Workers::MAX as u64).map(Workers::Exactly)))
            }
            Kind::Address(at) => set(at(settings), input.text().and_then(|text| text.parse().ok())),
            Kind::Origins(at) => set(at(settings), input.list().and_then(|texts| read_all(&texts))),
            Kind::Hosts(at) => set(at(settings), input.list().and_then(|texts| read_all(&texts))),
            Kind::Directory(at) => set(at(settings), input.text().filter(|text| !text.is_empty()).map(PathBuf::from)),
            Kind::File(at) => {
                let file = input.text().map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
                set(at(settings), file)
            }
            Kind::Level(at) => {
                let named = |text| LogLevel::ALL.iter().copied().find(|level| level.as_str() == text);
                set(at(settings), input.text().and_then(named))
            }
            Kind::Format(at) => {
                let named = |text| LogFormat::ALL.iter().copied().find(|format| format.as_str() == text);
                set(at(settings), input.text().and_then(named))
            }
        }
    }

    /// The value as TOML writes it.
    pub(super) fn literal(&self, settings: &Settings) -> String {
        // The accessors are for writing, so they want a copy of their own.
        let settings = &mut settings.clone();
        match self.kind {
            Kind::Count { at, .. } => at(settings).to_string(),
            Kind::Duration(at) => text(&humantime::format_duration(*at(settings))),
            Kind::Workers(at) => match at(settings) {
                Workers::Auto => text("auto"),
                Workers::Exactly(count) => count.to_string(),
            },
            Kind::Address(at) => text(at(settings)),
            Kind::Origins(at) => list(at(settings).iter().map(WebOrigin::as_str)),
            Kind::Hosts(at) => list(at(settings).iter().map(HostName::as_str)),
            Kind::Directory(at) => text(&at(settings).display()),
            Kind::File(at) => text(&at(settings).take().unwrap_or_default().display()),
            Kind::Level(at) => text(at(settings)),
            Kind::Format(at) => text(at(settings)),
        }
    }

    /// The value, of a setting that is a number.
    pub(super) fn count(&self, settings: &Settings) -> Option<usize> {
        match self.kind {
            Kind::Count { at, .. } => Some(*at(&mut settings.clone())),
            _ => None,
        }
    }
}

fn set<T>(at: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *at = value;
            true
        }
        None => false,
    }
}

fn text(value: &(impl ToString + ?Sized)) -> String {
    Value::String(value.to_string()).to_string()
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    Value::Array(texts.map(Value::from).collect()).to_string()
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(text).collect::<Vec<_>>().join(", ")
}

/// Parses every text; `None` if one of them is invalid.
fn read_all<T: FromStr>(texts: &[String]) -> Option<Vec<T>> {
    texts.iter().map(|text| text.parse().ok()).collect()
}

fn read_count(input: &Input, min: u64, max: u64) -> Option<usize> {
    let count = input.count().filter(|count| (min..=max).contains(count))?;
    usize::try_from(count).ok()
}

fn read_duration(text: &str) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (Duration::from_millis(1)..=MAX_DURATION).contains(&duration).then_some(duration)
}

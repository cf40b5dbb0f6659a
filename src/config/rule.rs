//! The values that a setting accepts, and how they are read and written.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use super::raw_value::RawValue;
use crate::report::Zone;
use crate::settings::setting::ValueMut;
use crate::settings::{HostName, LogFormat, LogLevel, WebOrigin, Workers};

/// The maximum duration. A longer one is surely a mistake, and sums of such durations cannot overflow.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// The maximum time for which turns are kept.
const MAX_KEEP: Duration = Duration::from_hours(100 * 366 * 24);

/// Pairs of settings. The first of a pair must not exceed the second. A line must fit into a body. A body must fit into
/// the memory for all bodies, and into the maximum transfer. An open turn must fit into the limit for the open turns of
/// its conversation. These must fit into the memory for the open turns of all conversations, and into a commit, because
/// one commit may seal all of them.
pub(super) const AT_MOST: &[(&str, &str)] = &[
    ("http.max_line_bytes", "http.max_body_bytes"),
    ("http.max_body_bytes", "http.max_buffered_bytes"),
    ("http.max_body_bytes", "http.max_transfer_bytes"),
    ("turns.max_turn_bytes", "turns.max_open_bytes"),
    ("turns.max_open_bytes", "turns.max_active_bytes"),
    ("turns.max_open_bytes", "store.max_commit_bytes"),
];

impl ValueMut<'_> {
    /// Describes the allowed values.
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Count(_, limits) => format!("a whole number from {} to {}", limits.start(), limits.end()),
            Self::Duration(_) => r#"a duration from "1ms" to "365days", such as "30s""#.into(),
            Self::Keep(_) => r#""forever", or a duration from "1ms" to "100years", such as "90d""#.into(),
            Self::Workers(_) => format!(r#""auto" or a whole number from 1 to {}"#, Workers::MAX),
            Self::Address(_) => r#"an IP address and a port, such as "127.0.0.1:24210" or "[::1]:24210""#.into(),
            Self::Origins(_) => {
                r#"a list of origins as browsers send them: lower case, no path, no :443 of https or :80 of http, such as "https://app.example:8443""#.into()
            }
            Self::Hosts(_) => r#"a list of hosts without a port, such as "metrics.example" or "[fd00::5]""#.into(),
            Self::Directory(_) => "the path of a directory, in UTF-8".into(),
            Self::File(_) => "the path of a file, in UTF-8, or an empty text for none".into(),
            Self::Zone(_) => r#"the name of a time zone, such as "Europe/Berlin", or an empty text for that of the system"#.into(),
            Self::Level(_) => names(LogLevel::ALL.iter().map(|level| level.as_str())),
            Self::Format(_) => names(LogFormat::ALL.iter().map(|format| format.as_str())),
        }
    }

    /// Sets the value if the value is allowed. Returns whether it is.
    pub(super) fn apply(self, value: &RawValue) -> bool {
        match self {
            Self::Count(at, limits) => set(at, read_count(value, *limits.start(), *limits.end())),
            Self::Duration(at) => set(at, value.text().and_then(|text| read_duration(text, MAX_DURATION))),
            Self::Keep(at) => {
                let keep = |text| read_duration(text, MAX_KEEP).map(Some);
                set(at, value.text().and_then(|text| if text == "forever" { Some(None) } else { keep(text) }))
            }
            Self::Workers(at) => {
                let auto = (value.text() == Some("auto")).then_some(Workers::Auto);
                set(at, auto.or_else(|| read_count(value, 1, Workers::MAX as u64).map(Workers::Exactly)))
            }
            Self::Address(at) => set(at, value.text().and_then(|text| text.parse().ok())),
            Self::Origins(at) => set(at, value.list().and_then(|texts| read_all(&texts))),
            Self::Hosts(at) => set(at, value.list().and_then(|texts| read_all(&texts))),
            Self::Directory(at) => set(at, value.text().filter(|text| !text.is_empty()).map(PathBuf::from)),
            Self::File(at) => {
                let file = value.text().map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
                set(at, file)
            }
            Self::Zone(at) => {
                let named = |name: &str| if name.is_empty() { Some(None) } else { Zone::named(name).ok().map(Some) };
                set(at, value.text().and_then(named))
            }
            Self::Level(at) => {
                let named = |text| LogLevel::ALL.iter().copied().find(|level| level.as_str() == text);
                set(at, value.text().and_then(named))
            }
            Self::Format(at) => {
                let named = |text| LogFormat::ALL.iter().copied().find(|format| format.as_str() == text);
                set(at, value.text().and_then(named))
            }
        }
    }

    /// Returns the value as TOML writes it.
    pub(super) fn literal(&self) -> String {
        match self {
            Self::Count(at, _) => at.to_string(),
            Self::Duration(at) => text(&humantime::format_duration(**at)),
            Self::Keep(at) => {
                text(&at.map_or_else(|| "forever".into(), |at| humantime::format_duration(at).to_string()))
            }
            Self::Workers(at) => match at {
                Workers::Auto => text("auto"),
                Workers::Exactly(count) => count.to_string(),
            },
            Self::Address(at) => text(at),
            Self::Origins(at) => list(at.iter().map(WebOrigin::as_str)),
            Self::Hosts(at) => list(at.iter().map(HostName::as_str)),
            Self::Directory(at) => text(&at.display()),
            Self::File(at) => at.as_ref().map_or_else(|| text(""), |file| text(&file.display())),
            Self::Zone(at) => text(at.as_ref().map_or("", Zone::name)),
            Self::Level(at) => text(at),
            Self::Format(at) => text(at),
        }
    }

    /// Returns the value if the setting is a number.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::Count(at, _) => Some(**at),
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

fn read_count(value: &RawValue, min: u64, max: u64) -> Option<usize> {
    let count = value.count().filter(|count| (min..=max).contains(count))?;
    usize::try_from(count).ok()
}

fn read_duration(text: &str, max: Duration) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (Duration::from_millis(1)..=max).contains(&duration).then_some(duration)
}

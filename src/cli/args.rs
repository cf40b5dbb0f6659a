//! Arguments that several commands share.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ureq::http::Uri;

use super::table::Screen;
use crate::config::{ConfigError, Configuration, Flag, Sources};
use crate::report::Zone;

/// The configuration of a command that works on the database of a stopped server.
#[derive(clap::Args)]
pub(super) struct StoreArgs {
    /// Read settings from this TOML file; `turn-metrics config` shows all settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Keep the database in this directory [setting: `store.data_dir`, default: ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The flags that give the sources of the configuration. The built-in defaults and the environment are sources too.
#[derive(clap::Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Listen on this address; port 0 takes a free one [setting: `http.listen`, default: 127.0.0.1:24210]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl StoreArgs {
    /// Reads and checks all layers of the configuration.
    pub(super) fn load(self) -> Result<Configuration, ConfigError> {
        ConfigArgs { store: self, listen: None }.load()
    }
}

impl ConfigArgs {
    /// Reads and checks all layers of the configuration.
    pub(super) fn load(self) -> Result<Configuration, ConfigError> {
        let listen = self.listen.map(|value| Flag { name: "--listen", key: "http.listen", value: value.into() });
        let data_dir =
            self.store.data_dir.map(|value| Flag { name: "--data-dir", key: "store.data_dir", value: value.into() });
        Configuration::load(&Sources {
            file: self.store.config,
            environment: env::vars_os().collect(),
            flags: listen.into_iter().chain(data_dir).collect(),
        })
    }
}

/// The server that a command asks.
#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:24210")]
    pub(super) server: ServerUrl,
}

/// How an answer is written.
#[derive(clap::Args)]
pub(super) struct FormatArgs {
    /// Print JSON: exact, for programs
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV: whole numbers, dollars with 12 places, nothing for what is unknown
    #[arg(long, conflicts_with = "wide")]
    csv: bool,

    #[command(flatten)]
    wide: WideArgs,
}

/// How wide a table is.
#[derive(clap::Args)]
pub(super) struct WideArgs {
    /// Let the table be as wide as it needs to be, with every column and all digits
    #[arg(long, conflicts_with = "json")]
    wide: bool,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Table(Screen),
    Json,
    Csv,
}

impl FormatArgs {
    pub(super) fn format(&self) -> Format {
        match self {
            Self { json: true, .. } => Format::Json,
            Self { csv: true, .. } => Format::Csv,
            Self { wide, .. } => Format::Table(wide.screen()),
        }
    }
}

impl WideArgs {
    pub(super) fn screen(&self) -> Screen {
        let screen = Screen::of_stdout();
        if self.wide { Screen { width: None, ..screen } } else { screen }
    }
}

/// A moment, as the server accepts it. A date begins in the zone of the server or of `--tz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment(String);

/// The text is not a moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be a date such as 2026-01-31, a moment such as 2026-01-31T12:00:00Z, or milliseconds since 1970")]
pub(super) struct InvalidMoment;

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        // The zone decides when a date begins. It does not decide whether a text is a date.
        Zone::UTC.moment(text).map(|_| Self(text.to_owned())).ok_or(InvalidMoment)
    }
}

impl Moment {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The base address of a server, such as `http://127.0.0.1:24210`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUrl(String);

/// The reason why a text is not the address of a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidServerUrl {
    #[error("this program speaks no TLS; give an address that begins with http://, such as that of a local proxy")]
    Https,
    #[error("it must be an address such as http://127.0.0.1:24210")]
    Malformed,
}

impl FromStr for ServerUrl {
    type Err = InvalidServerUrl;

    fn from_str(text: &str) -> Result<Self, InvalidServerUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidServerUrl::Malformed)?;
        match uri.scheme_str() {
            Some("https") => Err(InvalidServerUrl::Https),
            Some("http") if uri.query().is_none() && uri.host().is_some_and(|host| !host.is_empty()) => {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            _ => Err(InvalidServerUrl::Malformed),
        }
    }
}

impl ServerUrl {
    /// Returns the address of the server that listens on `address`.
    pub(super) fn of(address: std::net::SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_by_its_http_address() {
        for (text, url) in [
            ("http://127.0.0.1:24210", "http://127.0.0.1:24210"),
            ("http://[::1]:24210/", "http://[::1]:24210"),
            ("http://metrics.example/turns/", "http://metrics.example/turns"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), url);
        }
        for text in ["", "localhost:24210", "/path", "ftp://a", "http://", "http://a/?x=1", "http://a b"] {
            assert_eq!(text.parse::<ServerUrl>(), Err(InvalidServerUrl::Malformed), "{text}");
        }
    }

    #[test]
    fn tls_is_refused_with_advice() {
        assert_eq!("https://a".parse::<ServerUrl>(), Err(InvalidServerUrl::Https));
    }

    #[test]
    fn a_moment_is_what_the_server_takes() {
        for text in ["2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+05:45", "1780000000000", "0"] {
            assert_eq!(text.parse::<Moment>().unwrap().as_str(), text);
        }
        for text in ["", "soon", "2026-02-30", "2026-1-31", "31.01.2026", "2026-01-31T12:00:00"] {
            assert_eq!(text.parse::<Moment>(), Err(InvalidMoment), "{text}");
        }
    }
}

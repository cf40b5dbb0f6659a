use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::settings::{JournalSettings, StoreSettings, TurnSettings};

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The HTTP server.
    pub http: HttpSection,
    /// Turns and conversations.
    pub turns: TurnSettings,
    /// The store, but for its place.
    pub store: StoreSettings,
    /// Where the store keeps its file.
    pub data_dir: PathBuf,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The file of the trace journal; `None` for no journal.
    pub trace_file: Option<PathBuf>,
    /// The trace journal, but for its place.
    pub trace: JournalSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: HttpSection::default(),
            turns: TurnSettings::default(),
            store: StoreSettings::default(),
            data_dir: "./data".into(),
            log: LogSettings::default(),
            trace_file: None,
            trace: JournalSettings::default(),
        }
    }
}

/// What can be set of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSection {
    /// The address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Threads that answer requests.
    pub workers: Workers,
    /// Connections open at one time.
    pub max_connections: usize,
    /// For the headers of a request.
    pub header_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// An idle connection is closed after this time.
    pub keep_alive: Duration,
    /// How long requests in flight may take to finish when the server stops.
    pub shutdown_timeout: Duration,
    /// The most bytes of one body.
    pub max_body_bytes: usize,
    /// The most bytes of one event.
    pub max_line_bytes: usize,
    /// The most bytes of all bodies held in memory at one time.
    pub max_buffered_bytes: usize,
    /// Origins whose pages may read; empty for any.
    pub allowed_origins: Vec<String>,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 24210).into(),
            workers: Workers::Auto,
            max_connections: 1024,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            shutdown_timeout: Duration::from_secs(10),
            max_body_bytes: 16 * 1024 * 1024,
            max_line_bytes: 4 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
            allowed_origins: Vec::new(),
        }
    }
}

/// How many threads answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each core that the process may use.
    Auto,
    /// This many.
    Exactly(usize),
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// How much of this program's own events.
    pub level: LogLevel,
    /// For people or for programs.
    pub format: LogFormat,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every choice.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The text that stands for it in a configuration.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What needs someone to act.
        Error = "error",
        /// What may need someone to act.
        Warn = "warn",
        /// What an operator wants to know of a healthy service.
        #[default]
        Info = "info",
        /// What helps to find a fault.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// How it is logged.
    LogFormat {
        /// As text on a terminal, else as JSON.
        #[default]
        Auto = "auto",
        /// As text.
        Text = "text",
        /// As one JSON object a line.
        Json = "json",
    }
}

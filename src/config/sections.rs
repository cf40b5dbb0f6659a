use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::settings::{HttpSettings, JournalSettings, StoreSettings, TurnSettings};

/// Everything that can be set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The HTTP server, but for its address.
    pub http: HttpSettings,
    /// The address that the HTTP server listens on; port 0 takes any free one.
    pub listen: SocketAddr,
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
            http: HttpSettings::default(),
            listen: (Ipv4Addr::LOCALHOST, 24210).into(),
            turns: TurnSettings::default(),
            store: StoreSettings::default(),
            data_dir: "./data".into(),
            log: LogSettings::default(),
            trace_file: None,
            trace: JournalSettings::default(),
        }
    }
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

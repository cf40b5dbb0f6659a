use std::fmt;

use super::section::section;

section! {
    /// What is logged, and how.
    #[derive(Copy)]
    pub struct LogSettings in "log" {
        /// The least severe events of this program that are logged: off, error, warn, info, debug or trace. Events of
        /// its libraries are logged only from warn on. `RUST_LOG` overrides this and can set a level for each module.
        level: LogLevel = LogLevel::Info;

        /// text for people, json (one object a line) for log collectors, or auto: text on a terminal, otherwise json.
        /// Logs go to stderr, and no request waits for them: lines that stderr does not take in time are dropped, and a
        /// log line reports how many.
        format: LogFormat = LogFormat::Auto;
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every choice.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the text of the choice in a configuration.
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
        /// No events.
        Off = "off",
        /// Events that need someone to act.
        Error = "error",
        /// Events that may need someone to act.
        Warn = "warn",
        /// Events that an operator wants to know about in a healthy service.
        Info = "info",
        /// Events that help to find a fault.
        Debug = "debug",
        /// All events.
        Trace = "trace",
    }
}

choice! {
    /// The format of the log.
    LogFormat {
        /// Text on a terminal, otherwise JSON.
        Auto = "auto",
        /// The log is text.
        Text = "text",
        /// The log has one JSON object in each line.
        Json = "json",
    }
}

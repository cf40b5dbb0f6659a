use std::fmt;

use super::section::section;

section! {
    /// What is logged, and how.
    #[derive(Copy)]
    pub struct LogSettings in "log" {
        /// off, error, warn, info, debug or trace: of this program's own events; of its libraries at most warnings.
        /// `RUST_LOG` overrides it and can tell them apart.
        level: LogLevel = LogLevel::Info;

        /// text to read, json (one object a line) to collect, or auto: text on a terminal, else json. Logs go to stderr,
        /// and nothing waits for them: lines that stderr does not take in time are dropped, and a log line reports how
        /// many.
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
        Auto = "auto",
        /// As text.
        Text = "text",
        /// As one JSON object a line.
        Json = "json",
    }
}

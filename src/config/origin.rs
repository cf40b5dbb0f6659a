use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, the first being 1.
        line: usize,
    },
    /// In an environment variable.
    Environment(String),
    /// In a flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            // Escaped: a path may hold a line break, and this stands in comments and one-line messages.
            Self::File { path, line } => write!(f, "file {}, line {line}", path.to_string_lossy().escape_debug()),
            Self::Environment(name) => write!(f, "environment variable {}", name.escape_debug()),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

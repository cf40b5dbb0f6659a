use std::io;
use std::path::PathBuf;

use super::Origin;

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// The place.
        origin: Origin,
        /// What is wrong there.
        message: String,
    },
    /// There is no such setting.
    #[error("unknown setting `{key}` = {value} from {origin}; allowed: {allowed}")]
    Unknown {
        /// The setting.
        key: String,
        /// What it was set to.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// The settings that could stand there.
        allowed: String,
    },
    /// The setting cannot have this value.
    #[error("bad value `{key}` = {value} from {origin}; allowed: {allowed}")]
    BadValue {
        /// The setting.
        key: String,
        /// What it was set to.
        value: String,
        /// Where it was given.
        origin: Origin,
        /// What it can be set to.
        allowed: String,
    },
}

use std::io;
use std::path::PathBuf;

use super::Origin;

/// The reason why the configuration is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration file {}", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not valid TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// The file and the line.
        origin: Origin,
        /// The error of the TOML parser.
        message: String,
    },
    /// There is no such setting.
    #[error("unknown setting `{key}` = {value} from {origin}; allowed: {allowed}")]
    Unknown {
        /// The name of the setting.
        key: String,
        /// The value that was given.
        value: String,
        /// The place where the value was given.
        origin: Origin,
        /// The settings that are allowed in its place.
        allowed: String,
    },
    /// The setting cannot have this value.
    #[error("bad value `{key}` = {value} from {origin}; allowed: {allowed}")]
    BadValue {
        /// The name of the setting.
        key: String,
        /// The value that was given.
        value: String,
        /// The place where the value was given.
        origin: Origin,
        /// The values that are allowed.
        allowed: String,
    },
}

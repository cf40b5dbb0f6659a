//! Reads the settings of the program, and records where each value comes from.
//!
//! Three layers override the defaults: a file, the environment and flags. Each value is checked in its layer, so the
//! [`Settings`] that [`Configuration::load`] returns need no further check. The settings, with their defaults and
//! limits, are defined only in [`settings`](crate::settings).
//!
//! # Files
//!
//! - `layer`: reads each layer into raw settings.
//! - `raw_value`: a value as a layer gives it.
//! - `rule`: which values a setting accepts, and how they are read and written.
//! - `origin`: the layer that a value came from.
//! - `error`: why a configuration is not valid.
//! - `defaults`: writes the file of all defaults.
//! - `tests`: the layers, and the messages about bad values.

mod defaults;
mod error;
mod layer;
mod origin;
mod raw_value;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use defaults::default_file;
pub use error::ConfigError;
pub use origin::Origin;

use layer::RawSetting;
use rule::AT_MOST;

use crate::settings::Settings;
use crate::settings::setting::Setting;

/// The sources of the settings, besides the built-in defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if any.
    pub file: Option<PathBuf>,
    /// The environment. Only variables named `TURN_METRICS__SECTION__KEY` are read.
    pub environment: Vec<(OsString, OsString)>,
    /// The settings that flags of the command line give.
    pub flags: Vec<Flag>,
}

/// A setting given by a flag of the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, such as `--listen`.
    pub name: &'static str,
    /// The setting, such as `http.listen`.
    pub key: &'static str,
    /// The value as it was given.
    pub value: OsString,
}

/// The settings in force. Displayed as TOML, with the origin of each value beside it.
#[derive(Debug, Clone)]
pub struct Configuration {
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Configuration {
    /// Reads and checks all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut configuration = Self { settings: Settings::default(), origins: BTreeMap::new() };
        if let Some(path) = &sources.file {
            configuration.apply(layer::from_file(path)?)?;
        }
        configuration.apply(layer::from_environment(&sources.environment)?)?;
        configuration.apply(layer::from_flags(&sources.flags))?;
        configuration.check_pairs()?;
        Ok(configuration)
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Consumes the configuration and returns the settings in force.
    pub fn into_settings(self) -> Settings {
        self.settings
    }

    fn apply(&mut self, raw_settings: Vec<RawSetting>) -> Result<(), ConfigError> {
        for raw in raw_settings {
            let table = self.settings.table();
            let Some(setting) = table.into_iter().find(|setting| setting.key == raw.key) else {
                return Err(raw.unknown());
            };
            let (key, allowed) = (setting.key, setting.value.allowed());
            if !setting.value.apply(&raw.value) {
                return Err(raw.refused(allowed));
            }
            self.origins.insert(key, raw.origin);
        }
        Ok(())
    }

    /// Checks pairs of settings that limit each other, after all layers are read.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        // The table borrows the settings mutably, so it is made from a copy.
        let mut settings = self.settings.clone();
        let table = settings.table();
        let named = |key: &str| table.iter().find(|setting| setting.key == key);
        for (small, large) in AT_MOST {
            let (Some(small), Some(large)) = (named(small), named(large)) else { continue };
            if small.value.count() > large.value.count() {
                let limit = (large.key, large.value.literal(), self.origin(large));
                return Err(ConfigError::BadValue {
                    key: small.key.to_owned(),
                    value: small.value.literal(),
                    origin: self.origin(small),
                    allowed: format!("at most `{}`, {} from {}", limit.0, limit.1, limit.2),
                });
            }
        }
        Ok(())
    }

    fn origin(&self, setting: &Setting<'_>) -> Origin {
        self.origins.get(setting.key).cloned().unwrap_or(Origin::Default)
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for setting in self.settings.clone().table() {
            if setting.section() != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = setting.section();
                writeln!(f, "{gap}[{section}]")?;
            }
            writeln!(f, "{} = {}  # {}", setting.name(), setting.value.literal(), self.origin(&setting))?;
        }
        Ok(())
    }
}

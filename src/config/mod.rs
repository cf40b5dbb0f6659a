//! Reads the settings of the program, and knows where each value comes from.
//!
//! Three layers lie over the defaults: a file, the environment and flags. Each value is checked where it is given, so the
//! [`Settings`] that come out of [`Configuration::load`] need no further check. Which settings there are, with their
//! defaults and limits, is written in [`settings`](crate::settings) alone.
//!
//! # Files
//!
//! - `layer`: reads each layer into entries of one kind.
//! - `raw_value`: a value as it was given.
//! - `rule`: what a setting accepts, and how it is read and written.
//! - `origin`: where a value was given.
//! - `error`: why there is no configuration.
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

/// Where settings are taken from, beside the built-in defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file to read.
    pub file: Option<PathBuf>,
    /// The environment, of which variables named `TURN_METRICS__SECTION__KEY` count.
    pub environment: Vec<(OsString, OsString)>,
    /// What flags of the command line set.
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

/// The settings in force. Displays as TOML, with the origin of each value beside it.
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

    /// The values.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The values, to keep.
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

    /// Checks what two settings demand of each other, once all layers are known.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        // The table is for writing, so it wants a copy of its own.
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

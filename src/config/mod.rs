//! What can be set of the whole program, and where each value comes from.
//!
//! Four layers lie over each other: the built-in `config/default.toml`, a file, the environment and flags. Each value
//! is checked where it is given; what comes out of [`Configuration::load`] is [`Settings`] that need no more checking.

mod error;
mod input;
mod layer;
mod origin;
mod rule;
mod sections;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use error::ConfigError;
pub use origin::Origin;
pub use sections::{LogFormat, LogLevel, LogSettings, Settings};

use layer::Entry;
use rule::{AT_MOST, RULES, Rule, SECTIONS};

/// The lowest layer, which gives every setting.
const DEFAULTS: &str = include_str!("../../config/default.toml");

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
        configuration.apply(layer::from_toml(DEFAULTS, |_| Origin::Default)?)?;
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

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), ConfigError> {
        for entry in entries {
            let Some(rule) = Rule::named(&entry.key) else { return Err(entry.unknown()) };
            if !rule.apply(&mut self.settings, &entry.input) {
                return Err(entry.refused(rule.allowed()));
            }
            self.origins.insert(rule.key, entry.origin);
        }
        Ok(())
    }

    /// Checks what two settings demand of each other, once all layers are known.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        for (small, large) in AT_MOST {
            let (Some(small), Some(large)) = (Rule::named(small), Rule::named(large)) else { continue };
            if small.count(&self.settings) > large.count(&self.settings) {
                let limit = (large.key, large.literal(&self.settings), self.origin(large));
                return Err(ConfigError::BadValue {
                    key: small.key.to_owned(),
                    value: small.literal(&self.settings),
                    origin: self.origin(small),
                    allowed: format!("at most `{}`, {} from {}", limit.0, limit.1, limit.2),
                });
            }
        }
        Ok(())
    }

    fn origin(&self, rule: &Rule) -> Origin {
        self.origins.get(rule.key).cloned().unwrap_or(Origin::Default)
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, section) in SECTIONS.iter().enumerate() {
            if nth > 0 {
                writeln!(f)?;
            }
            writeln!(f, "[{section}]")?;
            for rule in RULES.iter().filter(|rule| rule.section() == *section) {
                writeln!(f, "{} = {}  # {}", rule.name(), rule.literal(&self.settings), self.origin(rule))?;
            }
        }
        Ok(())
    }
}

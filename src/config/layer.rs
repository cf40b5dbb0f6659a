//! The layers of a configuration, each read into raw settings.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use toml::de::DeTable;

use super::raw_value::RawValue;
use super::{ConfigError, Flag, Origin};
use crate::settings::setting::Setting;
use crate::settings::{SECTIONS, Settings};

/// The prefix of every environment variable that is meant for this program.
const PREFIX: &str = "TURN_METRICS__";

/// A setting as one layer gives it, not checked yet.
pub(super) struct RawSetting {
    /// Section and name, such as `http.listen` or `store.redb.cache_bytes`.
    pub(super) key: String,
    pub(super) value: RawValue,
    pub(super) origin: Origin,
}

impl RawSetting {
    pub(super) fn unknown(self) -> ConfigError {
        let allowed = match self.key.rsplit_once('.') {
            Some((section, _)) if SECTIONS.contains(&section) => {
                let mut settings = Settings::default();
                let table = settings.table();
                let names = table.iter().filter(|setting| setting.section() == section).map(Setting::name);
                let is_inner = |other: &str| other.rsplit_once('.').is_some_and(|(outer, _)| outer == section);
                let inner = SECTIONS.iter().filter(|other| is_inner(other)).map(|inner| format!("[{inner}]"));
                let all: Vec<_> = names.map(str::to_owned).chain(inner).collect();
                format!("in [{section}] {}", all.join(", "))
            }
            _ => sections(),
        };
        let key = self.key.escape_debug().to_string();
        ConfigError::Unknown { key, value: self.value.quoted().to_owned(), origin: self.origin, allowed }
    }

    pub(super) fn refused(self, allowed: String) -> ConfigError {
        ConfigError::BadValue { key: self.key, value: self.value.quoted().to_owned(), origin: self.origin, allowed }
    }
}

pub(super) fn from_file(path: &Path) -> Result<Vec<RawSetting>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    from_toml(&text, |line| Origin::File { path: path.to_owned(), line })
}

pub(super) fn from_toml(text: &str, origin: impl Fn(usize) -> Origin) -> Result<Vec<RawSetting>, ConfigError> {
    let place = |at: usize| origin(1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count());
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: place(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut raw_settings = Vec::new();
    read_section("", document.get_ref(), text, &place, &mut raw_settings)?;
    Ok(raw_settings)
}

/// Reads the settings of a section and of its subsections.
fn read_section(
    section: &str,
    table: &DeTable<'_>,
    text: &str,
    place: &dyn Fn(usize) -> Origin,
    raw_settings: &mut Vec<RawSetting>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let is_outermost = section.is_empty();
        let key = if is_outermost { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
        let is_section = SECTIONS.contains(&&*key);
        let inner = value.get_ref().as_table();
        if let (true, Some(inner)) = (is_section, inner) {
            read_section(&key, inner, text, place, raw_settings)?;
            continue;
        }
        let source = if inner.is_some() { "{...}" } else { &text[value.span()] };
        let origin = place(name.span().start);
        let raw = RawSetting { key, value: RawValue::toml(value.get_ref(), source), origin };
        match inner {
            // If a value stands in the place of a section, it is not a setting, even if its name is that of a section.
            None if is_outermost || is_section => return Err(raw.refused(sections())),
            Some(_) if is_outermost => return Err(raw.unknown()),
            _ => raw_settings.push(raw),
        }
    }
    Ok(())
}

/// Returns the names of all sections for a message.
fn sections() -> String {
    format!("the sections {}", SECTIONS.join(", "))
}

pub(super) fn from_environment(variables: &[(OsString, OsString)]) -> Result<Vec<RawSetting>, ConfigError> {
    let mut raw_settings = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let key = rest.replace("__", ".").to_ascii_lowercase();
        let origin = Origin::Environment(name.to_string());
        let raw = RawSetting { key, value: RawValue::untyped(value), origin };
        // Names must be upper case. Otherwise two variables could set the same setting to different values.
        if rest.contains(|c: char| c.is_ascii_lowercase()) {
            let allowed = "names in upper case".to_owned();
            let (value, origin) = (raw.value.quoted().to_owned(), raw.origin);
            return Err(ConfigError::Unknown { key: raw.key.escape_debug().to_string(), value, origin, allowed });
        }
        raw_settings.push(raw);
    }
    Ok(raw_settings)
}

pub(super) fn from_flags(flags: &[Flag]) -> Vec<RawSetting> {
    let raw = |flag: &Flag| RawSetting {
        key: flag.key.to_owned(),
        value: RawValue::untyped(&flag.value),
        origin: Origin::Flag(flag.name),
    };
    flags.iter().map(raw).collect()
}

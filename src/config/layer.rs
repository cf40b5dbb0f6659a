//! The layers of a configuration, each read into entries that are all of one kind.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use toml::de::DeTable;

use super::input::Input;
use super::rule::{RULES, Rule, SECTIONS};
use super::{ConfigError, Flag, Origin};

/// What an environment variable that is meant for this program begins with.
const PREFIX: &str = "TURN_METRICS__";

/// A setting as one layer gives it.
pub(super) struct Entry {
    /// Section and name, such as `http.listen`.
    pub(super) key: String,
    pub(super) input: Input,
    pub(super) origin: Origin,
}

impl Entry {
    pub(super) fn unknown(self) -> ConfigError {
        let section = self.key.split('.').next().unwrap_or_default();
        let names: Vec<_> = RULES.iter().filter(|rule| rule.section() == section).map(Rule::name).collect();
        let allowed = if names.is_empty() {
            format!("the sections {}", SECTIONS.join(", "))
        } else {
            format!("in [{section}] {}", names.join(", "))
        };
        let key = self.key.escape_debug().to_string();
        ConfigError::Unknown { key, value: self.input.quoted().to_owned(), origin: self.origin, allowed }
    }

    pub(super) fn refused(self, allowed: String) -> ConfigError {
        ConfigError::BadValue { key: self.key, value: self.input.quoted().to_owned(), origin: self.origin, allowed }
    }
}

pub(super) fn from_file(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    from_toml(&text, |line| Origin::File { path: path.to_owned(), line })
}

pub(super) fn from_toml(text: &str, origin: impl Fn(usize) -> Origin) -> Result<Vec<Entry>, ConfigError> {
    let place = |at: usize| origin(1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count());
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: place(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut entries = Vec::new();
    for (section, value) in document.get_ref() {
        let Some(table) = value.get_ref().as_table() else {
            let input = Input::toml(value.get_ref(), &text[value.span()]);
            let key = section.get_ref().to_string();
            // A value where a section belongs is no setting, even if a section has its name.
            let allowed = format!("the sections {}", SECTIONS.join(", "));
            return Err(Entry { key, input, origin: place(section.span().start) }.refused(allowed));
        };
        if !SECTIONS.contains(&section.get_ref().as_ref()) {
            let input = Input::toml(value.get_ref(), "{...}");
            let key = section.get_ref().to_string();
            return Err(Entry { key, input, origin: place(section.span().start) }.unknown());
        }
        for (name, value) in table {
            entries.push(Entry {
                key: format!("{}.{}", section.get_ref(), name.get_ref()),
                input: Input::toml(value.get_ref(), &text[value.span()]),
                origin: place(name.span().start),
            });
        }
    }
    Ok(entries)
}

pub(super) fn from_environment(variables: &[(OsString, OsString)]) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let key = rest.replacen("__", ".", 1).to_ascii_lowercase();
        let origin = Origin::Environment(name.to_string());
        let entry = Entry { key, input: Input::untyped(value), origin };
        // Names are upper case, so that one setting has one name and no second spelling can contradict it.
        if rest.contains(|c: char| c.is_ascii_lowercase()) {
            let allowed = "names in upper case".to_owned();
            let (value, origin) = (entry.input.quoted().to_owned(), entry.origin);
            return Err(ConfigError::Unknown { key: entry.key.escape_debug().to_string(), value, origin, allowed });
        }
        entries.push(entry);
    }
    Ok(entries)
}

pub(super) fn from_flags(flags: &[Flag]) -> Vec<Entry> {
    let entry = |flag: &Flag| Entry {
        key: flag.key.to_owned(),
        input: Input::untyped(&flag.value),
        origin: Origin::Flag(flag.name),
    };
    flags.iter().map(entry).collect()
}

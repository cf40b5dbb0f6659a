//! A value as a layer gives it, before it is known which setting it is for.

use std::ffi::OsStr;

use toml::de::DeValue;

/// The maximum number of characters of a value that a message quotes.
const MAX_QUOTED_CHARS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// A value from the environment or a flag, which has no type.
    Untyped(String),
    String(String),
    Integer(u64),
    Strings(Vec<String>),
    /// A value that no setting accepts: another TOML type, a negative number, text that is not UTF-8.
    Unusable,
}

/// A value as a layer gives it.
#[derive(Debug, Clone)]
pub(super) struct RawValue {
    value: Value,
    quoted: String,
}

impl RawValue {
    pub(super) fn untyped(text: &OsStr) -> Self {
        let value = text.to_str().map_or(Value::Unusable, |text| Value::Untyped(text.to_owned()));
        Self { value, quoted: quote(&format!("{:?}", text.to_string_lossy())) }
    }

    /// `source` is the text of the value in the file.
    pub(super) fn toml(value: &DeValue<'_>, source: &str) -> Self {
        let value = match value {
            DeValue::String(text) => Value::String(text.clone().into_owned()),
            DeValue::Integer(number) => {
                u64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Unusable, Value::Integer)
            }
            DeValue::Array(items) => {
                let items: Option<Vec<_>> = items.iter().map(|item| item.get_ref().as_str()).collect();
                let owned = |items: Vec<&str>| items.into_iter().map(str::to_owned).collect();
                items.map_or(Value::Unusable, |items| Value::Strings(owned(items)))
            }
            _ => Value::Unusable,
        };
        Self { value, quoted: quote(source) }
    }

    /// Returns the value for a message: one line of limited length, without control characters.
    pub(super) fn quoted(&self) -> &str {
        &self.quoted
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Untyped(text) | Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn count(&self) -> Option<u64> {
        match &self.value {
            Value::Integer(number) => Some(*number),
            // Check the first character, because `parse` would accept a sign.
            Value::Untyped(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
                text.replace('_', "").parse().ok()
            }
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<Vec<String>> {
        match &self.value {
            Value::Strings(items) => Some(items.clone()),
            Value::Untyped(text) if text.trim().is_empty() => Some(Vec::new()),
            Value::Untyped(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
            _ => None,
        }
    }
}

fn quote(source: &str) -> String {
    let mut quoted = String::new();
    for (nth, c) in source.chars().enumerate() {
        if nth == MAX_QUOTED_CHARS {
            quoted.push_str("...");
            break;
        }
        if c.is_control() { quoted.extend(c.escape_default()) } else { quoted.push(c) }
    }
    quoted
}

//! Reads the fields of an event whose structure is valid. The code uses `serde`, but reports errors in terms of JSON.

use super::super::Label;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::structure_error::kind_of_value;
use super::text::plain_len;

/// A value in an event, without white space around it. Its structure is known to be valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    bytes: &'a [u8],
    /// The position of the value in the event.
    at: usize,
}

/// An error in a field, and its position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldError {
    /// The path to the field: its name and the names of the objects around it, innermost first.
    path: Vec<String>,
    problem: Problem,
    at: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// The value has a wrong kind or is out of range.
    Must {
        be: String,
        found: Option<String>,
    },
    Missing,
    Twice,
    NoValue(String),
    NoUtf8,
    HalfCharacter,
    Other(String),
}

impl FieldError {
    fn new(problem: Problem) -> Self {
        Self { path: Vec::new(), problem, at: None }
    }

    /// Returns the position of the error in the event.
    pub(super) fn at(&self) -> usize {
        self.at.unwrap_or(0)
    }

    /// Returns the name of the missing field, if the error is that a field of the event is missing.
    pub(super) fn missing_field(&self) -> Option<&str> {
        match (&self.problem, &*self.path) {
            (Problem::Missing, [name]) => Some(name),
            _ => None,
        }
    }

    pub(super) fn within(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    /// Sets the value that the error is about, unless an inner value is set already.
    fn about(mut self, value: Value<'_>) -> Self {
        self.at.get_or_insert(value.at);
        if let Problem::Must { be, found: found @ None } = &mut self.problem {
            *found = Some(value.shown(be.contains("number")));
        }
        self
    }
}

impl std::error::Error for FieldError {}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
        write!(f, "`{}` ", path.join("."))?;
        match &self.problem {
            Problem::Must { be, found: Some(found) } => write!(f, "must be {be}, not {found}"),
            Problem::Must { be, found: None } => write!(f, "must be {be}"),
            Problem::Missing => f.write_str("is missing"),
            Problem::Twice => f.write_str("stands twice"),
            Problem::NoValue(found) => write!(f, "is {found}, which is no value of JSON"),
            Problem::NoUtf8 => f.write_str("is not valid UTF-8"),
            Problem::HalfCharacter => f.write_str("has an escape of half a character, a lone surrogate"),
            Problem::Other(why) => write!(f, "is not valid: {why}"),
        }
    }
}

/// Returns what a field must be, in terms of JSON.
fn in_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let words = match &*expected {
        "a conversation id" | "a turn id" | "a step id" | "a string" | "str" | "string" | "a borrowed string" => {
            "a string"
        }
        "bool" | "a boolean" => "a boolean",
        "u64" | "i64" | "u32" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        other if other.starts_with("struct ") || other == "a map" => "an object",
        "a sequence" => "an array",
        other => other,
    };
    words.to_owned()
}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.strip_prefix("must be ") {
            Some(be) => Self::new(Problem::Must { be: be.to_owned(), found: None }),
            None => Self::new(Problem::Other(message)),
        }
    }

    // The caller adds the value that was found, as the line has it.
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::Must { be: in_words(expected), found: None })
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::Missing).within(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Problem::Twice).within(field)
    }
}

impl<'a> Value<'a> {
    /// Returns the object of an event. White space may surround it.
    pub(super) fn of_event(event: &'a [u8]) -> Self {
        let bytes = event.trim_ascii_start();
        Self { bytes: bytes.trim_ascii_end(), at: event.len() - bytes.len() }
    }

    fn first(self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// Formats the value for a message: verbatim if the field must be a number and the value is a scalar, otherwise by
    /// its kind.
    fn shown(self, is_number_wanted: bool) -> String {
        const MAX_SHOWN: usize = 40;
        match self.bytes {
            b"true" | b"false" | b"null" => {}
            token if is_number_wanted && !matches!(self.first(), b'"' | b'{' | b'[') => {
                return String::from_utf8_lossy(&token[..token.len().min(MAX_SHOWN)]).into_owned();
            }
            _ => {}
        }
        kind_of_value(self.first()).to_owned()
    }

    fn text(self) -> Result<String, FieldError> {
        serde_json::from_slice(self.bytes).map_err(|_| {
            let is_utf8 = str::from_utf8(self.bytes).is_ok();
            FieldError::new(if is_utf8 { Problem::HalfCharacter } else { Problem::NoUtf8 })
        })
    }

    /// Returns the string with each half of a character (a lone surrogate) replaced. Returns `None` if the value is not
    /// a string or its bytes are not UTF-8.
    fn lossy_text(self) -> Option<String> {
        let inner = self.bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let mut text = String::new();
        let mut rest = str::from_utf8(inner).ok()?;
        // Half a character is always written as an escape; the text between such escapes is read as JSON.
        while let Some(at) = half_character(rest) {
            text += &serde_json::from_str::<String>(&format!("\"{}\"", &rest[..at])).ok()?;
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[at + 6..];
        }
        Some(text + &serde_json::from_str::<String>(&format!("\"{rest}\"")).ok()?)
    }

    /// Returns the keys and values of an object.
    pub(super) fn fields(self) -> Fields<'a> {
        Fields { rest: self.bytes.get(1..).unwrap_or_default(), at: self.at + 1, value: None, name: String::new() }
    }

    /// Returns the first field of this name, if the value is an object that has one.
    #[cfg(feature = "server")]
    pub(super) fn field(self, name: &str) -> Option<Value<'a>> {
        let mut fields = (self.first() == b'{').then(|| self.fields())?;
        while fields.next_key() {
            if fields.name == name {
                return fields.value;
            }
        }
        None
    }

    /// Returns whether the value is an array of more than this number of items.
    #[cfg(feature = "server")]
    pub(super) fn has_more_items(self, most: usize) -> bool {
        let [b'[', inner @ ..] = self.bytes else { return false };
        let mut items = Items { rest: inner, at: self.at + 1, count: 0 };
        while items.count <= most {
            if items.next().is_none() {
                return false;
            }
        }
        true
    }

    /// Checks that every scalar in the value is valid JSON.
    fn check_scalars(self) -> Result<(), FieldError> {
        let mut rest = self.bytes;
        while let Some(&byte) = rest.first() {
            let len = match byte {
                b'"' => string_len(rest),
                _ if is_scalar(byte) => {
                    let len = scalar_len(rest);
                    let token = &rest[..len];
                    if !matches!(token, b"true" | b"false" | b"null") && Number::read(token).is_none() {
                        let shown = Value { bytes: token, at: 0 }.shown(true);
                        return Err(FieldError::new(Problem::NoValue(shown)));
                    }
                    len
                }
                _ => 1,
            };
            rest = &rest[len..];
        }
        Ok(())
    }

    fn visit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.bytes {
            b"null" => visitor.visit_unit(),
            b"true" => visitor.visit_bool(true),
            b"false" => visitor.visit_bool(false),
            [b'"', ..] => match self.bytes[1..self.bytes.len() - 1] {
                ref plain if plain_len(plain) == plain.len() => match str::from_utf8(plain) {
                    Ok(text) => visitor.visit_borrowed_str(text),
                    Err(_) => Err(FieldError::new(Problem::NoUtf8)),
                },
                _ => visitor.visit_string(self.text()?),
            },
            [b'{', ..] => visitor.visit_map(self.fields()),
            // `serde` would accept an array in place of an object. Where an array is wanted, `deserialize_seq` reads it.
            [b'[', ..] => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            token => match Number::read(token) {
                Some(Number::Whole(number)) => visitor.visit_u64(number),
                Some(Number::Negative(number)) => visitor.visit_i64(number),
                Some(Number::Float(number)) => visitor.visit_f64(number),
                None => Err(de::Error::invalid_type(Unexpected::Other("no value"), &visitor)),
            },
        }
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit(visitor).map_err(|error| error.about(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.bytes == b"null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.bytes {
            [b'[', inner @ ..] => visitor.visit_seq(Items { rest: inner, at: self.at + 1, count: 0 }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        // JavaScript leaves half a character when it cuts a string at the wrong place. In a free text this is no reason
        // to refuse the event, so the half is replaced.
        let text = if name == Label::NAME { self.lossy_text() } else { None };
        match text {
            Some(text) => visitor.visit_string(text),
            None => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.check_scalars().map_err(|error| error.about(self))?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct enum identifier
    }
}

/// Returns the position of the first escape that is half a character, a lone surrogate.
fn half_character(text: &str) -> Option<usize> {
    let code = |at: usize| u32::from_str_radix(text.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok();
    let mut at = 0;
    while let Some(next) = text[at..].find('\\') {
        at += next;
        match code(at) {
            Some(0xd800..0xdc00) if matches!(code(at + 6), Some(0xdc00..0xe000)) => at += 12,
            Some(0xd800..0xe000) => return Some(at),
            _ => at += 2,
        }
        if !text.is_char_boundary(at.min(text.len())) || at >= text.len() {
            return None;
        }
    }
    None
}

/// The fields of an object, in order.
pub(super) struct Fields<'a> {
    /// The bytes after the opening bracket or the latest value.
    rest: &'a [u8],
    at: usize,
    /// The value of the latest key.
    value: Option<Value<'a>>,
    /// The latest key.
    name: String,
}

impl<'a> Fields<'a> {
    fn skip(&mut self, len: usize) -> &'a [u8] {
        let (skipped, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        self.at += skipped.len();
        skipped
    }

    fn skip_to_value(&mut self) {
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        self.skip(self.rest.iter().take_while(|byte| is_between(byte)).count());
    }

    fn take_value(&mut self) -> Value<'a> {
        let at = self.at;
        Value { bytes: self.skip(value_len(self.rest)), at }
    }

    /// Reads the next key, if there is one; `next_value_seed` then reads its value.
    fn next_key(&mut self) -> bool {
        self.skip_to_value();
        if self.rest.first() != Some(&b'"') {
            return false;
        }
        let key = self.take_value();
        self.skip_to_value();
        self.value = Some(self.take_value());
        self.name.clear();
        match key.bytes.get(1..key.bytes.len() - 1).filter(|text| plain_len(text) == text.len()).map(str::from_utf8) {
            Some(Ok(plain)) => self.name.push_str(plain),
            _ => match key.text() {
                Ok(name) => self.name = name,
                // The key is not a valid text, so it is not the name of a known field.
                Err(_) => self.name = String::from_utf8_lossy(key.bytes).into_owned(),
            },
        }
        true
    }

    /// Returns the names of the first fields.
    pub(super) fn names(mut self, at_most: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < at_most && self.next_key() {
            names.push(self.name.clone());
        }
        names
    }

    /// Returns whether there is a field of this name, even if it is null.
    pub(super) fn any_named(mut self, name: &str) -> bool {
        while self.next_key() {
            if self.name == name {
                return true;
            }
        }
        false
    }

    /// Returns the values of these fields, with `None` for a field that is null or missing. Other values are not read.
    pub(super) fn values_of<const N: usize>(
        mut self,
        names: [&'static str; N],
    ) -> Result<[Option<Value<'a>>; N], FieldError> {
        let mut values = [None; N];
        while self.next_key() {
            let Some(value) = self.value.filter(|value| value.bytes != b"null") else { continue };
            if let Some(at) = names.iter().position(|name| *name == self.name)
                && values[at].replace(value).is_some()
            {
                return Err(de::Error::duplicate_field(names[at]));
            }
        }
        Ok(values)
    }

    /// Returns the first field of this name, if it is a string.
    #[cfg(feature = "server")]
    pub(super) fn string(mut self, name: &str) -> Option<String> {
        while self.next_key() {
            if self.name == name {
                return self.value?.text().ok();
            }
        }
        None
    }
}

impl<'a> MapAccess<'a> for Fields<'a> {
    type Error = FieldError;

    // A null field is skipped: null means absent.
    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        loop {
            if !self.next_key() {
                return Ok(None);
            }
            if self.value.is_some_and(|value| value.bytes != b"null") {
                break;
            }
        }
        seed.deserialize(de::value::StrDeserializer::new(&self.name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, FieldError> {
        let Some(value) = self.value.take() else { return Err(de::Error::custom("a value is missing")) };
        seed.deserialize(value).map_err(|error| error.about(value).within(&self.name))
    }
}

/// The items of an array, in order.
struct Items<'a> {
    /// The bytes after the opening bracket or the latest item.
    rest: &'a [u8],
    at: usize,
    /// How many items were read.
    count: usize,
}

impl<'a> Items<'a> {
    fn next(&mut self) -> Option<Value<'a>> {
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',');
        let between = self.rest.iter().take_while(|byte| is_between(byte)).count();
        let (rest, at) = (&self.rest[between..], self.at + between);
        if matches!(rest.first(), None | Some(b']')) {
            return None;
        }
        let (bytes, rest) = rest.split_at(value_len(rest));
        (self.rest, self.at) = (rest, at + bytes.len());
        self.count += 1;
        Some(Value { bytes, at })
    }
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, FieldError> {
        let index = self.count;
        let Some(value) = self.next() else { return Ok(None) };
        seed.deserialize(value).map(Some).map_err(|error| error.about(value).within(&index.to_string()))
    }
}

/// A JSON number.
enum Number {
    Whole(u64),
    Negative(i64),
    Float(f64),
}

impl Number {
    fn read(token: &[u8]) -> Option<Self> {
        let text = str::from_utf8(token).ok()?;
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = is_digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(is_digits)
            && exponent.is_none_or(is_digits);
        if !is_number {
            return None;
        }
        if fraction.is_none() && exponent.is_none() {
            match text.strip_prefix('-') {
                None => {
                    if let Ok(number) = text.parse() {
                        return Some(Self::Whole(number));
                    }
                }
                // -0 is read as a float, since no integer represents it.
                Some(digits) if digits != "0" => {
                    if let Ok(number) = text.parse() {
                        return Some(Self::Negative(number));
                    }
                }
                Some(_) => {}
            }
        }
        text.parse().ok().map(Self::Float)
    }
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

fn scalar_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_scalar(*byte)).unwrap_or(bytes.len())
}

/// Returns the length of the string at the start, with its quotes.
fn string_len(bytes: &[u8]) -> usize {
    let mut len = 1;
    loop {
        len += plain_len(bytes.get(len..).unwrap_or_default());
        match bytes.get(len) {
            Some(b'\\') => len += 2,
            Some(b'"') => return len + 1,
            _ => return bytes.len(),
        }
    }
}

/// Returns the length of the value at the start.
fn value_len(bytes: &[u8]) -> usize {
    let (mut len, mut depth) = (0, 0_usize);
    loop {
        match bytes.get(len) {
            None => return bytes.len(),
            Some(b'"') => len += string_len(&bytes[len..]),
            Some(b'{' | b'[') => {
                depth += 1;
                len += 1;
            }
            Some(b'}' | b']') => {
                depth = depth.saturating_sub(1);
                len += 1;
            }
            Some(byte) if is_scalar(*byte) => len += scalar_len(&bytes[len..]),
            Some(_) => len += 1,
        }
        if depth == 0 {
            return len;
        }
    }
}

/// Returns the string at the start of some bytes.
#[cfg(feature = "server")]
pub(super) fn text_of(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..bytes.first().filter(|first| **first == b'"').map(|_| string_len(bytes))?)?;
    Value { bytes, at: 0 }.text().ok()
}

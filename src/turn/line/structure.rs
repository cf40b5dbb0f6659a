use super::super::wire::EventType;
use super::nesting::Nesting;
use super::structure_error::{StructureError, StructureErrorKind, Subject, kind_of_value};
use super::text::plain_len;

/// Follows the structure of one JSON object to its last brace and finds its `type`, in one pass over bytes that may
/// arrive in pieces.
///
/// The parser guarantees that the bytes are one object by JSON's grammar of strings, brackets, `:` and `,`, with
/// nothing but white space around it, and with one `type` at its top level. So a line that is ignored because of its
/// type hides no event. The parser does not check whether strings are UTF-8 or scalars are valid JSON: a scalar is any
/// run of letters, digits, `+`, `-` and `.`.
///
/// The parser uses one bit of memory for each open bracket, and keeps nothing else of the input.
#[derive(Debug, Clone, Default)]
pub(in crate::turn) struct Structure {
    state: State,
    text: Text,
    nesting: Nesting,
    event_type: TypeSeen,
    place: Place,
}

/// What the parser expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The opening brace of the object.
    #[default]
    Object,
    /// A key, or the end of an empty object.
    FirstKey,
    /// A key, after a comma.
    Key,
    /// The rest of a key.
    InKey,
    /// A colon.
    Colon,
    /// A value.
    Value,
    /// A value, or the end of an empty array.
    FirstItem,
    /// The rest of a string value.
    InString,
    /// The rest of a number, a boolean, a null or another word.
    InScalar,
    /// A comma, or the end of an object or an array.
    Comma,
    /// White space after the object.
    End,
}

/// The current string, if it has an escape or continues in the next piece.
#[derive(Debug, Clone, Copy, Default)]
struct Text {
    escape: Escape,
    /// Whether the start of the string is kept, because the string may be the key `type` or its value.
    is_kept: bool,
    kept: Name,
}

/// How much of an escape has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    /// `\u` and some digits with this value so far.
    Unicode {
        digits: u8,
        value: u32,
    },
}

/// The start of a string: enough bytes to recognise the name of a type.
#[derive(Debug, Clone, Copy, Default)]
struct Name {
    bytes: [u8; Self::MAX],
    /// The length of the string, or `MAX + 1` if it is longer than `MAX`.
    len: usize,
}

impl Name {
    /// The length of the buffer. Every name of a type that counts is shorter.
    const MAX: usize = 16;

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.bytes.get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.len = Self::MAX + 1,
        }
    }

    /// Returns the string, or an empty string if it was too long. No type has an empty name.
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum TypeSeen {
    #[default]
    No,
    /// The key `type` has been read, and its value comes next.
    Key,
    /// The value is `null`, which counts as absent.
    Null,
    Named(EventType),
}

/// The position of the next byte.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The total length of the earlier pieces.
    fed: usize,
    /// The last bytes of the earlier pieces.
    tail: [u8; 2],
    /// The number of line breaks so far, and the position after the latest line break.
    line_breaks: usize,
    line_start: usize,
    /// Whether the object is followed by a carriage return without a line feed.
    is_after_carriage_return: bool,
}

impl Structure {
    /// Returns the type, as soon as it is known.
    #[cfg(feature = "server")]
    pub(super) fn event_type(&self) -> Option<EventType> {
        match self.event_type {
            TypeSeen::Named(event_type) => Some(event_type),
            _ => None,
        }
    }

    /// Returns whether only white space has arrived so far.
    #[cfg(feature = "server")]
    pub(super) fn is_blank(&self) -> bool {
        self.state == State::Object
    }

    /// Returns whether the object has ended, so that only white space may follow.
    #[cfg(feature = "server")]
    pub(super) fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// Returns the memory that the open brackets need, an eighth of a byte each.
    #[cfg(feature = "server")]
    pub(super) fn nesting_bytes(&self) -> usize {
        self.nesting.outer_bytes()
    }

    /// Returns the allocated heap memory in bytes.
    #[cfg(feature = "server")]
    pub(super) fn heap_bytes(&self) -> usize {
        self.nesting.heap_bytes()
    }

    /// Checks that the object is complete, and returns its type.
    pub(super) fn finish(&self) -> Result<EventType, StructureError> {
        match (self.state, self.event_type) {
            (State::End, TypeSeen::Named(event_type)) => Ok(event_type),
            (State::End, TypeSeen::Null) => Err(self.error(StructureErrorKind::TypeNull, 0, false)),
            (State::End, _) => Err(self.error(StructureErrorKind::TypeMissing, 0, false)),
            (State::InKey | State::InString, _) => {
                Err(self.error(StructureErrorKind::CutOff { in_text: true }, 0, true))
            }
            _ => Err(self.error(StructureErrorKind::CutOff { in_text: false }, 0, true)),
        }
    }

    /// Follows the next piece. Must not be called after an error.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), StructureError> {
        let mut at = 0;
        match self.follow(bytes, &mut at) {
            Ok(()) => {
                self.place.fed += bytes.len();
                self.place.tail = self.last_bytes(bytes, bytes.len());
                Ok(())
            }
            Err(kind) => {
                let is_torn = self.begins_object(kind, bytes, at);
                Err(self.error(kind, at, is_torn))
            }
        }
    }

    /// Returns the two bytes before a position in the current piece.
    fn last_bytes(&self, bytes: &[u8], at: usize) -> [u8; 2] {
        let before = |count: usize| match at.checked_sub(count) {
            Some(at) => bytes.get(at).copied().unwrap_or_default(),
            None => self.place.tail[2 + at - count],
        };
        [before(2), before(1)]
    }

    /// Returns whether the bytes at an error look like the start of another object inside this one. If the error is
    /// inside a string, the first quote of the other object has ended the string, so the error is after that quote.
    fn begins_object(&self, kind: StructureErrorKind, bytes: &[u8], at: usize) -> bool {
        match kind {
            StructureErrorKind::NoKey(_)
            | StructureErrorKind::NoColon(_)
            | StructureErrorKind::NoComma { .. }
            | StructureErrorKind::Escape(_) => bytes.get(at) == Some(&b'{') || self.last_bytes(bytes, at) == *b"{\"",
            _ => false,
        }
    }

    #[cold]
    fn error(&self, kind: StructureErrorKind, at: usize, is_torn: bool) -> StructureError {
        let Place { fed, line_breaks, line_start, .. } = self.place;
        let (line, column) = (line_breaks + 1, fed + at - line_start + 1);
        StructureError { kind, line, column, is_torn, subject: Subject::default() }
    }

    /// Follows a piece. After an error, `at` is the position of the error.
    #[inline]
    fn follow(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), StructureErrorKind> {
        while let Some(&byte) = bytes.get(*at) {
            if matches!(self.state, State::InKey | State::InString) {
                self.follow_text(bytes, at)?;
                continue;
            }
            if self.state == State::InScalar {
                self.follow_scalar(bytes, at)?;
                continue;
            }
            if is_white(byte) {
                self.skip_white(bytes, at);
                continue;
            }
            match self.state {
                State::Object if byte == b'{' => {
                    self.nesting.open(true);
                    self.state = State::FirstKey;
                }
                State::Object => return Err(StructureErrorKind::NoObject(byte)),
                State::FirstKey | State::Key if byte == b'"' => {
                    *at += 1;
                    self.begin_key(bytes, at)?;
                    continue;
                }
                State::FirstKey if byte == b'}' => self.close(),
                State::FirstKey | State::Key => return Err(StructureErrorKind::NoKey(byte)),
                State::Colon if byte == b':' => self.state = State::Value,
                State::Colon => return Err(StructureErrorKind::NoColon(byte)),
                State::FirstItem if byte == b']' => self.close(),
                State::Value | State::FirstItem => {
                    self.begin_value(bytes, at)?;
                    continue;
                }
                State::Comma => match byte {
                    b',' if self.nesting.is_object() => self.state = State::Key,
                    b',' => self.state = State::Value,
                    b'}' if self.nesting.is_object() => self.close(),
                    b']' if !self.nesting.is_object() => self.close(),
                    found => return Err(StructureErrorKind::NoComma { found, in_object: self.nesting.is_object() }),
                },
                State::End => {
                    let after_carriage_return = self.place.is_after_carriage_return;
                    return Err(StructureErrorKind::Follows { found: byte, after_carriage_return });
                }
                State::InKey | State::InString | State::InScalar => {}
            }
            *at += 1;
        }
        Ok(())
    }

    fn close(&mut self) {
        self.nesting.close();
        self.state = if self.nesting.depth() == 0 { State::End } else { State::Comma };
    }

    /// Reads a key after its opening quote. Nearly all keys are complete and have no escapes.
    #[inline]
    fn begin_key(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), StructureErrorKind> {
        let rest = &bytes[*at..];
        let len = plain_len(rest);
        if rest.get(len) != Some(&b'"') {
            self.state = State::InKey;
            self.text = Text { is_kept: self.nesting.depth() == 1, ..Text::default() };
            return Ok(());
        }
        *at += len + 1;
        if rest[..len] == *b"type" && self.nesting.depth() == 1 {
            self.note_type_key()?;
        }
        if rest.get(len + 1) == Some(&b':') {
            self.state = State::Value;
            *at += 1;
        } else {
            self.state = State::Colon;
        }
        Ok(())
    }

    fn note_type_key(&mut self) -> Result<(), StructureErrorKind> {
        if self.event_type != TypeSeen::No {
            return Err(StructureErrorKind::TypeAgain);
        }
        self.event_type = TypeSeen::Key;
        Ok(())
    }

    /// Reads the first byte of a value. Reads the whole value if it is a complete string without escapes.
    #[inline]
    fn begin_value(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), StructureErrorKind> {
        let first = bytes[*at];
        if first == b'"' {
            *at += 1;
            let rest = &bytes[*at..];
            let len = plain_len(rest);
            if rest.get(len) == Some(&b'"') {
                if self.event_type == TypeSeen::Key {
                    self.event_type = TypeSeen::Named(EventType::named(&rest[..len]));
                }
                *at += len + 1;
                self.state = State::Comma;
            } else {
                self.state = State::InString;
                self.text = Text { is_kept: self.event_type == TypeSeen::Key, ..Text::default() };
            }
            return Ok(());
        }
        let is_null = self.event_type == TypeSeen::Key && first == b'n';
        if self.event_type == TypeSeen::Key && !is_null {
            return Err(if is_scalar(first) || matches!(first, b'{' | b'[') {
                StructureErrorKind::TypeKind(kind_of_value(first))
            } else {
                StructureErrorKind::NoValue(first)
            });
        }
        match first {
            b'{' | b'[' => {
                self.nesting.open(first == b'{');
                self.state = if first == b'{' { State::FirstKey } else { State::FirstItem };
                *at += 1;
                Ok(())
            }
            _ if is_scalar(first) => {
                self.state = State::InScalar;
                self.text = Text { is_kept: is_null, ..Text::default() };
                Ok(())
            }
            found => Err(StructureErrorKind::NoValue(found)),
        }
    }

    fn follow_scalar(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), StructureErrorKind> {
        let rest = &bytes[*at..];
        let len = rest.iter().position(|byte| !is_scalar(*byte)).unwrap_or(rest.len());
        if self.text.is_kept {
            self.text.kept.push(&rest[..len]);
        }
        *at += len;
        if len < rest.len() {
            if self.text.is_kept {
                if self.text.kept.as_bytes() != b"null" {
                    return Err(StructureErrorKind::TypeKind("an unknown word"));
                }
                self.event_type = TypeSeen::Null;
            }
            self.state = State::Comma;
        }
        Ok(())
    }

    /// Continues to read a string, up to its end or the end of the piece.
    fn follow_text(&mut self, bytes: &[u8], at: &mut usize) -> Result<(), StructureErrorKind> {
        while let Some(&byte) = bytes.get(*at) {
            match self.text.escape {
                Escape::None => {
                    let rest = &bytes[*at..];
                    let len = plain_len(rest);
                    if self.text.is_kept {
                        self.text.kept.push(&rest[..len]);
                    }
                    *at += len;
                    match rest.get(len) {
                        None => return Ok(()),
                        Some(b'"') => {
                            *at += 1;
                            return self.end_text();
                        }
                        Some(b'\\') => self.text.escape = Escape::Backslash,
                        Some(&control) => return Err(StructureErrorKind::Control(control)),
                    }
                }
                Escape::Backslash => {
                    let meaning = match byte {
                        b'"' | b'\\' | b'/' => byte,
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' => {
                            self.text.escape = Escape::Unicode { digits: 0, value: 0 };
                            *at += 1;
                            continue;
                        }
                        other => return Err(StructureErrorKind::Escape(other)),
                    };
                    self.end_escape(meaning.into());
                }
                Escape::Unicode { digits, value } => {
                    let Some(digit) = char::from(byte).to_digit(16) else {
                        return Err(StructureErrorKind::Escape(byte));
                    };
                    let value = value << 4 | digit;
                    if digits == 3 {
                        self.end_escape(value);
                    } else {
                        self.text.escape = Escape::Unicode { digits: digits + 1, value };
                    }
                }
            }
            *at += 1;
        }
        Ok(())
    }

    fn end_escape(&mut self, value: u32) {
        self.text.escape = Escape::None;
        if self.text.is_kept {
            // The names that matter are ASCII, so any other character may be replaced by one fixed byte.
            self.text.kept.push(&[u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(0xff)]);
        }
    }

    fn end_text(&mut self) -> Result<(), StructureErrorKind> {
        let Text { is_kept, kept, .. } = self.text;
        if self.state == State::InKey {
            self.state = State::Colon;
            if is_kept && kept.as_bytes() == b"type" {
                self.note_type_key()?;
            }
        } else {
            self.state = State::Comma;
            if is_kept {
                self.event_type = TypeSeen::Named(EventType::named(kept.as_bytes()));
            }
        }
        Ok(())
    }

    fn skip_white(&mut self, bytes: &[u8], at: &mut usize) {
        while let Some(&byte) = bytes.get(*at).filter(|byte| is_white(**byte)) {
            *at += 1;
            match byte {
                b'\n' => {
                    self.place.line_breaks += 1;
                    self.place.line_start = self.place.fed + *at;
                    self.place.is_after_carriage_return = false;
                }
                b'\r' if self.state == State::End => self.place.is_after_carriage_return = true,
                _ => {}
            }
        }
    }
}

/// Returns whether a byte is white space of JSON.
fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

use std::fmt;

/// Why bytes are not one JSON object with one `type`, and the position of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StructureError {
    pub(super) kind: StructureErrorKind,
    /// The line of the error, counted from 1 within the object. It is larger than 1 only for an object that spans
    /// several lines.
    pub(super) line: usize,
    /// The column of the error in bytes, from 1.
    pub(super) column: usize,
    /// Whether the bytes look like a record that a crash cut off, alone or with the next record after it.
    pub(super) is_torn: bool,
    /// What the object should be, for the message.
    pub(super) subject: Subject,
}

/// What an object should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Subject {
    #[default]
    Event,
    /// A sealed turn, as in an export.
    #[cfg(feature = "server")]
    Turn,
}

impl Subject {
    /// Returns the word with the indefinite article.
    fn with_article(self) -> &'static str {
        match self {
            Self::Event => "an event",
            #[cfg(feature = "server")]
            Self::Turn => "a turn",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            #[cfg(feature = "server")]
            Self::Turn => "turn",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StructureErrorKind {
    /// The line is a value other than an object; the value begins with this byte.
    NoObject(u8),
    /// The bytes end before the object does, inside a string or outside.
    CutOff { in_text: bool },
    /// This byte stands in place of a key.
    NoKey(u8),
    /// This byte stands in place of a `:`.
    NoColon(u8),
    /// This byte stands in place of a value.
    NoValue(u8),
    /// This byte stands in place of a `,` or the closing bracket of an object or an array.
    NoComma { found: u8, in_object: bool },
    /// A control character in a string.
    Control(u8),
    /// A backslash before this byte, which is not an escape of JSON.
    Escape(u8),
    /// Something follows the object, perhaps after a carriage return, which ends a line in old Macintosh files.
    Follows { found: u8, after_carriage_return: bool },
    /// Something follows the object, but the body must be one event.
    #[cfg(feature = "server")]
    FollowsInBody(u8),
    /// The body is an array, but must be one event.
    #[cfg(feature = "server")]
    ArrayInBody,
    /// No `type`.
    TypeMissing,
    /// A `type` that is null, which counts as missing.
    TypeNull,
    /// A second `type`.
    TypeAgain,
    /// A `type` that is not a string.
    TypeKind(&'static str),
}

#[cfg(feature = "server")]
impl StructureError {
    /// Returns the same error for a body that must be one event, where advice about lines would be wrong.
    pub(super) fn in_body(self) -> Self {
        let kind = match self.kind {
            StructureErrorKind::Follows { found, .. } => StructureErrorKind::FollowsInBody(found),
            StructureErrorKind::NoObject(b'[') => StructureErrorKind::ArrayInBody,
            kind => kind,
        };
        Self { kind, is_torn: false, ..self }
    }
}

/// Returns the kind of value that begins with this byte, with an article.
pub(super) fn kind_of_value(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// Displays a byte in a readable form.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            printable @ b' '..=b'~' => write!(f, "`{}`", char::from(printable)),
            byte => write!(f, "the byte 0x{byte:02x}"),
        }
    }
}

impl fmt::Display for StructureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject;
        let a_subject = subject.with_article();
        match self.kind {
            StructureErrorKind::NoObject(0) => {
                write!(f, "{a_subject} must be a JSON object, not NUL bytes, which a crash can leave in a file")
            }
            StructureErrorKind::NoObject(first @ (b'[' | b'"' | b'0'..=b'9' | b'-')) => {
                write!(f, "{a_subject} must be a JSON object, not {}", kind_of_value(first))
            }
            StructureErrorKind::NoObject(first) => {
                write!(f, "{a_subject} must be a JSON object, which begins with `{{`, not {}", Shown(first))
            }
            StructureErrorKind::CutOff { in_text: true } => write!(f, "the {subject} is cut off within a string"),
            StructureErrorKind::CutOff { in_text: false } => write!(f, "the {subject} is cut off before its last `}}`"),
            StructureErrorKind::NoKey(found) => {
                write!(f, "a key in double quotes must stand here, not {}", Shown(found))
            }
            StructureErrorKind::NoColon(found) => write!(f, "`:` must follow the key, not {}", Shown(found)),
            StructureErrorKind::NoValue(found) => write!(f, "a value must stand here, not {}", Shown(found)),
            StructureErrorKind::NoComma { found, in_object } => {
                let close = if in_object { '}' } else { ']' };
                write!(f, "`,` or `{close}` must follow the value, not {}", Shown(found))
            }
            StructureErrorKind::Control(b'\r') => {
                f.write_str("a carriage return stands within a string, where it must be the escape `\\r`")
            }
            StructureErrorKind::Control(found) => {
                write!(f, "a control character stands within a string, where it must be the escape `\\u{found:04x}`")
            }
            StructureErrorKind::Escape(found) => {
                write!(f, "{} must not follow a `\\`: JSON has no such escape", Shown(found))
            }
            StructureErrorKind::Follows { after_carriage_return: true, .. } => {
                f.write_str("a carriage return alone does not end a line: each line must end with a line feed")
            }
            StructureErrorKind::Follows { found: b'{', .. } => write!(
                f,
                "another object follows the {subject}: each {subject} must have a line of its own (`curl` keeps line \
                 breaks with `--data-binary`, not with `-d`)",
            ),
            StructureErrorKind::Follows { found, .. } => {
                write!(f, "{} follows the {subject}: each {subject} must have a line of its own", Shown(found))
            }
            #[cfg(feature = "server")]
            StructureErrorKind::FollowsInBody(b'{') => write!(
                f,
                "another object follows the {subject}: an `application/json` body must be one {subject} (post several \
                 as `application/x-ndjson`, each on a line of its own)",
            ),
            #[cfg(feature = "server")]
            StructureErrorKind::FollowsInBody(found) => {
                write!(f, "{} follows the {subject}: an `application/json` body must be one {subject}", Shown(found))
            }
            #[cfg(feature = "server")]
            StructureErrorKind::ArrayInBody => write!(
                f,
                "an `application/json` body must be one {subject}, not an array (post several as \
                 `application/x-ndjson`, each on a line of its own)",
            ),
            StructureErrorKind::TypeNull => return f.write_str("`type` is null, which counts as missing"),
            StructureErrorKind::TypeMissing => return f.write_str("`type` is missing"),
            StructureErrorKind::TypeAgain => return f.write_str("`type` stands twice"),
            StructureErrorKind::TypeKind(kind) => return write!(f, "`type` must be a string, not {kind}"),
        }?;
        write!(f, " (column {})", self.column)?;
        match self.kind {
            StructureErrorKind::CutOff { .. } if self.is_torn => {
                write!(f, ": {a_subject} must be whole, on one line; a crash of its writer can leave half of one")
            }
            _ if self.is_torn => write!(
                f,
                ": another object begins here, so this may be {a_subject} that a crash of its writer cut off, with the \
                 next {subject} after it on the same line",
            ),
            _ => Ok(()),
        }
    }
}

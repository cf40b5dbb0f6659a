use std::fmt;

/// What keeps bytes from being one JSON object with one `type`, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// The line, from 1: larger only for an object that is written on several lines.
    pub(super) line: usize,
    /// The byte in that line, from 1.
    pub(super) column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Another value than an object, which begins with this byte.
    NoObject(u8),
    /// The bytes end before the object does, within a text or not.
    CutOff { in_text: bool },
    /// This byte stands where a key must.
    NoKey(u8),
    /// This byte stands where `:` must.
    NoColon(u8),
    /// This byte stands where a value must.
    NoValue(u8),
    /// This byte stands where `,` must, or the bracket that closes an object or an array.
    NoComma { found: u8, in_object: bool },
    /// A control character in a text.
    Control(u8),
    /// A backslash before this byte.
    Escape(u8),
    /// Something after the object. The line break before it may be that of old Macintosh files.
    Follows { found: u8, after_carriage_return: bool },
    /// No `type`, or one that is `null`.
    TypeMissing,
    /// A second `type`.
    TypeAgain,
    /// A `type` of another kind.
    TypeKind(&'static str),
}

/// The kind of the value that begins with this byte, with its article.
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

/// A byte as a reader of the message can see it.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            printable @ b' '..=b'~' => write!(f, "`{}`", char::from(printable)),
            byte => write!(f, "the byte 0x{byte:02x}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::NoObject(0) => f.write_str(
                "an event must be a JSON object, but NUL bytes stand here, as a crash leaves them in a file",
            ),
            FaultKind::NoObject(first @ (b'[' | b'"' | b'0'..=b'9' | b'-')) => {
                write!(f, "an event must be a JSON object, not {}", kind_of_value(first))
            }
            FaultKind::NoObject(first) => {
                write!(f, "an event must be a JSON object, but {} stands where `{{` must", Shown(first))
            }
            FaultKind::CutOff { in_text: true } => f.write_str("the event is cut off within a string"),
            FaultKind::CutOff { in_text: false } => f.write_str("the event is cut off before its last `}`"),
            FaultKind::NoKey(found) => write!(f, "{} stands where a key, which is a string, must", Shown(found)),
            FaultKind::NoColon(found) => write!(f, "{} stands where `:` must, after a key", Shown(found)),
            FaultKind::NoValue(found) => write!(f, "{} stands where a value must", Shown(found)),
            FaultKind::NoComma { found, in_object } => {
                let close = if in_object { '}' } else { ']' };
                write!(f, "{} stands where `,` or `{close}` must, after a value", Shown(found))
            }
            FaultKind::Control(b'\r') => {
                f.write_str("a carriage return stands within a string, where JSON has the escape `\\r`")
            }
            FaultKind::Control(found) => {
                write!(f, "a control character stands within a string, where JSON has the escape `\\u{found:04x}`")
            }
            FaultKind::Escape(found) => write!(f, "{} stands after a `\\`, which is no escape of JSON", Shown(found)),
            FaultKind::Follows { after_carriage_return: true, .. } => f.write_str(
                "the lines end with a carriage return alone, and are one line for that: they must end with a line feed",
            ),
            FaultKind::Follows { found: b'{', .. } => f.write_str(
                "another object follows on the line of an event: each event must have a line of its own (`curl` keeps \
                 line breaks with `--data-binary`, not with `-d`)",
            ),
            FaultKind::Follows { found, .. } => {
                write!(f, "{} follows on the line of an event, which must stand alone on it", Shown(found))
            }
            FaultKind::TypeMissing => return f.write_str("`type` is missing"),
            FaultKind::TypeAgain => return f.write_str("`type` stands twice"),
            FaultKind::TypeKind(kind) => return write!(f, "`type` must be a string, not {kind}"),
        }?;
        write!(f, " (column {})", self.column)
    }
}

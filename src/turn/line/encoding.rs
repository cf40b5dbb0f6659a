use std::fmt;

/// An encoding other than plain UTF-8 that an editor or a shell may give a file of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf16,
    Utf32,
    Gzip,
}

impl Encoding {
    /// The number of bytes at the start of a file that identify the encoding.
    pub(crate) const HEAD_BYTES: usize = 4;

    /// Returns the encoding of a text that begins with these bytes, or `None` for UTF-8 and any unknown encoding.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            // A byte order mark, or a first character of an event in that encoding. UTF-32 is checked first, since its
            // marks begin like those of UTF-16.
            [0xff, 0xfe, 0, 0, ..]
            | [0, 0, 0xfe, 0xff, ..]
            | [b'{' | b'\n' | b'\r' | b' ', 0, 0, 0, ..]
            | [0, 0, 0, b'{' | b'\n' | b'\r' | b' ', ..] => Some(Self::Utf32),
            [0xff, 0xfe, ..]
            | [0xfe, 0xff, ..]
            | [b'{' | b'\n' | b'\r' | b' ', 0, ..]
            | [0, b'{' | b'\n' | b'\r' | b' ', ..] => Some(Self::Utf16),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            _ => None,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf16 => "the text is UTF-16, but must be UTF-8",
            Self::Utf32 => "the text is UTF-32, but must be UTF-8",
            Self::Gzip => "the text is compressed with gzip, which the `content-encoding` must say",
        })
    }
}

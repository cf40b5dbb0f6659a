use std::fmt;

/// What a text editor or a shell made of a file of events, in place of UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf16,
    Gzip,
}

impl Encoding {
    /// The first bytes of a file that are enough to tell.
    pub(crate) const HEAD_BYTES: usize = 4;

    /// The encoding of a text that begins with these bytes; `None` for UTF-8 and for whatever else it may be.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            // A byte order mark, or an ASCII character without one.
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
            Self::Utf16 => "the text is UTF-16, and must be UTF-8",
            Self::Gzip => "the text is compressed with gzip, which the `content-encoding` must say",
        })
    }
}

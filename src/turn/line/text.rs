//! Scans JSON strings, many bytes at a time.

/// Returns how many leading bytes are plain: no quote, no backslash, no control character.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    // Most strings are short, and a search word by word is the fastest for short strings.
    const MAX_SHORT_BYTES: usize = 48;
    let mut len = 0;
    while len < MAX_SHORT_BYTES {
        let Some(word) = bytes[len..].first_chunk() else { return len + plain_tail(&bytes[len..]) };
        if let Some(at) = first_special(*word) {
            return len + at;
        }
        len += size_of::<u64>();
    }
    len + long_plain_len(&bytes[len..])
}

#[inline(never)]
fn long_plain_len(bytes: &[u8]) -> usize {
    const BLOCK_BYTES: usize = 32;
    let mut len = 0;
    // The loop over a block has no early exit, so that the compiler compares all bytes of the block at once.
    while let Some(block) = bytes[len..].first_chunk::<BLOCK_BYTES>()
        && !block.iter().fold(false, |found, byte| found | is_special(*byte))
    {
        len += BLOCK_BYTES;
    }
    while let Some(word) = bytes[len..].first_chunk() {
        if let Some(at) = first_special(*word) {
            return len + at;
        }
        len += size_of::<u64>();
    }
    len + plain_tail(&bytes[len..])
}

fn plain_tail(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| is_special(*byte)).unwrap_or(bytes.len())
}

/// Returns the length of the rest of a string including its closing quote, or `None` if the string is invalid or
/// incomplete.
#[inline]
pub(super) fn string_rest_len(bytes: &[u8]) -> Option<usize> {
    let mut len = plain_len(bytes);
    loop {
        len += match bytes.get(len..)? {
            [b'"', ..] => return Some(len + 1),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', digits @ ..] if digits.first_chunk::<4>()?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        len += plain_len(&bytes[len..]);
    }
}

/// Returns whether a byte is a quote, a backslash or a control character.
#[expect(clippy::needless_bitwise_bool, reason = "without branches the compiler compares many bytes at once")]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < b' ')
}

/// Returns the position of the first special byte of a word.
#[inline]
fn first_special(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHEST: u64 = ONES << 7;
    // The arithmetic sets the highest bit of each special byte. Only the lowest set bit is reliable, because the
    // subtraction borrows from the bytes above a match.
    let word = u64::from_le_bytes(word);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * 0x22);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = word ^ (ONES * 0x5c);
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    let special = (control | quote | backslash) & HIGHEST;
    (special != 0).then(|| (special.trailing_zeros() / 8) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_plain_run_ends_where_a_scan_byte_by_byte_ends_it(
            plain in prop::collection::vec(prop::sample::select(&b"a !#[]\x7f\x80\xff~"[..]), 0..150),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = [plain, rest].concat();
            let naive = bytes.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            prop_assert_eq!(plain_len(&bytes), naive);
        }
    }

    #[test]
    fn each_special_byte_is_found_at_each_position() {
        for byte in 0..=u8::MAX {
            for at in 0..100 {
                let mut bytes = [b'a'; 110];
                bytes[at] = byte;
                let end = if matches!(byte, b'"' | b'\\' | 0..=0x1f) { at } else { bytes.len() };
                assert_eq!(plain_len(&bytes), end, "{byte:#x} at {at}");
            }
        }
    }
}

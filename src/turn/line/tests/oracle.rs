//! An independent, simple parser of lines. It recurses into each level of nesting and reads one byte at a time.

/// Returns the top-level `type` values of the one object in a line, as written, or `None` if the line is not one
/// object.
pub(super) fn types(line: &[u8]) -> Option<Vec<String>> {
    let mut rest = line;
    white(&mut rest);
    if rest.first() != Some(&b'{') {
        return None;
    }
    let mut types = Vec::new();
    object(&mut rest, Some(&mut types))?;
    white(&mut rest);
    rest.is_empty().then_some(types)
}

fn white(rest: &mut &[u8]) {
    while let [b' ' | b'\t' | b'\n' | b'\r', after @ ..] = *rest {
        *rest = after;
    }
}

fn one(rest: &mut &[u8], byte: u8) -> Option<()> {
    white(rest);
    let (first, after) = rest.split_first()?;
    *rest = after;
    (*first == byte).then_some(())
}

fn peek(rest: &mut &[u8]) -> Option<u8> {
    white(rest);
    rest.first().copied()
}

fn object(rest: &mut &[u8], mut types: Option<&mut Vec<String>>) -> Option<()> {
    one(rest, b'{')?;
    if peek(rest)? == b'}' {
        return one(rest, b'}');
    }
    loop {
        white(rest);
        let key = string(rest)?;
        one(rest, b':')?;
        white(rest);
        let before = *rest;
        value(rest)?;
        if key == "type"
            && let Some(types) = &mut types
        {
            types.push(String::from_utf8_lossy(&before[..before.len() - rest.len()]).into_owned());
        }
        match peek(rest)? {
            b',' => one(rest, b',')?,
            _ => return one(rest, b'}'),
        }
    }
}

fn array(rest: &mut &[u8]) -> Option<()> {
    one(rest, b'[')?;
    if peek(rest)? == b']' {
        return one(rest, b']');
    }
    loop {
        value(rest)?;
        match peek(rest)? {
            b',' => one(rest, b',')?,
            _ => return one(rest, b']'),
        }
    }
}

fn value(rest: &mut &[u8]) -> Option<()> {
    match peek(rest)? {
        b'{' => object(rest, None),
        b'[' => array(rest),
        b'"' => string(rest).map(|_| ()),
        _ => {
            let before = rest.len();
            while let [b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.', after @ ..] = *rest {
                *rest = after;
            }
            (rest.len() < before).then_some(())
        }
    }
}

/// Reads a string. Only its ASCII bytes are checked.
fn string(rest: &mut &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut next = || {
        let (first, after) = rest.split_first()?;
        *rest = after;
        Some(*first)
    };
    if next()? != b'"' {
        return None;
    }
    loop {
        match next()? {
            b'"' => return Some(text),
            b'\\' => match next()? {
                escape @ (b'"' | b'\\' | b'/') => text.push(char::from(escape)),
                b'b' | b'f' | b'n' | b'r' | b't' => text.push('\n'),
                b'u' => {
                    let mut code = 0;
                    for _ in 0..4 {
                        code = code * 16 + char::from(next()?).to_digit(16)?;
                    }
                    text.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                }
                _ => return None,
            },
            0..=0x1f => return None,
            byte => text.push(char::from(byte)),
        }
    }
}

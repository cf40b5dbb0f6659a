//! The names under which the price of a model is looked up.

/// A provider and a model's name to look up. Without a provider, a model of that name fits from any provider.
pub(super) type Attempt<'a> = (Option<&'a str>, &'a str);

/// Returns the names under which a model is looked up, in this order: the name as sent, with the provider as sent;
/// `provider/model`; the bare model name; then the same names without the date at their end.
pub(super) fn attempts<'a>(model: &'a str, provider: Option<&'a str>) -> Vec<Attempt<'a>> {
    let mut attempts = Vec::with_capacity(8);
    let mut push = |attempt| {
        if !attempts.contains(&attempt) {
            attempts.push(attempt);
        }
    };
    for name in [Some(model), without_date(model)].into_iter().flatten() {
        push((provider, name));
        if let Some((provider, name)) = name.split_once('/') {
            push((Some(provider), name));
        }
        push((None, name));
        if let Some((_, name)) = name.rsplit_once('/') {
            push((None, name));
        }
    }
    attempts
}

/// Returns the name without `-20260131`, `-2026-01-31` or `@20260131` at its end; `None` if it has no such end.
fn without_date(name: &str) -> Option<&str> {
    ["-yyyymmdd", "@yyyymmdd", "-yyyy-mm-dd", "@yyyy-mm-dd"].into_iter().find_map(|shape| {
        let (name, date) = name.split_at_checked(name.len().checked_sub(shape.len())?)?;
        let fits =
            |(shape, byte): (u8, u8)| if shape.is_ascii_lowercase() { byte.is_ascii_digit() } else { byte == shape };
        let is_date = shape.bytes().zip(date.bytes()).all(fits) && date[1..].starts_with("20");
        (is_date && !name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_stripped_from_the_end_alone() {
        assert_eq!(without_date("claude-sonnet-4-5-20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(without_date("claude-sonnet-4-5@20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(without_date("gpt-5-2025-08-07"), Some("gpt-5"));
        for plain in ["gpt-5", "m-12345678", "-20250929", "m-20250929-v1", "m-2025-0929", "é", ""] {
            assert_eq!(without_date(plain), None, "{plain}");
        }
    }

    #[test]
    fn a_model_is_looked_up_as_sent_then_split_then_bare_then_without_its_date() {
        assert_eq!(attempts("m", None), [(None, "m")]);
        assert_eq!(attempts("m", Some("p")), [(Some("p"), "m"), (None, "m")]);
        assert_eq!(
            attempts("a/b/m-20250929", Some("p")),
            [
                (Some("p"), "a/b/m-20250929"),
                (Some("a"), "b/m-20250929"),
                (None, "a/b/m-20250929"),
                (None, "m-20250929"),
                (Some("p"), "a/b/m"),
                (Some("a"), "b/m"),
                (None, "a/b/m"),
                (None, "m"),
            ]
        );
    }
}

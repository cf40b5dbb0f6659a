//! Addresses of pages and resources.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::turn::ConversationId;

/// Everything but letters, digits and the characters that never need an escape.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns a query of these parameters, without the empty ones.
pub(crate) fn query(parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let given: Vec<_> = given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED))).collect();
    given.join("&")
}

/// Returns the path with a query, if there is one.
pub(crate) fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Returns the path of a resource of a conversation, such as `turns`.
pub(crate) fn of_conversation(id: &ConversationId, resource: &str) -> String {
    format!("conversations/{}/{resource}", utf8_percent_encode(id.as_str(), ESCAPED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_escaped_and_absent_ones_are_left_out() {
        assert_eq!(query(&[("a", "b c&d=é"), ("e", ""), ("f", "1")]), "a=b%20c%26d%3D%C3%A9&f=1");
        assert_eq!(with_query("x", ""), "x");
        assert_eq!(with_query("x", "a=1"), "x?a=1");
        let id = ConversationId::new("a/b?\"<c>#%").unwrap();
        assert_eq!(of_conversation(&id, "turns"), "conversations/a%2Fb%3F%22%3Cc%3E%23%25/turns");
    }
}

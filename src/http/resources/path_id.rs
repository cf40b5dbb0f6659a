use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use crate::http::error::{ApiError, BadPathId};
use crate::turn::ConversationId;

/// The conversation that a path names in its second-last segment, as in `/conversations/{id}/metrics`.
///
/// The router decodes segments only in part, and replaces bytes that are not UTF-8. So the segment is taken from the
/// path as the client sent it. The router never decodes an escaped slash, so both forms of the path have the same
/// segments.
pub(crate) struct PathId(pub(crate) ConversationId);

impl FromRequest for PathId {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(id_in(request, 1).map(Self))
    }
}

/// The conversation that a path names in its last segment, as in `/conversations/{id}`.
pub(crate) struct ErasedPathId(pub(crate) ConversationId);

impl FromRequest for ErasedPathId {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(id_in(request, 0).map(Self))
    }
}

/// Reads the id in the segment that has this number of segments behind it.
fn id_in(request: &HttpRequest, behind: usize) -> Result<ConversationId, ApiError> {
    let segment = request.uri().path().rsplit('/').nth(behind).unwrap_or_default();
    parse(segment).map_err(ApiError::BadPathId)
}

fn parse(segment: &str) -> Result<ConversationId, BadPathId> {
    let text = String::from_utf8(percent_decode(segment)?).map_err(|_| BadPathId::NotUtf8)?;
    Ok(ConversationId::new(text)?)
}

fn percent_decode(segment: &str) -> Result<Vec<u8>, BadPathId> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = after.split_at_checked(2).unwrap_or_default();
            let value = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
            // `from_str_radix` accepts a sign as a digit, so check the digits. At the end of a segment there may be too
            // few of them.
            let value = value.filter(|_| digits.iter().all(u8::is_ascii_hexdigit));
            decoded.push(value.ok_or(BadPathId::Escape)?);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::http::access::{CONVERSATION, PAGES, ROUTES};
    use crate::http::stand_in::{StandIn, ask, done, get, post};
    use crate::settings::HttpSettings;

    /// Encodes everything but letters and digits, as a careful client does.
    fn encode(id: &str) -> String {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric();
        id.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    }

    #[actix_web::test]
    async fn any_id_that_can_be_posted_can_be_read_back() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let long = "é".repeat(128);
        for id in [
            "a/b",
            "a%2Fb",
            "a%b",
            "100%",
            "%",
            "...",
            ".a",
            "a b",
            " ",
            "é",
            "a+b",
            "+",
            "?x=1",
            "#f",
            "a;b",
            "a&b=c",
            "metrics",
            "/",
            "//",
            "{id}",
            "\u{1f980}",
            "\u{200d}",
            "a\\b",
            "\"",
            "[1]",
            "turns",
            &long,
        ] {
            post(&api, done(id, "t")).await.success();
            for resource in ["metrics", "turns"] {
                get(&api, &format!("/conversations/{}/{resource}", encode(id))).await.success();
                let mut seen = seen.lock().unwrap();
                let posted = seen.observes.last().unwrap().conversation_id.clone();
                let read =
                    if resource == "turns" { seen.ranges.pop().map(|r| r.conversation_id) } else { seen.found.pop() };
                assert_eq!(read, Some(posted), "{id} of {resource}");
            }
        }
    }

    #[actix_web::test]
    async fn a_bad_id_in_a_path_is_told() {
        let api = StandIn::default().serving();
        for segment in ["%ff", "100%", "%0A", &"a".repeat(257)] {
            for path in ROUTES.map(|route| route.path).into_iter().filter(|path| path.contains("{id}")) {
                let method = if path.ends_with("{id}") { Method::DELETE } else { Method::GET };
                let request = TestRequest::with_uri(&path.replace("{id}", segment)).method(method);
                let text = ask(&api, request).await.failure(400);
                assert!(text.starts_with("the conversation id in the path is not valid: "), "{path}: {text}");
            }
        }
        get(&api, "/conversations//metrics").await.failure(404);
        get(&api, "/conversations/a/b/metrics").await.failure(404);
    }

    #[test]
    fn each_route_has_its_id_where_it_is_read() {
        let paths = ROUTES.iter().chain(&PAGES).map(|route| route.path);
        for path in paths.filter(|path| path.contains("{id}")) {
            let id = path.rsplit('/').nth(usize::from(path != CONVERSATION.path));
            assert_eq!(id, Some("{id}"), "`PathId` reads the second-last segment of {path}");
        }
    }

    #[test]
    fn a_segment_is_decoded_once() {
        for (segment, id) in [
            ("plain", "plain"),
            ("a%2Fb", "a/b"),
            ("a%2fb", "a/b"),
            ("a%252Fb", "a%2Fb"),
            ("100%25", "100%"),
            ("a+b", "a+b"),
            ("a%2Bb", "a+b"),
            ("a%20b", "a b"),
            ("%C3%A9", "é"),
            ("é", "é"),
            ("...", "..."),
            ("%2ea", ".a"),
        ] {
            assert_eq!(parse(segment).unwrap().as_str(), id, "{segment}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for (segment, what) in [
            ("100%", "%25"),
            ("a%b", "%25"),
            ("%zz", "%25"),
            ("%+1", "%25"),
            ("%é", "%25"),
            ("%ff", "UTF-8"),
            ("%0A", "control character"),
            ("..", "`..`"),
            ("%2e", "`.`"),
            ("", "empty"),
        ] {
            let message = parse(segment).unwrap_err().to_string();
            assert!(message.contains(what), "{segment}: {message}");
        }
    }
}

use actix_web::http::header;
use actix_web::mime::Mime;
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::StreamExt;
use tokio::time::timeout;
use tracing::debug;

use super::admission::{ByteBudget, Reservation};
use super::batch::Format;
use super::error::ApiError;
use crate::settings::HttpSettings;

/// What is set aside and allocated for a request before any of its body has come. More on the word of a client would
/// let a few that announce much and send nothing keep all others out.
const MIN_RESERVED_BYTES: usize = 4 * 1024;

/// A posted body that is in, within all limits.
pub(super) struct Body {
    pub(super) format: Format,
    pub(super) bytes: Bytes,
    /// To be held for as long as anything made of the bytes is.
    pub(super) reservation: Reservation,
}

impl Body {
    /// Takes the body in. What is wrong with its head is told before any of it is read.
    pub(super) async fn read(
        request: &HttpRequest,
        payload: Payload,
        settings: &HttpSettings,
        budget: &ByteBudget,
    ) -> Result<Self, ApiError> {
        let format = format_of(request)?;
        let declared = content_length(request);
        if declared > settings.max_body_bytes {
            return Err(too_large(settings));
        }
        // What cannot be taken in whole as things are need not be sent.
        let reservation =
            budget.reserve(MIN_RESERVED_BYTES).filter(|_| budget.has(declared.saturating_sub(MIN_RESERVED_BYTES)));
        let reservation = reservation.ok_or_else(overloaded)?;
        let buffer = BytesMut::with_capacity(declared.min(MIN_RESERVED_BYTES));
        let mut body = Collector { buffer, reservation, max_bytes: settings.max_body_bytes };
        match timeout(settings.body_timeout, body.collect(payload)).await {
            Ok(Ok(())) => {}
            Ok(Err(CollectError::TooLarge)) => return Err(too_large(settings)),
            Ok(Err(CollectError::Overloaded)) => return Err(overloaded()),
            Ok(Err(CollectError::Broken)) => {
                return Err(ApiError::BadRequest("the body ended too early, and none of it was taken in".to_owned()));
            }
            Err(_) => return Err(ApiError::BodyTimeout { limit_ms: settings.body_timeout.as_millis() }),
        }
        Ok(Self { format, bytes: body.buffer.freeze(), reservation: body.reservation })
    }
}

/// Gathers a body as it comes.
struct Collector {
    buffer: BytesMut,
    reservation: Reservation,
    max_bytes: usize,
}

enum CollectError {
    TooLarge,
    Overloaded,
    Broken,
}

impl Collector {
    async fn collect(&mut self, mut payload: Payload) -> Result<(), CollectError> {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                debug!(%error, "a posted body broke off");
                CollectError::Broken
            })?;
            let bytes = self.buffer.len() + chunk.len();
            if bytes > self.max_bytes {
                return Err(CollectError::TooLarge);
            }
            if !self.reservation.grow_to(bytes) {
                return Err(CollectError::Overloaded);
            }
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(())
    }
}

fn format_of(request: &HttpRequest) -> Result<Format, ApiError> {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::UnsupportedMediaType(
            "the body must not be compressed: send it without content-encoding",
        ));
    }
    let media_type = request.mime_type().ok().flatten();
    match media_type.as_ref().map(Mime::essence_str) {
        Some("application/x-ndjson") => Ok(Format::Ndjson),
        Some("application/json") => Ok(Format::Json),
        _ => Err(ApiError::UnsupportedMediaType(
            "the content-type must be `application/x-ndjson` (one event a line) or `application/json` (one event)",
        )),
    }
}

/// The size that the head announces; 0 for a body that comes in chunks of which nobody knows how many.
fn content_length(request: &HttpRequest) -> usize {
    let value = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // Digits beyond a `usize` are too large, not unknown.
    value.map_or(0, |digits| digits.trim().parse().unwrap_or(usize::MAX))
}

fn too_large(settings: &HttpSettings) -> ApiError {
    ApiError::BodyTooLarge { limit_bytes: settings.max_body_bytes }
}

pub(super) fn overloaded() -> ApiError {
    ApiError::Unavailable("too much is being worked on, and nothing was taken in: send it again later".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix_web::error::PayloadError;
    use actix_web::test::TestRequest;
    use futures_util::stream;

    use super::super::stand_in::{NDJSON, StandIn, ask, done, post, post_stream};
    use super::*;

    fn head() -> TestRequest {
        TestRequest::post().uri("/events").insert_header(NDJSON)
    }

    #[actix_web::test]
    async fn other_media_types_are_refused() {
        let (api, _) = StandIn::default().start_with(HttpSettings::default());
        for media_type in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", "nonsense"] {
            let request = TestRequest::post().uri("/events").insert_header(("content-type", media_type));
            ask(&api, request.set_payload(done("c", "t"))).await.failure(415);
        }
        ask(&api, TestRequest::post().uri("/events").set_payload(done("c", "t"))).await.failure(415);
        let compressed = head().insert_header(("content-encoding", "gzip")).set_payload(done("c", "t"));
        assert!(ask(&api, compressed).await.failure(415).contains("content-encoding"));
        let plain = head().insert_header(("content-encoding", "identity")).set_payload(done("c", "t"));
        ask(&api, plain).await.success();
    }

    #[actix_web::test]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let settings = HttpSettings { max_body_bytes: 100, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        for announced in ["101", "99999999999999999999999999"] {
            // A body that fails when it is read shows that it is not.
            let unread = stream::iter([Err(PayloadError::EncodingCorrupted)]);
            let answer = post_stream(&api, head().insert_header(("content-length", announced)), unread).await;
            assert!(answer.failure(413).contains("100 bytes"));
        }
        let chunk = || Ok(Bytes::from_static(&[b'\n'; 50]));
        post_stream(&api, head(), stream::iter([chunk(), chunk()])).await.success();
        post_stream(&api, head(), stream::iter([chunk(), chunk(), Ok(Bytes::from_static(b"\n"))])).await.failure(413);
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn what_the_budget_does_not_hold_is_refused_before_it_is_read() {
        let settings = HttpSettings { max_buffered_bytes: 10_000, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        let unread = || stream::iter([Err(PayloadError::EncodingCorrupted)]);
        let answer = post_stream(&api, head().insert_header(("content-length", "10001")), unread()).await;
        assert!(answer.failure(503).contains("nothing was taken in"));
        assert_eq!(answer.header("retry-after"), Some("1"));

        let held = api.budget.reserve(7_000).unwrap();
        let answer = post(&api, done("c", "t")).await;
        answer.failure(503);
        drop(held);
        post(&api, done("c", "t")).await.success();

        let chunk = || Ok(Bytes::from(vec![b'\n'; 6_000]));
        post_stream(&api, head(), stream::iter([chunk(), chunk()])).await.failure(503);
        post_stream(&api, head(), stream::iter([chunk()])).await.success();
        assert!(api.budget.reserve(10_000).is_some(), "all of it came back");
        assert_eq!(seen.lock().unwrap().observes.len(), 1);
    }

    #[actix_web::test]
    async fn what_is_announced_and_has_not_come_takes_little_of_the_budget() {
        let settings = HttpSettings { max_buffered_bytes: 10_000, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        let stalled = stream::iter([Ok(Bytes::from("\n"))]).chain(stream::pending());
        let idle = post_stream(&api, head().insert_header(("content-length", "10000")), stalled);
        tokio::select! {
            biased;
            answer = idle => panic!("answered with {}", answer.status),
            answer = post(&api, done("c", "t")) => { answer.success(); }
        }
        assert_eq!(seen.lock().unwrap().observes.len(), 1);
    }

    #[actix_web::test]
    async fn a_body_that_stalls_is_ended() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        tokio::time::pause();
        let stalled = stream::iter([Ok(Bytes::from(done("c", "t")))]).chain(stream::pending());
        let answer = timeout(Duration::from_hours(1), post_stream(&api, head(), stalled)).await.unwrap();
        assert!(answer.failure(408).contains("30000 ms"));
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn a_body_that_breaks_off_changes_nothing() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let broken = [Ok(Bytes::from(done("c", "t") + "\n")), Err(PayloadError::Incomplete(None))];
        post_stream(&api, head(), stream::iter(broken)).await.failure(400);
        assert!(seen.lock().unwrap().observes.is_empty());
    }
}

use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::mime::Mime;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::StreamExt;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::http::error::ApiError;
use crate::settings::HttpSettings;
use crate::turn::Framing;

/// How many bytes of a body are parsed before other requests of the worker get their turn. Parsing them takes about 50
/// microseconds.
pub(crate) const SLICE_BYTES: usize = 64 * 1024;

/// The number of chunks of a body, however short, that are taken in before other requests may run on this thread. So
/// many take a fraction of a millisecond.
pub(super) const CHUNKS_AT_ONCE: usize = 256;

/// The media types of a body with one event per line. The first is the usual one.
pub(super) const MEDIA_TYPES_OF_LINES: [&str; 4] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

/// The encoding of a body, taken from the head of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) framing: Framing,
    pub(crate) is_gzip: bool,
}

impl Format {
    /// Reads the encoding from the head of a request. `noun` names what one line of the body has.
    pub(crate) fn of(request: &HttpRequest, noun: &str) -> Result<Self, ApiError> {
        let is_gzip = match request.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None => false,
            Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => false,
            Some(encoding) if encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip") => {
                true
            }
            Some(_) => {
                let sent = as_sent(request, &header::CONTENT_ENCODING);
                return Err(ApiError::UnsupportedMediaType(format!(
                    "the content-encoding is {sent}, but must be `gzip`, or none"
                )));
            }
        };
        let media_type = request.mime_type().ok().flatten();
        let framing = match media_type.as_ref().map(Mime::essence_str) {
            Some("application/json") => Framing::Whole,
            Some(essence) if MEDIA_TYPES_OF_LINES.contains(&essence) => Framing::Lines,
            _ => {
                let sent = as_sent(request, &header::CONTENT_TYPE);
                let [usual, others @ ..] = MEDIA_TYPES_OF_LINES;
                return Err(ApiError::UnsupportedMediaType(format!(
                    "the content-type is {sent}, but must be `{usual}` for one {noun} a line (`{}` mean the same), or \
                     `application/json` for one {noun}",
                    others.join("`, `")
                )));
            }
        };
        Ok(Self { framing, is_gzip })
    }
}

/// A body as it arrives, chunk by chunk, within the limits in time of its request.
pub(crate) struct Arrival<'a> {
    payload: Payload,
    settings: &'a HttpSettings,
    limit: TimeLimit,
    started: Instant,
    arrived_bytes: usize,
    pace: ArrivalPace,
    /// How many chunks have arrived.
    chunks: usize,
}

/// The time limit for a whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// `body_timeout`, and once more for every `max_body_bytes` bytes that have arrived. So a long body of mostly ignored
    /// lines has enough time, and a body that stalls does not.
    ByLength,
    /// None, as long as bytes arrive at the minimum rate.
    None,
}

/// The reason why a body did not arrive completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokenArrival {
    /// The whole body took longer than this.
    Slow(Duration),
    /// Fewer bytes arrived than the minimum rate demands.
    Stalled,
    /// The connection broke.
    Broken,
}

impl<'a> Arrival<'a> {
    pub(crate) fn new(payload: Payload, settings: &'a HttpSettings, limit: TimeLimit) -> Self {
        let (started, pace) = (Instant::now(), ArrivalPace::new(settings));
        Self { payload, settings, limit, started, arrived_bytes: 0, pace, chunks: 0 }
    }

    /// Returns the next chunk, or `None` at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BrokenArrival> {
        self.chunks += 1;
        if self.chunks.is_multiple_of(CHUNKS_AT_ONCE) {
            yield_now().await;
        }
        let (whole_due, waiting) = (self.due(), Instant::now());
        let pace_due = self.pace.due(waiting);
        let (due, late) = match whole_due {
            Some(whole_due) if whole_due <= pace_due => (whole_due, BrokenArrival::Slow(self.whole_limit())),
            _ => (pace_due, BrokenArrival::Stalled),
        };
        let next = timeout_at(due, self.payload.next()).await.map_err(|_| late)?;
        let Some(chunk) = next else { return Ok(None) };
        let chunk = chunk.map_err(|error| {
            debug!(%error, "a posted body broke off");
            BrokenArrival::Broken
        })?;
        self.pace.arrived(chunk.len(), waiting.elapsed());
        self.arrived_bytes = self.arrived_bytes.saturating_add(chunk.len());
        Ok(Some(chunk))
    }

    /// Returns the moment by which the whole body is due, if it has a limit.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.limit == TimeLimit::ByLength).then(|| self.started + self.whole_limit())
    }

    fn whole_limit(&self) -> Duration {
        let times = 1 + self.arrived_bytes / self.settings.max_body_bytes.max(1);
        self.settings.body_timeout.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
    }

    /// Reads the rest of the body and drops it, for at most `body_timeout`. Many clients read no answer before they have
    /// sent their whole body.
    pub(crate) async fn drain(&mut self) {
        let due = Instant::now() + self.settings.body_timeout;
        while let Ok(Ok(Some(_))) = timeout_at(due, self.next()).await {}
    }
}

/// The time that a body is behind the minimum rate of arrival. Only time in which the server waits for the body counts.
struct ArrivalPace {
    limit: Duration,
    bytes_per_second: u64,
    behind: Duration,
}

impl ArrivalPace {
    fn new(settings: &HttpSettings) -> Self {
        let bytes_per_second = settings.min_bytes_per_second.max(1) as u64;
        Self { limit: settings.stall_timeout, bytes_per_second, behind: Duration::ZERO }
    }

    /// Returns the time by which more bytes have to arrive, if the wait for them begins now.
    fn due(&self, now: Instant) -> Instant {
        now + self.limit.saturating_sub(self.behind)
    }

    fn arrived(&mut self, bytes: usize, waited: Duration) {
        let paid = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second);
        self.behind = (self.behind + waited).saturating_sub(paid);
    }
}

/// Returns the value of a header as a message quotes it.
fn as_sent(request: &HttpRequest, name: &header::HeaderName) -> String {
    const MAX_BYTES: usize = 100;
    match request.headers().get(name).map(|value| value.to_str()) {
        None => "missing".to_owned(),
        Some(Err(_)) => "no readable text".to_owned(),
        Some(Ok(sent)) => {
            let shown = &sent[..sent.floor_char_boundary(MAX_BYTES)];
            let rest = if shown.len() < sent.len() { "..." } else { "" };
            format!("`{shown}{rest}`")
        }
    }
}

/// Returns the size that the request's head announces. It is 0 for a chunked body, whose size is unknown.
pub(crate) fn content_length(request: &HttpRequest) -> usize {
    let value = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    // A number too large for `usize` means a huge body, not a body of unknown size.
    value.map_or(0, |digits| digits.trim().parse().unwrap_or(usize::MAX))
}

use std::io::ErrorKind;
use std::mem;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Payload};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::debug;

use super::arrival::{Arrival, BrokenArrival, Format, SLICE_BYTES, TimeLimit, content_length};
use super::body_events::{BadLine, BadLines, BodyEvents, BodyReader};
use super::budget::{ByteBudget, Denied, Reservation};
use super::inflate::{Inflated, Inflater};
use crate::http::error::{ApiError, Unavailable};
use crate::http::long_work::LongWork;
use crate::settings::HttpSettings;
use crate::turn::Framing;

/// How many bytes a request reserves before any of its body has arrived.
pub(crate) const MIN_RESERVED_BYTES: usize = 4 * 1024;

/// The reason for which the last line of a truncated gzip body is refused.
const CUT_GZIP: &str = "the gzip body is cut off, so this line and all lines after it are missing";
/// The reason for which all lines of a body that is not valid gzip are refused.
const INVALID_GZIP: &str = "the body is not valid gzip, so none of its lines can be trusted, and none was taken in";

/// A posted body that has been read completely and exceeds no limit.
pub(crate) struct Body {
    pub(crate) events: BodyEvents,
    /// The reservation of memory for the events. It has to live as long as the events.
    pub(crate) reservation: Reservation,
}

impl Body {
    /// Reads and parses a body while it arrives. An error in the request's head is returned before any of the body is
    /// read.
    pub(crate) async fn read(
        request: &HttpRequest,
        payload: Payload,
        settings: &HttpSettings,
        budget: &ByteBudget,
        long_work: &LongWork,
        bad_lines: BadLines,
    ) -> Result<Self, ApiError> {
        let format = Format::of(request, "event")?;
        if content_length(request) > settings.max_transfer_bytes {
            return Err(CollectError::LongTransfer.told(settings));
        }
        let inflater = format.is_gzip.then(Inflater::new);
        let bytes = MIN_RESERVED_BYTES + inflater.as_ref().map_or(0, Inflater::memory_bytes);
        let reservation = budget
            .reserve(bytes.min(settings.max_buffered_bytes))
            .map_err(|denied| CollectError::from(denied).told(settings))?;
        let mut collector = Collector {
            settings,
            long_work,
            reader: BodyReader::new(format.framing, settings.max_line_bytes, bad_lines),
            inflater,
            reservation,
            transferred_bytes: 0,
        };
        let collected = collector.collect(payload).await;
        let Collector { reader, reservation, .. } = collector;
        let finished = match collected {
            // After a bad line, the rest of the body is read and dropped, so that the client gets the answer. Only the
            // bad line is reported.
            _ if reader.is_refused() => reader.finish(),
            Ok(()) if reader.is_in_long_line() => long_work.run(|| reader.finish()).await,
            Ok(()) => reader.finish(),
            Err(CollectError::CutGzip) if bad_lines == BadLines::Skip => reader.break_off(CUT_GZIP),
            // The checksum comes at the end of gzip data. So the lines that were inflated before the error may be wrong
            // too.
            Err(CollectError::InvalidGzip) if bad_lines == BadLines::Skip => {
                BodyReader::new(format.framing, settings.max_line_bytes, bad_lines).break_off(INVALID_GZIP)
            }
            Err(error) => return Err(error.told(settings)),
        };
        let events = finished.map_err(|BadLine { number, message }| ApiError::BadEvent { line: number, message })?;
        Ok(Self { events, reservation })
    }
}

/// Reads and parses a body while it arrives.
struct Collector<'a> {
    settings: &'a HttpSettings,
    long_work: &'a LongWork,
    reader: BodyReader,
    inflater: Option<Inflater>,
    reservation: Reservation,
    /// How many bytes have arrived, counted after inflating.
    transferred_bytes: usize,
}

enum CollectError {
    LongTransfer,
    TooLarge,
    TooDeep,
    Overloaded,
    Slow(Duration),
    Stalled,
    Broken,
    /// The body ends before its gzip data does.
    CutGzip,
    InvalidGzip,
}

impl From<Denied> for CollectError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Exhausted => Self::Overloaded,
            Denied::TooLarge => Self::TooLarge,
        }
    }
}

impl From<BrokenArrival> for CollectError {
    fn from(broken: BrokenArrival) -> Self {
        match broken {
            BrokenArrival::Slow(limit) => Self::Slow(limit),
            BrokenArrival::Stalled => Self::Stalled,
            BrokenArrival::Broken => Self::Broken,
        }
    }
}

impl CollectError {
    fn told(self, settings: &HttpSettings) -> ApiError {
        match self {
            Self::LongTransfer => ApiError::TransferTooLarge { limit_bytes: settings.max_transfer_bytes },
            Self::TooLarge => ApiError::BodyTooLarge { limit_bytes: settings.max_body_bytes },
            Self::TooDeep => ApiError::BodyTooDeep { limit: settings.max_body_bytes.saturating_mul(8) },
            Self::Overloaded => overloaded(),
            Self::Slow(limit) => ApiError::BodyTimeout { limit_ms: limit.as_millis() },
            Self::Stalled => ApiError::BodyStalled {
                limit_ms: settings.stall_timeout.as_millis(),
                bytes_per_second: settings.min_bytes_per_second,
            },
            Self::Broken => ApiError::BadRequest("the body ended too early, and none of it was taken in"),
            Self::CutGzip | Self::InvalidGzip => {
                ApiError::BadRequest("the body is not complete, valid gzip, and none of it was taken in")
            }
        }
    }
}

impl Collector<'_> {
    async fn collect(&mut self, payload: Payload) -> Result<(), CollectError> {
        let mut arrival = Arrival::new(payload, self.settings, TimeLimit::ByLength);
        while let Some(chunk) = arrival.next().await? {
            if self.inflater.is_some() {
                self.inflate(Some(chunk), arrival.due()).await?;
            } else {
                self.take_in(chunk).await?;
            }
        }
        self.inflate(None, arrival.due()).await
    }

    async fn take_in(&mut self, mut chunk: Bytes) -> Result<(), CollectError> {
        while !chunk.is_empty() {
            let slice = chunk.split_to(chunk.len().min(SLICE_BYTES));
            self.take_slice(&slice).await?;
            if !chunk.is_empty() {
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Inflates and parses the next chunk; `None` means the end of the input.
    async fn inflate(&mut self, chunk: Option<Bytes>, deadline: Option<Instant>) -> Result<(), CollectError> {
        let Some(inflater) = &mut self.inflater else { return Ok(()) };
        match chunk {
            Some(chunk) => inflater.feed(chunk),
            None => inflater.end(),
        }
        self.hold()?;
        let mut room = vec![0; SLICE_BYTES];
        while let Some(inflater) = self.inflater.as_mut().filter(|_| !self.reader.is_refused()) {
            let step = inflater.read(&mut room).map_err(|error| {
                debug!(%error, "a posted body could not be inflated");
                if error.kind() == ErrorKind::UnexpectedEof { CollectError::CutGzip } else { CollectError::InvalidGzip }
            })?;
            match step {
                Inflated::Bytes(len) => self.take_slice(&room[..len]).await?,
                Inflated::NoText => {}
                Inflated::All => break,
            }
            yield_now().await;
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(CollectError::Slow(self.settings.body_timeout));
            }
        }
        Ok(())
    }

    async fn take_slice(&mut self, slice: &[u8]) -> Result<(), CollectError> {
        self.transferred_bytes = self.transferred_bytes.saturating_add(slice.len());
        if self.transferred_bytes > self.settings.max_transfer_bytes {
            return Err(CollectError::LongTransfer);
        }
        if self.reader.ends_long_line(slice) {
            // Parsing a line of several MB takes a tenth of a second.
            let empty = BodyReader::new(Framing::Lines, 0, BadLines::Refuse);
            let (mut reader, slice) = (mem::replace(&mut self.reader, empty), slice.to_vec());
            let parse = move || {
                reader.push(&slice);
                reader
            };
            self.reader = self.long_work.run(parse).await;
        } else if !self.reader.is_refused() {
            self.reader.push(slice);
        }
        if self.reader.kept_bytes() > self.settings.max_body_bytes {
            let is_mostly_brackets = self.reader.nesting_bytes() > self.reader.kept_bytes() / 2;
            return Err(if is_mostly_brackets { CollectError::TooDeep } else { CollectError::TooLarge });
        }
        self.hold()
    }

    /// Reserves the memory that is in use.
    fn hold(&mut self) -> Result<(), CollectError> {
        let inflater_bytes = self.inflater.as_ref().map_or(0, |inflater| inflater.memory_bytes() + SLICE_BYTES);
        let bytes = self
            .reader
            .memory_bytes()
            .saturating_add(inflater_bytes)
            .max(MIN_RESERVED_BYTES.min(self.settings.max_buffered_bytes));
        Ok(self.reservation.resize(bytes)?)
    }
}

pub(crate) fn overloaded() -> ApiError {
    ApiError::Unavailable(Unavailable::Overloaded)
}

#[cfg(test)]
mod tests {
    use actix_web::error::PayloadError;
    use actix_web::http::header::{self, HeaderValue};
    use actix_web::test::TestRequest;
    use futures_util::{StreamExt, stream};

    use super::super::arrival::{CHUNKS_AT_ONCE, MEDIA_TYPES_OF_LINES};
    use super::super::inflate::gzip;
    use super::*;
    use crate::actors::Observe;
    use crate::http::stand_in::{NDJSON, StandIn, ask, done, get, post, post_stream};

    fn head() -> TestRequest {
        TestRequest::post().uri("/events").insert_header(NDJSON)
    }

    fn lines_of(count: usize) -> Bytes {
        Bytes::from((done("c", "t") + "\n").repeat(count))
    }

    /// Returns an ignored line of this length.
    fn result(bytes: usize) -> String {
        let line = |text: &str| format!(r#"{{"type":"tool-result","conversationId":"c","result":"{text}"}}"#);
        line(&"x".repeat(bytes - line("").len()))
    }

    #[actix_web::test]
    async fn other_media_types_are_refused() {
        let (api, _) = StandIn::default().start_with(HttpSettings::default());
        let refused =
            async |request: TestRequest| ask(&api, request.set_payload(done("c", "t"))).await.failure(415).clone();
        let typed = |media_type: &[u8]| {
            let value = HeaderValue::from_bytes(media_type).unwrap();
            TestRequest::post().uri("/events").insert_header((header::CONTENT_TYPE, value))
        };
        for media_type in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", "nonsense"] {
            let text = refused(typed(media_type.as_bytes())).await;
            assert!(text.starts_with(&format!("the content-type is `{media_type}`, but must be ")), "{text}");
            for accepted in MEDIA_TYPES_OF_LINES.iter().chain(&["application/json"]) {
                assert!(text.contains(&format!("`{accepted}`")), "{accepted}: {text}");
            }
        }
        let text = refused(TestRequest::post().uri("/events")).await;
        assert!(text.starts_with("the content-type is missing, but must be "), "{text}");
        assert!(refused(typed(b"\xff")).await.starts_with("the content-type is no readable text, but must be "));
        let text = refused(typed(&[b'x'; 5000])).await;
        assert!(text.contains("xxx...`") && text.len() < 500, "{text}");
        for encoding in ["br", "deflate", "gzip, gzip", "zstd"] {
            let text = refused(head().insert_header(("content-encoding", encoding))).await;
            assert_eq!(text, format!("the content-encoding is `{encoding}`, but must be `gzip`, or none"));
        }
        let plain = head().insert_header(("content-encoding", "identity")).set_payload(done("c", "t"));
        ask(&api, plain).await.success();
    }

    #[actix_web::test]
    async fn other_requests_may_run_while_a_body_arrives_in_very_many_chunks() {
        let api = StandIn::default().serving();
        let chunks = stream::iter((0..10 * CHUNKS_AT_ONCE).map(|_| Ok(Bytes::from_static(b"\n"))));
        let mut posting = std::pin::pin!(post_stream(&api, head(), chunks));
        let mut pauses = 0;
        let answer = loop {
            match futures_util::poll!(&mut posting) {
                std::task::Poll::Ready(answer) => break answer,
                std::task::Poll::Pending => pauses += 1,
            }
        };
        answer.success();
        assert!(pauses >= 10, "{pauses} pauses");
    }

    #[actix_web::test]
    async fn other_requests_may_run_while_gzip_without_text_is_inflated() {
        let api = StandIn::default().serving();
        let empty = gzip(b"").repeat(5000);
        let request = head().insert_header(("content-encoding", "gzip")).set_payload(empty);
        let mut posting = std::pin::pin!(ask(&api, request));
        let mut pauses = 0;
        let answer = loop {
            match futures_util::poll!(&mut posting) {
                std::task::Poll::Ready(answer) => break answer,
                std::task::Poll::Pending => pauses += 1,
            }
        };
        answer.success();
        assert!(pauses >= 100, "{pauses} pauses");
    }

    #[actix_web::test]
    async fn other_requests_are_served_while_a_long_line_is_parsed() {
        let items = vec!["0"; 50_000].join(",");
        let line = format!(r#"{{"type":"done","conversationId":"c","turnId":"t","reason":"stop","x":[{items}]}}"#);
        for body in [line.clone() + "\n", line.clone(), format!("{}\n{line}\n", done("c", "s"))] {
            let api = StandIn::default().serving();
            let hold = api.long_work.occupy();
            let mut posting = std::pin::pin!(post(&api, body));
            for _ in 0..1000 {
                assert!(futures_util::poll!(&mut posting).is_pending(), "it was parsed on this thread");
                yield_now().await;
            }
            get(&api, "/health").await.success();
            drop(hold);
            posting.await.success();
        }
    }

    #[actix_web::test]
    async fn an_upload_of_gzip_reserves_the_memory_of_its_inflater() {
        let compressed = || head().insert_header(("content-encoding", "gzip"));
        let settings = HttpSettings { max_buffered_bytes: 160 * 1024, ..HttpSettings::default() };
        let api = StandIn::default().start_with(settings).0;
        // Neither of these bodies has any text yet.
        let mut uploads: Vec<_> = (0..2)
            .map(|_| {
                Box::pin(post_stream(&api, compressed(), stream::iter([Ok(Bytes::new())]).chain(stream::pending())))
            })
            .collect();
        assert!(futures_util::poll!(&mut uploads[0]).is_pending());
        let std::task::Poll::Ready(refused) = futures_util::poll!(&mut uploads[1]) else { panic!("it was taken") };
        refused.failure(503);
        post(&api, done("c", "t")).await.success();
    }

    #[actix_web::test]
    async fn lines_of_events_have_several_media_types() {
        let api = StandIn::default().serving();
        for media_type in ["application/ndjson", "application/jsonl; charset=utf-8", "Application/X-JsonLines"] {
            let request = TestRequest::post().uri("/events").insert_header(("content-type", media_type));
            ask(&api, request.set_payload(lines_of(2))).await.success();
        }
    }

    #[actix_web::test]
    async fn a_body_over_the_limit_is_refused_for_what_counts_in_it() {
        let settings = HttpSettings { max_body_bytes: 1000, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        let line = lines_of(1).len();
        let fits = 1000 / (line - 1);
        post(&api, lines_of(fits)).await.success();
        assert!(post(&api, lines_of(fits + 1)).await.failure(413).contains("1000 bytes"));
        // Ignored lines may have any length, with or without a `content-length`.
        let ignored = [lines_of(fits), Bytes::from(result(100_000) + "\n"), Bytes::from("\n".repeat(100_000))];
        let announced = ignored.concat();
        post(&api, announced.clone()).await.success();
        post_stream(&api, head(), stream::iter(ignored.map(Ok))).await.success();
        let json = TestRequest::post().uri("/events").insert_header(("content-type", "application/json"));
        ask(&api, json.set_payload(result(100_000))).await.success();
        assert_eq!(seen.lock().unwrap().observes.len(), 3);
    }

    #[actix_web::test]
    async fn the_size_of_a_body_is_limited_with_or_without_length_or_compression() {
        let settings = HttpSettings { max_transfer_bytes: 100_000, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        for announced in ["100001", "99999999999999999999999999"] {
            // This body fails as soon as it is read, so the test shows that it is not read.
            let unread = stream::iter([Err(PayloadError::EncodingCorrupted)]);
            let answer = post_stream(&api, head().insert_header(("content-length", announced)), unread).await;
            assert!(answer.failure(413).contains("100000 bytes"));
        }
        let chunk = || Ok(Bytes::from(result(49_999) + "\n"));
        post_stream(&api, head(), stream::iter([chunk(), chunk()])).await.success();
        post_stream(&api, head(), stream::iter([chunk(), chunk(), Ok(Bytes::from("\n"))])).await.failure(413);
        for (bytes, status) in [(100_000, 200), (100_001, 413), (100_000_000, 413)] {
            let compressed = gzip(&vec![b'\n'; bytes]);
            let request = head().insert_header(("content-encoding", "gzip")).set_payload(compressed);
            assert_eq!(ask(&api, request).await.status, status, "{bytes}");
        }
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn a_gzip_body_is_inflated_whatever_its_members() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let members = [gzip(&lines_of(100)), gzip(done("c", "u").as_bytes())].concat();
        for encoding in ["gzip", "GZIP", "x-gzip"] {
            let request = head().insert_header(("content-encoding", encoding)).set_payload(members.clone());
            assert!(ask(&api, request).await.success().starts_with(r#"{"accepted":101,"ignored":0,"#));
        }
        let pieces = members.chunks(10).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        post_stream(&api, head().insert_header(("content-encoding", "gzip")), stream::iter(pieces)).await.success();
        let json = TestRequest::post().uri("/events").insert_header(("content-type", "application/json"));
        let json = json.insert_header(("content-encoding", "gzip"));
        ask(&api, json.set_payload(gzip(done("c", "v").as_bytes()))).await.success();
        assert_eq!(seen.lock().unwrap().observes.len(), 5);

        for broken in [&members[..members.len() - 3], b"no gzip", b""] {
            let request = head().insert_header(("content-encoding", "gzip")).set_payload(broken.to_vec());
            assert!(ask(&api, request).await.failure(400).contains("gzip"));
        }
        assert!(post(&api, members).await.failure(400).contains("`content-encoding`"));
        let bad = head().insert_header(("content-encoding", "gzip")).set_payload(gzip(b"\nbad\n"));
        assert!(ask(&api, bad).await.failure(400).starts_with("line 2: "));
        assert_eq!(seen.lock().unwrap().observes.len(), 5);
    }

    #[actix_web::test]
    async fn of_a_gzip_body_that_is_cut_off_the_whole_lines_are_taken_if_bad_ones_are_skipped() {
        let skip = async |body: Vec<u8>| {
            let (api, seen) = StandIn::default().start_with(HttpSettings::default());
            let request = TestRequest::post().uri("/events?bad=skip").insert_header(NDJSON);
            let answer = ask(&api, request.insert_header(("content-encoding", "gzip")).set_payload(body)).await;
            let turns = |observe: &Observe| observe.events.iter().map(|event| event.turn_id.to_string()).collect();
            let turns: Vec<Vec<_>> = seen.lock().unwrap().observes.iter().map(turns).collect();
            (serde_json::from_str::<serde_json::Value>(answer.success()).unwrap(), turns)
        };
        // Each of the two gzip members has its own checksum. The end of the second member is missing.
        let start = r#"{"type":"turn-start","conversationId":"c","turnId":"u"}"#;
        let whole = [gzip(&lines_of(2)), gzip(format!("{start}\nbad\n{}", done("c", "u")).as_bytes())].concat();
        let (answer, turns) = skip(whole[..whole.len() - 5].to_vec()).await;
        assert_eq!((&answer["accepted"], &answer["refusedCount"]), (&3.into(), &2.into()));
        assert_eq!((&answer["refused"][0]["line"], &answer["refused"][1]["line"]), (&4.into(), &5.into()));
        assert_eq!(answer["refused"][1]["error"], CUT_GZIP);
        let warning = answer["warnings"][0].as_str().unwrap();
        assert!(warning.contains("line 5") && warning.contains("turn `u`"), "{warning}");
        assert_eq!(turns, [["t", "t", "u"]]);

        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        damaged.extend(gzip(&lines_of(1)));
        for (body, error) in [(vec![], CUT_GZIP), (damaged, INVALID_GZIP), (b"no gzip at all".to_vec(), INVALID_GZIP)] {
            let (answer, turns) = skip(body).await;
            assert_eq!((&answer["accepted"], &answer["refusedCount"]), (&0.into(), &1.into()), "{error}");
            assert_eq!(answer["refused"], serde_json::json!([{"line": 1, "error": error}]));
            assert!(turns.is_empty(), "{error}");
        }
    }

    #[actix_web::test]
    async fn a_line_that_is_nested_too_deeply_is_told_the_limit_whatever_its_type() {
        let settings = HttpSettings { max_body_bytes: 1000, max_line_bytes: 1000, ..HttpSettings::default() };
        let api = StandIn::default().start_with(settings).0;
        // The limit is checked after each piece of the body, against the brackets that are open then.
        let nested = async |before: Bytes, depth: usize| {
            let open = Bytes::from(format!(r#"{{"type":"tool-result","x":{}"#, "[".repeat(depth)));
            let close = Bytes::from("]".repeat(depth) + "}");
            post_stream(&api, head(), stream::iter([before, open, close].map(Ok))).await
        };
        nested(Bytes::new(), 7900).await.success();
        assert!(nested(Bytes::new(), 8200).await.failure(413).contains("at most 8000"));
        // If most of the bytes are events, the message blames the size and not the depth.
        let events = lines_of(14);
        assert!(nested(events, 3000).await.failure(413).contains("the events of the body take more than 1000"));
    }

    #[actix_web::test]
    async fn a_body_beyond_the_budget_is_refused_as_it_arrives() {
        let settings = HttpSettings { max_buffered_bytes: 100_000, max_body_bytes: 100_000, ..HttpSettings::default() };
        let (api, seen) = StandIn::default().start_with(settings);
        let held = [50_000, 47_000].map(|bytes| api.budget.reserve(bytes).unwrap());
        let answer = post(&api, done("c", "t")).await;
        assert!(answer.failure(503).contains("nothing was taken in"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        drop(held);
        post(&api, done("c", "t")).await.success();

        // The budget has room for these lines once, but not twice.
        let many = 30_000 / (lines_of(1).len() + size_of::<crate::turn::TurnEvent>());
        let held = [50_000, 27_000].map(|bytes| api.budget.reserve(bytes).unwrap());
        post(&api, lines_of(many)).await.failure(503);
        // Ignored lines take nothing from the budget.
        post(&api, result(200_000)).await.success();
        drop(held);
        post(&api, lines_of(many)).await.success();
        // A body that can never fit must not be answered with the advice to send it again.
        post(&api, lines_of(4 * many)).await.failure(413);
        assert!(api.budget.reserve(87_500).is_ok(), "all of it came back");
        assert_eq!(seen.lock().unwrap().observes.len(), 2);
    }

    #[actix_web::test]
    async fn an_announced_body_that_has_not_arrived_takes_little_of_the_budget() {
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
    async fn a_bad_line_is_reported_at_the_end_of_the_body_and_no_event_is_held_until_then() {
        let (api, _) = StandIn::default().start_with(HttpSettings::default());
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let (seen, budget) = (asked.clone(), api.budget.clone());
        let pieces = (0..50).map(move |nth| {
            seen.set(nth + 1);
            let bad = if nth == 3 { "bad\n" } else { "" };
            assert!(nth < 10 || budget.reserve(HttpSettings::default().max_buffered_bytes / 8 * 7 - 20_000).is_ok());
            Ok(Bytes::from([bad.as_bytes(), &*lines_of(100)].concat()))
        });
        let answer = post_stream(&api, head(), stream::iter(pieces)).await;
        assert!(answer.failure(400).starts_with("line 301: "));
        assert_eq!(asked.get(), 50);
    }

    #[actix_web::test]
    async fn a_long_body_has_as_much_more_time_as_it_is_longer() {
        let (max_body_bytes, max_line_bytes, stall_timeout) = (100_000, 100_000, Duration::from_hours(1));
        let settings = HttpSettings { stall_timeout, max_body_bytes, max_line_bytes, ..HttpSettings::default() };
        let api = StandIn::default().start_with(settings).0;
        tokio::time::pause();
        let chunks = |count: usize, bytes: usize| {
            let chunks = stream::iter(0..count).then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Ok(Bytes::from(result(bytes - 1) + "\n"))
            });
            Box::pin(chunks)
        };
        post_stream(&api, head(), chunks(10, 100_000)).await.success();
        assert!(post_stream(&api, head(), chunks(10, 50_000)).await.failure(408).contains("30000 ms"));
    }

    #[actix_web::test]
    async fn a_body_that_stalls_is_ended() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        tokio::time::pause();
        let stalled = stream::iter([Ok(Bytes::from(done("c", "t")))]).chain(stream::pending());
        let answer = tokio::time::timeout(Duration::from_hours(1), post_stream(&api, head(), stalled)).await.unwrap();
        assert!(answer.failure(408).contains("10000 ms"));
        assert!(seen.lock().unwrap().observes.is_empty());
    }

    #[actix_web::test]
    async fn a_body_may_stall_for_as_long_as_it_has_arrived_at_its_rate() {
        let api = StandIn::default().start_with(HttpSettings::default()).0;
        tokio::time::pause();
        // The minimum rate is 1024 bytes a second by default.
        let chunks = |seconds: u64, bytes: usize| {
            let chunks = stream::iter(0..25_u64).then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(Bytes::from(result(bytes - 1) + "\n"))
            });
            Box::pin(chunks)
        };
        post_stream(&api, head(), chunks(1, 1024)).await.success();
        let slow = post_stream(&api, head(), chunks(1, 512)).await;
        assert!(slow.failure(408).contains("less than 1024 bytes a second"));
    }

    #[actix_web::test]
    async fn a_body_that_breaks_off_changes_nothing() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let broken = [Ok(Bytes::from(done("c", "t") + "\n")), Err(PayloadError::Incomplete(None))];
        post_stream(&api, head(), stream::iter(broken)).await.failure(400);
        assert!(seen.lock().unwrap().observes.is_empty());
    }
}

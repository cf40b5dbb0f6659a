//! `GET /conversations/{id}/metrics`

use actix_web::http::Method;
use actix_web::http::header::{self, ETag, EntityTag, Header, IfNoneMatch};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, stream};
use tracing::error;

use super::api::{Api, ask_store};
use super::error::ApiError;
use super::path_id::PathId;
use crate::actors::{FindRevision, ListTurns};
use crate::store::TurnRange;
use crate::turn::{ConversationId, StoredTurn};

/// How many turns are read at once: about 200 KiB, half a millisecond of encoding.
const PAGE_TURNS: usize = 256;

/// The metrics of all sealed turns, in order.
///
/// Sealed turns never change, so those up to the revision's last are one consistent state however long reading them
/// takes.
pub(super) async fn get(api: Data<Api>, PathId(id): PathId, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let revision = ask_store(&api.handles.find_revision, FindRevision { conversation_id: id.clone() }).await?;
    let tag = EntityTag::new_strong(revision.to_string());
    if is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified()
            .insert_header(ETag(tag))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .finish());
    }

    let mut pages = Pages { api, id, after: 0, last: revision.sealed_turns, comma: false };
    // Before the head of the answer is sent, so that a failing store is told as such.
    let first = pages.next().await?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header(ETag(tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(header::ContentType::json());
    let begin = Bytes::from_static(br#"{"turns":["#);
    let end = Bytes::from_static(b"]}");
    if pages.is_done() {
        return Ok(response.body([begin, first, end].concat()));
    }
    if request.method() == Method::HEAD {
        // The head of the same answer, without reading what nobody will see.
        return Ok(response.streaming(stream::empty::<Result<Bytes, ApiError>>()));
    }
    let rest = stream::try_unfold(pages, |mut pages| async move {
        if pages.is_done() {
            return Ok(None);
        }
        // Fails after the head is sent: the answer ends without its last chunk, so that nobody takes it for whole.
        let page = pages.next().await?;
        Ok::<_, ApiError>(Some((page, pages)))
    });
    let parts = stream::iter([Ok(begin), Ok(first)]).chain(rest).chain(stream::iter([Ok(end)]));
    Ok(response.streaming(parts))
}

/// Whether the client has this state already.
fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        // A precondition that cannot be read is none: the client gets the whole answer.
        Err(_) => false,
    }
}

/// Reads the turns of a conversation page by page, as they stand in the JSON.
struct Pages {
    api: Data<Api>,
    id: ConversationId,
    /// The ordinal of the latest turn read.
    after: u64,
    /// The ordinal of the last turn to read.
    last: u64,
    /// Whether a turn stands before the next one.
    comma: bool,
}

impl Pages {
    fn is_done(&self) -> bool {
        self.after >= self.last
    }

    async fn next(&mut self) -> Result<Bytes, ApiError> {
        if self.is_done() {
            return Ok(Bytes::new());
        }
        let left = usize::try_from(self.last - self.after).unwrap_or(usize::MAX);
        let range = TurnRange { conversation_id: self.id.clone(), after: self.after, limit: left.min(PAGE_TURNS) };
        let mut turns = ask_store(&self.api.handles.list_turns, ListTurns(range)).await?;
        // The store passes over damaged turns, so there may be fewer than the revision says, and later ones among them.
        turns.retain(|turn| turn.ordinal.get() <= self.last);
        self.after = turns.last().map_or(self.last, |latest| latest.ordinal.get());
        self.encode(&turns)
    }

    fn encode(&mut self, turns: &[StoredTurn]) -> Result<Bytes, ApiError> {
        let mut json = Vec::with_capacity(turns.len() * 1024);
        for turn in turns {
            if self.comma {
                json.push(b',');
            }
            self.comma = true;
            serde_json::to_writer(&mut json, &turn.metrics).map_err(|error| {
                error!(%error, "the metrics of a turn could not be written as JSON");
                ApiError::LoadFailed
            })?;
        }
        Ok(json.into())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::super::stand_in::{Answer, StandIn, ask, get, sealed_turns};
    use super::*;
    use crate::settings::HttpSettings;

    const PATH: &str = "/conversations/c/metrics";

    async fn of_turns(count: u64) -> Answer {
        get(&StandIn { turns: sealed_turns(count), ..StandIn::default() }.serving(), PATH).await
    }

    /// What the body must be, made in one piece.
    fn body(count: u64) -> String {
        let turns: Vec<_> = sealed_turns(count).into_iter().map(|turn| turn.metrics).collect();
        format!(r#"{{"turns":{}}}"#, serde_json::to_string(&turns).unwrap())
    }

    #[actix_web::test]
    async fn the_turns_of_any_number_of_pages_come_in_one_piece() {
        let page = PAGE_TURNS as u64;
        for count in [0, 1, 2, page - 1, page, page + 1, 2 * page, 2 * page + 1] {
            let answer = of_turns(count).await;
            assert_eq!(answer.success(), body(count), "{count} turns");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.header("etag"), Some(&*format!(r#""00000000000000000000000000000007-{count}""#)));
        }
        assert_eq!(of_turns(0).await.success(), r#"{"turns":[]}"#);
    }

    #[actix_web::test]
    async fn pages_are_bounded_and_end_at_the_revision() {
        let system = StandIn { turns: sealed_turns(PAGE_TURNS as u64 + 3), ..StandIn::default() };
        let (api, seen) = system.start_with(HttpSettings::default());
        get(&api, PATH).await.success();
        let asked: Vec<_> = seen.lock().unwrap().ranges.iter().map(|range| (range.after, range.limit)).collect();
        assert_eq!(asked, [(0, PAGE_TURNS), (PAGE_TURNS as u64, 3)]);
    }

    #[actix_web::test]
    async fn turns_that_the_store_leaves_out_end_neither_the_answer_nor_its_pages() {
        let page = PAGE_TURNS as u64;
        for (missing, count) in
            [(1..=1, 3), (3..=3, 3), (1..=3, 3), (page..=page + 1, page + 3), (2..=page + 9, page + 9)]
        {
            let (revision, later) = (Some(count), count + 5);
            let there = |turn: &StoredTurn| !missing.contains(&turn.ordinal.get());
            let turns: Vec<_> = sealed_turns(later).into_iter().filter(there).collect();
            let expected = turns.iter().filter(|turn| turn.ordinal.get() <= count).map(|turn| &turn.metrics);
            let expected = serde_json::to_string(&expected.collect::<Vec<_>>()).unwrap();
            let answer = get(&StandIn { turns, revision, ..StandIn::default() }.serving(), PATH).await;
            assert_eq!(answer.success(), format!(r#"{{"turns":{expected}}}"#), "{missing:?} of {count}");
        }
    }

    #[actix_web::test]
    async fn a_client_that_knows_the_revision_gets_no_body() {
        let system = StandIn { turns: sealed_turns(2), ..StandIn::default() };
        let (api, seen) = system.start_with(HttpSettings::default());
        let tag = get(&api, PATH).await.header("etag").unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!(r#""x", {tag}"#), "*".to_owned()] {
            for request in [TestRequest::get(), TestRequest::default().method(Method::HEAD)] {
                let answer = ask(&api, request.uri(PATH).insert_header(("if-none-match", &*known))).await;
                assert_eq!((answer.status, answer.body.as_deref()), (304, Some("")), "{known}");
                assert_eq!(answer.header("etag"), Some(&*tag));
            }
        }
        assert_eq!(seen.lock().unwrap().ranges.len(), 1, "no turn was read for them");
        for other in [r#""x""#, "nonsense", ""] {
            let request = TestRequest::get().uri(PATH).insert_header(("if-none-match", other));
            assert_eq!(ask(&api, request).await.success(), body(2));
        }
    }

    #[actix_web::test]
    async fn a_store_that_fails_before_the_answer_begins_is_told() {
        for (reads, gone) in [(Some(0), false), (Some(1), false), (None, true)] {
            let system = StandIn { turns: sealed_turns(1), reads, gone, ..StandIn::default() };
            let answer = get(&system.serving(), PATH).await;
            assert_eq!(answer.failure(500), "Failed to load conversation metrics", "{reads:?}");
        }
    }

    #[actix_web::test]
    async fn a_store_that_fails_later_breaks_the_answer_off() {
        let system = StandIn { turns: sealed_turns(PAGE_TURNS as u64 + 1), reads: Some(2), ..StandIn::default() };
        let answer = get(&system.serving(), PATH).await;
        assert_eq!((answer.status, answer.body), (200, None));
    }
}

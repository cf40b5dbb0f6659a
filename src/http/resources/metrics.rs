//! `GET /conversations/{id}/metrics`

use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType, EntityTag, Header, HeaderValue, IfNoneMatch};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use tracing::error;

use super::api::{Api, ask_reader};
use super::cache::CachedBody;
use super::held_bytes::HeldBytes;
use super::parts::in_parts;
use super::path_id::PathId;
use super::pieces::{Beginning, Pieces};
use super::turn_list::TurnList;
use crate::actors::FindRevision;
use crate::http::error::ApiError;
use crate::store::Revision;

/// Returns the metrics of all sealed turns of a conversation, in order.
///
/// Sealed turns never change. So the turns up to the revision's last one are one consistent state, however long it
/// takes to read them, and the body of a later revision of the same life begins with the body of an earlier one. If turns
/// are dropped or erased meanwhile, the answer breaks off.
pub(crate) async fn get(api: Data<Api>, PathId(id): PathId, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let removals = api.bodies.removals();
    let revision = ask_reader(&api.handles.reads.find_revision, FindRevision { conversation_id: id.clone() }).await?;
    let tag = entity_tag(&revision)?;
    if is_known(&request, &tag) {
        return Ok(answer(StatusCode::NOT_MODIFIED, tag).finish());
    }

    let earlier = api.bodies.get(&id).filter(|body| body.revision.is_of_the_same_life(&revision));
    // If the budget has no room for the cached answer, the turns are read again, as fast as the client reads the
    // answer.
    let earlier = earlier.and_then(|body| Some((api.reads.try_hold(body.bytes.len())?, body)));
    let (held, there, begin) = match earlier {
        Some((held, body)) if body.revision == revision => return Ok(whole(tag, body.bytes, held)),
        Some((held, body)) if body.revision.sealed_turns < revision.sealed_turns => {
            (held, Some(body.revision), body.bytes)
        }
        _ => (HeldBytes::default(), None, Bytes::from_static(TurnList::BEGIN)),
    };
    let whole_bytes = api.bodies.max_body_bytes();
    let mut list = TurnList::whole(api.clone(), id.clone(), there, revision);
    let begin = begin.strip_suffix(&*list.end()).unwrap_or(&begin).to_vec();
    let beginning = list.begin(begin, held, whole_bytes).await?;
    if !list.is_done() {
        return Ok(list.stream(beginning, request.method(), answer(StatusCode::OK, tag)));
    }
    let Beginning { text: mut json, held } = beginning;
    json.extend(list.end());
    json.shrink_to_fit();
    let bytes = Bytes::from(json);
    // An answer without all turns has no entity tag and is not cached: the damaged turns that the store left out may be
    // readable later, under the same revision.
    if list.written() != revision.stored_turns() {
        return Ok(HttpResponse::Ok().content_type(ContentType::json()).body(in_parts(bytes, held)));
    }
    if list.written() > 0 {
        api.bodies.put(id, CachedBody { revision, bytes: bytes.clone() }, removals);
    }
    Ok(whole(tag, bytes, held))
}

fn entity_tag(revision: &Revision) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(format!("\"{revision}\"")).map_err(|error| {
        error!(%error, "a revision is no entity tag");
        ApiError::LoadFailed
    })
}

/// Returns whether the client already has this state.
fn is_known(request: &HttpRequest, tag: &HeaderValue) -> bool {
    let Some(known) = request.headers().get(header::IF_NONE_MATCH) else { return false };
    // This is the form in which a polling client sends the tag. Other forms take longer to parse.
    if known == tag {
        return true;
    }
    let tag = tag.to_str().ok().and_then(|tag| tag.parse::<EntityTag>().ok());
    match (IfNoneMatch::parse(request), tag) {
        (Ok(IfNoneMatch::Any), _) => true,
        (Ok(IfNoneMatch::Items(tags)), Some(tag)) => tags.iter().any(|known| known.weak_eq(&tag)),
        // An invalid precondition is ignored, so the client gets the whole answer.
        _ => false,
    }
}

fn answer(status: StatusCode, tag: HeaderValue) -> HttpResponseBuilder {
    let mut response = HttpResponseBuilder::new(status);
    response.insert_header((header::ETAG, tag));
    response.insert_header((header::CACHE_CONTROL, HeaderValue::from_static("no-cache")));
    response
}

fn whole(tag: HeaderValue, body: Bytes, held: HeldBytes) -> HttpResponse {
    answer(StatusCode::OK, tag).content_type(ContentType::json()).body(in_parts(body, held))
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::TestRequest;

    use super::super::turn_list::TURNS_READ_AT_ONCE;
    use super::*;
    use crate::http::stand_in::{Answer, StandIn, ask, get, sealed_turns};
    use crate::settings::HttpSettings;
    use crate::turn::StoredTurn;

    const PAGE_TURNS: usize = TURNS_READ_AT_ONCE;
    const PATH: &str = "/conversations/c/metrics";

    async fn of_turns(count: u64, settings: HttpSettings) -> Answer {
        get(&StandIn { turns: sealed_turns(count), ..StandIn::default() }.start_with(settings).0, PATH).await
    }

    /// Returns settings with room for an answer of a few turns only.
    fn keeping_little() -> HttpSettings {
        HttpSettings { cache_bytes: 16 * 1024, ..HttpSettings::default() }
    }

    /// Returns what a client of `api` gets from a system, and each read of the system: the ordinal it began after and
    /// the number of turns.
    async fn then(api: &Api, system: StandIn) -> (String, Vec<(u64, usize)>) {
        let (Api { handles, .. }, seen) = system.start_with(HttpSettings::default());
        let answer = get(&Api { handles, ..api.clone() }, PATH).await;
        let ranges = &seen.lock().unwrap().ranges;
        (answer.success().to_owned(), ranges.iter().map(|range| (range.after, range.limit)).collect())
    }

    fn with_turns(count: u64) -> StandIn {
        StandIn { turns: sealed_turns(count), ..StandIn::default() }
    }

    /// Returns the expected body, written in one piece.
    fn body(count: u64) -> String {
        let turns: Vec<_> = sealed_turns(count).into_iter().map(|turn| turn.metrics).collect();
        format!(r#"{{"turns":{}}}"#, serde_json::to_string(&turns).unwrap())
    }

    #[actix_web::test]
    async fn the_turns_of_any_number_of_pages_come_in_one_piece() {
        let page = PAGE_TURNS as u64;
        for count in [0, 1, 2, page - 1, page, page + 1, 2 * page, 2 * page + 1] {
            for settings in [HttpSettings::default(), keeping_little()] {
                let answer = of_turns(count, settings).await;
                assert_eq!(answer.success(), body(count), "{count} turns");
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(answer.header("cache-control"), Some("no-cache"));
                assert_eq!(
                    answer.header("etag"),
                    Some(&*format!(r#""00000000000000000000000000000007-{}-{count}""#, if count > 0 { 5 } else { 0 }))
                );
            }
        }
        assert_eq!(body(0), r#"{"turns":[]}"#);
    }

    #[actix_web::test]
    async fn an_answer_of_one_page_asks_for_the_revision_once_and_a_longer_one_once_more_at_its_end() {
        for (count, times) in [(1, 1), (PAGE_TURNS as u64, 1), (2 * PAGE_TURNS as u64, 2)] {
            let (api, seen) = with_turns(count).start_with(HttpSettings::default());
            let asked = || std::mem::take(&mut seen.lock().unwrap().found).len();
            let tag = get(&api, PATH).await.header("etag").unwrap().to_owned();
            assert_eq!(asked(), times, "{count} turns");
            get(&api, PATH).await.success();
            assert_eq!(asked(), 1, "from the cache");
            let known = TestRequest::get().uri(PATH).insert_header(("if-none-match", tag));
            assert_eq!(ask(&api, known).await.status, 304);
            assert_eq!(asked(), 1);
        }
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
    async fn an_answer_is_given_again_without_reading_and_a_longer_one_goes_on_from_it() {
        let (api, page) = (StandIn::default().serving(), PAGE_TURNS as u64);
        for (count, read) in [
            (0, vec![]),
            (3, vec![(0, 3)]),
            (3, vec![]),
            (4, vec![(3, 1)]),
            (page + 6, vec![(4, PAGE_TURNS), (page + 4, 2)]),
            (page + 6, vec![]),
        ] {
            assert_eq!(then(&api, with_turns(count)).await, (body(count), read), "{count} turns");
        }
        // An answer with fewer turns, from an older revision, is correct by itself and does not replace the cached one.
        assert_eq!(then(&api, with_turns(4)).await, (body(4), vec![(0, 4)]));
        assert_eq!(then(&api, with_turns(page + 6)).await, (body(page + 6), vec![]));
        let other = StandIn { another_store: true, ..with_turns(page + 7) };
        assert_eq!(then(&api, other).await, (body(page + 7), vec![(0, PAGE_TURNS), (page, 7)]));
    }

    #[actix_web::test]
    async fn an_answer_of_an_earlier_life_is_neither_given_again_nor_gone_on_from() {
        let in_another_life = |count| StandIn { earlier_lives: 1, ..with_turns(count) };
        for (count, read) in [(3, (0, 3)), (4, (0, 4)), (2, (0, 2))] {
            let api = StandIn::default().serving();
            assert_eq!(then(&api, with_turns(3)).await.0, body(3));
            assert_eq!(then(&api, in_another_life(count)).await, (body(count), vec![read]));
        }
        let tag = get(&with_turns(3).serving(), PATH).await.header("etag").unwrap().to_owned();
        let request = TestRequest::get().uri(PATH).insert_header(("if-none-match", tag));
        assert_eq!(ask(&in_another_life(3).serving(), request).await.success(), body(3));
    }

    #[actix_web::test]
    async fn an_answer_with_turns_left_out_is_not_given_again() {
        let api = StandIn::default().serving();
        let without = |missing: u64, count| {
            let turns = sealed_turns(count).into_iter().filter(|turn| turn.ordinal.get() != missing).collect();
            StandIn { turns, revision: Some(count), ..StandIn::default() }
        };
        for missing in 1..=3 {
            let (answer, _) = then(&api, without(missing, 3)).await;
            assert_ne!(answer, body(3));
        }
        assert_eq!(then(&api, with_turns(3)).await.0, body(3), "the file has been seen to");
        let (answer, read) = then(&api, without(4, 5)).await;
        assert!(answer.contains(r#""t3""#) && !answer.contains(r#""t4""#) && answer.contains(r#""t5""#), "{answer}");
        assert_eq!(read, [(3, 2)]);
        assert_eq!(then(&api, with_turns(5)).await, (body(5), vec![(3, 2)]));
    }

    #[actix_web::test]
    async fn an_answer_with_turns_left_out_has_no_entity_tag_and_may_not_be_stored() {
        let of = |turns: u64| async move {
            let system = StandIn { turns: sealed_turns(turns), revision: Some(3), ..StandIn::default() };
            let answer = get(&system.serving(), PATH).await;
            ["etag", "cache-control"].map(|name| answer.header(name).map(str::to_owned))
        };
        assert_eq!(of(2).await, [None, Some("no-store".to_owned())]);
        let [tag, stored] = of(3).await;
        assert!(tag.is_some() && stored.as_deref() == Some("no-cache"), "{tag:?} {stored:?}");
    }

    #[actix_web::test]
    async fn an_answer_over_its_share_of_the_memory_is_read_each_time() {
        let (api, seen) = with_turns(1000).start_with(keeping_little());
        for times in 1..=2 {
            assert_eq!(get(&api, PATH).await.success(), body(1000));
            assert_eq!(seen.lock().unwrap().ranges.len(), times * 1000_usize.div_ceil(PAGE_TURNS));
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
        let answer = get(&system.start_with(keeping_little()).0, PATH).await;
        assert_eq!((answer.status, answer.body), (200, None));
    }
}

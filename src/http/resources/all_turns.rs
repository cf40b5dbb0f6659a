//! `GET /turns`

use std::ops::RangeInclusive;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::api::Api;
use super::held_bytes::{FREE_BYTES, HeldBytes};
use super::pieces::Pieces;
use super::query::Query;
use super::sealed_list::{AFTER, SealedList, after};
use crate::http::error::ApiError;

const PARAMETERS: &[&str] = &[AFTER, "limit"];

const DEFAULT_LIMIT: u64 = 100;
const LIMITS: RangeInclusive<u64> = 1..=1000;

/// Returns a page of the sealed turns of all conversations, in the order in which they became durable.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let limit = query.number("limit", LIMITS)?.unwrap_or(DEFAULT_LIMIT);
    let mut list = SealedList::page(api, after(&query)?, usize::try_from(limit).unwrap_or(usize::MAX));
    let beginning = list.begin(SealedList::BEGIN.to_vec(), HeldBytes::default(), FREE_BYTES).await?;
    Ok(list.answer(beginning, request.method(), HttpResponse::Ok()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use actix_web::test::TestRequest;
    use serde_json::Value;

    use super::super::sealed_list::TURNS_READ_AT_ONCE;
    use super::*;
    use crate::http::stand_in::{StandIn, ask, get, post, sealed_turns};
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;

    fn with_turns(count: u64, settings: HttpSettings) -> Api {
        StandIn { turns: sealed_turns(count), ..StandIn::default() }.start_with(settings).0
    }

    /// The position of a turn of the stand-in.
    fn position(number: u64) -> String {
        format!("00000000000000000000000000000007-{number:016x}")
    }

    /// Returns the ordinals of the turns on each page, until a page is empty.
    async fn pages(api: &Api, limit: usize) -> Vec<Vec<u64>> {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let answer = get(api, &format!("/turns?limit={limit}{after}")).await;
            let page: Value = serde_json::from_str(answer.success()).unwrap();
            let turns = page["turns"].as_array().unwrap();
            let next = page["next"].as_str().unwrap();
            if turns.is_empty() {
                return pages;
            }
            assert!(turns.last().unwrap()["position"].as_str().unwrap() <= next);
            pages.push(turns.iter().map(|turn| turn["ordinal"].as_u64().unwrap()).collect());
            after = format!("&after={next}");
        }
    }

    #[actix_web::test]
    async fn a_turn_has_its_position_and_its_conversation_before_its_envelope() {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = Api::new(runtime.handles().clone(), HttpSettings::default());
        let none = get(&api, "/turns").await;
        let start = none.success().strip_prefix(r#"{"turns":[],"next":""#).unwrap().strip_suffix(r#""}"#).unwrap();
        assert!(start.ends_with("-0000000000000000"), "{start}");
        let done = |id: &str| {
            format!(r#"{{"type":"done","conversationId":"{id}","turnId":"t","reason":"stop","endedAt":1780000000000}}"#)
        };
        post(&api, done(r#"a \" b"#) + "\n" + &done("c")).await.success();
        let answer = get(&api, &format!("/turns?limit=1&after={start}")).await;
        let sealed_at = answer.success().split_once(r#""sealedAt":"#).unwrap().1.split(',').next().unwrap().to_owned();
        let lineage = start.split('-').next().unwrap();
        assert_eq!(
            answer.success(),
            format!(
                r#"{{"turns":[{{"position":"{lineage}-0000000000000001","conversationId":"a \" b","ordinal":1,"sealedAt":{sealed_at},"endedAt":1780000000000,"reason":"stop","metrics":{{"turnId":"t","usage":{{"inputTokens":0,"outputTokens":0}},"steps":[]}}}}],"next":"{lineage}-0000000000000001"}}"#
            )
        );
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn pages_follow_each_other_and_are_bounded_in_number_and_bytes() {
        let count = TURNS_READ_AT_ONCE as u64 * 3;
        let all: Vec<_> = (1..=count).collect();
        let api = with_turns(count, HttpSettings::default());
        for limit in [1, 7, TURNS_READ_AT_ONCE - 1, TURNS_READ_AT_ONCE, TURNS_READ_AT_ONCE + 1, 191, 192, 193, 1000] {
            let expected: Vec<_> = all.chunks(limit).map(<[u64]>::to_vec).collect();
            assert_eq!(pages(&api, limit).await, expected, "{limit} on a page");
        }
        let bytes = get(&api, "/turns?limit=1").await.success().len();
        for (max_page_bytes, turns) in [(1, 1), (bytes, 2), (2 * bytes, 3)] {
            let api = with_turns(9, HttpSettings { max_page_bytes, ..HttpSettings::default() });
            assert_eq!(pages(&api, 1000).await[0], all[..turns], "{max_page_bytes} bytes");
        }
    }

    #[actix_web::test]
    async fn a_page_that_is_longer_than_a_connection_may_hold_is_whole_too() {
        let api = with_turns(1000, HttpSettings::default());
        let answer = get(&api, "/turns?limit=1000").await;
        assert!(answer.success().len() > FREE_BYTES, "the page is too short for this test");
        let page: Value = serde_json::from_str(answer.success()).unwrap();
        assert_eq!((page["turns"].as_array().unwrap().len(), page["next"].as_str().unwrap()), (1000, &*position(1000)));
        let head = ask(&api, TestRequest::default().method(Method::HEAD).uri("/turns?limit=1000")).await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    }

    #[actix_web::test]
    async fn a_bad_parameter_is_named_and_a_position_of_another_lineage_is_gone() {
        let api = with_turns(3, HttpSettings::default());
        for (query, message) in [
            ("after=7", "the query parameter `after` must be a position from an earlier answer"),
            ("after=", "`after` must be a position"),
            ("limit=0", "the query parameter `limit` must be a whole number from 1 to 1000"),
            ("limit=1001", "`limit` must be a whole number from 1 to 1000"),
            ("before=1", "`before` is no query parameter here: there are after, limit"),
        ] {
            let answer = get(&api, &format!("/turns?{query}")).await.failure(400);
            assert!(answer.contains(message), "{query}: {answer}");
        }
        let other = position(1).replace("7-", "8-");
        let message = get(&api, &format!("/turns?after={other}")).await.failure(410);
        assert!(message.contains("read from the beginning"), "{message}");
    }

    #[actix_web::test]
    async fn a_store_that_fails_is_told_or_breaks_the_answer_off() {
        for gone in [false, true] {
            let api = StandIn { turns: sealed_turns(3), reads: Some(0), gone, ..StandIn::default() }.serving();
            assert_eq!(get(&api, "/turns").await.failure(500), "the store could not be read; the log says why");
        }
        let api = StandIn { turns: sealed_turns(1000), reads: Some(15), ..StandIn::default() }.serving();
        let answer = get(&api, "/turns?limit=1000").await;
        assert_eq!((answer.status, answer.body), (200, None));
    }
}

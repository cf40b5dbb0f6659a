//! `GET /conversations/{id}/turns`

use std::ops::RangeInclusive;

use actix_web::http::header::ContentType;
use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::api::Api;
use super::held_bytes::{FREE_BYTES, HeldBytes};
use super::parts::in_parts;
use super::path_id::PathId;
use super::turn_list::{Beginning, Form, TurnList};
use crate::http::error::ApiError;

const DEFAULT_LIMIT: u64 = 100;

/// The range of the parameter `limit`. It bounds the size of an answer.
const LIMITS: RangeInclusive<u64> = 1..=1000;

/// The range of ordinals: the numbers that every JSON reader holds exactly. If no turn comes after the ordinal of the
/// query, the answer returns that number as `latestOrdinal`.
const ORDINALS: RangeInclusive<u64> = 0..=(1 << 53) - 1;

/// Returns the sealed turns after an ordinal. A page that is longer than a connection may hold is read as fast as the
/// client reads the answer.
pub(crate) async fn get(
    api: Data<Api>,
    PathId(conversation_id): PathId,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let Asked { after, limit, cost } = Asked::from_query(request.query_string())?;
    let form = if cost { Form::EnvelopeWithCost } else { Form::Envelope };
    let mut list = TurnList::page(api, conversation_id, after, limit, form);
    let beginning = list.begin(TurnList::BEGIN.to_vec(), HeldBytes::default(), FREE_BYTES).await?;
    if !list.is_done() {
        return Ok(list.stream(beginning, request.method(), HttpResponse::Ok()));
    }
    let Beginning { mut json, held } = beginning;
    json.extend(list.end());
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(in_parts(json.into(), held)))
}

/// The question that the query asks.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    after: u64,
    limit: u64,
    /// Whether each turn comes with its cost.
    cost: bool,
}

impl Asked {
    fn from_query(query: &str) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Parameters {
            after: Option<String>,
            limit: Option<String>,
            cost: Option<String>,
        }

        let Query(Parameters { after, limit, cost }) = Query::from_query(query)
            .map_err(|_| ApiError::BadRequest("the query is not valid: `after`, `limit` and `cost` may stand once"))?;
        let after = number("after", after.as_deref(), 0, ORDINALS)?;
        let limit = number("limit", limit.as_deref(), DEFAULT_LIMIT, LIMITS)?;
        let cost = match cost.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(ApiError::BadParameter { name: "cost", allowed: "true or false".to_owned() }),
        };
        Ok(Self { after, limit, cost })
    }
}

fn number(name: &'static str, text: Option<&str>, default: u64, range: RangeInclusive<u64>) -> Result<u64, ApiError> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        let (first, last) = (*range.start(), *range.end());
        ApiError::BadNumber { name, first, last }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::{Log, StandIn, get, sealed_turns};
    use crate::settings::HttpSettings;

    #[actix_web::test]
    async fn envelopes_come_after_an_ordinal_up_to_a_limit() {
        let api = StandIn { turns: sealed_turns(150), ..StandIn::default() }.serving();
        let second = r#"{"turns":[{"ordinal":2,"sealedAt":2,"reason":"stop","metrics":{"turnId":"t2","usage":{"inputTokens":0,"outputTokens":0},"steps":[]}}],"latestOrdinal":2}"#;
        assert_eq!(get(&api, "/conversations/c/turns?after=1&limit=1").await.success(), second);
        let first_hundred = get(&api, "/conversations/c/turns").await;
        assert!(first_hundred.success().ends_with(r#""latestOrdinal":100}"#));
        let rest = get(&api, "/conversations/c/turns?after=100&limit=1000&unknown=x").await;
        assert!(rest.success().ends_with(r#""latestOrdinal":150}"#));
        let none = get(&api, "/conversations/c/turns?after=150").await;
        assert_eq!(none.success(), r#"{"turns":[],"latestOrdinal":150}"#);
    }

    #[actix_web::test]
    async fn each_turn_has_its_cost_if_that_is_asked_for() {
        let api = StandIn { turns: sealed_turns(2), ..StandIn::default() }.serving();
        let second = r#"{"turns":[{"ordinal":2,"sealedAt":2,"reason":"stop","metrics":{"turnId":"t2","usage":{"inputTokens":0,"outputTokens":0},"steps":[]},"cost":{"usd":"0.000000000000","unpricedTokens":0,"unpricedModels":[]}}],"latestOrdinal":2}"#;
        assert_eq!(get(&api, "/conversations/c/turns?after=1&cost=true").await.success(), second);
        assert!(!get(&api, "/conversations/c/turns?cost=false").await.success().contains("cost"));
    }

    #[actix_web::test]
    async fn a_bad_query_reads_nothing() {
        let (api, seen) = StandIn::default().start_with(HttpSettings::default());
        let text = get(&api, "/conversations/c/turns?limit=1001").await.failure(400);
        assert_eq!(text, "the query parameter `limit` must be a whole number from 1 to 1000");
        assert!(seen.lock().unwrap().ranges.is_empty());
    }

    #[actix_web::test]
    async fn a_store_that_fails_is_told() {
        for (reads, gone) in [(Some(0), false), (None, true)] {
            let api = StandIn { reads, gone, ..StandIn::default() }.serving();
            let log = Log::start();
            let answer = get(&api, "/conversations/c/turns").await;
            assert_eq!(answer.failure(500), "Failed to load conversation metrics", "{reads:?}");
            let log = log.end();
            assert_eq!(log.contains("/var/lib/secret"), !gone, "{log}");
        }
    }

    #[test]
    fn parameters_have_defaults_and_others_are_ignored() {
        assert_eq!(Asked::from_query("").unwrap(), Asked { after: 0, limit: 100, cost: false });
        assert_eq!(Asked::from_query("x=1&limit=1000&after=7&").unwrap(), Asked { after: 7, limit: 1000, cost: false });
        assert_eq!(Asked::from_query("cost=true").unwrap(), Asked { after: 0, limit: 100, cost: true });
        assert_eq!(Asked::from_query("after=9007199254740991").unwrap().after, (1 << 53) - 1);
    }

    #[test]
    fn a_bad_parameter_is_named_with_its_range() {
        for (query, name, range) in [
            ("limit=0", "`limit`", "1 to 1000"),
            ("limit=1001", "`limit`", "1 to 1000"),
            ("limit=", "`limit`", "1 to 1000"),
            ("limit=ten", "`limit`", "1 to 1000"),
            ("after=-1", "`after`", "0 to 9007199254740991"),
            ("after=1.5", "`after`", "0 to 9007199254740991"),
            ("after=9007199254740992", "`after`", "0 to 9007199254740991"),
            ("after=99999999999999999999999", "`after`", "0 to 9007199254740991"),
            ("after=1&after=2", "`after`", "once"),
            ("cost=1", "`cost`", "true or false"),
        ] {
            let message = Asked::from_query(query).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(range), "{query}: {message}");
        }
    }
}

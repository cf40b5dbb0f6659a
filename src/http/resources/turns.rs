//! `GET /conversations/{id}/turns`

use std::ops::RangeInclusive;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::answer::write;
use super::api::{Api, ask_reader};
use super::held_bytes::{FREE_BYTES, HeldBytes};
use super::path_id::PathId;
use super::pieces::Pieces;
use super::query::Query;
use super::turn_list::{Form, TurnList};
use crate::actors::ListOpenTurns;
use crate::http::error::ApiError;
use crate::store::{OpenTurns, RangeEnd};
use crate::turn::{ConversationId, Label, SealedTurn, StepMetrics, TurnId, Usage};

const PARAMETERS: &[&str] = &["after", "before", "limit", "order", "cost", "open"];

const DEFAULT_LIMIT: u64 = 100;

/// The range of the parameter `limit`. It bounds the size of an answer.
const LIMITS: RangeInclusive<u64> = 1..=1000;

/// The range of ordinals: the numbers that every JSON reader holds exactly. If no turn comes after the ordinal of the
/// query, the answer returns that number as `latestOrdinal`.
const ORDINALS: RangeInclusive<u64> = 0..=(1 << 53) - 1;

/// The sealed turns between two ordinals. A page that is longer than the bytes that a connection may hold is read only
/// as fast as the client reads it.
pub(crate) async fn get(
    api: Data<Api>,
    PathId(conversation_id): PathId,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let Asked { after, before, end, limit, cost, open } = Asked::from_query(request.query_string())?;
    let form = if cost { Form::EnvelopeWithCost } else { Form::Envelope };
    let mut end_of_page = before.map_or(u64::MAX, |before| before.saturating_sub(1));
    let mut json = b"{".to_vec();
    if open {
        // The open turns of a conversation may take megabytes, and so does their JSON.
        let _inside = api.summaries.enter().await?;
        let open = open_turns(&api, &conversation_id).await?;
        // A turn that is sealed after this moment is among the open turns and not among the sealed turns.
        end_of_page = end_of_page.min(open.sealed_turns);
        write_open(&open, &mut json).await?;
    }
    json.extend(br#""turns":["#);
    let mut list = TurnList::page(api, conversation_id, (after, end_of_page), limit, form);
    if end == RangeEnd::Latest {
        list.skip_to_latest().await?;
    }
    let beginning = list.begin(json, HeldBytes::default(), FREE_BYTES).await?;
    Ok(list.answer(beginning, request.method(), HttpResponse::Ok()))
}

/// Asks for the open turns of a conversation.
pub(crate) async fn open_turns(api: &Api, conversation_id: &ConversationId) -> Result<OpenTurns, ApiError> {
    let list = ListOpenTurns { conversation_id: conversation_id.clone() };
    ask_reader(&api.handles.reads.list_open_turns, list).await
}

/// The bytes of open turns that are written before other requests may run on this thread. Writing so many takes a
/// fraction of a millisecond.
const OPEN_BYTES_AT_ONCE: usize = 64 * 1024;

/// Writes the field that shows the open turns.
async fn write_open(open: &OpenTurns, json: &mut Vec<u8>) -> Result<(), ApiError> {
    json.extend(br#""open":["#);
    let mut paused_at = 0;
    for (place, staged) in open.turns.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        if json.len() - paused_at >= OPEN_BYTES_AT_ONCE {
            paused_at = json.len();
            tokio::task::yield_now().await;
        }
        write(&OpenEntry::of(&staged.turn.so_far()), json).map_err(|_| ApiError::LoadFailed)?;
    }
    json.extend(b"],");
    Ok(())
}

/// An open turn, with the data that is known so far.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OpenEntry<'a> {
    turn_id: &'a TurnId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a Label>,
    usage: Usage,
    steps: &'a [StepMetrics],
}

impl<'a> OpenEntry<'a> {
    pub(crate) fn of(so_far: &'a SealedTurn) -> Self {
        Self {
            turn_id: &so_far.metrics.turn_id,
            model: so_far.model.as_ref(),
            provider: so_far.provider.as_ref(),
            usage: so_far.metrics.usage,
            steps: &so_far.metrics.steps,
        }
    }
}

/// The parameters of the query.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    after: u64,
    before: Option<u64>,
    /// The end of the range whose turns are returned if there are more turns than the limit.
    end: RangeEnd,
    limit: u64,
    /// Whether each turn comes with its cost.
    cost: bool,
    /// Whether the open turns are shown too.
    open: bool,
}

impl Asked {
    /// Other parameters are ignored.
    fn from_query(query: &str) -> Result<Self, ApiError> {
        let query = Query::read_known(query, PARAMETERS)?;
        Ok(Self {
            after: query.number("after", ORDINALS)?.unwrap_or(0),
            before: query.number("before", ORDINALS)?,
            end: query.choice("order", &[("latest", RangeEnd::Latest)])?.unwrap_or_default(),
            limit: query.number("limit", LIMITS)?.unwrap_or(DEFAULT_LIMIT),
            cost: query.flag("cost")?,
            open: query.flag("open")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::http::stand_in::{Log, StandIn, get, post, sealed_turns};
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;
    use crate::store::StagedTurn;
    use crate::turn::{OpenTurn, Progress, RunningTime, StepId, StepTimes, TurnLabels};

    /// The ordinals of the turns of an answer, and its `latestOrdinal`.
    fn ordinals(body: &str) -> (Vec<u64>, u64) {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let turns = body["turns"].as_array().unwrap().iter();
        (turns.map(|turn| turn["ordinal"].as_u64().unwrap()).collect(), body["latestOrdinal"].as_u64().unwrap())
    }

    #[actix_web::test]
    async fn a_page_may_end_before_an_ordinal_and_have_the_latest_turns() {
        let api = StandIn { turns: sealed_turns(150), ..StandIn::default() }.serving();
        for (query, turns, latest) in [
            ("before=4", 1..4, 3),
            ("before=4&limit=2", 1..3, 2),
            ("after=1&before=4", 2..4, 3),
            ("after=1&before=2", 1..1, 1),
            ("after=9&before=4", 1..1, 9),
            ("before=0", 1..1, 0),
            ("order=latest", 51..151, 150),
            ("order=latest&limit=2", 149..151, 150),
            ("order=latest&limit=2&before=149", 147..149, 148),
            ("order=latest&limit=1000&after=100", 101..151, 150),
            ("order=latest&after=150", 1..1, 150),
            ("order=latest&before=3&after=2", 1..1, 2),
        ] {
            let answer = get(&api, &format!("/conversations/c/turns?{query}")).await;
            assert_eq!(ordinals(answer.success()), (turns.collect(), latest), "{query}");
        }
    }

    #[actix_web::test]
    async fn a_page_of_the_latest_turns_is_shortened_at_its_old_end() {
        let turns = sealed_turns(150);
        let bytes = serde_json::to_vec(&turns[149]).unwrap().len();
        for (max_page_bytes, first) in [(1, 150), (2 * bytes, 149), (2 * bytes + 1, 148), (usize::MAX, 51)] {
            let settings = HttpSettings { max_page_bytes, ..HttpSettings::default() };
            let api = StandIn { turns: turns.clone(), ..StandIn::default() }.start_with(settings).0;
            let answer = get(&api, "/conversations/c/turns?order=latest").await;
            assert_eq!(ordinals(answer.success()), ((first..=150).collect(), 150), "{max_page_bytes} bytes");
            let oldest = get(&api, "/conversations/c/turns?limit=1000").await;
            assert_eq!(ordinals(oldest.success()).0[0], 1, "{max_page_bytes} bytes");
        }
    }

    #[actix_web::test]
    async fn open_turns_are_shown_with_what_they_have_so_far() {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = Api::new(runtime.handles().clone(), HttpSettings::default());
        let lines = r#"{"type":"turn-start","conversationId":"c","turnId":"b","model":"m","provider":"p"}
{"type":"usage","conversationId":"c","turnId":"b","stepId":"s","usage":{"inputTokens":100,"outputTokens":10,"cacheReadTokens":7}}
{"type":"step-complete","conversationId":"c","turnId":"b","stepId":"s","genTotalMs":300}
{"type":"turn-start","conversationId":"c","turnId":"a"}
{"type":"done","conversationId":"c","turnId":"sealed","reason":"stop"}"#;
        post(&api, lines).await.success();
        let open = r#"{"open":[{"turnId":"a","usage":{"inputTokens":0,"outputTokens":0},"steps":[]},{"turnId":"b","model":"m","provider":"p","usage":{"inputTokens":100,"outputTokens":10,"cacheReadTokens":7},"steps":[{"stepId":"s","usage":{"inputTokens":100,"outputTokens":10,"cacheReadTokens":7},"genTotalMs":300}]}],"turns":["#;
        let answer = get(&api, "/conversations/c/turns?open=true").await;
        let turns = answer.success().strip_prefix(open).unwrap_or_else(|| panic!("{:?}", answer.body));
        let alone = get(&api, "/conversations/c/turns").await;
        assert_eq!(alone.success(), format!(r#"{{"turns":[{turns}"#));
        assert_eq!(ordinals(alone.success()), (vec![1], 1));
        let unknown = get(&api, "/conversations/x/turns?open=true").await;
        assert_eq!(unknown.success(), r#"{"open":[],"turns":[],"latestOrdinal":0}"#);
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn other_requests_may_run_between_the_open_turns_that_are_written() {
        let turn = |nth: usize| {
            let mut turn = OpenTurn::new(TurnId::new(format!("t{nth}")).unwrap());
            for step in 0..500 {
                let step_id = StepId::new(format!("{step:0>200}")).unwrap();
                turn.fold(&Progress::StepComplete {
                    step_id,
                    times: StepTimes::default(),
                    model: None,
                    provider: None,
                });
            }
            StagedTurn { turn, last_event_at: RunningTime::new(0) }
        };
        let open = OpenTurns { sealed_turns: 0, turns: (1..=9).map(turn).collect() };
        let (mut json, mut pauses) = (Vec::new(), 0);
        {
            let mut writing = std::pin::pin!(write_open(&open, &mut json));
            while poll!(&mut writing).is_pending() {
                pauses += 1;
            }
        }
        assert!(json.len() > 9 * OPEN_BYTES_AT_ONCE);
        assert_eq!(pauses, 8, "a pause after each turn but the last");
    }

    #[actix_web::test]
    async fn what_is_sealed_after_the_open_turns_were_read_is_left_to_the_next_answer() {
        let mut turn = OpenTurn::new(TurnId::new("t3").unwrap());
        turn.fold(&Progress::Start(TurnLabels::of_model("m")));
        let open = vec![StagedTurn { turn, last_event_at: RunningTime::new(0) }];
        // The third turn is sealed between the two questions.
        let api = StandIn { turns: sealed_turns(3), open, revision: Some(2), ..StandIn::default() }.serving();
        for order in ["", "&order=latest"] {
            let answer = get(&api, &format!("/conversations/c/turns?open=true{order}")).await;
            assert_eq!(ordinals(answer.success()), (vec![1, 2], 2));
            assert!(answer.success().starts_with(r#"{"open":[{"turnId":"t3","model":"m","#), "{:?}", answer.body);
        }
    }

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
            for query in ["", "?open=true", "?order=latest"] {
                let api = StandIn { reads, gone, ..StandIn::default() }.serving();
                let log = Log::start();
                let answer = get(&api, &format!("/conversations/c/turns{query}")).await;
                assert_eq!(answer.failure(500), "Failed to load conversation metrics", "{reads:?} {query}");
                let log = log.end();
                assert_eq!(log.contains("/var/lib/secret"), !gone, "{log}");
            }
        }
    }

    #[test]
    fn parameters_have_defaults_and_others_are_ignored() {
        let end = RangeEnd::Oldest;
        let default = Asked { after: 0, before: None, end, limit: 100, cost: false, open: false };
        assert_eq!(Asked::from_query("").unwrap(), default);
        assert_eq!(
            Asked::from_query("x=1&x=2&limit=1000&after=7&before=9&cost=true&open=true&order=latest&").unwrap(),
            Asked { after: 7, before: Some(9), end: RangeEnd::Latest, limit: 1000, cost: true, open: true }
        );
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
            ("before=x", "`before`", "0 to 9007199254740991"),
            ("before=1&before=1", "`before`", "once"),
            ("order=oldest", "`order`", "latest"),
            ("cost=1", "`cost`", "true or false"),
            ("open=", "`open`", "true or false"),
        ] {
            let message = Asked::from_query(query).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(range), "{query}: {message}");
        }
    }
}

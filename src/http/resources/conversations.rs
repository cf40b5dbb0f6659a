//! `GET /conversations`

use std::fmt::Write;
use std::ops::RangeInclusive;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::answer::{number, whole, write};
use super::api::{Api, ask_store};
use super::query::Query;
use crate::actors::ListConversations;
use crate::http::error::ApiError;
use crate::report::CostFigures;
use crate::store::{ConversationOrder, ConversationPlace, ConversationQuestion, ListedConversation};
use crate::turn::{ConversationId, EpochMillis, Label, TokenCount, Usage};

const PARAMETERS: &[&str] = &["order", "from", "to", "model", "prefix", "limit", "after"];

pub(crate) const ORDERS: &[(&str, ConversationOrder)] = &[
    ("recent", ConversationOrder::Recent),
    ("tokens", ConversationOrder::Tokens),
    ("cost", ConversationOrder::Cost),
    ("turns", ConversationOrder::Turns),
];

const DEFAULT_LIMIT: u64 = 100;
const LIMITS: RangeInclusive<u64> = 1..=1000;

/// The number of conversations that are written before other requests may run on this thread. Writing this number of
/// large conversations takes about a millisecond.
const CONVERSATIONS_AT_ONCE: usize = 64;

/// Returns a page of the conversations that have a sealed turn.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let question = asked(&api, request.query_string())?;
    // An index finds the latest conversations.
    let _inside = if question.finds_by_index() { None } else { Some(api.reports.enter().await?) };
    let (order, limit) = (question.order, question.limit);
    // Ask for one conversation more than the page holds, to see whether there is another page.
    let list = ListConversations(ConversationQuestion { limit: limit + 1, ..question });
    let listed = ask_store(&api.handles.reads.list_conversations, list).await?;
    let mut json = br#"{"conversations":["#.to_vec();
    let mut written = 0_usize;
    for conversation in listed.iter().take(limit) {
        if written > 0 {
            json.push(b',');
        }
        write(&Entry::of(conversation), &mut json)?;
        written += 1;
        if written.is_multiple_of(CONVERSATIONS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        if json.len() >= api.settings.max_page_bytes {
            break;
        }
    }
    json.push(b']');
    if let Some(last) = written.checked_sub(1).filter(|_| written < listed.len()) {
        json.extend(format!(r#","next":"{}""#, cursor(order, &order.place(&listed[last]))).bytes());
    }
    json.push(b'}');
    whole(&api, json)
}

/// Reads the question from a query.
pub(crate) fn asked(api: &Api, query: &str) -> Result<ConversationQuestion, ApiError> {
    let query = Query::read(query, PARAMETERS)?;
    let order = query.choice("order", ORDERS)?.unwrap_or(ConversationOrder::Recent);
    let limit = query.number("limit", LIMITS)?.unwrap_or(DEFAULT_LIMIT);
    let after = "the `next` of an earlier answer to the same question";
    let after = query.parsed("after", after, |text| place_after(order, text))?;
    let moment = |name| Ok(query.moment(name, &api.zone)?.map(|moment| u64::try_from(moment).unwrap_or(0)));
    let last_at = match (moment("from")?, moment("to")?) {
        (None, None) => None,
        (Some(from), Some(to)) if to < from => {
            let allowed = "a moment that is not before `from`".to_owned();
            return Err(ApiError::BadParameter { name: "to", allowed });
        }
        (from, to) => Some((EpochMillis::new(from.unwrap_or(0)), EpochMillis::new(to.unwrap_or(u64::MAX)))),
    };
    Ok(ConversationQuestion {
        order,
        last_at,
        model: query.text("model").map(Label::from),
        prefix: query.text("prefix").unwrap_or_default().to_owned(),
        after,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

fn name_of(order: ConversationOrder) -> &'static str {
    ORDERS.iter().find(|(_, known)| *known == order).map_or("", |(name, _)| name)
}

/// Returns a place in the list as a text that a client can send back. It contains the order, the rank and the id in
/// hexadecimal digits, which need no escapes. The text means the same after a restart.
pub(crate) fn cursor(order: ConversationOrder, place: &ConversationPlace) -> String {
    let rank = place.rank().map_or("-".to_owned(), |rank| rank.to_string());
    let plain = format!("{} {rank} {}", name_of(order), place.conversation_id());
    plain.bytes().fold(String::with_capacity(2 * plain.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads the place from a cursor. `None` if the text is not a cursor, or is one of a list in another order.
fn place_after(order: ConversationOrder, text: &str) -> Option<ConversationPlace> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let plain: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    let plain = String::from_utf8(plain?).ok()?;
    let mut parts = plain.splitn(3, ' ');
    let (name, rank, id) = (parts.next()?, parts.next()?, parts.next()?);
    let rank = if rank == "-" { None } else { Some(rank.parse().ok()?) };
    (name == name_of(order)).then_some(ConversationPlace::new(rank, ConversationId::new(id).ok()?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    conversation_id: &'a ConversationId,
    turns: u64,
    open_turns: usize,
    usage: Usage,
    cost: CostFigures,
    first_at: EpochMillis,
    last_at: EpochMillis,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_size: Option<TokenCount>,
    #[serde(serialize_with = "number")]
    cache_rate: Option<f64>,
}

impl<'a> Entry<'a> {
    fn of(listed: &'a ListedConversation) -> Self {
        Self {
            conversation_id: &listed.conversation_id,
            turns: listed.sealed_turns,
            open_turns: listed.open_turns,
            usage: listed.total_usage,
            cost: listed.sums.cost.figures(),
            first_at: listed.first_at,
            last_at: listed.last_at,
            model: listed.model.as_ref(),
            project: listed.project.as_ref(),
            context_size: listed.context_size,
            cache_rate: listed.sums.cache_rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::{StandIn, get, post};
    use crate::report::Zone;
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;

    #[test]
    fn a_cursor_names_its_place_and_belongs_to_one_order() {
        let id = ConversationId::new("a b/é \u{1f980}").unwrap();
        for rank in [None, Some(0), Some(-7), Some(i128::MAX)] {
            let place = ConversationPlace::new(rank, id.clone());
            let text = cursor(ConversationOrder::Cost, &place);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
            assert_eq!(place_after(ConversationOrder::Cost, &text), Some(place));
            assert_eq!(place_after(ConversationOrder::Recent, &text), None);
            for bad in [&text[2..], &text[1..], &text[..12], "", "zz", &format!("{text}0a")] {
                assert_eq!(place_after(ConversationOrder::Cost, bad), None, "{bad}");
            }
        }
    }

    /// Starts a store with this many conversations of one turn each. The turn of `c1` is the earliest.
    async fn with_conversations(count: u64, settings: HttpSettings) -> (Runtime, Api) {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = Api::new(runtime.handles().clone(), settings).with_time_zone(Zone::UTC);
        for n in 1..=count {
            let ended_at = 1_780_000_000_000 + n;
            let line = format!(
                r#"{{"type":"done","conversationId":"c{n}","turnId":"t","reason":"stop","endedAt":{ended_at},"usage":{{"inputTokens":{},"outputTokens":1}}}}"#,
                1000 - n
            );
            post(&api, line).await.success();
        }
        (runtime, api)
    }

    /// Returns the ids of the conversations, page by page.
    async fn pages(api: &Api, query: &str) -> Vec<Vec<String>> {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let answer = get(api, &format!("/conversations?{query}{after}")).await;
            let page: serde_json::Value = serde_json::from_str(answer.success()).unwrap();
            let listed = page["conversations"].as_array().unwrap().iter();
            pages.push(listed.map(|listed| listed["conversationId"].as_str().unwrap().to_owned()).collect());
            let Some(next) = page["next"].as_str() else { return pages };
            after = format!("&after={next}");
        }
    }

    #[actix_web::test]
    async fn an_entry_has_every_field_in_the_order_of_the_contract() {
        let (runtime, api) = with_conversations(1, HttpSettings::default()).await;
        let more = r#"{"type":"turn-start","conversationId":"c1","turnId":"t2","model":"m","project":"j"}
{"type":"usage","conversationId":"c1","turnId":"t2","stepId":"s","usage":{"inputTokens":10,"outputTokens":5,"cacheReadTokens":5}}
{"type":"done","conversationId":"c1","turnId":"t2","reason":"stop","endedAt":1780000000009}
{"type":"turn-start","conversationId":"c1","turnId":"t3","model":"m"}
{"type":"turn-start","conversationId":"only-open","turnId":"t","model":"m"}"#;
        post(&api, more).await.success();
        assert_eq!(
            get(&api, "/conversations").await.success(),
            r#"{"conversations":[{"conversationId":"c1","turns":2,"openTurns":1,"usage":{"inputTokens":1009,"outputTokens":6,"cacheReadTokens":5},"cost":{"usd":null,"unpricedTokens":1015,"unpricedModels":["m"]},"firstAt":1780000000001,"lastAt":1780000000009,"model":"m","project":"j","contextSize":15,"cacheRate":0.5}]}"#
        );
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn pages_follow_each_other_and_are_bounded_in_number_and_bytes() {
        let (runtime, api) = with_conversations(5, HttpSettings::default()).await;
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(pages(&api, "limit=2").await, [ids(&["c5", "c4"]), ids(&["c3", "c2"]), ids(&["c1"])]);
        assert_eq!(pages(&api, "limit=5").await, [ids(&["c5", "c4", "c3", "c2", "c1"])], "no page without an entry");
        assert_eq!(pages(&api, "order=tokens&limit=3").await, [ids(&["c1", "c2", "c3"]), ids(&["c4", "c5"])]);
        // All conversations have an equal rank in these orders.
        for order in ["turns", "cost"] {
            let query = format!("order={order}&limit=4");
            assert_eq!(pages(&api, &query).await, [ids(&["c1", "c2", "c3", "c4"]), ids(&["c5"])], "{order}");
        }
        assert_eq!(pages(&api, "from=1780000000002&to=1780000000004").await, [ids(&["c3", "c2"])]);
        assert_eq!(pages(&api, "prefix=c4").await, [ids(&["c4"])]);
        assert_eq!(pages(&api, "model=m").await, [ids(&[])]);
        let small = Api { settings: HttpSettings { max_page_bytes: 1, ..HttpSettings::default() }, ..api };
        assert_eq!(pages(&small, "").await.len(), 5, "a page ends with the entry that fills it");
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn a_bad_parameter_is_named_with_what_is_allowed() {
        let api = StandIn::default().serving();
        let of_recent =
            cursor(ConversationOrder::Recent, &ConversationPlace::new(None, ConversationId::new("c").unwrap()));
        for (query, named) in [
            ("order=size", "`order` must be one of recent, tokens, cost, turns"),
            ("limit=0", "`limit` must be a whole number from 1 to 1000"),
            ("limit=1001", "`limit` must be"),
            ("from=x", "`from` must be a date such as"),
            ("from=2026-05-02&to=2026-05-01", "`to` must be a moment that is not before `from`"),
            ("after=x", "`after` must be the `next` of an earlier answer to the same question"),
            (&format!("order=cost&after={of_recent}"), "`after` must be"),
            ("page=2", "`page` is no query parameter here"),
        ] {
            let message = get(&api, &format!("/conversations?{query}")).await.failure(400);
            assert!(message.contains(named), "{query}: {message}");
        }
        let api = StandIn { reads: Some(0), ..StandIn::default() }.serving();
        assert_eq!(get(&api, "/conversations").await.failure(500), "the store could not be read; the log says why");
    }
}

//! `GET /conversations/{id}/summary`

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;

use super::answer::{number, whole, write};
use super::api::{Api, ask_reader};
use super::path_id::PathId;
use super::query::Query;
use super::turn_list::{TURNS_READ_AT_ONCE, write_with_cost};
use super::turns::open_turns;
use crate::actors::ListTurns;
use crate::http::error::ApiError;
use crate::report::{
    Breakdown, BreakdownRow, Contribution, CostFigures, Figures, Grouping, Period, PriceBook, Quarter, Selection,
    UsageSums, report_time, retention,
};
use crate::store::TurnRange;
use crate::turn::{ConversationId, EpochMillis, Label, StoredTurn, TokenCount};

/// The maximum number of models in a summary. Each has a row, and clients choose the names of models.
const MAX_MODELS: usize = 1000;

/// The maximum number of bytes of the rows of a summary, if each row is full.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The number of steps beyond which the sums of a turn are made on another thread. A thousand steps take some milliseconds.
pub(crate) const LONG_STEPS: usize = 256;

/// Returns the figures of all turns of a conversation that are stored. Turns that were dropped because of their age are not
/// among them.
///
/// The handler reads all turns that are sealed at the moment of the request, in pieces.
pub(crate) async fn get(api: Data<Api>, PathId(id): PathId, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Query::read(request.query_string(), &[])?;
    let _inside = api.summaries.enter().await?;
    let open = open_turns(&api, &id).await.map_err(|_| ApiError::ReadFailed)?;
    let mut life = Life::new();
    life.read(&api, &id, open.sealed_turns).await?;
    let (prices, open_turns) = (Arc::clone(&api.prices), open.turns.len());
    let is_long = life.latest.as_ref().is_some_and(|latest| latest.metrics.steps.len() > LONG_STEPS);
    let write = move || life.write(&*prices, &id, open_turns);
    let json = if is_long { api.long_work.run(write).await } else { write() };
    whole(&api, json?)
}

/// Returns whether the steps of a turn name more models than a summary may have, besides the model of the turn itself.
fn has_too_many_models(turn: &StoredTurn) -> bool {
    let models = turn.step_details.iter().filter_map(|details| details.model.as_ref());
    turn.step_details.len() > MAX_MODELS && models.collect::<HashSet<_>>().len() > MAX_MODELS
}

/// The sums over the turns of a conversation that were read so far.
pub(crate) struct Life {
    pub(crate) turns: u64,
    pub(crate) by_model: Breakdown,
    pub(crate) by_reason: BTreeMap<&'static str, i128>,
    pub(crate) first_at: Option<EpochMillis>,
    previous: Option<StoredTurn>,
    pub(crate) latest: Option<StoredTurn>,
}

impl Life {
    pub(crate) fn new() -> Self {
        let by_model = Breakdown::new(Grouping { model: true, ..Grouping::default() }, Selection::default());
        let by_reason = BTreeMap::new();
        Self { turns: 0, by_model, by_reason, first_at: None, previous: None, latest: None }
    }

    /// Reads the turns up to the ordinal `last`. The caller needs a place in the turnstile of summaries.
    pub(crate) async fn read(&mut self, api: &Api, id: &ConversationId, last: u64) -> Result<(), ApiError> {
        let end = last.checked_add(1);
        loop {
            let after = self.latest.as_ref().map_or(0, |latest| latest.ordinal.get());
            let range = TurnRange { before: end, ..TurnRange::after(id.clone(), after, TURNS_READ_AT_ONCE) };
            let turns = ask_reader(&api.handles.reads.list_turns, ListTurns(range)).await;
            let turns = turns.map_err(|_| ApiError::ReadFailed)?;
            if turns.is_empty() {
                return Ok(());
            }
            for turn in turns {
                let (prices, is_long) = (Arc::clone(&api.prices), turn.metrics.steps.len() > LONG_STEPS);
                let split = move || (Self::split(&turn, &*prices), turn);
                let (contribution, turn) = if is_long { api.long_work.run(split).await } else { split() };
                self.add(turn, contribution?);
                if self.by_model.rows().len() > MAX_MODELS || self.by_model.bytes() > MAX_BYTES {
                    return Err(ApiError::TooManyModels { max_models: MAX_MODELS });
                }
            }
        }
    }

    /// Splits a turn by the models of its steps. That takes time for each model, so a turn with too many is refused before.
    fn split(turn: &StoredTurn, prices: &dyn PriceBook) -> Result<Contribution, ApiError> {
        if has_too_many_models(turn) {
            return Err(ApiError::TooManyModels { max_models: MAX_MODELS });
        }
        Ok(Contribution::of_turn(turn, prices))
    }

    fn add(&mut self, turn: StoredTurn, contribution: Contribution) {
        // All turns of a life belong to one period.
        let Ok(whole) = Period::new(Quarter::FIRST, Quarter::LAST) else { return };
        for (label, part) in contribution.parts {
            if let Some(reason) = label.reason {
                *self.by_reason.entry(reason.as_str()).or_default() += part.rollup.turns();
            }
            self.by_model.add(whole, &label, &part.rollup);
            self.by_model.add_cost(whole, &label, &part.cost);
        }
        self.turns += 1;
        self.first_at.get_or_insert(report_time(&turn));
        self.previous = self.latest.replace(turn);
    }

    /// Returns the sums over all models.
    pub(crate) fn total(&self) -> BreakdownRow {
        let mut total = BreakdownRow::default();
        self.by_model.rows().for_each(|(_, _, row)| total.add(row));
        total
    }

    /// Returns how much of the cache survived between the last two turns.
    pub(crate) fn retention(&self) -> Option<f64> {
        let (previous, latest) = self.previous.as_ref().zip(self.latest.as_ref())?;
        retention(&previous.metrics.usage, &latest.metrics.usage)
    }

    fn write(&self, prices: &dyn PriceBook, id: &ConversationId, open_turns: usize) -> Result<Vec<u8>, ApiError> {
        let Some((latest, first_at)) = self.latest.as_ref().zip(self.first_at) else {
            return Err(ApiError::UnknownConversation);
        };
        let total = self.total();
        let figures = Figures::of(&total.rollup);
        let mut turn = Vec::new();
        write_with_cost(latest, prices, &mut turn).map_err(|error| unwritable(&error))?;
        let turn = String::from_utf8(turn).map_err(|error| unwritable(&error))?;
        let summary = Summary {
            conversation_id: id,
            turns: self.turns,
            steps: figures.steps,
            open_turns,
            usage: figures.usage,
            cache_rate: figures.cache_rate,
            retention: self.retention(),
            context_size: latest.metrics.context_size,
            duration_ms: figures.duration_ms,
            generation_ms: figures.generation_ms,
            output_tokens_per_second: figures.output_tokens_per_second,
            cost: total.cost.figures(),
            by_model: self.by_model.rows().map(|(_, label, row)| OfModel::of(label.model.as_ref(), row)).collect(),
            by_reason: &self.by_reason,
            first_at,
            last_at: report_time(latest),
            latest_turn: RawValue::from_string(turn).map_err(|error| unwritable(&error))?,
        };
        let mut json = Vec::new();
        write(&summary, &mut json)?;
        Ok(json)
    }
}

fn unwritable(cause: &dyn std::error::Error) -> ApiError {
    error!(%cause, "an answer could not be written as JSON");
    ApiError::ReadFailed
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    conversation_id: &'a ConversationId,
    turns: u64,
    steps: i128,
    open_turns: usize,
    usage: UsageSums,
    #[serde(serialize_with = "number")]
    cache_rate: Option<f64>,
    #[serde(serialize_with = "number")]
    retention: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_size: Option<TokenCount>,
    #[serde(serialize_with = "number")]
    duration_ms: Option<f64>,
    #[serde(serialize_with = "number")]
    generation_ms: Option<f64>,
    #[serde(serialize_with = "number")]
    output_tokens_per_second: Option<f64>,
    cost: CostFigures,
    by_model: Vec<OfModel<'a>>,
    by_reason: &'a BTreeMap<&'static str, i128>,
    first_at: EpochMillis,
    last_at: EpochMillis,
    latest_turn: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfModel<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Label>,
    turns: i128,
    steps: i128,
    usage: UsageSums,
    #[serde(serialize_with = "number")]
    cache_rate: Option<f64>,
    #[serde(serialize_with = "number")]
    generation_ms: Option<f64>,
    #[serde(serialize_with = "number")]
    output_tokens_per_second: Option<f64>,
    cost: CostFigures,
}

impl<'a> OfModel<'a> {
    fn of(model: Option<&'a Label>, row: &BreakdownRow) -> Self {
        let figures = Figures::of(&row.rollup);
        Self {
            model,
            turns: figures.turns,
            steps: figures.steps,
            usage: figures.usage,
            cache_rate: figures.cache_rate,
            generation_ms: figures.generation_ms,
            output_tokens_per_second: figures.output_tokens_per_second,
            cost: row.cost.figures(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stand_in::{StandIn, get, post, sealed_turns};
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;
    use crate::turn::{Done, OpenTurn, Ordinal, Progress, StepId, StepMetrics, StepTimes, TurnId, Usage};

    #[actix_web::test]
    async fn a_summary_has_every_field_in_the_order_of_the_contract() {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = Api::new(runtime.handles().clone(), HttpSettings::default());
        let lines = r#"{"type":"turn-start","conversationId":"c","turnId":"t1","model":"m"}
{"type":"usage","conversationId":"c","turnId":"t1","stepId":"s","usage":{"inputTokens":100,"outputTokens":10,"cacheReadTokens":0,"cacheWriteTokens":80}}
{"type":"step-complete","conversationId":"c","turnId":"t1","stepId":"s","decodeMs":200,"genTotalMs":300}
{"type":"done","conversationId":"c","turnId":"t1","reason":"aborted","durationMs":400,"endedAt":1780000000005}
{"type":"turn-start","conversationId":"c","turnId":"t2","model":"n"}
{"type":"usage","conversationId":"c","turnId":"t2","stepId":"s","usage":{"inputTokens":100,"outputTokens":30,"cacheReadTokens":60}}
{"type":"done","conversationId":"c","turnId":"t2","reason":"stop","durationMs":100,"endedAt":1780000000001}
{"type":"turn-start","conversationId":"c","turnId":"t3","model":"m"}
{"type":"done","conversationId":"c2","turnId":"t","reason":"stop","endedAt":1780000000001}"#;
        post(&api, lines).await.success();
        let answer = get(&api, "/conversations/c/summary").await;
        let body = answer.success().to_owned();
        let (head, latest) = body.split_once(r#","latestTurn":"#).unwrap();
        assert_eq!(
            head,
            r#"{"conversationId":"c","turns":2,"steps":2,"openTurns":1,"usage":{"inputTokens":200,"outputTokens":40,"cacheReadTokens":60,"cacheWriteTokens":80},"cacheRate":0.3,"retention":0.75,"contextSize":130,"durationMs":500,"generationMs":300,"outputTokensPerSecond":50,"cost":{"usd":null,"unpricedTokens":240,"unpricedModels":["m","n"]},"byModel":[{"model":"m","turns":1,"steps":1,"usage":{"inputTokens":100,"outputTokens":10,"cacheReadTokens":0,"cacheWriteTokens":80},"cacheRate":0,"generationMs":300,"outputTokensPerSecond":50,"cost":{"usd":null,"unpricedTokens":110,"unpricedModels":["m"]}},{"model":"n","turns":1,"steps":1,"usage":{"inputTokens":100,"outputTokens":30,"cacheReadTokens":60},"cacheRate":0.6,"generationMs":null,"outputTokensPerSecond":null,"cost":{"usd":null,"unpricedTokens":130,"unpricedModels":["n"]}}],"byReason":{"aborted":1,"stop":1},"firstAt":1780000000005,"lastAt":1780000000001"#
        );
        let turns = get(&api, "/conversations/c/turns?after=1&cost=true").await;
        let expected = turns.success().strip_prefix(r#"{"turns":["#).unwrap().strip_suffix(r#"],"latestOrdinal":2}"#);
        assert_eq!(latest.strip_suffix('}'), expected);
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn other_requests_are_served_while_the_sums_of_a_long_turn_are_made() {
        let mut turns = sealed_turns(1);
        let step = |nth: usize| StepMetrics {
            step_id: StepId::new(format!("s{nth}")).unwrap(),
            usage: Usage::default(),
            times: StepTimes::default(),
        };
        turns[0].metrics.steps = (0..=LONG_STEPS).map(step).collect();
        let api = StandIn { turns, ..StandIn::default() }.serving();
        for path in ["/conversations/c/summary", "/ui/conversations/c/turns"] {
            let hold = api.long_work.occupy();
            let mut asking = std::pin::pin!(get(&api, path));
            for _ in 0..100 {
                assert!(futures_util::poll!(&mut asking).is_pending(), "{path}");
                tokio::task::yield_now().await;
            }
            get(&api, "/health").await.success();
            drop(hold);
            asking.await.success();
        }
    }

    #[test]
    fn a_turn_with_too_many_models_is_found_before_it_is_split() {
        let turn = |steps: usize, models: usize| {
            let mut turn = OpenTurn::new(TurnId::new("t").unwrap());
            for step in 0..steps {
                let (step_id, model) = (StepId::new(format!("s{step}")).unwrap(), format!("m{}", step % models));
                let (times, model) = (StepTimes::default(), Some(Label::from(model.as_str())));
                turn.fold(&Progress::StepComplete { step_id, times, model, provider: None });
            }
            turn.seal(&Done::because("stop"), EpochMillis::new(1)).at(Ordinal::after(0))
        };
        // One of the models is that of the turn itself.
        let (most, more) = (MAX_MODELS, MAX_MODELS + 2);
        let cases = [(most, most), (more, most), (more, more)];
        assert_eq!(cases.map(|(steps, models)| has_too_many_models(&turn(steps, models))), [false, false, true]);
    }

    #[actix_web::test]
    async fn an_unknown_conversation_or_parameter_is_told() {
        let api = StandIn::default().serving();
        assert_eq!(get(&api, "/conversations/c/summary").await.failure(404), "no turn of this conversation is sealed");
        let message = get(&api, "/conversations/c/summary?from=1").await.failure(400);
        assert!(message.starts_with("`from` is no query parameter here"), "{message}");
        // Five turns are sealed between the two questions.
        let api = StandIn { turns: sealed_turns(70), revision: Some(65), ..StandIn::default() }.serving();
        let answer = get(&api, "/conversations/c/summary").await;
        assert!(answer.success().starts_with(r#"{"conversationId":"c","turns":65,"#), "{:?}", answer.body);
        let api = StandIn { turns: sealed_turns(3), reads: Some(1), ..StandIn::default() }.serving();
        assert_eq!(
            get(&api, "/conversations/c/summary").await.failure(500),
            "the store could not be read; the log says why"
        );
    }
}

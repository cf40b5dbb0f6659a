//! `GET /stats`

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tracing::error;

use super::answer::{number, whole, write};
use super::api::Api;
use super::query::Query;
use crate::actors::BuildReport;
use crate::http::error::ApiError;
use crate::report::{
    BreakdownRow, CostFigures, Figures, Grouping, Percentiles, Period, PeriodUnit, PicoDollars, PriceEdition,
    ReasonClass, RollupLabel, Selection, UsageSums, Zone, dollars_as_text,
};
use crate::store::{Report, ReportError, ReportQuestion};
use crate::turn::Label;

const PARAMETERS: &[&str] = &["from", "to", "bucket", "tz", "by", "model", "provider", "project"];

const BUCKETS: &[(&str, PeriodUnit)] = &[
    ("15m", PeriodUnit::Quarter),
    ("hour", PeriodUnit::Hour),
    ("day", PeriodUnit::Day),
    ("week", PeriodUnit::Week),
    ("month", PeriodUnit::Month),
    ("all", PeriodUnit::All),
];

/// The length of the reported time, if the request does not name its beginning.
const DEFAULT_MILLIS: i64 = 30 * 24 * 60 * 60 * 1000;

/// The maximum number of periods in a report. A leap year has 35,136 quarters of an hour.
const MAX_PERIODS: usize = 40_000;

/// The number of rows that are used before other requests may run on this thread. Writing this number of large rows
/// takes about a millisecond.
pub(crate) const ROWS_AT_ONCE: usize = 64;

/// The number of periods that are computed before other requests may run on this thread. This number takes less than a
/// millisecond.
const PERIODS_AT_ONCE: usize = 1024;

/// Returns sums over the turns of each period.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let asked = Asked::read(&api, request.query_string())?;
    let _inside = api.reports.enter().await?;
    let Answered { asked, report, .. } = asked.answer(&api).await?;
    let Asked { zone, bucket: (bucket, _), whole: period, .. } = asked;
    let prices = edition(&api, &report);
    let head = Head {
        from: period.start().start_millis(),
        to: period.end().start_millis(),
        time_zone: zone.name(),
        bucket,
        prices,
    };
    let mut json = Vec::new();
    write(&head, &mut json)?;
    // Remove the last brace, as the rows follow as the last field.
    json.pop();
    json.extend(br#","rows":["#);
    for (place, (period, label, row)) in report.breakdown.rows().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        write(&Row::of(period, label, row), &mut json)?;
        pause_after_row(place).await;
    }
    json.extend(b"]}");
    whole(&api, json)
}

/// Lets other requests run on this thread after each [`ROWS_AT_ONCE`] rows. `place` is that of the row that was used.
pub(crate) async fn pause_after_row(place: usize) {
    if place % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
        tokio::task::yield_now().await;
    }
}

/// The prices that the costs of a report were computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UsedPrices {
    /// There are no published prices. An operator's own may still be used.
    NoEdition,
    /// Earlier prices, until the store has computed all costs anew.
    Earlier,
    Of(PriceEdition),
}

impl UsedPrices {
    pub(crate) fn of(api: &Api, report: &Report) -> Self {
        match api.prices.edition() {
            _ if report.is_repricing => Self::Earlier,
            Some(edition) => Self::Of(edition),
            None => Self::NoEdition,
        }
    }
}

/// Returns the edition of the prices that the costs of a report were computed with.
fn edition(api: &Api, report: &Report) -> Option<PriceEdition> {
    // While the store computes costs anew, the shown costs are of earlier prices, which have no name any more.
    api.prices.edition().filter(|_| !report.is_repricing)
}

/// A report, and the question that it answers.
pub(crate) struct Answered {
    pub(crate) asked: Asked,
    /// The periods of the report, with those that have no row.
    pub(crate) periods: Vec<Period>,
    pub(crate) report: Report,
}

/// The question that the query asks.
pub(crate) struct Asked {
    pub(crate) zone: Zone,
    /// The name of the bucket, as the query has it, and its unit.
    bucket: (&'static str, PeriodUnit),
    pub(crate) whole: Period,
    grouping: Grouping,
    selection: Selection,
}

impl Asked {
    /// Reads the question from a query.
    pub(crate) fn read(api: &Api, query: &str) -> Result<Self, ApiError> {
        Self::from_query(api, &Query::read(query, PARAMETERS)?)
    }

    fn from_query(api: &Api, query: &Query) -> Result<Self, ApiError> {
        let zone = query.zone(api)?;
        let buckets: Vec<_> = BUCKETS.iter().map(|(name, unit)| (*name, (*name, *unit))).collect();
        let bucket = query.choice("bucket", &buckets)?.unwrap_or(("day", PeriodUnit::Day));
        let grouping = query.parsed("by", "some of model, provider, project, reason, with commas between", grouping)?;
        let label = |name| query.text(name).map(Label::from);
        let selection = Selection { model: label("model"), provider: label("provider"), project: label("project") };
        let (from, to) = (query.moment("from", &zone)?, query.moment("to", &zone)?);
        let is_until_now = to.is_none();
        let to = to.unwrap_or_else(|| api.clock.now().get().try_into().unwrap_or(i64::MAX));
        let from = from.unwrap_or(to.saturating_sub(DEFAULT_MILLIS));
        let whole = Period::around(from, to).map_err(|_| {
            let years = "and both must be in the years 0100 to 9998";
            if is_until_now {
                let allowed = format!("a moment that is not after `to`, which is now, {years}");
                return ApiError::BadParameter { name: "from", allowed };
            }
            ApiError::BadParameter { name: "to", allowed: format!("a moment that is not before `from`, {years}") }
        })?;
        Ok(Self { zone, bucket, whole, grouping: grouping.unwrap_or_default(), selection })
    }

    /// Asks the store. The caller needs a place in the turnstile of reports.
    pub(crate) async fn answer(self, api: &Api) -> Result<Answered, ApiError> {
        let question = self.question().await?;
        let periods = question.periods.clone();
        match api.handles.reads.build_report.send(BuildReport(question)).await {
            Ok(Ok(report)) => Ok(Answered { asked: self, periods, report }),
            Ok(Err(ReportError::TooManyRows)) => Err(ApiError::TooManyRows { max_periods: MAX_PERIODS }),
            Ok(Err(ReportError::Read(fault))) => {
                error!(cause = fault.in_full(), "a report could not be read");
                Err(ApiError::ReadFailed)
            }
            Err(cause) => {
                error!(%cause, "the store did not answer");
                Err(ApiError::ReadFailed)
            }
        }
    }

    /// Returns the question to the store. This computes all periods, which takes milliseconds for very many. Other
    /// requests may run on this thread meanwhile.
    async fn question(&self) -> Result<ReportQuestion, ApiError> {
        let mut periods = Vec::new();
        for period in self.zone.periods(self.bucket.1, self.whole) {
            if periods.len() == MAX_PERIODS {
                return Err(ApiError::TooManyRows { max_periods: MAX_PERIODS });
            }
            periods.push(period);
            if periods.len().is_multiple_of(PERIODS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        Ok(ReportQuestion { periods, grouping: self.grouping, selection: self.selection.clone() })
    }
}

fn grouping(names: &str) -> Option<Grouping> {
    let mut grouping = Grouping::default();
    for name in names.split(',') {
        let property = match name {
            "model" => &mut grouping.model,
            "provider" => &mut grouping.provider,
            "project" => &mut grouping.project,
            "reason" => &mut grouping.reason,
            _ => return None,
        };
        *property = true;
    }
    Some(grouping)
}

/// The fields of the answer before the rows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    from: i64,
    to: i64,
    time_zone: &'a str,
    bucket: &'a str,
    prices: Option<PriceEdition>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    start: i64,
    end: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    turns: i128,
    steps: i128,
    usage: UsageSums,
    #[serde(serialize_with = "number")]
    cache_rate: Option<f64>,
    #[serde(serialize_with = "number")]
    cache_coverage: Option<f64>,
    cost: CostFigures,
    #[serde(serialize_with = "dollars_as_text")]
    cache_saved_usd: Option<PicoDollars>,
    ttft_ms: Option<Percentiles>,
    output_tokens_per_second: Option<Percentiles>,
    duration_ms: Option<Percentiles>,
}

impl<'a> Row<'a> {
    fn of(period: Period, label: &'a RollupLabel, row: &BreakdownRow) -> Self {
        let figures = Figures::of(&row.rollup);
        Self {
            start: period.start().start_millis(),
            end: period.end().start_millis(),
            model: label.model.as_ref(),
            provider: label.provider.as_ref(),
            project: label.project.as_ref(),
            reason: label.reason.map(ReasonClass::as_str),
            turns: figures.turns,
            steps: figures.steps,
            usage: figures.usage,
            cache_rate: figures.cache_rate,
            cache_coverage: figures.cache_coverage,
            cost: row.cost.figures(),
            cache_saved_usd: row.cache_saved(),
            ttft_ms: figures.ttft_ms,
            output_tokens_per_second: figures.step_output_tokens_per_second,
            duration_ms: figures.turn_duration_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::stand_in::{StandIn, counting_pauses, get, post};
    use crate::report::{PriceBook, PricedStep};
    use crate::runtime::Runtime;
    use crate::settings::HttpSettings;
    use crate::testing::TestClock;

    /// 2026-05-28T20:26:40Z.
    const NOW: u64 = 1_780_000_000_000;

    fn at(api: Api, now: u64) -> Api {
        api.with_clock(Arc::new(TestClock::at(now))).with_time_zone(Zone::UTC)
    }

    fn rows(body: &str) -> Vec<serde_json::Value> {
        serde_json::from_str::<serde_json::Value>(body).unwrap()["rows"].as_array().unwrap().clone()
    }

    #[actix_web::test]
    async fn an_answer_has_every_field_in_the_order_of_the_contract() {
        let runtime = Runtime::builder().start().await.unwrap();
        let api = at(Api::new(runtime.handles().clone(), HttpSettings::default()), NOW);
        let lines = format!(
            r#"{{"type":"turn-start","conversationId":"c","turnId":"t","model":"m","provider":"p","project":"j"}}
{{"type":"usage","conversationId":"c","turnId":"t","stepId":"s","usage":{{"inputTokens":1000,"outputTokens":50,"cacheReadTokens":250}}}}
{{"type":"step-complete","conversationId":"c","turnId":"t","stepId":"s","ttftMs":100,"decodeMs":500,"genTotalMs":600}}
{{"type":"done","conversationId":"c","turnId":"t","reason":"stop","durationMs":700,"endedAt":{NOW}}}"#
        );
        post(&api, lines).await.success();
        let answer =
            get(&api, "/stats?bucket=hour&by=model,provider,project,reason&to=2026-05-29&tz=Europe/Berlin").await;
        // The period begins 30 days earlier, at 22:00 UTC on April 28.
        assert_eq!(
            answer.success(),
            r#"{"from":1777413600000,"to":1780005600000,"timeZone":"Europe/Berlin","bucket":"hour","prices":null,"rows":[{"start":1779998400000,"end":1780002000000,"model":"m","provider":"p","project":"j","reason":"stop","turns":1,"steps":1,"usage":{"inputTokens":1000,"outputTokens":50,"cacheReadTokens":250},"cacheRate":0.25,"cacheCoverage":1,"cost":{"usd":null,"unpricedTokens":1050,"unpricedModels":["m"]},"cacheSavedUsd":null,"ttftMs":{"count":1,"min":100,"p50":100,"p90":100,"p99":100,"max":100},"outputTokensPerSecond":{"count":1,"min":100,"p50":100,"p90":100,"p99":100,"max":100},"durationMs":{"count":1,"min":700,"p50":700,"p90":700,"p99":700,"max":700}}]}"#
        );
        // The period ends now, and the quarter of an hour of this moment counts.
        let answer = get(&api, "/stats").await;
        let body: serde_json::Value = serde_json::from_str(answer.success()).unwrap();
        assert_eq!((&body["to"], &body["from"]), (&1_780_000_200_000_u64.into(), &1_777_407_300_000_u64.into()));
        assert_eq!((&body["bucket"], &body["timeZone"]), (&"day".into(), &"UTC".into()));
        assert_eq!(rows(answer.success()).len(), 1);
        assert!(rows(answer.success())[0].get("model").is_none(), "it is not grouped by model");
        for (query, count) in [("model=m", 1), ("model=x", 0), ("provider=p&project=j", 1), ("project=x", 0)] {
            assert_eq!(rows(get(&api, &format!("/stats?{query}")).await.success()).len(), count, "{query}");
        }
        runtime.shutdown().await;
    }

    #[actix_web::test]
    async fn a_bad_parameter_is_named_with_what_is_allowed() {
        let api = at(StandIn::default().serving(), NOW);
        for (query, named) in [
            ("bucket=year", "`bucket` must be one of 15m, hour, day, week, month, all"),
            ("by=modle", "`by` must be some of model, provider, project, reason"),
            ("by=", "`by` must be some of"),
            ("tz=Mars/Olympus", "`tz` must be the name of a time zone"),
            ("from=soon", "`from` must be a date such as"),
            ("to=2026-02-30", "`to` must be a date such as"),
            ("from=2026-05-02&to=2026-05-01", "`to` must be a moment that is not before `from`"),
            ("from=9000-01-01", "`from` must be a moment that is not after `to`, which is now"),
            ("form=1", "`form` is no query parameter here: there are from, to, bucket, tz, by, model"),
            ("from=1&from=2", "`from` may stand once"),
        ] {
            let message = get(&api, &format!("/stats?{query}")).await.failure(400);
            assert!(message.contains(named), "{query}: {message}");
        }
    }

    #[derive(Debug)]
    struct Named;

    impl PriceBook for Named {
        fn price(&self, _: &PricedStep<'_>) -> Option<PicoDollars> {
            None
        }

        fn digest(&self) -> u64 {
            1
        }

        fn edition(&self) -> Option<PriceEdition> {
            Some(PriceEdition { table: "of a test".to_owned(), date: "2026-01-02".to_owned() })
        }
    }

    #[actix_web::test]
    async fn prices_are_named_unless_the_costs_are_by_others() {
        for (is_repricing, named) in [(false, r#"{"table":"of a test","date":"2026-01-02"}"#), (true, "null")] {
            let api = at(StandIn { is_repricing, ..StandIn::default() }.serving(), NOW).with_prices(Arc::new(Named));
            let answer = get(&api, "/stats").await;
            let expected = format!(r#""bucket":"day","prices":{named},"rows":[]}}"#);
            assert!(answer.success().ends_with(&expected), "{:?}", answer.body);
        }
    }

    #[actix_web::test]
    async fn other_requests_may_run_while_very_many_periods_are_computed() {
        let api = StandIn::default().serving();
        let query = Query::read("bucket=15m&from=2025-01-01&to=2026-01-31", PARAMETERS).unwrap();
        let asked = Asked::from_query(&api, &query).unwrap();
        let (question, pauses) = counting_pauses(asked.question()).await;
        let periods = question.unwrap().periods.len();
        assert_eq!(pauses, periods / PERIODS_AT_ONCE);
        assert!(pauses > 30, "{periods} periods");
    }

    #[actix_web::test]
    async fn too_long_an_answer_is_refused() {
        let api = at(StandIn::default().serving(), NOW);
        let many = get(&api, "/stats?bucket=15m&from=2024-01-01&to=2026-01-01").await.failure(400);
        assert!(many.ends_with("ask for a larger bucket or a shorter time"), "{many}");
        get(&api, "/stats?bucket=15m&from=2024-01-01&to=2025-01-01").await.success();
        let api = at(StandIn { too_many_rows: true, ..StandIn::default() }.serving(), NOW);
        let many = get(&api, "/stats").await.failure(400);
        assert!(many.contains("10000 rows"), "{many}");
    }

    #[actix_web::test]
    async fn a_store_that_fails_is_told() {
        for (reads, gone) in [(Some(0), false), (None, true)] {
            let api = at(StandIn { reads, gone, ..StandIn::default() }.serving(), NOW);
            let message = get(&api, "/stats").await.failure(500);
            assert_eq!(message, "the store could not be read; the log says why");
        }
    }
}

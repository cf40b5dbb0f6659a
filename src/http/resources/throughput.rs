//! `GET /metrics/throughput`

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use tracing::error;

use super::answer::{whole, write};
use super::api::Api;
use super::held_bytes::HeldBytes;
use crate::actors::{BuildReport, ListSealed};
use crate::http::error::{ApiError, Unavailable};
use crate::report::{Grouping, Period, Quarter, Selection, Throughput, ThroughputQuery, report_time};
use crate::store::{Position, ReportQuestion, SealedPage};

/// The memory for one turn of the period: its sample, spare room in a list that doubles, and a copy for sorting.
const TURN_BYTES: usize = 48;

/// The number of turns that memory is taken for at once: 3 MiB.
const TURNS_HELD: usize = 64 * 1024;

/// The maximum number of models. Clients choose the names of models, and sorting very many names would delay other
/// requests.
const MAX_MODELS: usize = 1000;

/// Returns Dispatch's report on throughput.
///
/// Dispatch adds floats in the order of the turns' report times. Stored sums would differ from that in their last
/// digits, so the turns themselves are read. They are read in the order in which they became durable, up to the last
/// one of the period.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = asked(&api, request.query_string())?;
    let _inside = api.reports.enter().await?;
    let json = report(&api, query).await?;
    whole(&api, json)
}

/// If a parameter occurs several times, the first value counts. Unknown parameters are ignored.
fn asked(api: &Api, query: &str) -> Result<ThroughputQuery, ApiError> {
    let web::Query(parameters) = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| ApiError::BadRequest("the query is not valid"))?;
    let first = |name| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    ThroughputQuery::parse(first("period"), first("date"), &api.zone).map_err(ApiError::BadThroughputQuery)
}

async fn report(api: &Api, query: ThroughputQuery) -> Result<Vec<u8>, ApiError> {
    let period = Period::around(query.period().start, query.period().end).map_err(|error| {
        error!(%error, "a report on throughput has no period");
        ApiError::ThroughputFailed
    })?;
    let missing = count_turns(api, period).await?;
    let mut left = usize::try_from(missing).unwrap_or(usize::MAX);
    // A single hold of memory never exceeds the budget, whatever its size; see `ReadBudget`. So check only if there are
    // several.
    let holds = left.div_ceil(TURNS_HELD);
    if holds > 1 && !api.reads.is_enough_for(holds.saturating_mul(TURNS_HELD * TURN_BYTES)) {
        let allowed = format!("a shorter one: of this, {missing} turns take more memory than `http.max_read_bytes`");
        return Err(ApiError::BadParameter { name: "period", allowed });
    }
    let mut throughput = Throughput::new(query);
    let (mut after, mut added, mut held) = (None, 0, Vec::<HeldBytes>::new());
    while left > 0 {
        let page = next_page(api, after).await?;
        for sealed in &page.turns {
            if !period.contains(Quarter::of(report_time(&sealed.turn))) {
                continue;
            }
            if added % TURNS_HELD == 0 {
                let more = api.reads.try_hold(TURNS_HELD * TURN_BYTES);
                held.push(more.ok_or(ApiError::Unavailable(Unavailable::TooMuchUnread))?);
            }
            added += 1;
            left -= 1;
            throughput.add(&sealed.turn);
        }
        if throughput.models() > MAX_MODELS {
            let allowed = format!("a shorter one: the turns of this name more than {MAX_MODELS} models");
            return Err(ApiError::BadParameter { name: "period", allowed });
        }
        if page.next == page.latest {
            break;
        }
        after = Some(page.next);
    }
    let mut json = Vec::new();
    write(&throughput.report(), &mut json).map_err(|_| ApiError::ThroughputFailed)?;
    Ok(json)
}

/// Returns the number of turns in the quarters of a period. After so many turns, the search for turns ends.
async fn count_turns(api: &Api, period: Period) -> Result<i128, ApiError> {
    let (grouping, selection) = (Grouping::default(), Selection::default());
    let question = ReportQuestion { periods: vec![period], grouping, selection };
    match api.handles.reads.build_report.send(BuildReport(question)).await {
        Ok(Ok(report)) => Ok(report.breakdown.rows().map(|(_, _, row)| row.rollup.turns()).sum()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

async fn next_page(api: &Api, after: Option<Position>) -> Result<SealedPage, ApiError> {
    let list = ListSealed { after, limit: SealedPage::MAX_POSITIONS };
    match api.handles.reads.list_sealed.send(list).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

fn failed(cause: &dyn std::error::Error) -> ApiError {
    error!(%cause, "the throughput could not be computed");
    ApiError::ThroughputFailed
}

#[cfg(test)]
mod tests {
    use crate::http::stand_in::{StandIn, get, sealed_turns};
    use crate::report::Zone;
    use crate::settings::HttpSettings;
    use crate::turn::{EpochMillis, Millis, StepId, StepMetrics, StepTimes, StoredTurn, Usage};

    const PATH: &str = "/metrics/throughput?period=day&date=2026-06-10";

    /// Noon of the day that the tests report on.
    const NOON: u64 = 1_781_092_800_000;

    /// Returns turns of a model that took 100 ms for 10 tokens each. The first turn is of the day before.
    fn turns(count: u64) -> Vec<StoredTurn> {
        let mut turns = sealed_turns(count);
        for (number, turn) in turns.iter_mut().enumerate() {
            turn.model = Some("m".into());
            turn.ended_at = Some(EpochMillis::new(if number == 0 { NOON - 86_400_000 } else { NOON }));
            turn.metrics.usage.output_tokens = 10.into();
            turn.metrics.steps = vec![StepMetrics {
                step_id: StepId::new("s").unwrap(),
                usage: Usage::default(),
                times: StepTimes { gen_total: Some(Millis::new(100.0).unwrap()), ..StepTimes::default() },
            }];
        }
        turns
    }

    #[actix_web::test]
    async fn turns_of_all_pages_are_counted() {
        // The report of the stand-in also counts the turn of the day before, so all turns are read.
        let api = StandIn { turns: turns(2001), ..StandIn::default() }.serving().with_time_zone(Zone::UTC);
        assert_eq!(
            get(&api, PATH).await.success(),
            r#"{"period":"day","date":"2026-06-10","start":1781049600000,"end":1781136000000,"models":[{"model":"m","tokensPerSecond":100,"totalOutputTokens":20000,"totalGenMs":200000,"turns":2000}]}"#
        );
        let week = get(&api, "/metrics/throughput?date=2026-06-10&period=week&period=day&x=1").await;
        assert!(week.success().contains(r#""turns":2001"#), "the first `period` counts: {:?}", week.body);
    }

    #[actix_web::test]
    async fn the_answers_to_bad_parameters_are_those_of_the_reference() {
        let api = StandIn::default().serving().with_time_zone(Zone::named("Pacific/Apia").unwrap());
        for (query, message) in [
            ("", "query param 'period' must be one of: day, week, month"),
            ("?period=year&date=2026-01-01", "query param 'period' must be one of: day, week, month"),
            ("?period=day", "query param 'date' is required"),
            ("?period=day&date=", "query param 'date' is required"),
            ("?period=day&date=2011-12-30", "invalid day date \"2011-12-30\" (expected YYYY-MM-DD)"),
            ("?period=month&date=2026-1", "invalid month date \"2026-1\" (expected YYYY-MM)"),
        ] {
            assert_eq!(get(&api, &format!("/metrics/throughput{query}")).await.failure(400), message, "{query}");
        }
    }

    #[actix_web::test]
    async fn a_store_that_fails_is_told_as_the_reference_tells_it() {
        // The first read counts the turns, and the second one reads them.
        for reads in [0, 1] {
            let api = StandIn { turns: turns(3), reads: Some(reads), ..StandIn::default() }.serving();
            assert_eq!(get(&api, PATH).await.failure(502), "Failed to aggregate throughput");
        }
    }

    #[actix_web::test]
    async fn nothing_is_read_for_a_period_without_turns() {
        let api = StandIn { reads: Some(1), ..StandIn::default() }.serving().with_time_zone(Zone::UTC);
        assert!(get(&api, PATH).await.success().ends_with(r#""models":[]}"#));
    }

    #[actix_web::test]
    async fn a_period_that_takes_more_than_the_whole_budget_is_refused() {
        let settings = HttpSettings { max_read_bytes: 1 << 20, ..HttpSettings::default() };
        let (api, _) = StandIn { turns: turns(65_538), ..StandIn::default() }.start_with(settings);
        let message = get(&api.with_time_zone(Zone::UTC), PATH).await.failure(400);
        assert!(message.contains("`period`") && message.contains("65538 turns"), "{message}");
    }

    #[actix_web::test]
    async fn a_period_with_more_models_than_are_told_apart_is_refused() {
        for (models, is_refused) in [(super::MAX_MODELS, false), (super::MAX_MODELS + 1, true)] {
            let mut turns = turns(models as u64 + 1);
            for (number, turn) in turns.iter_mut().enumerate() {
                turn.model = Some(format!("m{number}").as_str().into());
            }
            let api = StandIn { turns, ..StandIn::default() }.serving().with_time_zone(Zone::UTC);
            let answer = get(&api, PATH).await;
            if is_refused {
                let message = answer.failure(400);
                assert!(message.contains("`period`") && message.contains("1000 models"), "{message}");
            } else {
                answer.success();
            }
        }
    }

    #[actix_web::test]
    async fn the_memory_of_the_report_comes_from_the_budget_of_all_answers() {
        let settings = HttpSettings { max_read_bytes: 1024, ..HttpSettings::default() };
        let (api, _) = StandIn { turns: turns(2), ..StandIn::default() }.start_with(settings);
        let api = api.with_time_zone(Zone::UTC);
        get(&api, PATH).await.success();
        let all = api.reads.try_hold(1 << 20).unwrap();
        let message = get(&api, PATH).await.failure(503);
        assert!(message.contains("ask again later"), "{message}");
        drop(all);
    }
}

//! The page `/`: what a period cost, and how fast its turns were.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};

use super::answer::answer;
use super::charts::chart::{Chart, FILLS, Series, Slot, fills_of};
use super::charts::meter::meter;
use super::charts::scale::Unit;
use super::figure::{self, NO_MODEL};
use super::layout::{Page, Place, root};
use super::link::{self, of_conversation, with_query};
use super::live::{Followed, live};
use super::panel::{ChartKind, chart, panel, scrolling, tile};
use super::view::{Bucket, View};
use crate::actors::ListSealed;
use crate::deceptive::plain;
use crate::http::error::ApiError;
use crate::http::resources::api::{Api, ask_sealed};
use crate::http::resources::query::Query;
use crate::http::resources::stats::{Answered, Asked, UsedPrices, pause_after_row};
use crate::readable::{float, share};
use crate::report::{
    BreakdownRow, Cost, CostFigures, Figures, Percentiles, Period, PicoDollars, ReasonClass, report_time,
};
use crate::store::{Position, PositionedTurn};
use crate::turn::{Label, Millis};

const PARAMETERS: &[&str] = &["range", "first", "last", "tz"];

/// The number of models with a fill of their own. All others are shown as one, with another fill.
const SHOWN_MODELS: usize = FILLS - 2;

/// The number of turns in the list of the latest ones.
const LATEST_TURNS: usize = 12;

/// What the percentiles of a time are.
const TTFT_NOTE: &str =
    "Of each step. p90 and p99 are slow steps: one in ten takes longer than p90, one in a hundred longer than p99.";

/// What the percentiles of a speed are. High ones are of fast steps, other than those of a time.
const SPEED_NOTE: &str = "Output tokens of a step by its decode time. p90 and p99 are fast steps: one in ten is faster than p90, \
                          one in a hundred faster than p99.";

/// How many times the page looks further back for the latest turns, each time through twice as many positions. The turns
/// of the latest positions may have been erased or dropped. So it looks through 756 positions at most.
const LOOKS_BACK: u32 = 6;

/// Shows the figures of a period.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    let page = page(&api, &request).await;
    answer(&api, &request, Place::Overview, page).await
}

async fn page(api: &Api, request: &HttpRequest) -> Result<Page, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let mut view = View::read_bounded(api, &query)?;
    let bucket = view.bucket();
    let _inside = api.reports.enter().await?;
    let (mut by_model, mut is_by_model) = (view.report_query(bucket.name(), "model"), true);
    let answered = match Asked::read(api, &by_model)?.answer(api).await {
        // With very many models, the charts show their sum.
        Err(ApiError::TooManyRows { .. }) => {
            (by_model, is_by_model) = (view.report_query(bucket.name(), ""), false);
            Asked::read(api, &by_model)?.answer(api).await?
        }
        answered => answered?,
    };
    let by_reason = view.report_query("all", "reason");
    let reasons = Asked::read(api, &by_reason)?.answer(api).await?;
    let latest = Latest::read(api).await?;
    // The answer says to which bounds the time was moved outward.
    view.bounds = Some((answered.asked.whole.start().start_millis(), answered.asked.whole.end().start_millis()));
    let root = root(request.uri().path());
    let stats = |query: &str| format!("{root}{}", with_query("stats", query));
    let sums = Sums::of(&answered, bucket, is_by_model).await;
    let prices = UsedPrices::of(api, &answered.report);
    let body = html! {
        h1 { "Overview" }
        (view.controls(&[], false))
        @if sums.is_empty() {
            (nothing(latest.is_new()))
        } @else {
            (tiles(&sums, &prices, &root, &view))
            p class="after-tiles" {
                a class="api" href=(stats(&view.report_query("all", ""))) { "Figures of the whole time as JSON" }
            }
            div class="charts" {
                (charts(&sums, &view, is_by_model, &stats(&by_model)))
                (panel("reasons", "Turns by reason", "Why the turns of this time ended.", Some(&stats(&by_reason)), &by_reason_table(&reasons)))
            }
        }
        (live(&root, &view, latest.end, Followed::AllTurns))
        @if !latest.is_new() { (latest_turns(api, &root, &view, &latest)) }
    };
    Ok(Page { title: "Overview".to_owned(), carried: view.query(), zone: Some(view.zone.name().to_owned()), body })
}

/// The turns that were sealed last.
struct Latest {
    /// In the order in which they became durable.
    turns: VecDeque<PositionedTurn>,
    /// The position after which they begin.
    after: Position,
    /// The latest position. Its turn may have been erased.
    end: Position,
}

impl Latest {
    async fn read(api: &Api) -> Result<Self, ApiError> {
        let ask = async |list| ask_sealed(&api.handles.reads.list_sealed, list).await;
        let end = ask(ListSealed { after: None, limit: 0 }).await?.latest;
        let mut latest = Self { turns: VecDeque::new(), after: end, end };
        for look in 0..LOOKS_BACK {
            let missing = LATEST_TURNS - latest.turns.len();
            if missing == 0 || latest.after.number == 0 {
                break;
            }
            let last = latest.after.number;
            latest.after.number = last.saturating_sub((LATEST_TURNS as u64) << look);
            let (mut earlier, mut place) = (VecDeque::new(), latest.after);
            // A page ends early if its turns are long.
            while place.number < last {
                let limit = usize::try_from(last - place.number).unwrap_or(usize::MAX);
                let page = ask(ListSealed { after: Some(place), limit }).await?;
                earlier.extend(page.turns.into_iter().filter(|sealed| sealed.position.number <= last));
                earlier.drain(..earlier.len().saturating_sub(missing));
                if page.next.number <= place.number {
                    break;
                }
                place = page.next;
            }
            earlier.append(&mut latest.turns);
            latest.turns = earlier;
        }
        if let Some(first) = latest.turns.front().filter(|_| latest.turns.len() == LATEST_TURNS) {
            latest.after.number = first.position.number - 1;
        }
        Ok(latest)
    }

    /// Returns whether no turn was ever sealed.
    fn is_new(&self) -> bool {
        self.end.number == 0
    }
}

/// The sums of a report over its periods, over its models, and over both.
struct Sums {
    slots: Vec<Slot>,
    by_slot: Vec<BreakdownRow>,
    /// The models with the most tokens, and the others as one.
    by_model: Vec<OfModel>,
    total: BreakdownRow,
}

struct OfModel {
    name: String,
    /// Tokens of prompts and output in each slot.
    tokens: Vec<i128>,
}

impl Sums {
    /// Adds up the rows of a report. There may be very many, so other requests may run on this thread meanwhile.
    async fn of(answered: &Answered, bucket: Bucket, is_by_model: bool) -> Self {
        let Answered { asked, periods, report } = answered;
        let slots: Vec<_> = periods.iter().map(|period| bucket.slot(*period, &asked.zone)).collect();
        let mut by_slot = vec![BreakdownRow::default(); slots.len()];
        let mut total = BreakdownRow::default();
        let mut tokens: HashMap<Option<&Label>, i128> = HashMap::new();
        for (nth, (period, label, row)) in report.breakdown.rows().enumerate() {
            if let Some(place) = place_of(period, periods) {
                by_slot[place].add(row);
                total.add(row);
                *tokens.entry(label.model.as_ref()).or_default() += row.rollup.tokens();
            }
            pause_after_row(nth).await;
        }
        let mut models: Vec<_> = tokens.into_iter().collect();
        models.sort_unstable_by_key(|(model, tokens)| (Reverse(*tokens), *model));
        let others = models.len().saturating_sub(SHOWN_MODELS);
        models.truncate(SHOWN_MODELS);
        let mut names: Vec<_> = models.iter().map(|(model, _)| name(*model, is_by_model)).collect();
        if others > 0 {
            names.push(format!("{others} other models"));
        }
        let of_model = |name| OfModel { name, tokens: vec![0; slots.len()] };
        let mut by_model: Vec<_> = names.into_iter().map(of_model).collect();
        for (nth, (period, label, row)) in report.breakdown.rows().enumerate() {
            if let Some(place) = place_of(period, periods) {
                let shown = models.iter().position(|(model, _)| *model == label.model.as_ref());
                by_model[shown.unwrap_or(SHOWN_MODELS)].tokens[place] += row.rollup.tokens();
            }
            pause_after_row(nth).await;
        }
        Self { slots, by_slot, by_model, total }
    }

    fn is_empty(&self) -> bool {
        self.total == BreakdownRow::default()
    }
}

/// Returns the place of a period of a row among the periods of its report.
fn place_of(period: Period, periods: &[Period]) -> Option<usize> {
    periods.binary_search_by_key(&period.start(), |period| period.start()).ok()
}

/// Returns how the charts name a model.
fn name(model: Option<&Label>, is_by_model: bool) -> String {
    match model {
        _ if !is_by_model => "all models".to_owned(),
        Some(model) => plain(model.as_str()),
        None => NO_MODEL.to_owned(),
    }
}

fn tiles(sums: &Sums, prices: &UsedPrices, root: &str, view: &View) -> Markup {
    let figures = Figures::of(&sums.total.rollup);
    let (cost, saved) = (sums.total.cost.figures(), sums.total.cache_saved());
    let uncached = saved.zip(cost.usd).map(|(saved, usd)| PicoDollars::new(usd.get() + saved.get()));
    let (of_spend, of_saved) = (figure::places([cost.usd]), figure::places([saved, uncached]));
    let (steps, turns) = (["step", "steps"], ["turn", "turns"]);
    html! {
        dl class="tiles" {
            (tile("Spend", &figure::cost(&cost, of_spend), &spend_note(&cost, of_spend, prices, root, view)))
            (tile("Saved by the cache", &figure::amount(saved, of_saved), &saved_note(&cost, uncached, of_saved)))
            (tile("Cache rate", &figure::share(figures.cache_rate), &cache_note(&figures)))
            (tile("Tokens", &figure::tokens(figures.usage.input_tokens + figures.usage.output_tokens), &html! {
                (figure::tokens(figures.usage.input_tokens)) " in · " (figure::tokens(figures.usage.output_tokens)) " out"
            }))
            (tile("Time to first token", &figure::duration(figures.ttft_ms.map(|ttft| ttft.p50)),
                &percentiles_note(figures.ttft_ms, steps, "slow", figure::duration)))
            (tile("Output speed", &figure::speed(figures.step_output_tokens_per_second.map(|speed| speed.p50)),
                &percentiles_note(figures.step_output_tokens_per_second, steps, "fast", figure::speed)))
            (tile("Turns", &figure::count(figures.turns, "turns"), &html! {
                (figure::counted(figures.steps, "step", "steps"))
            }))
            (tile("Duration of turns", &figure::duration(figures.turn_duration_ms.map(|duration| duration.p50)),
                &percentiles_note(figures.turn_duration_ms, turns, "slow", figure::duration)))
        }
    }
}

/// Says that a figure is the median, and what the other percentiles are. High percentiles are of slow or of fast values, as
/// `high` says. A percentile of so few values that it is just the largest one is left out.
fn percentiles_note(
    of: Option<Percentiles>,
    [part, parts]: [&str; 2],
    high: &str,
    show: fn(Option<f64>) -> Markup,
) -> Markup {
    let title = format!("p50: half of the {parts}. p90: one {part} in ten is above it. p99: one in a hundred.");
    html! {
        @if let Some(of) = of {
            span title=(title) { "median (p50)" }
            @if of.count >= 10 { " · " (high) " " (parts) ": p90 " (show(Some(of.p90))) }
            @if of.count >= 100 { ", p99 " (show(Some(of.p99))) }
            " · " (figure::counted(of.count, part, parts))
        } @else { "none of the " (parts) " reported it" }
    }
}

/// Says how many tokens the cache rate is of, unless it is of all.
fn cache_note(figures: &Figures) -> Markup {
    let coverage = figures.cache_coverage.filter(|coverage| share(*coverage) != share(1.0));
    html! {
        @if figures.cache_rate.is_some() {
            (figure::optional_tokens(figures.usage.cache_read_tokens)) " tokens read from the cache"
            @if coverage.is_some() {
                ", of the " (figure::share(coverage)) " of prompt tokens whose cache use is known"
            }
        } @else { "no step reported a cache counter" }
    }
}

/// Says with what the cost is compared: what the tokens would have cost without a cache.
fn saved_note(cost: &CostFigures, uncached: Option<PicoDollars>, places: u32) -> Markup {
    html! {
        @if uncached.is_some() {
            // Tokens without a price are in neither amount.
            "without a cache, " @if cost.unpriced_tokens > 0 { "the priced" } @else { "the same" } " tokens would cost "
            (figure::amount(uncached, places))
        } @else { "no step with a price reported a cache counter" }
    }
}

/// Says what the cost leaves out, with which prices it was computed, and where to look further.
fn spend_note(cost: &CostFigures, places: u32, prices: &UsedPrices, root: &str, view: &View) -> Markup {
    let link = |path: &str, query: &str| format!("{root}ui/{}", with_query(path, query));
    html! {
        @if cost.unpriced_tokens > 0 {
            @if cost.usd.is_some() { "at least " (figure::amount(cost.usd, places)) ": " }
            (figure::tokens(cost.unpriced_tokens)) " tokens of "
            a href=(link("models", &view.query())) { "models without a price" } " are not in it · "
        }
        @match prices {
            UsedPrices::Of(edition) => { "price list: " (edition.table) ", " (edition.date) ", with past prices" }
            UsedPrices::Earlier => { "by the prices before the last change" }
            UsedPrices::NoEdition => { "there are no published prices" }
        }
        " · " a href=(link("conversations", &view.query_with(&[("order", "cost")]))) { "dearest conversations" }
    }
}

fn charts(sums: &Sums, view: &View, is_by_model: bool, api: &str) -> Markup {
    let bucket = view.bucket().name();
    let figures: Vec<_> = sums.by_slot.iter().map(|row| Figures::of(&row.rollup)).collect();
    let costs: Vec<_> = sums.by_slot.iter().map(|row| row.cost.figures()).collect();
    let draw = |id: &str,
                title: &str,
                note: &str,
                unit: Unit,
                series: &[Series],
                kind,
                cell: &dyn Fn(usize, usize) -> Markup,
                total: Option<&dyn Fn(usize) -> Markup>| {
        let drawn = Chart { id, title, unit, slot_name: bucket, slots: &sums.slots, series };
        panel(id, title, note, Some(api), &chart(&drawn, kind, cell, total))
    };
    let one = |name: &str, value: &dyn Fn(usize) -> Option<f64>| {
        [Series { name: name.to_owned(), fill: 0, values: (0..sums.slots.len()).map(value).collect() }]
    };
    let is_used = |place: usize| sums.by_slot[place] != BreakdownRow::default();
    let dollars = |cost: &CostFigures| cost.usd.map(|usd| float(usd.get()) / 1e12);
    let costs_by_slot = one("cost", &|place| if is_used(place) { dollars(&costs[place]) } else { Some(0.0) });
    let names: Vec<_> = sums.by_model.iter().map(|model| model.name.as_str()).collect();
    let tokens: Vec<_> = sums
        .by_model
        .iter()
        .zip(fills_of(&names))
        .map(|(model, fill)| Series {
            name: model.name.clone(),
            fill,
            values: model.tokens.iter().map(|tokens| Some(float(*tokens))).collect(),
        })
        .collect();
    let percentiles = |of: &dyn Fn(&Figures) -> Option<Percentiles>| {
        let series = |name: &str, pick: fn(Percentiles) -> f64| Series {
            name: name.to_owned(),
            fill: 0,
            values: figures.iter().map(|figures| of(figures).map(pick)).collect(),
        };
        [series("p50", |of| of.p50), series("p90", |of| of.p90), series("p99", |of| of.p99)]
    };
    let ttft = percentiles(&|figures| figures.ttft_ms);
    let speed = percentiles(&|figures| figures.step_output_tokens_per_second);
    let cached = one("cache rate", &|place| figures[place].cache_rate);
    let cost_places = figure::places(costs.iter().map(|cost| cost.usd));
    let cost_note = spend_chart_note(&sums.total.cost.figures());
    let note =
        if is_by_model { "Prompts and output." } else { "Prompts and output. There are too many models to show each." };
    html! {
        (draw("spend", &format!("Spend per {bucket}"), &cost_note, Unit::Dollars, &costs_by_slot,
            ChartKind::Bars, &|_, place| figure::cost(&costs[place], cost_places), None))
        (draw("tokens", &format!("Tokens per {bucket} by model"), note, Unit::Tokens, &tokens, ChartKind::Bars,
            &|nth, place| figure::tokens(sums.by_model[nth].tokens[place]), Some(&|place| figure::tokens(sums.by_slot[place].rollup.tokens()))))
        (draw("ttft", "Time to first token", TTFT_NOTE, Unit::Millis, &ttft, ChartKind::Lines,
            &|nth, place| figure::duration(ttft[nth].values[place]), None))
        (draw("speed", "Output speed", SPEED_NOTE, Unit::TokensPerSecond, &speed, ChartKind::Lines,
            &|nth, place| figure::speed(speed[nth].values[place]), None))
        (draw("cache", "Cache rate", "Prompt tokens read from the cache, of the steps that reported a cache counter.", Unit::Share, &cached, ChartKind::Lines,
            &|_, place| figure::share(figures[place].cache_rate), None))
    }
}

/// Says how the bars of the spend were computed, and what they leave out.
fn spend_chart_note(total: &CostFigures) -> String {
    let left_out = if total.unpriced_tokens > 0 { " Tokens without a price are not in it." } else { "" };
    format!("Costs of steps, each by the price that was in force when its turn ended.{left_out}")
}

fn by_reason_table(answered: &Answered) -> Markup {
    let mut rows: Vec<_> = answered
        .report
        .breakdown
        .rows()
        .filter_map(|(_, label, row)| {
            let turns = row.rollup.turns();
            Some((label.reason.filter(|_| turns != 0)?, turns))
        })
        .collect();
    rows.sort_by_key(|(reason, turns)| (Reverse(*turns), *reason));
    let total: i128 = rows.iter().map(|(_, turns)| turns).sum();
    let share = |turns: i128| if total > 0 { float(turns) / float(total) } else { 0.0 };
    scrolling(
        "Turns by reason",
        &html! {
            table class="reasons" {
                caption class="hidden" { "Turns by reason" }
                thead {
                    tr {
                        th scope="col" {
                            "Reason"
                        }
                        th scope="col" class="number" {
                            "Turns"
                        }
                        th scope="col" class="number" {
                            "Share"
                        }
                        th scope="col" class="wide" { span class="hidden" { "Share as a bar" } }
                    }
                }
                tbody {
                    @for (reason, turns) in rows {
                        tr {
                            th scope="row" { (reason.as_str()) " " span class="meaning" { (meaning(reason)) } }
                            td class="number" { (figure::count(turns, "turns")) }
                            td class="number" { (figure::share(Some(share(turns)))) }
                            td class="wide" { (meter(share(turns))) }
                        }
                    }
                }
            }
        },
    )
}

fn meaning(reason: ReasonClass) -> &'static str {
    match reason {
        ReasonClass::Stop => "the model finished",
        ReasonClass::Aborted => "the user ended it",
        ReasonClass::Error => "it failed",
        ReasonClass::MaxSteps => "it reached its maximum of steps",
        ReasonClass::Abandoned => "its events stopped coming",
        ReasonClass::Imported => "from another system",
        ReasonClass::Other => "any other reason",
    }
}

fn latest_turns(api: &Api, root: &str, view: &View, latest: &Latest) -> Markup {
    let costs: Vec<_> =
        latest.turns.iter().map(|sealed| Cost::total_of_turn(&sealed.turn, &*api.prices).figures()).collect();
    let places = figure::places(costs.iter().map(|cost| cost.usd));
    let (after, limit) = (latest.after.to_string(), LATEST_TURNS.to_string());
    let asked = [("after", &*after), ("limit", &*limit)];
    let table = scrolling(
        "Latest turns",
        &html! {
            table id="latest-turns" {
                caption class="hidden" { "The turns that were sealed last, the latest first" }
                thead {
                    tr {
                        th scope="col" { "Ended" }
                        th scope="col" { "Conversation" }
                        th scope="col" { "Model" }
                        th scope="col" { "Reason" }
                        th scope="col" class="number" { "Input tokens" }
                        th scope="col" class="number" { "Output tokens" }
                        th scope="col" class="number" { "Duration" }
                        th scope="col" class="number" { "Cost" }
                    }
                }
                tbody {
                    @for (sealed, cost) in latest.turns.iter().zip(&costs).rev() {
                        @let turn = &sealed.turn;
                        @let usage = turn.metrics.usage;
                        tr {
                            td { (figure::moment(report_time(turn).get(), &view.zone)) }
                            th scope="row" class="id" {
                                a href={ (root) "ui/" (with_query(&of_conversation(&sealed.conversation_id, "turns"), &view.zone_query())) } {
                                    (figure::id(sealed.conversation_id.as_str()))
                                }
                            }
                            td class="id" { (figure::model(turn.model.as_ref())) }
                            td { (figure::name(turn.reason.as_str())) }
                            td class="number" { (figure::tokens(usage.input_tokens.get())) }
                            td class="number" { (figure::tokens(usage.output_tokens.get())) }
                            td class="number" { (figure::duration(turn.metrics.duration.map(Millis::get))) }
                            td class="number" { (figure::cost(cost, places)) }
                        }
                    }
                }
            }
        },
    );
    let gone = html! { p { "The turns that were sealed last are no longer stored." } };
    panel(
        "latest",
        "Latest turns",
        "In the order in which they were stored, whatever time is chosen above.",
        Some(&format!("{root}{}", with_query("turns", &link::query(&asked)))),
        if latest.turns.is_empty() { &gone } else { &table },
    )
}

/// What the page shows if no turn counts in its time.
fn nothing(is_new: bool) -> Markup {
    html! {
        section class="card empty" {
            @if is_new {
                h2 { "No turn was sealed yet" }
                p { "This page fills as soon as a kernel sends the events of a turn:" }
                pre { code {
                    "curl -d '{\"type\":\"done\",\"conversationId\":\"c\",\"turnId\":\"t\",\"reason\":\"stop\",\n"
                    "          \"usage\":{\"inputTokens\":900,\"outputTokens\":120}}' \\\n"
                    "     -H 'content-type: application/json' http://…/events"
                } }
            } @else {
                h2 { "No turn ended in this time" }
                p { "Choose another time above. The latest turns are below." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::resources::stats::ROWS_AT_ONCE;
    use crate::http::stand_in::{StandIn, counting_pauses, report_by_model};
    use crate::report::{PeriodUnit, UsageSums, Zone};

    #[actix_web::test]
    async fn other_requests_may_run_while_the_rows_of_very_many_models_are_added() {
        let api = StandIn::default().serving();
        let asked = Asked::read(&api, "from=2026-01-01&to=2026-01-11&tz=UTC&by=model").unwrap();
        let periods: Vec<_> = Zone::UTC.periods(PeriodUnit::Day, asked.whole).collect();
        // The models have the tokens 1 to 300 on each day.
        let report = report_by_model(&periods, 300);
        let answered = Answered { asked, periods, report };
        let (sums, pauses) = counting_pauses(Sums::of(&answered, Bucket::Day, true)).await;
        assert_eq!(pauses, 2 * (3000 / ROWS_AT_ONCE), "the rows are read twice");
        let shown: Vec<_> = sums.by_model.iter().map(|model| (&*model.name, model.tokens.clone())).collect();
        let names: Vec<_> = (295..=300).rev().map(|tokens| format!("m{tokens}")).collect();
        let mut expected: Vec<_> = names.iter().zip(0..).map(|(name, nth)| (&**name, vec![300 - nth; 10])).collect();
        expected.push(("294 other models", vec![(1..=294).sum::<i128>(); 10]));
        assert_eq!(shown, expected);
        assert_eq!(sums.total.rollup.tokens(), 10 * (1..=300).sum::<i128>());
    }

    #[test]
    fn what_the_cache_saved_is_compared_with_the_cost_of_the_tokens_that_have_a_price() {
        let cost =
            |unpriced_tokens| CostFigures { usd: Some(PicoDollars::new(1)), unpriced_tokens, unpriced_models: vec![] };
        for (unpriced_tokens, text) in [(0, "the same tokens would cost"), (1, "the priced tokens would cost")] {
            let note = saved_note(&cost(unpriced_tokens), Some(PicoDollars::new(2)), 4).into_string();
            assert!(note.contains(text), "{note}");
        }
    }

    /// Returns the text that a reader sees.
    fn text(markup: Markup) -> String {
        let html = markup.into_string();
        html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
    }

    #[actix_web::test]
    async fn a_cost_that_leaves_tokens_out_is_called_the_least_and_so_is_its_chart() {
        let api = StandIn::default().serving();
        let view = View::read_valid(&api, "range=7d&tz=UTC");
        let cost = |usd: Option<i128>, unpriced_tokens| CostFigures {
            usd: usd.map(PicoDollars::new),
            unpriced_tokens,
            unpriced_models: vec![],
        };
        let note = |cost| text(spend_note(&cost, 2, &UsedPrices::NoEdition, "./", &view));
        let rest = "there are no published prices · dearest conversations";
        assert_eq!(note(cost(Some(37_330_000_000_000), 0)), rest);
        let left_out = "tokens of models without a price are not in it";
        assert_eq!(
            note(cost(Some(37_330_000_000_000), 6_330_000)),
            format!("at least $37.33: 6.33M {left_out} · {rest}")
        );
        assert_eq!(note(cost(None, 5)), format!("5 {left_out} · {rest}"));
        for (unpriced_tokens, is_said) in [(0, false), (1, true)] {
            let note = spend_chart_note(&cost(Some(1), unpriced_tokens));
            assert_eq!(note.contains("Tokens without a price are not in it."), is_said, "{note}");
        }
    }

    #[test]
    fn the_cache_rate_says_of_what_part_it_is_unless_it_is_of_all() {
        let unknown = Figures::of(&BreakdownRow::default().rollup);
        let usage = UsageSums { cache_read_tokens: Some(53_200_000), ..unknown.usage };
        let of = |cache_coverage| Figures { cache_rate: Some(0.868), cache_coverage, usage, ..unknown.clone() };
        let note = |figures: &Figures| text(cache_note(figures));
        let read = "53.2M tokens read from the cache";
        let known = ", of the 90.7% of prompt tokens whose cache use is known";
        assert_eq!(note(&of(Some(0.907))), format!("{read}{known}"));
        assert_eq!([Some(1.0), Some(0.9999)].map(|all| note(&of(all))), [read, read]);
        assert_eq!(note(&unknown), "no step reported a cache counter");
    }

    #[test]
    fn a_percentile_of_few_values_is_left_out_of_a_tile() {
        let note = |count| {
            let of = Percentiles { count, min: 1.0, p50: 60.0, p90: 122.0, p99: 223.8, max: 300.0 };
            text(percentiles_note(Some(of), ["step", "steps"], "fast", figure::speed))
        };
        assert_eq!(note(1), "median (p50) · 1 step");
        assert_eq!(note(9), "median (p50) · 9 steps");
        assert_eq!(note(10), "median (p50) · fast steps: p90 122.0 tok/s · 10 steps");
        assert_eq!(note(99), "median (p50) · fast steps: p90 122.0 tok/s · 99 steps");
        assert_eq!(note(100), "median (p50) · fast steps: p90 122.0 tok/s, p99 223.8 tok/s · 100 steps");
    }
}

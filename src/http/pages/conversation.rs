//! The page `/ui/conversations/{id}/turns`: the turns of one conversation.

use std::collections::VecDeque;
use std::sync::Arc;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use tracing::error;

use super::answer::answer;
use super::charts::chart::{Chart, Series, Slot};
use super::charts::scale::Unit;
use super::charts::waterfall::{SpanKind, WaterfallRow, waterfall, waterfall_legend};
use super::figure;
use super::layout::{Page, Place, root};
use super::link::{self, of_conversation, with_query};
use super::live::{Followed, live};
use super::panel::{ChartKind, chart, panel, scrolling, tile};
use super::view::View;
use crate::actors::{ListSealed, ListTurns};
use crate::deceptive::plain;
use crate::http::error::ApiError;
use crate::http::resources::api::{Api, ask_sealed, ask_store};
use crate::http::resources::path_id::PathId;
use crate::http::resources::query::Query;
use crate::http::resources::summary::{LONG_STEPS, Life};
use crate::http::resources::turn_list::write_with_cost;
use crate::http::resources::turns::open_turns;
use crate::readable::float;
use crate::report::{Cost, Figures, report_time};
use crate::store::{OpenTurns, TurnRange};
use crate::turn::{ConversationId, Millis, SealedTurn, StepMetrics, StoredTurn, TokenCount, TurnId, Usage};

const PARAMETERS: &[&str] = &["before", "tz"];

/// The number of turns on a page.
const LIMIT: usize = 20;

/// The number of steps of a turn that the page shows. The API has all of them.
const MAX_STEPS: usize = 40;

/// The number of open turns that the page shows.
const MAX_OPEN: usize = 20;

/// What the list of turns shows.
const TURNS_NOTE: &str = "The newest turn is first. Steps are drawn one after the other, because it is not known when each \
                          began: the time outside of steps may lie between them.";

/// Shows the latest turns of a conversation, or those before an ordinal.
pub(crate) async fn get(api: Data<Api>, id: Result<PathId, ApiError>, request: HttpRequest) -> HttpResponse {
    let page = match id {
        Ok(PathId(id)) => page(&api, &id, &request).await,
        Err(error) => Err(error),
    };
    answer(&api, &request, Place::Conversation, page).await
}

async fn page(api: &Api, id: &ConversationId, request: &HttpRequest) -> Result<Page, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let view = View::read(api, &query, "7d")?;
    let before = query.number("before", 2..=(1 << 53) - 1)?;
    let _inside = api.summaries.enter().await?;
    // The live part continues here. It passes over turns that are sealed before the page reads them.
    let position = ask_sealed(&api.handles.reads.list_sealed, ListSealed { after: None, limit: 0 }).await?.latest;
    let open = open_turns(api, id).await.map_err(|_| ApiError::ReadFailed)?;
    if open.sealed_turns == 0 && open.turns.is_empty() {
        return Err(ApiError::UnknownConversation);
    }
    // The sums need all turns of the conversation, so only the first page has them.
    let mut life = Life::new();
    if before.is_none() {
        life.read(api, id, open.sealed_turns).await?;
    }
    let (turns, costs) =
        turns_before(api, id, before.unwrap_or(u64::MAX).min(open.sealed_turns.saturating_add(1))).await?;
    let older = older_than(api, id, &turns).await?;
    let root = root(request.uri().path());
    let resource = |resource: &str, query: &str| format!("{root}{}", with_query(&of_conversation(id, resource), query));
    let (limit, end) = (LIMIT.to_string(), before.map(|before| before.to_string()).unwrap_or_default());
    let asked = [("order", "latest"), ("limit", &*limit), ("before", &*end), ("cost", "true"), ("open", "true")];
    let turns_api = resource("turns", &link::query(&asked));
    let body = html! {
        p class="crumbs" {
            a href={ (root) (with_query("ui/conversations", &view.zone_query())) } { "Conversations" } " / "
        }
        h1 class="id" { (figure::name(id.as_str())) }
        @if life.turns > 0 {
            (panel("summary", "All stored turns", "", Some(&resource("summary", "")), &summary(&life, &open, &view)))
        }
        @if before.is_none() {
            (live(&root, &view, position, Followed::Conversation { id, known: open.sealed_turns }))
            @if !open.turns.is_empty() { (open_list(&open, &turns_api)) }
        }
        @if !turns.is_empty() {
            @if turns.len() > 1 { div class="charts" { (charts(&turns, &turns_api)) } }
            (panel("turns", "Turns", TURNS_NOTE, Some(&turns_api),
                &html! { (waterfall_legend()) (turn_list(&costs, &view, &turns)) }))
        } @else if before.is_some() {
            section class="card empty" { h2 { "There are no turns before this one" } }
        } @else if open.sealed_turns > 0 {
            section class="card empty" {
                h2 { "No sealed turn is stored any more" }
                p {
                    "This conversation had " (figure::counted(open.sealed_turns, "sealed turn", "sealed turns"))
                    ". Turns are dropped when they are older than the service keeps them. Reports still count them."
                }
            }
        }
        (pages(&view, open.sealed_turns, &turns, before, older))
    };
    let title = plain(id.as_str());
    Ok(Page { title, carried: view.zone_query(), zone: Some(view.zone.name().to_owned()), body })
}

/// Returns the latest turns before an ordinal, in the order of their ordinals. They are those that the API lists, which
/// are fewer than asked for if they are long. Also returns the cost of each.
async fn turns_before(
    api: &Api,
    id: &ConversationId,
    mut before: u64,
) -> Result<(Vec<StoredTurn>, Vec<Cost>), ApiError> {
    let (mut turns, mut costs) = (VecDeque::new(), VecDeque::new());
    let mut left_bytes = api.settings.max_page_bytes;
    // The store returns fewer long turns than it is asked for.
    while turns.len() < LIMIT && left_bytes > 0 {
        let range = TurnRange { before: Some(before), ..TurnRange::latest(id.clone(), LIMIT - turns.len()) };
        let earlier = ask_store(&api.handles.reads.list_turns, ListTurns(range)).await?;
        let Some(first) = earlier.first() else { break };
        before = first.ordinal.get();
        for turn in earlier.into_iter().rev() {
            if left_bytes == 0 {
                break;
            }
            let (prices, is_long) = (Arc::clone(&api.prices), turn.metrics.steps.len() > LONG_STEPS);
            let measure = move || {
                let mut json = Vec::new();
                let written = write_with_cost(&turn, &*prices, &mut json);
                (written.map(|()| json.len()), Cost::total_of_turn(&turn, &*prices), turn)
            };
            let (len, cost, turn) = if is_long { api.long_work.run(measure).await } else { measure() };
            let len = len.map_err(|cause| {
                error!(%cause, "the length of a turn as JSON is not known");
                ApiError::ReadFailed
            })?;
            left_bytes = left_bytes.saturating_sub(len);
            turns.push_front(turn);
            costs.push_front(cost);
        }
    }
    Ok((turns.into(), costs.into()))
}

/// Returns the ordinal before which the turns of the next page are, if any is stored. Earlier turns may have been dropped.
async fn older_than(api: &Api, id: &ConversationId, turns: &[StoredTurn]) -> Result<Option<u64>, ApiError> {
    let Some(first) = turns.first().map(|turn| turn.ordinal.get()).filter(|first| *first > 1) else { return Ok(None) };
    let range = TurnRange { before: Some(first), ..TurnRange::latest(id.clone(), 1) };
    let earlier = ask_store(&api.handles.reads.list_turns, ListTurns(range)).await?;
    Ok((!earlier.is_empty()).then_some(first))
}

fn summary(life: &Life, open: &OpenTurns, view: &View) -> Markup {
    let total = life.total();
    let figures = Figures::of(&total.rollup);
    let cost = total.cost.figures();
    let places = figure::places([cost.usd]);
    let context = life.latest.as_ref().and_then(|latest| latest.metrics.context_size);
    html! {
        dl class="tiles" {
            (tile("Cost", &figure::cost(&cost, places), &html! { (figure::left_out(&cost, places)) }))
            (tile("Turns", &figure::count(life.turns, "turns"), &html! {
                (figure::counted(figures.steps, "step", "steps"))
                @if !open.turns.is_empty() { " · " (open.turns.len()) " open" }
                @for (reason, turns) in life.by_reason.iter().filter(|(reason, _)| **reason != "stop") {
                    " · " (figure::count(*turns, "turns")) " " (reason)
                }
            }))
            (tile("Tokens", &figure::tokens(figures.usage.input_tokens + figures.usage.output_tokens), &html! {
                (figure::tokens(figures.usage.input_tokens)) " in · " (figure::tokens(figures.usage.output_tokens)) " out"
            }))
            (tile("Cache rate", &figure::share(figures.cache_rate), &html! {
                (figure::optional_tokens(figures.usage.cache_read_tokens)) " tokens read from the cache"
                @if let Some(retention) = life.retention() { " · " (retention_note(retention)) }
            }))
            (tile("Context", &figure::optional_tokens(context.map(TokenCount::get)), &html! { "tokens in use after the latest turn" }))
            (tile("Output speed", &figure::speed(figures.output_tokens_per_second), &html! {
                "output tokens of all steps over their decode time · the steps took "
                (figure::duration(figures.generation_ms)) " of the "
                (figure::duration(figures.duration_ms)) " of all turns"
            }))
        }
        @if let Some((first, latest)) = life.first_at.zip(life.latest.as_ref()) {
            p class="note after" {
                "First turn " (figure::moment(first.get(), &view.zone)) ", latest turn "
                (figure::moment(report_time(latest).get(), &view.zone)) ". All times of this page are in the zone "
                (view.zone.name()) "."
            }
        }
    }
}

/// Says how much of the cache survived between the last two turns.
fn retention_note(retention: f64) -> Markup {
    let title = "Tokens that the steps of the latest turn read from the cache, by those that the steps of the turn before it \
                 read or wrote. A turn with more steps reads the same tokens more often, and also those that it wrote itself.";
    html! {
        span title=(title) {
            "the latest turn read " (figure::share(Some(retention))) " of what the turn before it left there"
            @if retention > 1.0 {
                " (more than 100%: each step reads it again)"
            }
        }
    }
}

/// The tokens of a turn by what became of them. It may be unknown what the cache did.
struct TokenKinds {
    read: Option<i128>,
    written: Option<i128>,
    uncached: i128,
    output: i128,
}

impl TokenKinds {
    fn of(usage: Usage) -> Self {
        let tokens = |count: Option<TokenCount>| count.map(|count| i128::from(count.get()));
        let (read, written) = (tokens(usage.cache_read_tokens), tokens(usage.cache_write_tokens));
        let cached = read.unwrap_or_default() + written.unwrap_or_default();
        let uncached = (i128::from(usage.input_tokens.get()) - cached).max(0);
        Self { read, written, uncached, output: usage.output_tokens.get().into() }
    }

    /// The names, in the order of [`Self::parts`].
    const NAMES: [&str; 4] = ["read from the cache", "written to the cache", "rest of the prompt", "output"];

    fn parts(&self) -> [Option<i128>; 4] {
        [self.read, self.written, Some(self.uncached), Some(self.output)]
    }
}

fn charts(turns: &[StoredTurn], api: &str) -> Markup {
    let slots: Vec<_> = turns
        .iter()
        .map(|turn| Slot { label: turn.ordinal.get().to_string(), name: format!("turn {}", turn.ordinal.get()) })
        .collect();
    let tokens: Vec<_> = turns.iter().map(|turn| TokenKinds::of(turn.metrics.usage).parts()).collect();
    let series: Vec<_> = TokenKinds::NAMES
        .iter()
        .enumerate()
        .map(|(nth, name)| Series {
            name: (*name).to_owned(),
            fill: nth,
            values: tokens.iter().map(|parts| parts[nth].map(float)).collect(),
        })
        .collect();
    let tokens_of_turns = Chart {
        id: "tokens",
        title: "Tokens of each turn",
        unit: Unit::Tokens,
        slot_name: "turn",
        slots: &slots,
        series: &series,
    };
    let sizes: Vec<_> = turns.iter().map(|turn| turn.metrics.context_size.map(TokenCount::get)).collect();
    let context = [Series {
        name: "context".to_owned(),
        fill: 0,
        values: sizes.iter().map(|size| size.map(|size| float(size.into()))).collect(),
    }];
    let context_of_turns =
        Chart { id: "context", title: "Context after each turn", series: &context, ..tokens_of_turns };
    let ends = turns.first().zip(turns.last()).map(|(first, last)| (first.ordinal.get(), last.ordinal.get()));
    let (first, last) = ends.unwrap_or_default();
    let of_tokens = format!(
        "Turns {first} to {last}. Each step sends the whole context again, so a turn of several steps has more \
         tokens than its context."
    );
    let of_context = format!("Turns {first} to {last}. Tokens of the context window that are in use.");
    html! {
        (panel("tokens", tokens_of_turns.title, &of_tokens, Some(api), &chart(&tokens_of_turns, ChartKind::Bars,
            |nth, place| figure::optional_tokens(tokens[place][nth]), None)))
        (panel("context", context_of_turns.title, &of_context, Some(api), &chart(&context_of_turns, ChartKind::Bars,
            |_, place| figure::optional_tokens(sizes[place]), None)))
    }
}

fn turn_list(costs: &[Cost], view: &View, turns: &[StoredTurn]) -> Markup {
    let costs: Vec<_> = costs.iter().map(Cost::figures).collect();
    let places = figure::places(costs.iter().map(|cost| cost.usd));
    html! {
        ol class="turns" reversed {
            @for (turn, cost) in turns.iter().zip(&costs).rev() {
                @let ordinal = turn.ordinal.get();
                @let metrics = &turn.metrics;
                li {
                    article aria-labelledby={ "turn-" (ordinal) } {
                        header {
                            h3 id={ "turn-" (ordinal) } { "Turn " (ordinal) }
                            span { (figure::moment(report_time(turn).get(), &view.zone)) }
                            span class="id" { (figure::model(turn.model.as_ref())) }
                            span class={ "badge " (if turn.reason.as_str() == "stop" { "calm" } else { "warning" }) } {
                                (figure::name(turn.reason.as_str()))
                            }
                            strong { (figure::cost(cost, places)) }
                        }
                        (numbers(metrics.usage, &metrics.steps, metrics.duration))
                        @if let Some(drawn) = waterfall(&format!("times-{ordinal}"), &format!("Times of turn {ordinal}"), &times(&metrics.steps, metrics.duration)) {
                            (drawn)
                        }
                        (steps(ordinal.to_string().as_str(), &metrics.turn_id, &metrics.steps, metrics.duration))
                    }
                }
            }
        }
    }
}

/// The line with the numbers of a turn.
fn numbers(usage: Usage, steps: &[StepMetrics], duration: Option<Millis>) -> Markup {
    let ttft = steps.iter().find_map(|step| step.times.ttft);
    html! {
        dl class="numbers" {
            div { dt { "in" } dd { (figure::tokens(usage.input_tokens.get())) } }
            div { dt { "out" } dd { (figure::tokens(usage.output_tokens.get())) } }
            div { dt { "cache read" } dd { (figure::optional_tokens(usage.cache_read_tokens.map(TokenCount::get))) } }
            div { dt { "cache write" } dd { (figure::optional_tokens(usage.cache_write_tokens.map(TokenCount::get))) } }
            div { dt { "first token" } dd { (figure::duration(ttft.map(Millis::get))) } }
            div { dt { "duration" } dd { (figure::duration(duration.map(Millis::get))) } }
            div { dt { "steps" } dd { (figure::length(steps.len(), "steps")) } }
        }
    }
}

/// The times of a step, as its waterfall shows them.
struct StepTimes {
    ttft: f64,
    decode: f64,
    /// The rest of the step's time.
    rest: f64,
}

impl StepTimes {
    fn of(step: &StepMetrics) -> Self {
        let millis = |time: Option<Millis>| time.map_or(0.0, Millis::get);
        let (ttft, decode) = (millis(step.times.ttft), millis(step.times.decode));
        Self { ttft, decode, rest: (millis(step.times.gen_total) - ttft - decode).max(0.0) }
    }

    fn whole(&self) -> f64 {
        self.ttft + self.decode + self.rest
    }

    fn whole_of(steps: &[StepMetrics]) -> f64 {
        steps.iter().map(|step| Self::of(step).whole()).sum()
    }
}

/// Returns the steps that a page shows one by one, and those beyond.
fn shown_and_further(steps: &[StepMetrics]) -> (&[StepMetrics], &[StepMetrics]) {
    steps.split_at(steps.len().min(MAX_STEPS))
}

fn further_steps(further: &[StepMetrics]) -> String {
    format!("{} further step{}", further.len(), if further.len() == 1 { "" } else { "s" })
}

/// Returns the time of a turn that belongs to none of its steps, in milliseconds.
fn outside_of(steps: &[StepMetrics], duration: Option<Millis>) -> Option<f64> {
    let outside = duration?.get() - StepTimes::whole_of(steps);
    (outside > 0.0).then_some(outside)
}

/// Returns the rows of a turn's waterfall.
fn times(steps: &[StepMetrics], duration: Option<Millis>) -> Vec<WaterfallRow> {
    let (shown, further) = shown_and_further(steps);
    let mut rows = Vec::new();
    for (nth, step) in shown.iter().enumerate() {
        let StepTimes { ttft, decode, rest } = StepTimes::of(step);
        let spans = vec![(SpanKind::FirstToken, ttft), (SpanKind::Decode, decode), (SpanKind::RestOfStep, rest)];
        rows.push(WaterfallRow { name: format!("step {}", nth + 1), spans });
    }
    if !further.is_empty() {
        let spans = vec![(SpanKind::RestOfStep, StepTimes::whole_of(further))];
        rows.push(WaterfallRow { name: "more".to_owned(), spans });
    }
    if let Some(outside) = outside_of(steps, duration) {
        rows.push(WaterfallRow { name: "other".to_owned(), spans: vec![(SpanKind::OutsideSteps, outside)] });
    }
    rows
}

/// The steps of a turn as a table.
fn steps(name: &str, turn_id: &TurnId, steps: &[StepMetrics], duration: Option<Millis>) -> Markup {
    let (shown, further) = shown_and_further(steps);
    // The waterfall shows these times too.
    let sum = |name: &str, millis: f64| {
        html! {
            tr {
                th scope="row" { (name) }
                td colspan="7" {}
                td class="number" { (figure::duration(Some(millis))) }
                td {}
            }
        }
    };
    html! {
        details {
            summary { "Steps of " (figure::id(turn_id.as_str())) }
            (scrolling(&format!("Steps of turn {name}"), &html! {
                table {
                    caption class="hidden" { "Steps of turn " (name) }
                    thead {
                        tr {
                            th scope="col" { "Step" }
                            @for name in ["Input", "Output", "Cache read", "Cache write", "First token", "Decode", "Rest", "Generation", "Speed"] {
                                th scope="col" class="number" { (name) }
                            }
                        }
                    }
                    tbody {
                        @for step in shown {
                            tr {
                                th scope="row" class="id" { (figure::id(step.step_id.as_str())) }
                                td class="number" { (figure::tokens(step.usage.input_tokens.get())) }
                                td class="number" { (figure::tokens(step.usage.output_tokens.get())) }
                                td class="number" {
                                    (figure::optional_tokens(step.usage.cache_read_tokens.map(TokenCount::get)))
                                }
                                td class="number" {
                                    (figure::optional_tokens(step.usage.cache_write_tokens.map(TokenCount::get)))
                                }
                                td class="number" { (figure::duration(step.times.ttft.map(Millis::get))) }
                                td class="number" { (figure::duration(step.times.decode.map(Millis::get))) }
                                td class="number" { (figure::duration(step.times.gen_total.map(|_| StepTimes::of(step).rest))) }
                                td class="number" { (figure::duration(step.times.gen_total.map(Millis::get))) }
                                td class="number" { (figure::speed(speed(step))) }
                            }
                        }
                    }
                    tfoot {
                        @if !further.is_empty() { (sum(&further_steps(further), StepTimes::whole_of(further))) }
                        @if let Some(outside) = outside_of(steps, duration) { (sum("Outside of steps", outside)) }
                    }
                }
            }))
            @if !further.is_empty() {
                p class="note" {
                    (further_steps(further)) @if further.len() == 1 { " is" } @else { " are" }
                    " left out here. The API has all of them."
                }
            }
        }
    }
}

/// Returns the output tokens of a step by its decode time, if it has both.
fn speed(step: &StepMetrics) -> Option<f64> {
    let decode = step.times.decode?.get();
    let tokens = step.usage.output_tokens.get();
    (decode > 0.0 && tokens > 0).then(|| float(tokens.into()) * 1000.0 / decode)
}

/// The turns that have not ended.
fn open_list(open: &OpenTurns, api: &str) -> Markup {
    let shown: Vec<SealedTurn> = open.turns.iter().take(MAX_OPEN).map(|staged| staged.turn.so_far()).collect();
    let body = html! {
        ul class="turns" id="open-turns" {
            @for turn in &shown {
                li {
                    article {
                        header {
                            h3 { (figure::id(turn.metrics.turn_id.as_str())) }
                            span class="id" { (figure::model(turn.model.as_ref())) }
                            span class="badge open" { "open" }
                        }
                        (numbers(turn.metrics.usage, &turn.metrics.steps, None))
                        (steps("that is open", &turn.metrics.turn_id, &turn.metrics.steps, None))
                    }
                }
            }
        }
        @if open.turns.len() > shown.len() {
            p class="note" { (open.turns.len() - shown.len()) " further open turns are left out here." }
        }
    };
    panel("open", "Open turns", "With what their events have reported so far.", Some(api), &body)
}

/// Returns the links to other pages, if there are any. `latest` is the ordinal of the latest turn, and the turns of the next
/// page are before the ordinal `older`.
fn pages(view: &View, latest: u64, turns: &[StoredTurn], before: Option<u64>, older: Option<u64>) -> Markup {
    let newer = turns.last().map(|turn| turn.ordinal.get().saturating_add(LIMIT as u64 + 1));
    let newer = newer.filter(|newer| before.is_some() && *newer <= latest);
    let at = |before: u64| view.query_at(before);
    html! {
        @if before.is_some() || older.is_some() {
            nav class="pages" aria-label="Pages of the turns" {
                @if before.is_some() { a class="button" href={ "?" (view.zone_query()) } { "Latest turns" } }
                @if let Some(newer) = newer { a class="button" rel="prev" href={ "?" (at(newer)) } { "Newer turns" } }
                @if let Some(older) = older { a class="button" rel="next" href={ "?" (at(older)) } { "Older turns" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_above_all_of_the_cache_is_explained() {
        for (retention, text, is_explained) in [(1.009, "100.9%", true), (1.0, "100.0%", false), (0.5, "50.0%", false)]
        {
            let note = retention_note(retention).into_string();
            assert!(note.contains(text), "{note}");
            assert_eq!(note.contains("more than 100%: "), is_explained, "{note}");
        }
    }
}

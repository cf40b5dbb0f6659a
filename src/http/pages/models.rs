//! The page `/ui/models`: models side by side, and their prices.

use std::cmp::Reverse;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};

use super::answer::answer;
use super::charts::meter::meter;
use super::figure;
use super::layout::{Page, Place, root};
use super::link::{self, with_query};
use super::panel::{panel, scrolling};
use super::view::View;
use crate::http::error::ApiError;
use crate::http::resources::api::Api;
use crate::http::resources::prices::rates;
use crate::http::resources::query::Query;
use crate::http::resources::stats::{Asked, UsedPrices, pause_after_row};
use crate::readable::float;
use crate::report::{Breakdown, BreakdownRow, Figures, Percentiles, PicoDollars, QuotedRates, RollupLabel};
use crate::turn::Label;

const PARAMETERS: &[&str] = &["range", "first", "last", "tz"];

/// The maximum number of models on the page. Kernels choose the names of models, so there may be very many.
const MAX_MODELS: usize = 100;

/// What the percentiles of the models are.
const SPEED_NOTE: &str = "Of single steps, and of whole turns. p50 is the median, which the bars compare. One value in ten is \
                          above p90, and one in a hundred is above p99.";

/// Shows the models of a period.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> HttpResponse {
    let page = page(&api, &request).await;
    answer(&api, &request, Place::Models, page).await
}

/// The models with the most tokens.
struct Models<'a> {
    shown: Vec<Model<'a>>,
    /// The number of all models.
    count: usize,
    /// The tokens of all models.
    tokens: i128,
}

impl<'a> Models<'a> {
    /// Chooses the models of a report. There may be very many, so other requests may run on this thread meanwhile.
    async fn of(breakdown: &'a Breakdown) -> Self {
        let (mut rows, mut tokens) = (Vec::new(), 0);
        for (nth, (_, label, row)) in breakdown.rows().enumerate() {
            tokens += row.rollup.tokens();
            rows.push((Reverse(row.rollup.tokens()), label, row));
            pause_after_row(nth).await;
        }
        let count = rows.len();
        rows.sort_unstable_by_key(|(tokens, label, _)| (*tokens, *label));
        let mut shown = Vec::new();
        for (nth, (_, label, row)) in rows.into_iter().take(MAX_MODELS).enumerate() {
            shown.push(Model { label, row, figures: Figures::of(&row.rollup) });
            pause_after_row(nth).await;
        }
        Self { shown, count, tokens }
    }
}

/// A model of a provider, as the page shows it.
struct Model<'a> {
    label: &'a RollupLabel,
    row: &'a BreakdownRow,
    figures: Figures,
}

impl Model<'_> {
    /// The model and the provider as parameters of a query.
    fn query(&self) -> String {
        let text = |label: &Option<Label>| label.as_ref().map(|label| label.as_str().to_owned()).unwrap_or_default();
        link::query(&[("model", &text(&self.label.model)), ("provider", &text(&self.label.provider))])
    }

    fn name(&self) -> Markup {
        html! {
            (figure::model(self.label.model.as_ref()))
            @if let Some(provider) = &self.label.provider {
                " " span class="meaning" { (figure::name(provider.as_str())) }
            }
        }
    }
}

async fn page(api: &Api, request: &HttpRequest) -> Result<Page, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let mut view = View::read_bounded(api, &query)?;
    let _inside = api.reports.enter().await?;
    let asked = view.report_query("all", "model,provider");
    let answered = Asked::read(api, &asked)?.answer(api).await?;
    view.bounds = Some((answered.asked.whole.start().start_millis(), answered.asked.whole.end().start_millis()));
    let Models { shown: models, count, tokens } = Models::of(&answered.report.breakdown).await;
    let root = root(request.uri().path());
    let stats = format!("{root}{}", with_query("stats", &asked));
    let note = if count > MAX_MODELS {
        format!("The {MAX_MODELS} models with the most tokens of {count}. Steps count for the model that they asked.")
    } else {
        "Steps count for the model that they asked; turns for the model of the turn.".to_owned()
    };
    let used = match UsedPrices::of(api, &answered.report) {
        UsedPrices::Of(edition) => {
            format!(
                "Price list: {}, {}. It has past prices too, by which earlier turns are priced.",
                edition.table, edition.date
            )
        }
        UsedPrices::Earlier => "The costs above are still those of earlier prices.".to_owned(),
        UsedPrices::NoEdition => "There are no published prices.".to_owned(),
    };
    let prices_note = format!("US dollars per million tokens, now and for short prompts. {used}");
    let body = html! {
        h1 { "Models" }
        (view.controls(&[], false))
        @if models.is_empty() {
            section class="card empty" { h2 { "No turn ended in this time" } p { "Choose another time above." } }
        } @else {
            (panel("usage", "Tokens and cost", &note, Some(&stats), &usage_table(&models, tokens)))
            (panel("speed", "Times and speeds", SPEED_NOTE, Some(&stats), &speed_table(&models)))
            (panel("prices", "Prices", &prices_note, None, &price_table(api, &root, &models)))
        }
    };
    let carried = view.query();
    Ok(Page { title: "Models".to_owned(), carried, zone: Some(view.zone.name().to_owned()), body })
}

/// `all` is the number of tokens of all models, with those that the page does not show.
fn usage_table(models: &[Model<'_>], all: i128) -> Markup {
    let share = |model: &Model<'_>| if all > 0 { float(model.row.rollup.tokens()) / float(all) } else { 0.0 };
    let costs: Vec<_> = models.iter().map(|model| model.row.cost.figures()).collect();
    let of_cost = figure::places(costs.iter().map(|cost| cost.usd));
    let of_saved = figure::places(models.iter().map(|model| model.row.cache_saved()));
    scrolling(
        "Tokens and cost by model",
        &html! {
            table {
                caption class="hidden" { "Tokens and cost by model" }
                thead {
                    tr {
                        th scope="col" { "Model" }
                        th scope="col" class="number" { "Turns" }
                        th scope="col" class="number" { "Steps" }
                        th scope="col" class="number" { "Input tokens" }
                        th scope="col" class="number" { "Output tokens" }
                        th scope="col" class="number" { "Cache rate" }
                        th scope="col" class="number" { "Cost" }
                        th scope="col" class="number" { "Saved by the cache" }
                        th scope="col" class="number" { "Share of tokens" }
                        th scope="col" class="wide" { span class="hidden" { "Share as a bar" } }
                    }
                }
                tbody {
                    @for (model, cost) in models.iter().zip(&costs) {
                        @let figures = &model.figures;
                        tr {
                            th scope="row" class="id" { (model.name()) }
                            td class="number" { (figure::count(figures.turns, "turns")) }
                            td class="number" { (figure::count(figures.steps, "steps")) }
                            td class="number" { (figure::tokens(figures.usage.input_tokens)) }
                            td class="number" { (figure::tokens(figures.usage.output_tokens)) }
                            td class="number" { (figure::share(figures.cache_rate)) }
                            td class="number" { (figure::cost(cost, of_cost)) }
                            td class="number" { (figure::amount(model.row.cache_saved(), of_saved)) }
                            td class="number" { (figure::share(Some(share(model)))) }
                            td class="wide" { (meter(share(model))) }
                        }
                    }
                }
            }
        },
    )
}

/// Picks the percentiles of a column.
type Of = fn(&Figures) -> Option<Percentiles>;

/// Shows a percentile.
type Show = fn(Option<f64>) -> Markup;

fn speed_table(models: &[Model<'_>]) -> Markup {
    let largest = |of: Of| models.iter().filter_map(|model| of(&model.figures)).map(|of| of.p50).fold(0.0, f64::max);
    let columns: [(&str, &str, Of, Show); 3] = [
        ("Time to first token", "longer is slower", |figures| figures.ttft_ms, figure::duration),
        ("Output speed", "longer is faster", |figures| figures.step_output_tokens_per_second, figure::speed),
        ("Duration of turns", "longer is slower", |figures| figures.turn_duration_ms, figure::duration),
    ];
    scrolling(
        "Times and speeds by model",
        &html! {
            table {
                caption class="hidden" { "Times and speeds by model" }
                thead {
                    tr {
                        th scope="col" rowspan="2" { "Model" }
                        @for (name, meaning, ..) in columns {
                            th scope="colgroup" colspan="4" class="group" {
                                (name) " " span class="meaning" { (meaning) }
                            }
                        }
                    }
                    tr {
                        @for (name, ..) in columns {
                            th scope="col" class="number first" { "p50" }
                            th scope="col" { span class="hidden" { "p50 as a bar, " (name) } }
                            th scope="col" class="number" { "p90" }
                            th scope="col" class="number" { "p99" }
                        }
                    }
                }
                tbody {
                    @for model in models {
                        tr {
                            th scope="row" class="id" { (model.name()) }
                            @for (_, _, of, show) in columns {
                                @let of_model = of(&model.figures);
                                @let largest = largest(of);
                                td class="number first" { (show(of_model.map(|of| of.p50))) }
                                td { @if let Some(of) = of_model { (meter(of.p50 / largest)) } }
                                td class="number" { (show(of_model.map(|of| of.p90))) }
                                td class="number" { (show(of_model.map(|of| of.p99))) }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn price_table(api: &Api, root: &str, models: &[Model<'_>]) -> Markup {
    let now = api.clock.now();
    let found = |model: &Model<'_>| {
        let known = model.label.model.as_ref()?;
        rates(api, known.as_str(), model.label.provider.as_ref().map(Label::as_str), now)
    };
    let found: Vec<_> = models.iter().map(found).collect();
    let places = |rate: fn(&QuotedRates) -> PicoDollars| figure::rate_places(found.iter().flatten().map(rate));
    let of_input = places(|rates| rates.input);
    let of_output = places(|rates| rates.output);
    let of_cache_read = places(|rates| rates.cache_read);
    let of_cache_write = places(|rates| rates.cache_write);
    scrolling(
        "Prices by model",
        &html! {
            table {
                caption class="hidden" { "Prices of a million tokens by model" }
                thead {
                    tr {
                        th scope="col" { "Model" }
                        th scope="col" { "Found as" }
                        th scope="col" class="number" { "Input" }
                        th scope="col" class="number" { "Output" }
                        th scope="col" class="number" { "Cache read" }
                        th scope="col" class="number" { "Cache write" }
                        th scope="col" class="number" { "Tokens without a price" }
                        th scope="col" { span class="hidden" { "Address in the API" } }
                    }
                }
                tbody {
                    @for model in models {
                        @let known = model.label.model.as_ref();
                        @let found = known.and_then(|known| rates(api, known.as_str(), model.label.provider.as_ref().map(Label::as_str), now));
                        tr {
                            th scope="row" class="id" { (model.name()) }
                            @if let Some(found) = &found {
                                td class="id" {
                                    (figure::name(&found.name)) " " span class="meaning" {
                                        (figure::name(&found.table))
                                    }
                                }
                                td class="number" { (figure::rate(found.input, of_input)) }
                                td class="number" { (figure::rate(found.output, of_output)) }
                                td class="number" { (figure::rate(found.cache_read, of_cache_read)) }
                                td class="number" { (figure::rate(found.cache_write, of_cache_write)) }
                            } @else {
                                td colspan="5" { span class="badge warning" { "no price" } }
                            }
                            td class="number" { (figure::tokens(model.row.cost.unpriced_tokens())) }
                            td {
                                @if known.is_some_and(|known| !known.as_str().is_empty()) {
                                    a class="api" href={ (root) (with_query("prices", &model.query())) } { "JSON" }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::resources::stats::ROWS_AT_ONCE;
    use crate::http::stand_in::{counting_pauses, report_by_model};
    use crate::report::{Period, Quarter};

    #[actix_web::test]
    async fn other_requests_may_run_while_very_many_models_are_compared() {
        let whole = Period::new(Quarter::FIRST, Quarter::LAST).unwrap();
        // The models have 1 to 10,000 tokens.
        let report = report_by_model(&[whole], 10_000);
        let (models, pauses) = counting_pauses(Models::of(&report.breakdown)).await;
        assert_eq!(pauses, 10_000 / ROWS_AT_ONCE + MAX_MODELS / ROWS_AT_ONCE);
        assert_eq!((models.count, models.tokens), (10_000, (1..=10_000).sum()));
        assert!(models.shown.iter().map(|model| model.figures.usage.input_tokens).eq((9901..=10_000).rev()));
        // The shares are those of all models, so the shown ones do not add up to 1.
        let html = usage_table(&models.shown[..1], models.tokens).into_string();
        assert!(html.contains(r#"title="0.019998000199980003%""#), "{html}");
    }

    #[actix_web::test]
    async fn each_group_of_bars_says_which_direction_is_good() {
        let whole = Period::new(Quarter::FIRST, Quarter::LAST).unwrap();
        let report = report_by_model(&[whole], 1);
        let html = speed_table(&Models::of(&report.breakdown).await.shown).into_string();
        for (name, meaning) in [
            ("Time to first token", "longer is slower"),
            ("Output speed", "longer is faster"),
            ("Duration of turns", "longer is slower"),
        ] {
            let head = format!(r#"{name} <span class="meaning">{meaning}</span>"#);
            assert!(html.contains(&head), "{head}: {html}");
        }
    }
}

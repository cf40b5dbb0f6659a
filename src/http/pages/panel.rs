//! A part of a page, with its heading and its link to the API.

use maud::{Markup, Render, html};

use super::charts::chart::Chart;
use super::figure::unknown;

/// A card with a heading. `note` says what it shows, and `api` is the address of the resource with the same figures.
pub(crate) fn panel(id: &str, title: &str, note: impl Render, api: Option<&str>, body: &Markup) -> Markup {
    let note = note.render();
    html! {
        section class="card" aria-labelledby={ (id) "-heading" } {
            div class="card-head" {
                h2 id={ (id) "-heading" } { (title) }
                @if let Some(api) = api { a class="api" href=(api) aria-label={ (title) " as JSON" } { "JSON" } }
            }
            @if !note.0.is_empty() { p class="note" { (note) } }
            (body)
        }
    }
}

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChartKind {
    Bars,
    Lines,
}

/// Returns a chart, its legend and its table. `cell` shows the number of a series in a slot, and `total` is the cell of
/// a last column, if there is one.
pub(crate) fn chart(
    chart: &Chart<'_>,
    kind: ChartKind,
    cell: impl Fn(usize, usize) -> Markup,
    total: Option<&dyn Fn(usize) -> Markup>,
) -> Markup {
    html! {
        @match kind {
            ChartKind::Bars => {
                (chart.bars())
                @if chart.series.len() > 1 { (chart.bar_legend()) }
            }
            ChartKind::Lines => {
                (chart.lines())
                @if chart.series.len() > 1 { (chart.line_legend()) }
            }
        }
        details {
            summary { "Table" }
            (scrolling(chart.title, &html! {
                table {
                    caption { (chart.title) }
                    thead {
                        tr {
                            th scope="col" { (chart.slot_name) }
                            @for series in chart.series { th scope="col" class="number" { (series.name) } }
                            @if total.is_some() { th scope="col" class="number" { "total" } }
                        }
                    }
                    tbody {
                        @for (place, slot) in chart.slots.iter().enumerate() {
                            tr {
                                th scope="row" { (slot.name) }
                                @for (nth, series) in chart.series.iter().enumerate() {
                                    @let is_known = series.values.get(place).copied().flatten().is_some();
                                    td class="number" { @if is_known { (cell(nth, place)) } @else { (unknown()) } }
                                }
                                @if let Some(total) = total { td class="number" { (total(place)) } }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// A part that scrolls sideways if it is wider than the screen. The keyboard reaches it.
pub(crate) fn scrolling(name: &str, body: &Markup) -> Markup {
    html! { div class="scroll" role="group" aria-label=(name) tabindex="0" { (body) } }
}

/// A figure with its name and a line that explains it.
pub(crate) fn tile(name: &str, figure: &Markup, rest: &Markup) -> Markup {
    html! {
        div class="tile" {
            dt { (name) }
            dd { (figure) }
            dd class="rest" { (rest) }
        }
    }
}

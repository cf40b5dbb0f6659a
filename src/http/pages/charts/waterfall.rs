use maud::{Markup, html};

use super::chart::{Percent, Pixels, as_float};
use super::scale::{Scale, Unit};
use crate::readable;

/// The height of a row in pixels.
const ROW: f64 = 20.0;

/// The height of a bar in pixels.
const BAR: f64 = 13.0;

/// The minimum width of a span in percent, so that a short time is visible.
const MIN_WIDTH: f64 = 0.25;

/// A kind of time within a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// From the request to the first token.
    FirstToken,
    /// From the first token to the last one.
    Decode,
    /// The rest of a step's time.
    RestOfStep,
    /// The time of the turn that belongs to no step.
    OutsideSteps,
}

impl SpanKind {
    /// All kinds, in the order of the legend.
    pub(crate) const ALL: [Self; 4] = [Self::FirstToken, Self::Decode, Self::RestOfStep, Self::OutsideSteps];

    /// Returns what the kind is called on a page.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "time to first token",
            Self::Decode => "decode",
            Self::RestOfStep => "rest of the step",
            Self::OutsideSteps => "outside of steps",
        }
    }

    fn fill(self) -> &'static str {
        match self {
            Self::FirstToken => "url(#fill-1)",
            Self::Decode => "url(#fill-0)",
            Self::RestOfStep => "url(#fill-3)",
            Self::OutsideSteps => "url(#fill-7)",
        }
    }
}

/// A row of a waterfall: its name, and its times in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct WaterfallRow {
    pub(crate) name: String,
    pub(crate) spans: Vec<(SpanKind, f64)>,
}

impl WaterfallRow {
    fn millis(&self) -> f64 {
        self.spans.iter().map(|(_, millis)| millis).sum()
    }
}

/// Draws the rows one after the other in time: each begins where the row above it ends. Returns nothing if there is no
/// time to show.
pub(crate) fn waterfall(id: &str, title: &str, rows: &[WaterfallRow]) -> Option<Markup> {
    let whole: f64 = rows.iter().map(WaterfallRow::millis).sum();
    if !(whole.is_finite() && whole > 0.0) {
        return None;
    }
    let height = as_float(rows.len()) * ROW;
    let across = |millis: f64| millis / whole * 100.0;
    let scale = Scale::new(Unit::Millis, whole);
    let mut end = 0.0;
    let mut placed = |row: &WaterfallRow| -> Vec<_> {
        let shown = row.spans.iter().filter(|(_, millis)| *millis > 0.0);
        let placed = shown.map(|(kind, millis)| {
            let start = end;
            end += millis;
            (*kind, start, *millis)
        });
        placed.collect()
    };
    let spans: Vec<_> = rows.iter().map(&mut placed).collect();
    Some(html! {
        svg class="waterfall" role="img" aria-labelledby={ (id) "-title " (id) "-text" } height=(Pixels(height)) {
            title id={ (id) "-title" } { (title) }
            desc id={ (id) "-text" } {
                (rows.len()) @if rows.len() == 1 { " row" } @else { " rows" } " over " (readable::duration(whole)) ". All numbers are in the table below."
            }
            @for (value, text) in scale.ticks.iter().filter(|(value, _)| *value <= whole) {
                line class="grid" x1=(Percent(across(*value))) x2=(Percent(across(*value))) y1="0" y2=(Pixels(height)) {}
                text class="label" x=(Percent(across(*value))) y=(Pixels(height + 14.0)) { (text) }
            }
            @for (place, (row, spans)) in rows.iter().zip(&spans).enumerate() {
                @let top = as_float(place) * ROW;
                g class="slot" {
                    title { (tooltip(row)) }
                    rect class="hit" x="0" width="100%" y=(Pixels(top)) height=(Pixels(ROW)) {}
                    text class="tick" x="-8" y=(Pixels(top + ROW / 2.0)) { (row.name) }
                    @for (kind, start, millis) in spans {
                        rect x=(Percent(across(*start))) width=(Percent(across(*millis).max(MIN_WIDTH)))
                            y=(Pixels(top + (ROW - BAR) / 2.0)) height=(Pixels(BAR)) fill=(kind.fill()) {}
                    }
                }
            }
        }
    })
}

fn tooltip(row: &WaterfallRow) -> String {
    let spans = row.spans.iter().map(|(kind, millis)| format!("\n{}: {}", kind.name(), readable::duration(*millis)));
    row.name.clone() + &spans.collect::<String>()
}

/// Returns the legend of all waterfalls of a page.
pub(crate) fn waterfall_legend() -> Markup {
    html! {
        ul class="legend" {
            @for kind in SpanKind::ALL {
                li {
                    svg class="swatch" width="18" height="12" aria-hidden="true" {
                        rect width="18" height="12" fill=(kind.fill()) {}
                    }
                    (kind.name())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::attributes;
    use super::*;

    fn row(name: &str, spans: &[(SpanKind, f64)]) -> WaterfallRow {
        WaterfallRow { name: name.to_owned(), spans: spans.to_vec() }
    }

    #[test]
    fn each_row_begins_where_the_one_above_it_ends() {
        let rows = [
            row("step 1", &[(SpanKind::FirstToken, 100.0), (SpanKind::Decode, 300.0)]),
            row("step 2", &[(SpanKind::FirstToken, 0.0), (SpanKind::RestOfStep, 200.0)]),
            row("other", &[(SpanKind::OutsideSteps, 400.0)]),
        ];
        let svg = waterfall("w", "T", &rows).unwrap().into_string();
        let bars = svg.split("<rect ").filter(|rest| rest.contains("fill=\"url")).collect::<Vec<_>>();
        let bars = format!("<rect {}", bars.join("<rect "));
        assert_eq!(attributes(&bars, "rect", "x"), ["0.000%", "10.000%", "40.000%", "60.000%"]);
        assert_eq!(attributes(&bars, "rect", "width"), ["10.000%", "30.000%", "20.000%", "40.000%"]);
        assert!(svg.contains("<title>step 1\ntime to first token: 100 ms\ndecode: 300 ms</title>"), "{svg}");
        assert!(svg.contains("3 rows over 1.00 s."), "{svg}");
        let svg = waterfall("w", "T", &rows[..1]).unwrap().into_string();
        assert!(svg.contains("1 row over 400 ms."), "{svg}");
    }

    #[test]
    fn a_turn_without_times_or_with_absurd_ones_has_no_waterfall() {
        let absurd = [row("a", &[(SpanKind::Decode, f64::MAX)]), row("b", &[(SpanKind::Decode, f64::MAX)])];
        for rows in [&[][..], &[row("a", &[])], &[row("a", &[(SpanKind::Decode, 0.0)])], &absurd] {
            assert!(waterfall("w", "T", rows).is_none());
        }
    }
}

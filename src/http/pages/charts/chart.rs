use std::fmt::Write;

use maud::{Markup, Render, html};

use super::scale::{Scale, Unit};

/// The height of the plot in pixels. The style sheet has the same number.
pub(crate) const HEIGHT: f64 = 180.0;

/// How many labels stand below the plot at most. This number fits on a phone.
const MAX_LABELS: usize = 6;

/// The number of fills that tell series apart. Later series would look like earlier ones.
pub(crate) const FILLS: usize = 8;

/// A place on the horizontal axis.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The short text below the plot.
    pub(crate) label: String,
    /// The full name, for tooltips and tables.
    pub(crate) name: String,
}

/// The values of one series, one for each slot. A slot without a value has `None`.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// The number of its fill.
    pub(crate) fill: usize,
    pub(crate) values: Vec<Option<f64>>,
}

/// What a chart shows.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    /// An id that is unique in the page.
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    pub(crate) unit: Unit,
    /// What a slot is, such as a day.
    pub(crate) slot_name: &'a str,
    pub(crate) slots: &'a [Slot],
    pub(crate) series: &'a [Series],
}

/// A position or a length with two decimal places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixels(pub(crate) f64);

/// A position or a length in percent of the width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) f64);

impl Render for Pixels {
    fn render_to(&self, buffer: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(buffer, "{:.2}", self.0);
    }
}

impl Render for Percent {
    fn render_to(&self, buffer: &mut String) {
        let _ = write!(buffer, "{:.3}%", self.0);
    }
}

/// Returns the vertical position of a share of the axis.
pub(crate) fn down(share: f64) -> f64 {
    HEIGHT * (1.0 - share)
}

/// Converts a number of slots. It is far below the limit of a float.
#[expect(clippy::cast_precision_loss, reason = "a page has few slots")]
pub(crate) fn as_float(count: usize) -> f64 {
    count as f64
}

impl Chart<'_> {
    /// Returns the width of a slot in percent.
    pub(crate) fn slot_width(&self) -> f64 {
        100.0 / as_float(self.slots.len().max(1))
    }

    /// Returns the chart around the marks that `marks` draws for a slot.
    pub(crate) fn frame(&self, kind: &str, scale: &Scale, largest: &str, marks: impl Fn(usize) -> Markup) -> Markup {
        let width = self.slot_width();
        let every = self.slots.len().div_ceil(MAX_LABELS).max(1);
        html! {
            svg class="chart" role="img" aria-labelledby={ (self.id) "-title " (self.id) "-text" } {
                title id={ (self.id) "-title" } { (self.title) }
                desc id={ (self.id) "-text" } { (self.description(kind, largest)) }
                text class="unit" x="-8" y="-12" { (self.unit.name()) }
                text class="unit" x="-8" y=(Pixels(HEIGHT + 18.0)) { (self.slot_name) }
                @for (value, text) in &scale.ticks {
                    @let y = Pixels(down(scale.share(*value)));
                    line class="grid" x1="0" x2="100%" y1=(y) y2=(y) {}
                    text class="tick" x="-8" y=(y) { (text) }
                }
                @for (place, slot) in self.slots.iter().enumerate() {
                    g class="slot" {
                        title { (self.tooltip(place)) }
                        rect class="hit" x=(Percent(as_float(place) * width)) width=(Percent(width)) y="0" height=(Pixels(HEIGHT)) {}
                        (marks(place))
                    }
                    @if place % every == 0 {
                        text class="label" x=(Percent((as_float(place) + 0.5) * width)) y=(Pixels(HEIGHT + 18.0)) {
                            (slot.label)
                        }
                    }
                }
            }
        }
    }

    /// Returns a description of the chart for screen readers.
    fn description(&self, kind: &str, largest: &str) -> String {
        let [Some(first), Some(last)] = [self.slots.first(), self.slots.last()] else {
            return format!("{kind} without values.");
        };
        let names: Vec<_> = self.series.iter().map(|series| series.name.as_str()).collect();
        format!(
            "{kind} from {} to {}, of {}. {largest} All numbers are in the table below the chart.",
            first.name,
            last.name,
            names.join(", ")
        )
    }

    fn tooltip(&self, place: usize) -> String {
        let mut text = self.slots[place].name.clone();
        for series in self.series {
            let value = series.values.get(place).copied().flatten();
            if let Some(value) = value.filter(|value| *value != 0.0 || self.series.len() == 1) {
                let _ = write!(text, "\n{}: {}", series.name, self.unit.text(value));
            }
        }
        text
    }

    /// Returns the legend: the name of each series beside the sign that `sign` draws for it, 18 pixels wide and 14 high.
    pub(crate) fn legend(&self, sign: impl Fn(usize) -> Markup) -> Markup {
        html! {
            ul class="legend" {
                @for (nth, series) in self.series.iter().enumerate() {
                    li {
                        svg class="swatch" width="18" height="14" aria-hidden="true" { (sign(nth)) }
                        (series.name)
                    }
                }
            }
        }
    }
}

/// Returns the fill of a series. The patterns are in the page, see [`patterns`].
pub(crate) fn fill(nth: usize) -> String {
    format!("url(#fill-{})", nth % FILLS)
}

/// Returns the number of a fill for each name. A name has the same fill in all charts, unless another name of the chart
/// has that fill already. Fill 0 is left to charts of a single series.
pub(crate) fn fills_of(names: &[&str]) -> Vec<usize> {
    // With this factor, the models of the demo want different fills.
    let wanted = |name: &str| {
        let hash = name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(65).wrapping_add(byte.into()));
        hash as usize % (FILLS - 1)
    };
    let mut by_name: Vec<usize> = (0..names.len()).collect();
    by_name.sort_by_key(|nth| names[*nth]);
    let (mut fills, mut taken) = (vec![0; names.len()], [false; FILLS - 1]);
    for nth in by_name {
        if taken.iter().all(|is_taken| *is_taken) {
            taken = [false; FILLS - 1];
        }
        let mut fill = wanted(names[nth]);
        while taken[fill] {
            fill = (fill + 1) % taken.len();
        }
        taken[fill] = true;
        fills[nth] = fill + 1;
    }
    fills
}

/// Returns the fills of all series, which a page needs once. Each has a colour and a pattern, so that the colour is not
/// the only sign.
pub(crate) fn patterns() -> Markup {
    /// Lines over a square of 8 pixels, for the fills in their order. Neighbours differ.
    const LINES: [&str; FILLS] = [
        "",
        "M0 8L8 0M-2 2L2 -2M6 10L10 6",
        "M0 4H8",
        "M4 0V8",
        "M0 0L8 8M-2 6L2 10M6 -2L10 2",
        "M0 2H8M0 6H8",
        "M0 4H8M4 0V8",
        "M1 1H3V3H1ZM5 5H7V7H5Z",
    ];
    html! {
        svg class="patterns" width="0" height="0" aria-hidden="true" {
            defs {
                @for (nth, path) in LINES.iter().enumerate() {
                    pattern id={ "fill-" (nth) } width="8" height="8" patternUnits="userSpaceOnUse" {
                        rect class={ "fill-" (nth) } width="8" height="8" {}
                        @if !path.is_empty() { path class="hatch" d=(path) {} }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{series, slots};
    use super::*;

    #[test]
    fn texts_from_outside_cannot_become_markup() {
        let evil = "</title><script>alert('1')</script>\" onload=\"x";
        let slots = [Slot { label: evil.to_owned(), name: evil.to_owned() }];
        let series = [series(evil, &[1.0])];
        let chart =
            Chart { id: "x", title: evil, unit: Unit::Tokens, slot_name: "slot", slots: &slots, series: &series };
        for markup in [chart.bars(), chart.lines(), chart.bar_legend(), chart.line_legend()] {
            let text = markup.into_string();
            assert!(!text.contains("<script") && !text.contains("\" onload"), "{text}");
            assert!(text.contains("&lt;script&gt;"), "{text}");
        }
    }

    #[test]
    fn a_chart_has_a_title_a_text_and_few_labels() {
        let (slots, series) = (slots(31), [series("a", &[3.0; 31])]);
        let chart =
            Chart { id: "x", title: "T", unit: Unit::Tokens, slot_name: "slot", slots: &slots, series: &series };
        let svg = chart.bars().into_string();
        assert!(svg.contains(r#"role="img" aria-labelledby="x-title x-text""#), "{svg}");
        assert!(svg.contains(r#"<title id="x-title">T</title>"#), "{svg}");
        assert!(svg.contains("Stacked bars from slot 1 to slot 31, of a. The largest is 3 tokens (slot 1)."), "{svg}");
        assert_eq!(svg.matches(r#"class="label""#).count(), 6);
        assert_eq!(svg.matches("<title>slot ").count(), 31, "one tooltip a slot");
        assert!(svg.contains(">slot</text>"), "the axis says what its numbers are: {svg}");
    }

    #[test]
    fn a_name_has_its_fill_whatever_the_order_and_the_other_names_unless_they_want_the_same() {
        let names = ["claude-sonnet-4-5", "gpt-5", "gemini-2.5-pro", "claude-haiku-4-5", "house-model-8b"];
        let fills = fills_of(&names);
        let mut turned = names;
        turned.reverse();
        assert!(fills_of(&turned).into_iter().rev().eq(fills.iter().copied()));
        assert_eq!(fills_of(&[names[1], names[0]]), [fills[1], fills[0]]);
        // As many names as there are fills have one each, although some of them want the same.
        let many: Vec<_> = (1..FILLS).map(|nth| "m".repeat(nth)).collect();
        let mut fills = fills_of(&many.iter().map(String::as_str).collect::<Vec<_>>());
        fills.sort_unstable();
        assert!(fills.into_iter().eq(1..FILLS));
        assert_eq!(fills_of(&["m"; 99]).len(), 99);
    }

    #[test]
    fn every_fill_that_is_used_is_defined() {
        let defined = patterns().into_string();
        for nth in 0..2 * FILLS {
            let used = fill(nth).trim_start_matches("url(#").trim_end_matches(')').to_owned();
            assert!(defined.contains(&format!("id=\"{used}\"")), "{used}");
        }
    }
}

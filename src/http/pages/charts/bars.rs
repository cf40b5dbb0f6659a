use maud::{Markup, html};

use super::chart::{Chart, Percent, Pixels, as_float, down, fill};
use super::scale::Scale;

/// The share of a slot that its bar takes.
const BAR_SHARE: f64 = 0.74;

/// The maximum number of slots with the value above each bar. This number of values fits on a phone.
const MAX_VALUES: usize = 7;

/// The maximum width of a bar in percent, so that the bars of few slots do not look like walls.
const MAX_BAR_WIDTH: f64 = 9.0;

impl Chart<'_> {
    /// Draws a bar for each slot, with the series one above the other.
    pub(crate) fn bars(&self) -> Markup {
        let totals: Vec<f64> = (0..self.slots.len()).map(|place| self.total(place)).collect();
        // Of equal totals, the first one is named.
        let largest = totals.iter().enumerate().rev().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let scale = Scale::new(self.unit, largest.map_or(0.0, |(_, total)| *total));
        let text = largest.filter(|(_, total)| **total > 0.0).map_or_else(String::new, |(place, total)| {
            format!("The largest is {} ({}).", self.unit.text(*total), self.slots[place].name)
        });
        self.frame("Stacked bars", &scale, &text, |place| self.bar(place, &scale))
    }

    /// Returns the legend of the bars: the name of each series beside its fill.
    pub(crate) fn bar_legend(&self) -> Markup {
        self.legend(|nth| html! { rect width="18" height="12" y="1" rx="2" fill=(fill(self.series[nth].fill)) {} })
    }

    fn value(&self, nth: usize, place: usize) -> f64 {
        self.series[nth].values.get(place).copied().flatten().unwrap_or(0.0).max(0.0)
    }

    fn total(&self, place: usize) -> f64 {
        (0..self.series.len()).map(|nth| self.value(nth, place)).sum()
    }

    fn bar(&self, place: usize, scale: &Scale) -> Markup {
        let slot = self.slot_width();
        let width = (slot * BAR_SHARE).min(MAX_BAR_WIDTH);
        let x = (as_float(place) + 0.5) * slot - width / 2.0;
        let mut below = 0.0;
        let parts = (0..self.series.len()).map(|nth| {
            let value = self.value(nth, place);
            let bottom = down(scale.share(below));
            below += value;
            (nth, down(scale.share(below)), bottom)
        });
        let parts: Vec<_> = parts.filter(|(_, top, bottom)| top < bottom).collect();
        html! {
            @for (nth, top, bottom) in parts {
                rect x=(Percent(x)) width=(Percent(width)) y=(Pixels(top)) height=(Pixels(bottom - top)) fill=(fill(self.series[nth].fill)) {}
            }
            @if below > 0.0 && self.slots.len() <= MAX_VALUES {
                text class="value" x=(Percent(x + width / 2.0)) y=(Pixels(down(scale.share(below)) - 5.0)) {
                    (self.unit.short(below, scale.top))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chart::HEIGHT;
    use super::super::samples::{attributes, series, slots};
    use super::super::scale::Unit;
    use super::*;

    fn numbers(svg: &str, name: &str) -> Vec<f64> {
        let bars = svg.split("<rect ").skip(1).filter(|rest| rest.contains("fill=")).collect::<Vec<_>>();
        let bars = format!("<rect {}", bars.join("<rect "));
        attributes(&bars, "rect", name).iter().map(|text| text.trim_end_matches('%').parse().unwrap()).collect()
    }

    #[test]
    fn the_series_stand_on_each_other_and_reach_to_their_sum() {
        let (slots, mut series) =
            (slots(2), [series("a", &[30.0, 10.0]), series("b", &[10.0, 0.0]), series("c", &[20.0, 30.0])]);
        series[1].fill = 1;
        let chart =
            Chart { id: "x", title: "T", unit: Unit::Tokens, slot_name: "slot", slots: &slots, series: &series };
        let svg = chart.bars().into_string();
        assert!(svg.contains(">60</text>") && svg.contains(">40</text>"), "the sums stand above the bars: {svg}");
        // The scale ends at 60. A value of 0 has no bar.
        let part = HEIGHT / 60.0;
        assert_eq!(numbers(&svg, " y"), [30.0 * part, 20.0 * part, 0.0, 50.0 * part, 20.0 * part]);
        assert_eq!(numbers(&svg, "height"), [30.0, 10.0, 20.0, 10.0, 30.0].map(|value| value * part));
        assert_eq!(svg.matches("url(#fill-1)").count(), 1);
        assert!(svg.contains("<title>slot 2\na: 10 tokens\nc: 30 tokens</title>"), "{svg}");
    }

    #[test]
    fn a_chart_without_values_or_slots_is_an_empty_frame() {
        for (slots, series) in [(slots(3), vec![series("a", &[0.0, 0.0, 0.0])]), (slots(3), vec![]), (slots(0), vec![])]
        {
            let chart =
                Chart { id: "x", title: "T", unit: Unit::Dollars, slot_name: "slot", slots: &slots, series: &series };
            let svg = chart.bars().into_string();
            assert!(!svg.contains("fill=") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.contains("$0"), "{svg}");
        }
    }

    #[test]
    fn values_that_are_not_known_or_negative_have_no_bar() {
        let slots = slots(2);
        let mut of_a = series("a", &[5.0, -4.0]);
        of_a.values[0] = None;
        let series = [of_a];
        let svg = Chart { id: "x", title: "T", unit: Unit::Tokens, slot_name: "slot", slots: &slots, series: &series }
            .bars()
            .into_string();
        assert!(!svg.contains("fill="), "{svg}");
    }
}

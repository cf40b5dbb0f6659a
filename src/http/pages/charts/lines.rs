use maud::{Markup, html};

use super::chart::{Chart, FILLS, Percent, Pixels, as_float, down};
use super::scale::Scale;

/// The maximum number of slots with a dot at each value. More dots would hide the lines.
const MAX_DOTTED_SLOTS: usize = 62;

impl Chart<'_> {
    /// Draws a line for each series, with a gap at a slot without a value.
    pub(crate) fn lines(&self) -> Markup {
        let values = self.series.iter().flat_map(|series| {
            series.values.iter().zip(self.slots).filter_map(|(value, slot)| Some(((*value)?, &slot.name, &series.name)))
        });
        let largest = values.max_by(|one, other| one.0.total_cmp(&other.0));
        let scale = Scale::new(self.unit, largest.map_or(0.0, |(value, ..)| value));
        let text = largest.map_or_else(String::new, |(value, slot, series)| {
            format!("The largest is {} ({series}, {slot}).", self.unit.text(value))
        });
        self.frame("Lines", &scale, &text, |place| self.points(place, &scale))
    }

    /// Returns the legend of the lines: the name of each series beside what the chart has of it, a line, dots or both.
    pub(crate) fn line_legend(&self) -> Markup {
        let places = |is: fn(&Self, &[Option<f64>], usize) -> bool| {
            self.series.iter().any(|series| (0..self.slots.len()).any(|place| is(self, &series.values, place)))
        };
        let has_lines = places(|_, values, place| before(values, place).is_some());
        let has_dots = places(Self::has_dot);
        self.legend(|nth| {
            html! {
                @if has_lines { line class=(line_class(nth)) x1="0" x2="18" y1="7" y2="7" {} }
                @if has_dots { circle class={ "dot dot-" (nth) } cx="9" cy="7" r=(radius(nth, false)) {} }
            }
        })
    }

    /// Returns whether a value has a dot.
    fn has_dot(&self, values: &[Option<f64>], place: usize) -> bool {
        at(values, place).is_some() && (self.slots.len() <= MAX_DOTTED_SLOTS || is_alone(values, place))
    }

    /// Draws the points of a slot, and the lines from the slot before it.
    fn points(&self, place: usize, scale: &Scale) -> Markup {
        let width = self.slot_width();
        let x = |place: usize| Percent((as_float(place) + 0.5) * width);
        let y = |value: f64| Pixels(down(scale.share(value)));
        html! {
            @for (nth, series) in self.series.iter().enumerate() {
                @if let Some((earlier, value)) = before(&series.values, place).zip(at(&series.values, place)) {
                    line class=(line_class(nth)) x1=(x(place - 1)) y1=(y(earlier)) x2=(x(place)) y2=(y(value)) {}
                }
            }
            // The dots of the first series are full. Those of the others are larger and larger rings, the largest of which comes
            // first, so that each of several equal values is seen.
            @for (nth, series) in self.series.iter().enumerate().rev() {
                @if let Some(value) = at(&series.values, place).filter(|_| self.has_dot(&series.values, place)) {
                    @let radius = radius(nth, is_alone(&series.values, place));
                    circle class={ "dot dot-" (nth) } cx=(x(place)) cy=(y(value)) r=(radius) {}
                }
            }
        }
    }
}

fn at(values: &[Option<f64>], place: usize) -> Option<f64> {
    values.get(place).copied().flatten()
}

/// Returns the value from which a line leads to the value at this place.
fn before(values: &[Option<f64>], place: usize) -> Option<f64> {
    at(values, place).and_then(|_| at(values, place.checked_sub(1)?))
}

/// Returns whether no line leads to this value or from it.
fn is_alone(values: &[Option<f64>], place: usize) -> bool {
    before(values, place).is_none() && at(values, place + 1).is_none()
}

/// Returns the radius of the dots of a series in pixels. A value without a line is easily overlooked, so its dot is larger.
fn radius(nth: usize, is_alone: bool) -> String {
    let (first, more) = if is_alone { (4.0, 2.0) } else { (2.5, 1.5) };
    (first + more * as_float(nth)).to_string()
}

/// Returns the class of the line of a series.
fn line_class(nth: usize) -> String {
    format!("line line-{}", nth % FILLS)
}

#[cfg(test)]
mod tests {
    use super::super::chart::HEIGHT;
    use super::super::samples::{attributes, series, slots};
    use super::super::scale::Unit;
    use super::*;

    #[test]
    fn a_line_has_a_gap_where_no_value_is_known() {
        let slots = slots(4);
        let mut of_a = series("a", &[100.0, 300.0, 0.0, 200.0]);
        of_a.values[2] = None;
        let series = [of_a];
        let chart =
            Chart { id: "x", title: "T", unit: Unit::Millis, slot_name: "slot", slots: &slots, series: &series };
        let svg = chart.lines().into_string();
        let lines = svg.matches(r#"class="line line-0""#).count();
        assert_eq!((lines, svg.matches("<circle").count()), (1, 3), "{svg}");
        // The scale ends at 300 ms.
        let ys = attributes(&svg, "circle", "cy");
        let expected = [100.0, 300.0, 200.0].map(|value| format!("{:.2}", HEIGHT * (1.0 - value / 300.0)));
        assert_eq!(ys, expected);
        assert_eq!(attributes(&svg, "circle", "r"), ["2.5", "2.5", "4"], "the last value stands alone");
        assert!(svg.contains("The largest is 300 ms (a, slot 2)."), "{svg}");
    }

    #[test]
    fn many_points_have_no_dots_but_for_a_lonely_one() {
        let slots = slots(MAX_DOTTED_SLOTS + 1);
        let mut of_a = series("a", &vec![1.0; slots.len()]);
        of_a.values[1] = None;
        let series = [of_a];
        let svg = Chart { id: "x", title: "T", unit: Unit::Share, slot_name: "slot", slots: &slots, series: &series }
            .lines()
            .into_string();
        assert_eq!(attributes(&svg, "circle", "cx").len(), 1, "the first value has no neighbour");
    }

    #[test]
    fn equal_values_of_several_series_are_rings_around_each_other() {
        let slots = slots(2);
        let of = |values: &[f64]| ["p50", "p90", "p99"].map(|name| series(name, values));
        let series = of(&[7.0, 7.0]);
        let chart =
            Chart { id: "x", title: "T", unit: Unit::Millis, slot_name: "slot", slots: &slots, series: &series };
        let svg = chart.lines().into_string();
        let rings = ["5.5", "4", "2.5"];
        assert_eq!(attributes(&svg, "circle", "r"), [rings, rings].concat(), "the largest one is behind: {svg}");
        let series = of(&[7.0]);
        let lonely = Chart { series: &series, ..chart };
        assert_eq!(attributes(&lonely.lines().into_string(), "circle", "r"), ["8", "6", "4"]);
    }

    #[test]
    fn a_legend_shows_lines_and_dots_only_if_the_chart_has_them() {
        for (count, values, lines, dots) in [
            (3, vec![1.0, 2.0, 3.0], 1, 1),
            (1, vec![1.0], 0, 1),
            (MAX_DOTTED_SLOTS + 1, vec![1.0; MAX_DOTTED_SLOTS + 1], 1, 0),
        ] {
            let (slots, series) = (slots(count), [series("a", &values)]);
            let chart =
                Chart { id: "x", title: "T", unit: Unit::Millis, slot_name: "slot", slots: &slots, series: &series };
            let legend = chart.line_legend().into_string();
            let shown = (legend.matches("<line ").count(), legend.matches("<circle ").count());
            assert_eq!(shown, (lines, dots), "{count} slots: {legend}");
        }
    }

    #[test]
    fn no_value_makes_an_empty_frame() {
        let slots = slots(2);
        let svg = Chart { id: "x", title: "T", unit: Unit::Millis, slot_name: "slot", slots: &slots, series: &[] }
            .lines()
            .into_string();
        assert!(!svg.contains("<circle") && !svg.contains("NaN"), "{svg}");
    }
}

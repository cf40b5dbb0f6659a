use maud::{Markup, html};

use super::chart::{Chart, Percent, Pixels, as_float, down, line_class};
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

    /// Draws the points of a slot, and the lines from the slot before it.
    fn points(&self, place: usize, scale: &Scale) -> Markup {
        let width = self.slot_width();
        let x = |place: usize| Percent((as_float(place) + 0.5) * width);
        let at = |series: &[Option<f64>], place: usize| series.get(place).copied().flatten();
        let is_dotted = self.slots.len() <= MAX_DOTTED_SLOTS;
        html! {
            @for (nth, series) in self.series.iter().enumerate() {
                @if let Some(value) = at(&series.values, place) {
                    @let y = Pixels(down(scale.share(value)));
                    @let before = place.checked_sub(1).and_then(|before| Some((before, at(&series.values, before)?)));
                    @if let Some((before, earlier)) = before {
                        line class=(line_class(nth)) x1=(x(before)) y1=(Pixels(down(scale.share(earlier)))) x2=(x(place)) y2=(y) {}
                    }
                    @let is_alone = before.is_none() && at(&series.values, place + 1).is_none();
                    @if is_dotted || is_alone {
                        // A value without a line is easily overlooked.
                        circle class={ "dot dot-" (nth) } cx=(x(place)) cy=(y) r=(if is_alone { "4" } else { "2.5" }) {}
                    }
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

    #[test]
    fn a_line_has_a_gap_where_no_value_is_known() {
        let slots = slots(4);
        let mut of_a = series("a", &[100.0, 300.0, 0.0, 200.0]);
        of_a.values[2] = None;
        let series = [of_a];
        let chart = Chart { id: "x", title: "T", unit: Unit::Millis, slots: &slots, series: &series };
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
        let svg =
            Chart { id: "x", title: "T", unit: Unit::Share, slots: &slots, series: &series }.lines().into_string();
        assert_eq!(attributes(&svg, "circle", "cx").len(), 1, "the first value has no neighbour");
    }

    #[test]
    fn no_value_makes_an_empty_frame() {
        let slots = slots(2);
        let svg = Chart { id: "x", title: "T", unit: Unit::Millis, slots: &slots, series: &[] }.lines().into_string();
        assert!(!svg.contains("<circle") && !svg.contains("NaN"), "{svg}");
    }
}

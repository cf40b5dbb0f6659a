use maud::{Markup, html};

use super::chart::Percent;

/// Draws a share as a short bar. The number stands beside it, so a screen reader skips the bar.
pub(crate) fn meter(share: f64) -> Markup {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    html! {
        svg class="meter" aria-hidden="true" {
            rect class="track" width="100%" height="100%" {}
            rect class="fill-0" width=(Percent(share * 100.0)) height="100%" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_never_longer_than_its_track() {
        for (share, width) in
            [(0.5, "50.000%"), (0.0, "0.000%"), (-1.0, "0.000%"), (7.0, "100.000%"), (f64::NAN, "0.000%")]
        {
            let svg = meter(share).into_string();
            assert!(svg.contains(&format!("width=\"{width}\" height")), "{svg}");
        }
    }
}

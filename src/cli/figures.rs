//! The figures of reports, as tables show them to people. Programs read the exact figures from JSON and CSV.

use super::table::Cell;
use crate::readable;
use crate::report::{CostFigures, PicoDollars, Zone};

/// Formats a count, for example of tokens or turns. The short form is in millions.
pub(super) fn count(count: impl Into<i128>) -> Cell {
    let count = count.into();
    Cell::with_short(count.to_string(), readable::in_millions(count))
}

/// Formats a count that may be unknown.
pub(super) fn optional_count(known: Option<impl Into<i128>>) -> Cell {
    known.map_or_else(Cell::unknown, count)
}

/// Formats a cost in dollars, with four places. A `+` follows a cost that leaves tokens out. A dash stands for an
/// unknown cost.
pub(super) fn cost(cost: &CostFigures) -> Cell {
    let mark = if cost.unpriced_tokens > 0 { "+" } else { "" };
    cost.usd.map_or_else(Cell::unknown, |usd| {
        let short = if usd.get() < 100 * PicoDollars::PER_DOLLAR {
            readable::dollars(usd, 4)
        } else {
            readable::dollars(usd, 2)
        };
        Cell::with_short(readable::dollars(usd, 4) + mark, short + mark)
    })
}

/// Formats the price of a million tokens, without trailing zeros.
pub(super) fn rate(usd: PicoDollars) -> Cell {
    Cell::new(readable::rate(usd))
}

/// Formats a share in percent.
pub(super) fn share(share: Option<f64>) -> Cell {
    share.map_or_else(Cell::unknown, |share| Cell::new(readable::share(share)))
}

/// Formats a time in milliseconds.
pub(super) fn millis(millis: Option<f64>) -> Cell {
    millis.map_or_else(Cell::unknown, |millis| Cell::new(readable::millis(millis)))
}

/// Formats a rate in tokens per second.
pub(super) fn speed(speed: Option<f64>) -> Cell {
    speed.map_or_else(Cell::unknown, |speed| Cell::new(readable::speed(speed)))
}

/// Formats a moment as date and time in a zone. The short form leaves the year out.
pub(super) fn moment(millis: i64, zone: &Zone) -> Cell {
    zone.clock(millis).map_or_else(Cell::unknown, |clock| {
        let text = |format| clock.strftime(format).to_string();
        Cell::with_short(text("%Y-%m-%d %H:%M"), text("%m-%d %H:%M"))
    })
}

/// The sum of costs. Of some that are not known, their tokens count.
pub(super) fn sum_of_costs<'a>(costs: impl IntoIterator<Item = &'a CostFigures>) -> CostFigures {
    let mut sum = CostFigures { usd: None, unpriced_tokens: 0, unpriced_models: Vec::new() };
    for cost in costs {
        let usd = |cost: &CostFigures| cost.usd.map(PicoDollars::get);
        sum.usd = usd(&sum).into_iter().chain(usd(cost)).reduce(i128::saturating_add).map(PicoDollars::new);
        sum.unpriced_tokens = sum.unpriced_tokens.saturating_add(cost.unpriced_tokens);
        sum.unpriced_models.extend(cost.unpriced_models.iter().cloned());
    }
    sum.unpriced_models.sort();
    sum.unpriced_models.dedup();
    sum
}

/// Returns the note below a table about the tokens that its costs leave out. Empty if the costs are complete.
pub(super) fn unpriced_note(cost: &CostFigures) -> String {
    /// The note has only some names. `prices check` shows all of them.
    const MAX_NAMES: usize = 5;
    if cost.unpriced_tokens <= 0 {
        return String::new();
    }
    let names: Vec<_> =
        cost.unpriced_models.iter().take(MAX_NAMES).map(|name| super::output::plain(name.as_str())).collect();
    let more = if cost.unpriced_models.len() > MAX_NAMES { " and others" } else { "" };
    let of = if names.is_empty() { String::new() } else { format!(" of {}{more}", names.join(", ")) };
    let tokens = cost.unpriced_tokens;
    format!(
        "In no cost, as their model has no price or is not known (+): {tokens} tokens{of}.\nSee `turn-metrics prices check`.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cell: Cell) -> (String, String) {
        let mut table = super::super::table::Table::new([super::super::table::Column::number("x")]);
        table.row([cell]);
        let text = |width| {
            let screen = super::super::table::Screen { look: super::super::table::Look::Plain, width };
            table.render(screen).lines().nth(1).unwrap().trim().to_owned()
        };
        (text(None), text(Some(1)))
    }

    #[test]
    fn counts_have_all_digits_or_are_in_millions() {
        assert_eq!(shown(count(1_234_567_890)), ("1234567890".to_owned(), "1235M".to_owned()));
        assert_eq!(shown(optional_count(None::<i128>)).0, "-");
    }

    fn figures(usd: Option<i128>, unpriced_tokens: i128, models: &[&str]) -> CostFigures {
        let unpriced_models = models.iter().map(|model| (*model).into()).collect();
        CostFigures { usd: usd.map(PicoDollars::new), unpriced_tokens, unpriced_models }
    }

    #[test]
    fn a_cost_is_rounded_for_people_and_says_if_it_leaves_tokens_out() {
        for (usd, unpriced, whole, short) in [
            (Some(50_400_000_000), 0, "0.0504", "0.0504"),
            (Some(50_450_000_000), 0, "0.0505", "0.0505"),
            (Some(1), 0, "<0.0001", "<0.0001"),
            (Some(0), 0, "0.0000", "0.0000"),
            (Some(0), 9, "0.0000+", "0.0000+"),
            (Some(123_456_789_000_000), 9, "123.4568+", "123.46+"),
            (Some(-50_400_000_000), 0, "-0.0504", "-0.0504"),
            (None, 9, "-", "-"),
        ] {
            assert_eq!(shown(cost(&figures(usd, unpriced, &[]))), (whole.to_owned(), short.to_owned()));
        }
    }

    #[test]
    fn costs_sum_exactly_and_the_unknown_ones_are_told() {
        let sum = sum_of_costs(&[figures(Some(1), 0, &[]), figures(None, 7, &["b", "a"]), figures(Some(2), 1, &["a"])]);
        assert_eq!(sum, figures(Some(3), 8, &["a", "b"]));
        assert_eq!(sum_of_costs(&[figures(None, 7, &[])]).usd, None);
        let note = unpriced_note(&sum);
        assert_eq!(
            note,
            "In no cost, as their model has no price or is not known (+): 8 tokens of a, b.\nSee `turn-metrics prices check`.\n"
        );
        assert_eq!(unpriced_note(&figures(Some(1), 0, &[])), "");
        let evil = unpriced_note(&figures(None, 1, &["\u{1b}[2J", "1", "2", "3", "4", "5"]));
        assert!(evil.contains("\\u{1b}[2J, 1, 2, 3, 4 and others."), "{evil}");
    }

    #[test]
    fn a_moment_is_by_the_clock_of_its_zone() {
        let zone = Zone::named("Asia/Kathmandu").unwrap();
        let moment = shown(moment(1_780_000_000_000, &zone));
        assert_eq!(moment, ("2026-05-29 02:11".to_owned(), "05-29 02:11".to_owned()));
        assert_eq!(shown(super::moment(i64::MAX, &zone)).0, "-");
    }

    #[test]
    fn what_is_not_known_has_a_dash() {
        assert_eq!([share(None), millis(None), speed(None)].map(|cell| shown(cell).0), ["-"; 3]);
        assert_eq!(
            [share(Some(0.7249)), millis(Some(10.4)), speed(Some(1.0))].map(|cell| shown(cell).0),
            ["72.5%", "10", "1.0"]
        );
        assert_eq!(shown(rate(PicoDollars::new(300_000_000_000))).0, "0.3");
    }
}

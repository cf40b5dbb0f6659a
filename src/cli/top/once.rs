//! The sums as a table, for pipes, logs and simple terminals.

use super::sums::Sums;
use crate::cli::answers::ReportRow;
use crate::cli::figures;
use crate::cli::output::plain;
use crate::cli::table::{Cell, Column, Screen, Table};

const COLUMNS: [Column; 9] = [
    Column::text("turns of"),
    Column::number("turns"),
    Column::number("input"),
    Column::number("output"),
    Column::number("cached").left_out(4),
    Column::number("TTFT").left_out(1),
    Column::number("slowest").left_out(2),
    Column::number("tok/s").left_out(3),
    Column::number("cost $"),
];

pub(super) fn render(sums: &Sums, server: &str, screen: Screen) -> String {
    let clock = |at: i64, format| sums.zone.clock(at).map_or_else(String::new, |at| at.strftime(format).to_string());
    let mut head = format!("{server} at {}, {}.", clock(sums.asked_at, "%Y-%m-%d %H:%M"), sums.zone);
    if let Some(prices) = &sums.today.prices {
        head.push_str(&["\nPrices: ", &plain(&prices.table), " of ", &plain(&prices.date), "."].concat());
    }
    let mut table = Table::new(COLUMNS);
    table.row(row("today".to_owned(), sums.today.rows.first()));
    table.row(row(format!("since {}", clock(sums.hour.from, "%H:%M")), sums.hour.rows.first()));
    for of_model in &sums.models.rows {
        let model = of_model.model.as_ref().map_or_else(|| "(no model)".to_owned(), |model| plain(model.as_str()));
        table.row(row(format!("  {model}"), Some(of_model)));
    }
    let priced = sums.today.rows.first().or(sums.hour.rows.first());
    let note = priced.map_or_else(String::new, |row| figures::unpriced_note(&row.cost));
    format!("{head}\n\n{}{note}", table.render(screen))
}

/// Returns the cells of a row. Without a turn there is none in the answer.
fn row(name: String, row: Option<&ReportRow>) -> [Cell; 9] {
    let Some(row) = row else {
        let mut cells = [(); 9].map(|()| Cell::unknown());
        cells[0] = Cell::new(name);
        cells[1] = figures::count(0);
        return cells;
    };
    let ttft = row.ttft_ms.as_ref();
    [
        Cell::new(name),
        figures::count(row.turns),
        figures::count(row.usage.input_tokens),
        figures::count(row.usage.output_tokens),
        figures::share(row.cache_rate),
        figures::millis(ttft.map(|ttft| ttft.p50)),
        figures::millis(ttft.map(|ttft| ttft.max)),
        figures::speed(row.output_tokens_per_second.as_ref().map(|speed| speed.p50)),
        figures::cost(&row.cost),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::some_sums;
    use super::*;
    use crate::cli::table::Look;

    const PLAIN: Screen = Screen { look: Look::Plain, width: Some(80) };

    #[test]
    fn the_sums_fit_80_columns() {
        let expected = "\
http://a at 2026-11-26 14:03, Europe/Berlin.
Prices: genai-prices 0.2.1 of 2026-10-30.

";
        let shown = render(&some_sums(), "http://a", PLAIN);
        assert!(shown.starts_with(expected), "{shown}");
        let table = shown.split("\n\n").nth(1).unwrap().split("In no cost").next().unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let rows: Vec<Vec<_>> = shown.lines().skip(4).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["today", "1234", "12345678", "54321", "72.5%", "420", "12345", "88.9", "123.4568+"]);
        assert_eq!(rows[1], ["since", "13:00", "9", "75000", "4920", "-", "400", "2100", "-", "0.1584+"]);
        assert_eq!(rows[3][..3], ["unpriced", "1", "5"]);
        assert_eq!(rows[3].last(), Some(&"-"), "a cost that is not known");
        assert!(shown.contains("7 tokens of unpriced."), "{shown}");
    }

    #[test]
    fn a_day_without_a_turn_has_none_and_its_other_figures_are_unknown() {
        let mut sums = some_sums();
        sums.today.rows.clear();
        let shown = render(&sums, "http://a", PLAIN);
        let today: Vec<_> = shown.lines().find(|line| line.starts_with("today")).unwrap().split_whitespace().collect();
        assert_eq!(today, ["today", "0", "-", "-", "-", "-", "-", "-", "-"]);
    }
}

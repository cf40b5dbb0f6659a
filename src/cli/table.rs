//! Draws tables that fit their terminal.
//!
//! A table that is too wide is made narrower in steps, until it fits. First, headings of two words get two lines. Then
//! numbers get their short form, and texts get several lines. Then the least important columns are left out, and a line
//! below the table names them. At last, even ids get several lines.

use std::io::{self, IsTerminal};

use comfy_table::{
    Attribute, Cell as DrawnCell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table as Drawing,
    TableStyle, Width, presets,
};

use crate::terminal::is_color_wanted;

/// The width of a table if the width of the terminal is unknown, or if there is no terminal.
const DEFAULT_WIDTH: u16 = 80;
/// The minimum width of a text while a column can still be left out. A narrower text would be hard to read.
const MIN_TEXT_WIDTH: u16 = 12;
/// The width of a UUID. People copy ids, so an id is not drawn narrower while a column can still be left out.
const MIN_ID_WIDTH: u16 = 36;
/// The width of a usual number. A heading that is no wider stays on one line.
const SHORT_HEADING: usize = 6;

/// The style of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// For pipes: no lines, no escapes.
    Plain,
    /// For a terminal that does not support escape sequences.
    Ruled,
    /// For a terminal that supports them.
    Styled,
}

/// The place where a table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    pub(super) look: Look,
    /// The maximum number of characters of a line; `None` for no limit.
    pub(super) width: Option<u16>,
}

impl Screen {
    /// Returns the place for standard output.
    pub(super) fn of_stdout() -> Self {
        let look = match io::stdout().is_terminal() {
            true if is_color_wanted() => Look::Styled,
            true => Look::Ruled,
            false => Look::Plain,
        };
        // A terminal whose size was never set reports 0.
        let width = Drawing::new().width().filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH);
        Self { look, width: Some(width) }
    }
}

/// A line below the header, and no other borders.
const RULED: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    /// The minimum width of a column whose texts may get several lines; `None` for numbers.
    text_width: Option<u16>,
    /// The order in which columns are left out, the lowest number first. `None` if the column is never left out.
    left_out: Option<u8>,
}

impl Column {
    /// A column of texts, which are aligned to the left and may have several lines.
    pub(super) const fn text(heading: &'static str) -> Self {
        Self { heading, text_width: Some(MIN_TEXT_WIDTH), left_out: None }
    }

    /// A column of ids, which are texts that stay on one line if possible.
    pub(super) const fn id(heading: &'static str) -> Self {
        Self { heading, text_width: Some(MIN_ID_WIDTH), left_out: None }
    }

    /// A column of numbers and other short texts, which are aligned to the right and have one line.
    pub(super) const fn number(heading: &'static str) -> Self {
        Self { heading, text_width: None, left_out: None }
    }

    /// The same column, which may be left out of a table that is too wide. Columns without values are left out first,
    /// then the column with the lowest number.
    pub(super) const fn left_out(self, place: u8) -> Self {
        Self { left_out: Some(place), ..self }
    }
}

/// The value of a row in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// The value with all its digits.
    whole: String,
    /// The short form, for a table that would be too wide.
    short: Option<String>,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { whole: text.into(), short: None }
    }

    pub(super) fn with_short(whole: String, short: String) -> Self {
        Self { short: Some(short).filter(|short| *short != whole), whole }
    }

    /// Returns the cell of an unknown value.
    pub(super) fn unknown() -> Self {
        Self::new(UNKNOWN)
    }

    fn is_void(&self) -> bool {
        self.whole.is_empty() || self.whole == UNKNOWN
    }
}

const UNKNOWN: &str = "-";

/// A table to be drawn.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    cells: Vec<Cell>,
    is_bold: bool,
}

/// The ways in which a table is made narrower.
#[derive(Debug, Clone, Default)]
struct Squeeze {
    narrow_gaps: bool,
    short_numbers: bool,
    left_out: Vec<usize>,
    narrow_ids: bool,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), is_bold: false });
    }

    /// Adds a row that is emphasized if the terminal supports it.
    pub(super) fn bold_row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), is_bold: true });
    }

    /// Draws the table, as wide as it needs to be or as the screen allows.
    pub(super) fn render(&self, screen: Screen) -> String {
        let mut squeeze = Squeeze::default();
        let Some(width) = screen.width else { return self.draw(screen.look, &squeeze, None).text };
        let steps: [fn(&mut Squeeze); 2] =
            [|squeeze| squeeze.narrow_gaps = true, |squeeze| squeeze.short_numbers = true];
        for step in [None, Some(steps[0]), Some(steps[1])] {
            if let Some(step) = step {
                step(&mut squeeze);
            }
            let drawn = self.draw(screen.look, &squeeze, None);
            if drawn.width <= width {
                return drawn.text;
            }
        }
        let mut order: Vec<_> = (0..self.columns.len()).filter(|nth| self.columns[*nth].left_out.is_some()).collect();
        order.sort_by_key(|nth| (!self.is_void(*nth), self.columns[*nth].left_out));
        let mut order = order.into_iter();
        loop {
            let drawn = self.draw(screen.look, &squeeze, Some(width));
            if drawn.width <= width || squeeze.narrow_ids {
                return drawn.text + &self.left_out_line(&squeeze, width);
            }
            match order.next() {
                Some(next) => squeeze.left_out.push(next),
                None => squeeze.narrow_ids = true,
            }
        }
    }

    /// Returns whether a column has no value.
    fn is_void(&self, nth: usize) -> bool {
        self.rows.iter().all(|row| row.cells[nth].is_void())
    }

    /// Returns the note that names the columns left out, on two lines if one would be too long. Columns without a value
    /// are not named.
    fn left_out_line(&self, squeeze: &Squeeze, width: u16) -> String {
        let mut missing: Vec<_> = squeeze.left_out.iter().copied().filter(|nth| !self.is_void(*nth)).collect();
        missing.sort_unstable();
        let names: Vec<_> = missing.into_iter().map(|nth| self.columns[nth].heading).collect();
        if names.is_empty() {
            return String::new();
        }
        let (names, advice) = (format!("Too narrow for: {}.", names.join(", ")), "--wide shows all.");
        let fits = names.len() + 1 + advice.len() <= usize::from(width);
        format!("{names}{}{advice}\n", if fits { ' ' } else { '\n' })
    }

    /// Draws the table. If a width is given, texts get several lines.
    fn draw(&self, look: Look, squeeze: &Squeeze, width: Option<u16>) -> Drawn {
        let columns: Vec<_> = (0..self.columns.len()).filter(|nth| !squeeze.left_out.contains(nth)).collect();
        let cell = |nth: usize, text: &str, is_bold: bool| {
            let is_number = self.columns[nth].text_width.is_none();
            let alignment = if is_number { CellAlignment::Right } else { CellAlignment::Left };
            let cell = DrawnCell::new(text).set_alignment(alignment);
            if is_bold && look == Look::Styled { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        let mut drawing = Drawing::new();
        drawing.load_style(if look == Look::Plain { presets::NOTHING } else { RULED });
        drawing.force_no_tty();
        if look == Look::Styled {
            drawing.enforce_styling();
        }
        drawing.set_header(columns.iter().map(|nth| {
            let Column { heading, text_width, .. } = self.columns[*nth];
            let is_split = squeeze.narrow_gaps && text_width.is_none() && heading.len() > SHORT_HEADING;
            let heading = if is_split { heading.replace(' ', "\n") } else { heading.to_owned() };
            cell(*nth, &heading, true)
        }));
        for Row { cells, is_bold } in &self.rows {
            drawing.add_row(columns.iter().map(|nth| {
                let Cell { whole, short } = &cells[*nth];
                let text = if squeeze.short_numbers { short.as_ref().unwrap_or(whole) } else { whole };
                cell(*nth, text, *is_bold)
            }));
        }
        let gap = if squeeze.narrow_gaps { 1 } else { 2 };
        let last = columns.len().saturating_sub(1);
        drawing.column_iter_mut().enumerate().for_each(|(place, column)| {
            column.set_padding((0, if place == last { 0 } else { gap }));
        });
        let mut widths = drawing.column_max_content_widths();
        if let Some(width) = width {
            let min_width = |width: u16| if squeeze.narrow_ids { 1 } else { width };
            let min_widths: Vec<_> = columns.iter().map(|nth| self.columns[*nth].text_width.map(min_width)).collect();
            let gaps = gap.saturating_mul(u16::try_from(columns.len()).unwrap_or(u16::MAX)) - gap;
            narrow(&mut widths, &min_widths, width.saturating_sub(gaps));
            drawing.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
            drawing.set_constraints(widths.iter().enumerate().map(|(place, width)| {
                let padded = if place == last { *width } else { width.saturating_add(gap) };
                ColumnConstraint::Absolute(Width::Fixed(padded))
            }));
        } else {
            drawing.set_content_arrangement(ContentArrangement::Disabled);
        }
        let total = widths.iter().fold(0_u16, |sum, width| sum.saturating_add(*width).saturating_add(gap));
        let mut text = String::new();
        for line in drawing.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        Drawn { text, width: total.saturating_sub(gap) }
    }
}

struct Drawn {
    text: String,
    /// The maximum number of characters in a line.
    width: u16,
}

/// Makes the widest text narrower by one character, until the columns fit or all texts have their minimum width. A
/// column of numbers has no minimum width and stays as it is.
fn narrow(widths: &mut [u16], min_widths: &[Option<u16>], room: u16) {
    let total = widths.iter().fold(0_u32, |sum, width| sum + u32::from(*width));
    for _ in u32::from(room)..total {
        let texts = widths.iter_mut().zip(min_widths).filter(|(width, min)| min.is_some_and(|min| **width > min));
        let Some((widest, _)) = texts.max_by_key(|(width, _)| **width) else { return };
        *widest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::text("name"),
        Column::number("input"),
        Column::number("cache read").left_out(2),
        Column::number("cache write").left_out(1),
        Column::text("model").left_out(3),
    ];

    fn table(name: &str, model: &str) -> Table {
        let mut table = Table::new(COLUMNS);
        let count = |n: u64| Cell::with_short(n.to_string(), format!("{}M", n / 1_000_000));
        table.bold_row([Cell::new(name), count(12_345_678), count(7_000_000), Cell::unknown(), Cell::new(model)]);
        table.row([Cell::new("b"), count(5_000_000), Cell::unknown(), Cell::default(), Cell::new("m")]);
        table
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap()
    }

    fn drawn(table: &Table, width: Option<u16>) -> String {
        table.render(Screen { look: Look::Plain, width })
    }

    #[test]
    fn a_table_with_room_has_all_digits_on_one_line_a_row() {
        let whole = "
name     input  cache read  cache write  model
a     12345678     7000000            -  opus
b      5000000           -               m
";
        let table = table("a", "opus");
        for width in [None, Some(80), Some(46)] {
            assert_eq!(drawn(&table, width), whole[1..], "{width:?}");
        }
    }

    #[test]
    fn a_table_without_room_becomes_narrower_step_by_step() {
        let table = table("a", "opus");
        let two_lines = "
                cache cache
name    input    read write model
a    12345678 7000000     - opus
b     5000000       -       m
";
        // comfy-table aligns the lines of a heading to the top.
        let drawn_34 = drawn(&table, Some(34));
        assert_eq!(drawn_34.lines().count(), two_lines[1..].lines().count(), "{drawn_34}");
        assert!(drawn_34.contains("12345678 7000000"), "{drawn_34}");
        let short = drawn(&table, Some(32));
        assert!(short.contains("12M") && !short.contains("12345678") && widest(&short) <= 32, "{short}");
        let left_out = drawn(&table, Some(20));
        assert!(left_out.contains("a      12M") && !left_out.contains("write"), "{left_out}");
        assert!(left_out.ends_with("Too narrow for: cache read.\n--wide shows all.\n"), "{left_out}");
    }

    #[test]
    fn long_texts_get_several_lines_and_no_character_is_lost() {
        let (name, model) = ("n".repeat(100), "m".repeat(40));
        let table = table(&name, &model);
        for width in [60, 80, 100] {
            let text = drawn(&table, Some(width));
            assert!(widest(&text) <= usize::from(width), "{text}");
            let count = |c| text.lines().skip(2).map(|line| line.matches(c).count()).sum::<usize>();
            assert_eq!((count('n'), count('m')), (100, 41), "{text}");
        }
        assert_eq!(drawn(&table, None).lines().count(), 3);
    }

    #[test]
    fn an_id_stays_on_one_line_while_a_column_can_be_left_out() {
        let id = "5f0c4b2e-9a57-4d7c-8a4f-1b1f6f1d2c3e";
        let mut table = Table::new([Column::id("id"), Column::number("input"), Column::text("model").left_out(1)]);
        table.row([Cell::new(id), Cell::new("5"), Cell::new("claude-sonnet-4-5-20250929")]);
        let lines = |width: u16| drawn(&table, Some(width)).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(50)[1], format!("{id}     5"));
        assert_eq!(lines(50)[2], "Too narrow for: model. --wide shows all.");
        assert!(lines(60)[1].starts_with(&format!("{id}     5 claude")), "{:?}", lines(60));
        assert!(lines(30)[1].starts_with("5f0c4b2e") && lines(30).len() > 3, "{:?}", lines(30));
    }

    #[test]
    fn every_width_of_a_terminal_is_kept_to() {
        for (name, model) in [("a", "opus"), ("conversation-1234", "claude-sonnet-4-5"), ("停止停止停止停止", "")]
        {
            for width in 24..120 {
                for look in [Look::Plain, Look::Ruled] {
                    let text = table(name, model).render(Screen { look, width: Some(width) });
                    let table = text
                        .lines()
                        .filter(|line| !line.starts_with("Too narrow") && !line.starts_with("--wide"))
                        .collect::<Vec<_>>()
                        .join("\n");
                    assert!(widest(&table) <= usize::from(width), "{width}\n{text}");
                }
            }
        }
    }

    #[test]
    fn a_table_with_many_columns_that_cannot_be_left_out_is_no_wider_than_the_terminal() {
        let texts = ["model", "provider", "project", "reason"].map(Column::text);
        let numbers = ["turns", "input", "output", "cached", "cost", "ttft", "tok/s"].map(Column::number);
        let mut table = Table::new(texts.into_iter().chain(numbers));
        let cells = |count: u64| {
            ["m"; 4]
                .map(|text| Cell::new(text.repeat(20)))
                .into_iter()
                .chain((0..7).map(move |_| Cell::new(count.to_string())))
        };
        table.row(cells(1234));
        let text = drawn(&table, Some(80));
        assert!(widest(&text) <= 80, "{text}");
    }

    #[test]
    fn only_a_styled_table_has_escapes() {
        for (look, has_escapes) in [(Look::Plain, false), (Look::Ruled, false), (Look::Styled, true)] {
            for width in [None, Some(80), Some(20)] {
                let text = table("a", "m").render(Screen { look, width });
                assert_eq!(text.contains('\u{1b}'), has_escapes, "{look:?} {width:?}");
            }
        }
    }

    #[test]
    fn the_widest_text_gives_way_first() {
        for (widths, room, expected) in [
            ([30, 5, 14], 49, [30, 5, 14]),
            ([30, 5, 14], 45, [26, 5, 14]),
            ([30, 5, 30], 45, [20, 5, 20]),
            ([30, 5, 14], 10, [20, 5, 12]),
            ([8, 5, 14], 10, [8, 5, 12]),
        ] {
            let mut narrowed = widths;
            narrow(&mut narrowed, &[Some(20), None, Some(12)], room);
            assert_eq!(narrowed, expected, "{widths:?} in {room}");
        }
    }
}

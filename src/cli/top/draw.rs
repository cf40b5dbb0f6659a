//! Draws the board.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, SparklineBar};

use super::board::{Board, Link, OpenRow, SealedRow};
use super::minutes::{Minute, WINDOW};
use crate::cli::answers::ReportRow;
use crate::cli::output::plain;
use crate::readable;
use crate::report::CostFigures;

/// The smallest terminal in which everything that matters has its place.
pub(super) const MIN_WIDTH: u16 = 80;
pub(super) const MIN_HEIGHT: u16 = 24;

/// The height of the part about minutes: a heading, tokens and costs.
const MINUTES_HEIGHT: u16 = 3;
/// How many models have a row in a small terminal, and in a high one.
const MODELS: (u16, u16) = (4, 10);

const UNKNOWN: &str = "-";

/// How texts are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Theme {
    Colored,
    /// Without colours or other styles.
    Plain,
}

impl Theme {
    fn style(self, style: Style) -> Style {
        match self {
            Self::Colored => style,
            Self::Plain => Style::new(),
        }
    }

    fn heading(self) -> Style {
        self.style(Style::new().add_modifier(Modifier::BOLD))
    }

    fn color(self, color: Color) -> Style {
        self.style(Style::new().fg(color))
    }

    fn faint(self) -> Style {
        self.style(Style::new().add_modifier(Modifier::DIM))
    }
}

/// What is drawn.
pub(super) struct View<'a> {
    pub(super) board: &'a Board,
    /// The address of the server.
    pub(super) server: &'a str,
    /// The time by the server's clock, in milliseconds since 1970.
    pub(super) now: i64,
    pub(super) theme: Theme,
}

/// A column: its heading and its width. The first column of a table takes the room that the others leave.
type Column = (&'static str, usize);

const SUMS: [Column; 8] = [
    ("turns", 7),
    ("input", 8),
    ("output", 8),
    ("cached", 7),
    ("TTFT ms", 8),
    ("slowest", 8),
    ("tok/s", 6),
    ("cost $", 10),
];
const OPEN: [Column; 5] = [("model", 22), ("steps", 6), ("input", 8), ("output", 8), ("seen for", 12)];
const SEALED: [Column; 8] = [
    ("turn", 6),
    ("ended", 9),
    ("reason", 10),
    ("steps", 6),
    ("input", 7),
    ("output", 7),
    ("TTFT ms", 8),
    ("cost $", 9),
];
const MINUTES: [Column; 3] = [("this", 9), ("last", 9), ("mean", 9)];
/// The width of the names of the rows about minutes.
const MINUTES_NAME: usize = 11;

impl View<'_> {
    pub(super) fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
            let text = format!(
                "This terminal has {}x{} characters.\nThe view needs {MIN_WIDTH}x{MIN_HEIGHT}.\nq ends.",
                area.width, area.height
            );
            frame.render_widget(Paragraph::new(text), area);
            return;
        }
        let more = (area.height - MIN_HEIGHT) / 3;
        let models = u16::try_from(self.board.sums().models.rows.len()).unwrap_or(u16::MAX);
        let models = models.clamp(MODELS.0, (MODELS.0 + more).min(MODELS.1));
        // The two lists share what is left. Sealed turns come more often.
        let fixed = 2 + 3 + models + 1 + MINUTES_HEIGHT + 1 + 1;
        let lists = area.height - fixed;
        let open = (lists / 3).max(4);
        let [title, message, sums, _, minutes, _, open, sealed, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(3 + models),
            Constraint::Length(1),
            Constraint::Length(MINUTES_HEIGHT),
            Constraint::Length(1),
            Constraint::Length(open),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(area);
        self.draw_title(frame, title);
        self.draw_message(frame, message);
        self.draw_sums(frame, sums);
        self.draw_minutes(frame, minutes);
        self.draw_open(frame, open);
        self.draw_sealed(frame, sealed);
        let text = "q ends   - not known   + more that is not known   times in milliseconds";
        frame.render_widget(Line::styled(text, self.theme.faint()), keys);
    }

    fn clock(&self, at: i64, format: &str) -> String {
        self.board.sums().zone.clock(at).map_or_else(String::new, |at| at.strftime(format).to_string())
    }

    fn draw_title(&self, frame: &mut Frame, area: Rect) {
        let (state, color) = match self.board.link() {
            Link::Connecting => ("connecting", Color::Yellow),
            Link::Live => ("live", Color::Green),
            Link::Lost { .. } => ("not connected", Color::Red),
        };
        let clock = format!("  {} {}", self.clock(self.now, "%H:%M:%S"), self.board.sums().zone);
        let width = usize::from(area.width);
        let room = width.saturating_sub(state.len() + clock.len() + 1);
        let name = padded(&format!("turn-metrics top  {}", plain(self.server)), room);
        let spans = [
            Span::styled(name, self.theme.heading()),
            Span::raw(" "),
            Span::styled(state, self.theme.color(color)),
            Span::raw(clock),
        ];
        frame.render_widget(Line::from_iter(spans), area);
    }

    /// Says what the user should know about the figures at this moment.
    fn draw_message(&self, frame: &mut Frame, area: Rect) {
        let clock = |at| self.clock(at, "%H:%M:%S");
        let text = match (self.board.link(), self.board.no_sums()) {
            (Link::Lost { since, why }, _) => {
                format!("No connection since {}, trying again. No turn will be missing. {}", clock(*since), plain(why))
            }
            (_, Some(why)) => format!("The sums are of {}: {}", clock(self.board.sums().asked_at), plain(why)),
            _ => return,
        };
        let text = fitting(&text, usize::from(area.width));
        frame.render_widget(Line::styled(text, self.theme.color(Color::Red)), area);
    }

    fn heading(&self, name: &str, columns: &[Column], width: u16) -> Line<'static> {
        let headings: Vec<_> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        Line::styled(columned(name, &headings, columns, width), self.theme.heading())
    }

    fn draw_sums(&self, frame: &mut Frame, area: Rect) {
        let sums = self.board.sums();
        let row = |name: &str, row: Option<&ReportRow>| Line::from(columned(name, &sum_cells(row), &SUMS, area.width));
        let since = format!("since {}", self.clock(sums.hour.from, "%H:%M"));
        let mut lines = vec![
            self.heading("", &SUMS, area.width),
            row("today", sums.today.rows.first()),
            row(&since, sums.hour.rows.first()),
        ];
        let (room, models) = (usize::from(area.height) - lines.len(), &sums.models.rows);
        let shown = if models.len() > room { room.saturating_sub(1) } else { models.len() };
        for of_model in models.iter().take(shown) {
            let model = of_model.model.as_ref().map_or_else(|| "(no model)".to_owned(), |name| plain(name.as_str()));
            lines.push(row(&format!("  {model}"), Some(of_model)));
        }
        if shown < models.len() {
            lines.push(Line::styled(format!("  and {} more models", models.len() - shown), self.theme.faint()));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_minutes(&self, frame: &mut Frame, area: Rect) {
        let minutes = self.board.minutes();
        let table_width = MINUTES_NAME + MINUTES.iter().map(|(_, width)| width).sum::<usize>();
        let [table, _, chart] = Layout::horizontal([
            Constraint::Length(u16::try_from(table_width).unwrap_or(u16::MAX)),
            Constraint::Length(2),
            Constraint::Fill(1),
        ])
        .areas(area);
        let bars = i64::from(chart.width).min(WINDOW);
        let latest = minutes.latest(bars, self.now);
        let (this, last) = (latest.last().cloned().flatten(), latest.iter().rev().nth(1).cloned().flatten());
        let mean = minutes.mean(self.now);
        let tokens = |minute: &Option<Minute>| known(minute.as_ref().map(|minute| readable::count(minute.tokens)));
        let cost = |minute: &Option<Minute>| {
            let known = minute.as_ref().filter(|minute| minute.turns > 0);
            if minute.is_some() && known.is_none() {
                return readable::count(0);
            }
            known.map_or_else(|| UNKNOWN.to_owned(), |minute| money(&minute.cost, minute.uncosted))
        };
        let mean_tokens = known(mean.as_ref().map(|mean| readable::count(mean.tokens)));
        let mean_cost = mean.as_ref().map_or_else(
            || UNKNOWN.to_owned(),
            |mean| if mean.turns == 0 { readable::count(0) } else { money(&mean.cost, mean.uncosted) },
        );
        let row = |name, cells: [String; 3]| Line::from(columned(name, &cells, &MINUTES, table.width));
        let lines = vec![
            self.heading("", &MINUTES, table.width),
            row("tokens/min", [tokens(&this), tokens(&last), mean_tokens]),
            row("cost/min $", [cost(&this), cost(&last), mean_cost]),
        ];
        frame.render_widget(Paragraph::new(lines), table);

        let caption = format!("tokens per minute, {bars} minutes");
        let bars = latest.iter().map(|minute| {
            let tokens = minute.as_ref().map(|minute| u64::try_from(minute.tokens).unwrap_or(u64::MAX));
            SparklineBar::from(tokens)
        });
        let [captioned, bars_area] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(chart);
        frame.render_widget(
            Line::styled(fitting(&caption, usize::from(captioned.width)), self.theme.heading()),
            captioned,
        );
        let sparkline = Sparkline::default()
            .data(bars)
            .style(self.theme.color(Color::Cyan))
            .absent_value_symbol("·")
            .absent_value_style(self.theme.faint());
        frame.render_widget(sparkline, bars_area);
    }

    fn draw_open(&self, frame: &mut Frame, area: Rect) {
        let open = self.board.open();
        let name = format!("worked on: {}", open.len());
        let row = |row: &OpenRow| {
            let model = row.model.as_ref().map_or_else(|| UNKNOWN.to_owned(), |model| plain(model.as_str()));
            let cells = [
                model,
                row.steps.to_string(),
                readable::count(row.usage.input_tokens.get().into()),
                readable::count(row.usage.output_tokens.get().into()),
                readable::duration(readable::float(self.now.saturating_sub(row.seen_at).max(0).into())),
            ];
            Line::from(columned(&plain(row.conversation_id.as_str()), &cells, &OPEN, area.width))
        };
        // A turn that was open before is shown when its next event comes.
        let nothing = "no event";
        let lines = self.list(self.heading(&name, &OPEN, area.width), nothing, open, row, area.height);
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_sealed(&self, frame: &mut Frame, area: Rect) {
        let row = |row: &SealedRow| {
            let cells = [
                row.ordinal.to_string(),
                self.clock(row.at, "%H:%M:%S"),
                plain(row.reason.as_str()),
                row.steps.to_string(),
                readable::count(row.usage.input_tokens.get().into()),
                readable::count(row.usage.output_tokens.get().into()),
                known(row.slowest_ttft.map(readable::millis)),
                row.cost.as_ref().map_or_else(|| UNKNOWN.to_owned(), |cost| money(cost, 0)),
            ];
            let line = Line::from(columned(&plain(row.conversation_id.as_str()), &cells, &SEALED, area.width));
            match row.reason.as_str() {
                "error" | "abandoned" => line.style(self.theme.color(Color::Red)),
                "aborted" | "max-steps" => line.style(self.theme.color(Color::Yellow)),
                _ => line,
            }
        };
        let heading = self.heading("just sealed", &SEALED, area.width);
        let lines = self.list(heading, "none", self.board.sealed(), row, area.height);
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn list<'a, T: 'a>(
        &self,
        heading: Line<'a>,
        nothing: &str,
        rows: impl ExactSizeIterator<Item = &'a T>,
        line: impl Fn(&T) -> Line<'a>,
        height: u16,
    ) -> Vec<Line<'a>> {
        let mut lines = vec![heading];
        if rows.len() == 0 {
            let since = self.clock(self.board.listed_since(), "%H:%M:%S");
            lines.push(Line::styled(format!("  {nothing} since {since}"), self.theme.faint()));
        }
        lines.extend(rows.take(usize::from(height).saturating_sub(1)).map(line));
        lines
    }
}

fn sum_cells(row: Option<&ReportRow>) -> Vec<String> {
    let Some(row) = row else {
        return [readable::count(0)].into_iter().chain([(); 7].map(|()| UNKNOWN.to_owned())).collect();
    };
    let ttft = row.ttft_ms.as_ref();
    let speed = row.output_tokens_per_second.as_ref();
    vec![
        readable::count(row.turns),
        readable::count(row.usage.input_tokens),
        readable::count(row.usage.output_tokens),
        known(row.cache_rate.map(readable::share)),
        known(ttft.map(|ttft| readable::millis(ttft.p50))),
        known(ttft.map(|ttft| readable::millis(ttft.max))),
        known(speed.map(|speed| readable::speed(speed.p50))),
        money(&row.cost, 0),
    ]
}

fn known(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Formats a cost. A `+` says that something is not in it: tokens without a price, or turns without a cost.
fn money(cost: &CostFigures, uncosted: u64) -> String {
    let mark = if cost.unpriced_tokens > 0 || uncosted > 0 { "+" } else { "" };
    known(cost.usd.map(|usd| readable::dollars(usd, 4) + mark))
}

/// Returns a row of a table: a name, and cells that are aligned to the right.
fn columned(name: &str, cells: &[String], columns: &[Column], width: u16) -> String {
    let taken: usize = columns.iter().map(|(_, width)| width).sum();
    let mut text = padded(name, usize::from(width).saturating_sub(taken));
    for (cell, (_, width)) in cells.iter().zip(columns) {
        // One column is the gap.
        let cell = fitting(cell, width - 1);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(columns_of(&cell))));
        text.push_str(&cell);
    }
    text
}

/// Returns a text of exactly this width.
fn padded(text: &str, width: usize) -> String {
    let mut text = fitting(text, width);
    text.extend(std::iter::repeat_n(' ', width.saturating_sub(columns_of(&text))));
    text
}

/// Cuts a text to this width, and shows that it is cut.
fn fitting(text: &str, width: usize) -> String {
    const CUT: char = '…';
    if columns_of(text) <= width {
        return text.to_owned();
    }
    let mut fits = String::new();
    for c in text.chars() {
        fits.push(c);
        if columns_of(&fits) + 1 > width {
            fits.pop();
            break;
        }
    }
    if width > 0 {
        fits.push(CUT);
    }
    fits
}

/// How many columns of a terminal a text takes.
fn columns_of(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::news::News;
    use super::super::testing::{NOW, costs, open, sealed, some_sums};
    use super::*;
    use crate::turn::ConversationId;

    fn buffer(board: &Board, now: i64, (width, height): (u16, u16), theme: Theme) -> ratatui::buffer::Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let view = View { board, server: "http://127.0.0.1:24210", now, theme };
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn lines(board: &Board, now: i64, size: (u16, u16)) -> Vec<String> {
        let buffer = buffer(board, now, size, Theme::Colored);
        let rows = buffer.content().chunks(usize::from(size.0));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
            .collect()
    }

    fn busy_board() -> Board {
        let mut board = Board::new(some_sums(), NOW);
        board.take(News::Connected { goes_on: false }, NOW - 61_000);
        for news in [
            sealed("agent-7", "t1", 7, NOW - 60_000),
            costs("agent-7", 7, 50_400_000_000),
            open("agent-8", "t9", 123_456),
            open("agent-9", "t2", 1000),
            sealed("a-conversation-whose-id-is-long", "t1", 12, NOW - 1000),
        ] {
            board.take(news, NOW);
        }
        board
    }

    #[test]
    fn everything_has_its_place_in_80_by_24() {
        let shown = lines(&busy_board(), NOW + 65_000, (80, 24));
        let expected = "\
turn-metrics top  http://127.0.0.1:24210            live  14:04:27 Europe/Berlin

                    turns   input  output cached TTFT ms slowest tok/s    cost $
today               1,234   12.3M   54.3k  72.5%     420   12345  88.9 123.4568+
since 13:00             9     75k   4,920      -     400    2100     -   0.1584+
  cheap                 4     50k   2,000  72.0%     300     900     -    0.0084
  unpriced              1       5       2      -       -       -     -         -
  dear                  4     25k   2,918      -     500    2100  55.0    0.1500


                this     last     mean  tokens per minute, 40 minutes
tokens/min         0    1,040    1,040  ·····································██
cost/min $         0        -        -  ·····································██

worked on: 2                             model steps   input  output    seen for
agent-9                                      m     1   1,000       5   1 min 5 s
agent-8                                      m     1    123k       5   1 min 5 s

just sealed         turn    ended    reason steps  input output TTFT ms   cost $
a-conversation-wh…    12 14:03:21      stop     3  1,000     40     420        -
agent-7                7 14:02:22      stop     3  1,000     40     420   0.0504


q ends   - not known   + more that is not known   times in milliseconds";
        assert_eq!(shown.join("\n"), expected);
        assert_eq!(shown.len(), 24);
    }

    #[test]
    fn a_smaller_terminal_says_so() {
        for size in [(79, 24), (80, 23), (36, 3)] {
            let shown = lines(&busy_board(), NOW, size);
            assert_eq!(shown[0], format!("This terminal has {}x{} characters.", size.0, size.1));
            assert_eq!(shown[1..3], ["The view needs 80x24.", "q ends."]);
        }
        lines(&busy_board(), NOW, (1, 1));
    }

    #[test]
    fn a_larger_terminal_shows_more() {
        let mut board = Board::new(some_sums(), NOW);
        for n in 0..100 {
            board.take(open("c", &format!("t{n}"), 1), NOW);
            board.take(sealed("d", &format!("t{n}"), n + 1, NOW), NOW);
        }
        let rows = |size| {
            let shown = lines(&board, NOW, size);
            let count = |id: &str| shown.iter().filter(|line| line.starts_with(id)).count();
            (count("c "), count("d "))
        };
        let (small, large) = (rows((80, 24)), rows((200, 60)));
        assert!(small.0 >= 3 && small.1 >= 3 && large.0 > small.0 + 5 && large.1 > small.1 + 10, "{small:?} {large:?}");
    }

    #[test]
    fn more_models_than_fit_are_counted() {
        let mut sums = some_sums();
        let row = serde_json::json!({
            "start": 0, "end": 1, "model": "m", "turns": 1, "steps": 1, "usage": {"inputTokens": 1, "outputTokens": 1},
            "cacheRate": null, "cost": {"usd": null, "unpricedTokens": 2, "unpricedModels": []}
        });
        sums.models.rows.extend((0..9).map(|_| serde_json::from_value::<ReportRow>(row.clone()).unwrap()));
        let board = Board::new(sums, NOW);
        let shown = lines(&board, NOW, (80, 24));
        assert!(shown.contains(&"  and 9 more models".to_owned()), "{shown:#?}");
        assert!(lines(&board, NOW, (80, 60)).contains(&"  and 3 more models".to_owned()));
    }

    #[test]
    fn a_lost_connection_and_old_sums_are_said() {
        let mut board = busy_board();
        board.take(News::NoSums("http://a answered 503: busy".into()), NOW);
        assert_eq!(lines(&board, NOW, (80, 24))[1], "The sums are of 14:03:22: http://a answered 503: busy");
        board.take(News::Lost("cannot reach \u{1b}[2J".into()), NOW + 1000);
        let shown = lines(&board, NOW + 90_000, (100, 24));
        assert!(shown[0].contains(" not connected  14:04:52"), "{}", shown[0]);
        let expected = "No connection since 14:03:23, trying again. No turn will be missing. cannot reach \\u{1b}[2J";
        assert_eq!(shown[1], expected);
    }

    #[test]
    fn an_empty_list_says_since_when_it_would_have_rows() {
        let mut board = busy_board();
        // The server ends a stream after an hour, and the lists begin anew.
        board.take(News::Connected { goes_on: true }, NOW + 60 * 60_000);
        let shown = lines(&board, NOW + 61 * 60_000, (80, 24)).join("\n");
        assert!(shown.contains("  no event since 15:03:22") && shown.contains("  none since 15:03:22"), "{shown}");
    }

    #[test]
    fn texts_that_deceive_or_are_wide_harm_nothing() {
        let mut board = Board::new(some_sums(), NOW);
        board.take(open("日本語日本語日本語日本語日本語日本語", "t", 1), NOW);
        board.take(sealed("a\u{202e}b", "t", 1, NOW), NOW);
        let shown = lines(&board, NOW, (80, 24)).join("\n");
        assert!(shown.contains("a\\u{202e}b "), "{shown}");
        assert!(shown.contains('…') && !shown.contains('\u{202e}'), "{shown}");
    }

    #[test]
    fn without_colours_nothing_is_styled() {
        let styled = |theme| {
            let buffer = buffer(&busy_board(), NOW, (80, 24), theme);
            buffer.content().iter().filter(|cell| cell.style() != ratatui::buffer::Cell::EMPTY.style()).count()
        };
        assert_eq!(styled(Theme::Plain), 0);
        assert!(styled(Theme::Colored) > 100);
    }

    #[test]
    fn the_rows_of_an_erased_conversation_are_gone() {
        let mut board = busy_board();
        board.take(News::Erased(ConversationId::new("agent-7").unwrap()), NOW);
        board.take(News::Erased(ConversationId::new("agent-8").unwrap()), NOW);
        let shown = lines(&board, NOW, (80, 24)).join("\n");
        assert!(!shown.contains("agent-7") && !shown.contains("agent-8") && shown.contains("agent-9"), "{shown}");
    }

    #[test]
    fn a_text_is_cut_by_the_columns_that_it_takes() {
        assert_eq!(["abc", "abcd", "日本"].map(|text| fitting(text, 3)), ["abc", "ab…", "日…"]);
        assert_eq!([0, 1, 2].map(|width| fitting("abc", width)), ["", "…", "a…"]);
        assert_eq!(padded("日本語", 4), "日… ");
    }
}

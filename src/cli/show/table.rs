use comfy_table::{
    Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width, presets,
};

use super::super::output::plain;
use crate::turn::{Millis, StepMetrics, StepTimes, StoredTurn, TokenCount, Usage};

/// The style of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Look {
    /// The style for programs: no lines, no escapes, and as wide as necessary.
    Plain,
    /// The style for a terminal that does not support escape sequences.
    Boxed,
    /// The style for a terminal that supports escape sequences.
    Styled,
}

/// A line below the header, and no other borders.
const RULED: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));

const HEADER: [&str; 11] =
    ["#", "turn / step", "end", "input", "output", "cache read", "cache write", "TTFT", "decode", "time", "tok/s"];
/// The columns from this one on contain numbers.
const FIRST_NUMBER: usize = 3;

/// Draws the turns as a table, with the steps below each turn and the totals at the end.
pub(in super::super) fn render(turns: &[StoredTurn], look: Look) -> String {
    let mut table = Table::new();
    table.load_style(if look == Look::Plain { presets::NOTHING } else { RULED });
    match look {
        Look::Plain => table.force_no_tty().set_content_arrangement(ContentArrangement::Disabled),
        Look::Boxed | Look::Styled => table.set_content_arrangement(ContentArrangement::Dynamic),
    };
    let cells = |row: [String; 11], bold: bool| {
        row.into_iter().enumerate().map(move |(nth, text)| {
            let aligned = if nth == 0 || nth >= FIRST_NUMBER { CellAlignment::Right } else { CellAlignment::Left };
            let cell = Cell::new(text).set_alignment(aligned);
            if bold && look == Look::Styled { cell.add_attribute(Attribute::Bold) } else { cell }
        })
    };
    // If rows may have several lines, the two words of a heading are on separate lines.
    let header =
        HEADER.map(|name| if look == Look::Plain { name.to_owned() } else { name.replace("cache ", "cache\n") });
    table.set_header(cells(header, true).collect::<Vec<_>>());
    for turn in turns {
        table.add_row(cells(turn_row(turn), true).collect::<Vec<_>>());
        for step in &turn.metrics.steps {
            table.add_row(cells(step_row(turn, step), false).collect::<Vec<_>>());
        }
    }
    table.add_row(cells(total_row(turns), true).collect::<Vec<_>>());
    if look != Look::Plain {
        // All columns fit into 80 characters. A narrower terminal wraps the texts, not the numbers.
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 1));
        });
        table.set_constraints((0..HEADER.len()).map(|nth| match nth {
            1 => ColumnConstraint::LowerBoundary(Width::Fixed(16)),
            2 => ColumnConstraint::LowerBoundary(Width::Fixed(10)),
            _ => ColumnConstraint::ContentWidth,
        }));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn turn_row(turn: &StoredTurn) -> [String; 11] {
    let metrics = &turn.metrics;
    let name = match &turn.model {
        Some(model) => format!("{} ({})", plain(metrics.turn_id.as_str()), plain(model.as_str())),
        None => plain(metrics.turn_id.as_str()),
    };
    let ttft = metrics.steps.iter().find_map(|step| step.times.ttft);
    let Decoding { decode, tokens_a_second } = Decoding::of(&metrics.steps);
    let [input, output, read, written] = counts(metrics.usage);
    [
        turn.ordinal.to_string(),
        name,
        plain(turn.reason.as_str()),
        input,
        output,
        read,
        written,
        time(ttft.map(Millis::get)),
        time(decode),
        time(metrics.duration.map(Millis::get)),
        rate(tokens_a_second),
    ]
}

fn step_row(turn: &StoredTurn, step: &StepMetrics) -> [String; 11] {
    // Most kernels begin the name of a step with the id of its turn. The row above shows that id, so leave it out.
    let id = step.step_id.as_str();
    let name = id.strip_prefix(turn.metrics.turn_id.as_str()).filter(|rest| !rest.is_empty()).unwrap_or(id);
    let StepTimes { ttft, decode, gen_total } = step.times;
    let [input, output, read, written] = counts(step.usage);
    [
        String::new(),
        format!("  {}", plain(name)),
        String::new(),
        input,
        output,
        read,
        written,
        time(ttft.map(Millis::get)),
        time(decode.map(Millis::get)),
        time(gen_total.map(Millis::get)),
        rate(Decoding::of(std::slice::from_ref(step)).tokens_a_second),
    ]
}

fn total_row(turns: &[StoredTurn]) -> [String; 11] {
    let usage = turns.iter().map(|turn| turn.metrics.usage).reduce(Usage::saturating_add).unwrap_or_default();
    let steps = || turns.iter().flat_map(|turn| &turn.metrics.steps);
    let Decoding { decode, tokens_a_second } = Decoding::of(steps());
    let [input, output, read, written] = counts(usage);
    [
        String::new(),
        format!("total: {} turns, {} steps", turns.len(), steps().count()),
        String::new(),
        input,
        output,
        read,
        written,
        String::new(),
        time(decode),
        time(sum(turns.iter().filter_map(|turn| turn.metrics.duration))),
        rate(tokens_a_second),
    ]
}

/// The decode time of some steps, and the output tokens of these steps. Steps without a decode time do not count.
struct Decoding {
    decode: Option<f64>,
    tokens_a_second: Option<f64>,
}

impl Decoding {
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with one decimal")]
    fn of<'a>(steps: impl IntoIterator<Item = &'a StepMetrics>) -> Self {
        let timed: Vec<_> = steps.into_iter().filter(|step| step.times.decode.is_some()).collect();
        let decode = sum(timed.iter().filter_map(|step| step.times.decode));
        let tokens: f64 = timed.iter().map(|step| step.usage.output_tokens.get() as f64).sum();
        let tokens_a_second = decode.filter(|millis| *millis > 0.0).map(|millis| tokens * 1000.0 / millis);
        Self { decode, tokens_a_second }
    }
}

fn sum(times: impl Iterator<Item = Millis>) -> Option<f64> {
    times.map(Millis::get).reduce(|sum, time| sum + time)
}

fn counts(usage: Usage) -> [String; 4] {
    let optional = |count: Option<TokenCount>| count.map_or("-".into(), |count| count.to_string());
    [
        usage.input_tokens.to_string(),
        usage.output_tokens.to_string(),
        optional(usage.cache_read_tokens),
        optional(usage.cache_write_tokens),
    ]
}

fn time(millis: Option<f64>) -> String {
    // Fractions of a millisecond are shown only for times below a hundredth of a second. In longer times they are
    // noise.
    millis.map_or("-".into(), |millis| match millis {
        LONGEST.. => format!("{millis:.1e}"),
        10.0.. => format!("{millis:.0}"),
        _ => format!("{millis:.2}"),
    })
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or("-".into(), |rate| if rate < LONGEST { format!("{rate:.1}") } else { format!("{rate:.1e}") })
}

/// Numbers from here on are shown with a power of ten, so that an absurd number does not widen the table. As
/// milliseconds it is 31 years.
const LONGEST: f64 = 1e12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::{Done, EpochMillis, OpenTurn, Ordinal, SealedTurn, StepId, TurnId, TurnMetrics};

    fn usage(input: u32, output: u32, cache_read: Option<u32>) -> Usage {
        Usage {
            input_tokens: input.into(),
            output_tokens: output.into(),
            cache_read_tokens: cache_read.map(Into::into),
            cache_write_tokens: None,
        }
    }

    fn step(id: &str, usage: Usage, times: [Option<u32>; 3]) -> StepMetrics {
        let [ttft, decode, gen_total] = times.map(|time| time.map(Into::into));
        StepMetrics { step_id: StepId::new(id).unwrap(), usage, times: StepTimes { ttft, decode, gen_total } }
    }

    fn turn(ordinal: u64, reason: &str, model: Option<&str>, steps: Vec<StepMetrics>) -> StoredTurn {
        let usage = steps.iter().map(|step| step.usage).reduce(Usage::saturating_add).unwrap_or_default();
        let turn_id = TurnId::new(format!("t{ordinal}")).unwrap();
        let metrics = TurnMetrics { turn_id, usage, steps, duration: Some(2500.into()), context_size: None };
        let done = Done { model: model.map(Into::into), ..Done::because(reason) };
        let turn = OpenTurn::new(metrics.turn_id.clone()).seal(&done, EpochMillis::new(0));
        SealedTurn { metrics, ..turn }.at(Ordinal::new(ordinal).unwrap())
    }

    fn turns() -> Vec<StoredTurn> {
        vec![
            turn(
                1,
                "stop",
                Some("opus"),
                vec![
                    step("t1#0", usage(1000, 20, Some(0)), [None, None, Some(300)]),
                    step("t1#1", usage(1200, 100, Some(1000)), [Some(250), Some(2000), Some(2250)]),
                ],
            ),
            turn(2, "aborted", None, vec![step("other", usage(5, 0, None), [None, Some(0), None])]),
        ]
    }

    #[test]
    fn a_plain_table_has_a_row_a_line_with_columns_that_line_up() {
        let text = render(&turns(), Look::Plain);
        let expected = "
 #  turn / step              end      input  output  cache read  cache write  TTFT  decode  time  tok/s
 1  t1 (opus)                stop      2200     120        1000            -   250    2000  2500   50.0
      #0                               1000      20           0            -     -       -   300      -
      #1                               1200     100        1000            -   250    2000  2250   50.0
 2  t2                       aborted      5       0           -            -     -    0.00  2500      -
      other                               5       0           -            -     -    0.00     -      -
    total: 2 turns, 3 steps            2205     120        1000            -          2000  5000   50.0
";
        assert_eq!(text, &expected[1..], "\n{text}");
    }

    #[test]
    fn only_a_styled_table_has_escapes() {
        for look in [Look::Plain, Look::Boxed] {
            assert!(!render(&turns(), look).contains('\u{1b}'), "{look:?}");
        }
    }

    #[test]
    fn nothing_that_was_posted_reaches_the_terminal_raw() {
        let evil = "\u{1b}]0;x\u{7}\r\n\u{9b}2J";
        let text = render(&[turn(1, evil, Some(evil), Vec::new())], Look::Plain);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn wide_characters_keep_the_columns_in_line() {
        let text = render(&[turn(1, "停止", None, Vec::new()), turn(2, "stop", None, Vec::new())], Look::Plain);
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn a_time_of_any_length_fits_its_column() {
        for (millis, shown) in [
            (0.0, "0.00"),
            (9.994, "9.99"),
            (10.4, "10"),
            (999_999_999_999.0, "999999999999"),
            (1e12, "1.0e12"),
            (1e308, "1.0e308"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(time(Some(millis)), shown);
        }
        assert_eq!((rate(Some(123.45)), rate(Some(1e300))), ("123.5".to_owned(), "1.0e300".to_owned()));
    }
}

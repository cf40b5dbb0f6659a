use super::super::answers::{ListedTurn, TurnSoFar};
use super::super::figures;
use super::super::output::plain;
use super::super::table::{Cell, Column, Screen, Table};
use crate::report::{Zone, report_time};
use crate::turn::{Label, Millis, StepMetrics, StepTimes, TokenCount, TurnId, Usage};

const COLUMNS: [Column; 13] = [
    Column::number("#"),
    Column::text("turn / step"),
    Column::number("ended").left_out(5),
    Column::text("reason").left_out(6),
    Column::number("input"),
    Column::number("output"),
    Column::number("cache read").left_out(7),
    Column::number("cache write").left_out(1),
    Column::number("TTFT").left_out(4),
    Column::number("decode").left_out(2),
    Column::number("time").left_out(8),
    Column::number("tok/s").left_out(3),
    Column::number("cost $"),
];

/// Draws the turns as a table, with the steps below each turn and the totals below all turns. The open turns come last.
pub(in super::super) fn render(turns: &[ListedTurn], open: &[TurnSoFar], zone: &Zone, screen: Screen) -> String {
    let mut table = Table::new(COLUMNS);
    for listed in turns {
        table.bold_row(turn_row(listed, zone));
        for step in &listed.turn.metrics.steps {
            table.row(step_row(&listed.turn.metrics.turn_id, step));
        }
    }
    if !turns.is_empty() {
        table.bold_row(total_row(turns));
    }
    for turn in open {
        table.bold_row(open_row(turn));
        for step in &turn.steps {
            table.row(step_row(&turn.turn_id, step));
        }
    }
    let cost = figures::sum_of_costs(turns.iter().filter_map(|listed| listed.cost.as_ref()));
    table.render(screen) + &figures::unpriced_note(&cost)
}

fn name(turn_id: &TurnId, model: Option<&Label>) -> Cell {
    let id = plain(turn_id.as_str());
    Cell::new(model.map_or(id.clone(), |model| format!("{id} ({})", plain(model.as_str()))))
}

fn turn_row(listed: &ListedTurn, zone: &Zone) -> [Cell; 13] {
    let ListedTurn { turn, cost, .. } = listed;
    let metrics = &turn.metrics;
    let ttft = metrics.steps.iter().find_map(|step| step.times.ttft);
    let Decoding { decode, tokens_a_second } = Decoding::of(&metrics.steps);
    let [input, output, read, written] = counts(metrics.usage);
    [
        Cell::new(turn.ordinal.to_string()),
        name(&metrics.turn_id, turn.model.as_ref()),
        figures::moment(report_time(turn).get().try_into().unwrap_or(i64::MAX), zone),
        Cell::new(plain(turn.reason.as_str())),
        input,
        output,
        read,
        written,
        figures::millis(ttft.map(Millis::get)),
        figures::millis(decode),
        figures::millis(metrics.duration.map(Millis::get)),
        figures::speed(tokens_a_second),
        cost.as_ref().map_or_else(Cell::unknown, figures::cost),
    ]
}

fn open_row(turn: &TurnSoFar) -> [Cell; 13] {
    let [input, output, read, written] = counts(turn.usage);
    let ttft = turn.steps.iter().find_map(|step| step.times.ttft);
    let Decoding { decode, tokens_a_second } = Decoding::of(&turn.steps);
    [
        Cell::default(),
        name(&turn.turn_id, turn.model.as_ref()),
        Cell::unknown(),
        Cell::new("open"),
        input,
        output,
        read,
        written,
        figures::millis(ttft.map(Millis::get)),
        figures::millis(decode),
        Cell::unknown(),
        figures::speed(tokens_a_second),
        Cell::unknown(),
    ]
}

fn step_row(turn_id: &TurnId, step: &StepMetrics) -> [Cell; 13] {
    // Most kernels name a step after its turn. The row of the turn is directly above.
    let id = step.step_id.as_str();
    let name = id.strip_prefix(turn_id.as_str()).filter(|rest| !rest.is_empty()).unwrap_or(id);
    let StepTimes { ttft, decode, gen_total } = step.times;
    let [input, output, read, written] = counts(step.usage);
    [
        Cell::default(),
        Cell::new(format!("  {}", plain(name))),
        Cell::default(),
        Cell::default(),
        input,
        output,
        read,
        written,
        figures::millis(ttft.map(Millis::get)),
        figures::millis(decode.map(Millis::get)),
        figures::millis(gen_total.map(Millis::get)),
        figures::speed(Decoding::of(std::slice::from_ref(step)).tokens_a_second),
        Cell::default(),
    ]
}

fn total_row(turns: &[ListedTurn]) -> [Cell; 13] {
    let metrics = || turns.iter().map(|listed| &listed.turn.metrics);
    let usage = metrics().map(|metrics| metrics.usage).reduce(Usage::saturating_add).unwrap_or_default();
    let steps = || metrics().flat_map(|metrics| &metrics.steps);
    let Decoding { decode, tokens_a_second } = Decoding::of(steps());
    let [input, output, read, written] = counts(usage);
    let cost = figures::sum_of_costs(turns.iter().filter_map(|listed| listed.cost.as_ref()));
    [
        Cell::default(),
        Cell::new(format!("total: {} turns, {} steps", turns.len(), steps().count())),
        Cell::default(),
        Cell::default(),
        input,
        output,
        read,
        written,
        Cell::default(),
        figures::millis(decode),
        figures::millis(sum(metrics().filter_map(|metrics| metrics.duration))),
        figures::speed(tokens_a_second),
        figures::cost(&cost),
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

fn counts(usage: Usage) -> [Cell; 4] {
    let optional = |count: Option<TokenCount>| figures::optional_count(count.map(TokenCount::get));
    [
        figures::count(usage.input_tokens.get()),
        figures::count(usage.output_tokens.get()),
        optional(usage.cache_read_tokens),
        optional(usage.cache_write_tokens),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::super::table::Look;
    use super::*;
    use crate::report::{CostFigures, PicoDollars};
    use crate::turn::{Done, EpochMillis, OpenTurn, Ordinal, SealedTurn, StepId, TurnMetrics};

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

    fn turn(ordinal: u64, reason: &str, model: Option<&str>, steps: Vec<StepMetrics>) -> ListedTurn {
        let usage = steps.iter().map(|step| step.usage).reduce(Usage::saturating_add).unwrap_or_default();
        let turn_id = TurnId::new(format!("t{ordinal}")).unwrap();
        let metrics = TurnMetrics { turn_id, usage, steps, duration: Some(2500.into()), context_size: None };
        let done = Done { model: model.map(Into::into), ..Done::because(reason) };
        let turn = OpenTurn::new(metrics.turn_id.clone()).seal(&done, EpochMillis::new(1_780_000_000_000));
        let turn = SealedTurn { metrics, ..turn }.at(Ordinal::new(ordinal).unwrap());
        let cost = model.map(|_| CostFigures {
            usd: Some(PicoDollars::new(4_300_000_000)),
            unpriced_tokens: 0,
            unpriced_models: Vec::new(),
        });
        ListedTurn { turn, cost, json: RawValue::NULL.to_owned() }
    }

    fn turns() -> Vec<ListedTurn> {
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

    fn drawn(turns: &[ListedTurn], open: &[TurnSoFar], width: Option<u16>) -> String {
        render(turns, open, &Zone::UTC, Screen { look: Look::Plain, width })
    }

    #[test]
    fn a_table_has_turns_their_steps_their_sums_and_then_the_open_turns() {
        let open = TurnSoFar {
            turn_id: TurnId::new("t3").unwrap(),
            model: Some("opus".into()),
            usage: usage(70, 1, None),
            steps: vec![step("t3#0", usage(70, 1, None), [Some(9), None, None])],
        };
        let text = drawn(&turns(), &[open], None);
        let expected = "
#  turn / step                         ended  reason   input  output  cache read  cache write  TTFT  decode  time  tok/s  cost $
1  t1 (opus)                2026-05-28 20:26  stop      2200     120        1000            -   250    2000  2500   50.0  0.0043
     #0                                                 1000      20           0            -     -       -   300      -
     #1                                                 1200     100        1000            -   250    2000  2250   50.0
2  t2                       2026-05-28 20:26  aborted      5       0           -            -     -    0.00  2500      -       -
     other                                                 5       0           -            -     -    0.00     -      -
   total: 2 turns, 3 steps                              2205     120        1000            -          2000  5000   50.0  0.0043
   t3 (opus)                               -  open        70       1           -            -  9.00       -     -      -       -
     #0                                                   70       1           -            -  9.00       -     -      -
";
        assert_eq!(text, expected[1..], "\n{text}");
        let only_open = drawn(
            &[],
            &[TurnSoFar {
                turn_id: TurnId::new("t").unwrap(),
                model: None,
                usage: usage(1, 0, None),
                steps: Vec::new(),
            }],
            None,
        );
        assert!(!only_open.contains("total") && only_open.contains("open"), "{only_open}");
    }

    #[test]
    fn a_table_fits_a_terminal() {
        for width in [60, 80, 100] {
            let text = drawn(&turns(), &[], Some(width));
            let mut rows = text.lines().filter(|line| !line.starts_with("Too narrow"));
            assert!(rows.all(|line| line.chars().count() <= usize::from(width)), "{text}");
            for kept in ["t1 (opus)", "2200", "120", "0.0043"] {
                assert!(text.contains(kept), "{kept}\n{text}");
            }
        }
        assert!(drawn(&turns(), &[], Some(80)).contains("05-28 20:26"));
    }

    #[test]
    fn nothing_that_was_posted_reaches_the_terminal_raw() {
        let evil = "\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{202e}";
        let text = drawn(&[turn(1, evil, Some(evil), Vec::new())], &[], None);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn wide_characters_keep_the_columns_in_line() {
        let text = drawn(&[turn(1, "停止", None, Vec::new()), turn(2, "stop", None, Vec::new())], &[], None);
        let ends: Vec<_> = text.lines().skip(1).map(|line| line.replace("停止", "xxxx").len()).collect();
        assert!(ends.len() == 3 && ends.iter().all(|end| *end == ends[0]), "{text}");
    }
}

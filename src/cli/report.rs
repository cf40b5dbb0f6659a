use std::process::ExitCode;

use super::CliError;
use super::answers::{Amount, ReportAnswer, ReportRow};
use super::args::{Format, FormatArgs, Moment, ServerArgs};
use super::client::{Client, ClientError, Query};
use super::figures;
use super::output::{self, plain, plain_json};
use super::sheet::{self, Sheet};
use super::table::{Cell, Column, Screen, Table};
use crate::report::Zone;
use crate::turn::Label;

/// Shows what the turns of a running server used and cost, by time and by model, provider, project or reason.
///
/// A turn counts when it ended by its kernel's clock, else when it was sealed. Its steps count for the model that each
/// of them asked. Sums are exact: those by hour add up to those by day, those by model to the total.
///
/// Input tokens are counted as the kernels reported them, which should include cached ones. Cached is the share of the
/// prompts that was read from a cache, over the steps that reported a cache counter. Cost is in dollars, each step
/// priced at the prices in force when its turn ended; a `+` means that tokens without a price are not in it. TTFT is
/// the time to the first token of a step, tok/s the output tokens of a step per second of its decode time, and duration
/// the time that a turn took, both times in milliseconds: medians by the nearest rank, at most 1.1 % off. --json and
/// --csv also have their counts, extremes and other percentiles, and what the caches saved: the price of the same tokens
/// without a cache minus their cost. A dash stands for a value that is not known. A time
/// without a turn has no row.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics report
  turn-metrics report --by model --since 2026-11-01 --tz Europe/Berlin
  turn-metrics report --bucket month --by project,model --since 2026-01-01 --csv > spend.csv
  turn-metrics report --bucket all --json | jq .rows[0].cost.usd

Tables fit the terminal, and 80 characters in a pipe. --json prints the answer of `GET /stats`, and --csv a line for each
of its rows, with times in milliseconds since 1970.")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,

    /// Have a row for each of these, with commas between
    #[arg(long, value_enum, value_name = "PROPERTY", value_delimiter = ',')]
    by: Vec<Property>,

    /// How much time a row covers; `all` for one row
    #[arg(long, value_enum, value_name = "LENGTH", default_value_t = Bucket::Day)]
    bucket: Bucket,

    /// Begin at this moment [default: 30 days before the end]
    #[arg(long, value_name = "MOMENT")]
    since: Option<Moment>,

    /// End before this moment [default: now]
    #[arg(long, value_name = "MOMENT")]
    until: Option<Moment>,

    /// The zone whose days, weeks and months are meant [default: the server's]
    #[arg(long, value_name = "ZONE", value_parser = Zone::named)]
    tz: Option<Zone>,

    /// Only this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Only this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,

    /// Only this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,

    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Property {
    Model,
    Provider,
    Project,
    Reason,
}

impl Property {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Project => "project",
            Self::Reason => "reason",
        }
    }

    fn of(self, row: &ReportRow) -> Option<&str> {
        let label = match self {
            Self::Model => &row.model,
            Self::Provider => &row.provider,
            Self::Project => &row.project,
            Self::Reason => &row.reason,
        };
        label.as_ref().map(Label::as_str)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bucket {
    #[value(name = "15m")]
    Quarter,
    Hour,
    Day,
    Week,
    Month,
    All,
}

impl Bucket {
    fn name(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::All => "all",
        }
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let mut by = Vec::new();
    for property in &args.by {
        if !by.contains(property) {
            by.push(*property);
        }
    }
    let names: Vec<_> = by.iter().map(|property| property.name()).collect();
    let query = Query::default()
        .with("bucket", Some(args.bucket.name()))
        .with("by", (!by.is_empty()).then(|| names.join(",")))
        .with("from", args.since.as_ref().map(Moment::as_str))
        .with("to", args.until.as_ref().map(Moment::as_str))
        .with("tz", args.tz.as_ref())
        .with("model", args.model.as_ref())
        .with("provider", args.provider.as_ref())
        .with("project", args.project.as_ref());
    let flags = [("from", "--since"), ("to", "--until"), ("tz", "--tz"), ("by", "--by"), ("bucket", "--bucket")];
    let answer = client.ask("/stats", &query);
    let (json, answer) = answer.map_err(|error: ClientError| error.about_flags(&flags))?;
    output::print(&match args.format.format() {
        Format::Json => plain_json(&json) + "\n",
        Format::Csv => sheet(&answer, &by)?,
        Format::Table(screen) => render(&answer, &by, args.bucket, screen),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn sheet(answer: &ReportAnswer, by: &[Property]) -> Result<String, CliError> {
    let percentiles = ["ttftMs", "outputTokensPerSecond", "durationMs"]
        .into_iter()
        .flat_map(|name| ["Count", "Min", "P50", "P90", "P99", "Max"].map(|part| format!("{name}{part}")));
    let percentiles: Vec<_> = percentiles.collect();
    let names = ["start", "end"].into_iter().chain(by.iter().map(|property| property.name()));
    let names = names.chain([
        "turns",
        "steps",
        "inputTokens",
        "outputTokens",
        "cacheReadTokens",
        "cacheWriteTokens",
        "cacheRate",
        "cacheCoverage",
    ]);
    let costs = sheet::COST.into_iter().chain(["cacheSavedUsd"]);
    let mut sheet = Sheet::new(names.chain(costs).chain(percentiles.iter().map(String::as_str)))?;
    for row in &answer.rows {
        let usage = row.usage;
        let values = [row.start.to_string(), row.end.to_string()].into_iter();
        let values = values.chain(by.iter().map(|property| sheet::optional(property.of(row)))).chain([
            row.turns.to_string(),
            row.steps.to_string(),
            usage.input_tokens.to_string(),
            usage.output_tokens.to_string(),
            sheet::optional(usage.cache_read_tokens),
            sheet::optional(usage.cache_write_tokens),
            sheet::number(row.cache_rate),
            sheet::number(row.cache_coverage),
        ]);
        let times = [&row.ttft_ms, &row.output_tokens_per_second, &row.duration_ms];
        let times = times.into_iter().flat_map(|known| sheet::percentiles(known.as_ref()));
        let saved = sheet::optional(row.cache_saved_usd.map(|Amount(usd)| usd));
        sheet.row(values.chain(sheet::cost(&row.cost)).chain([saved]).chain(times))?;
    }
    sheet.take()
}

fn render(answer: &ReportAnswer, by: &[Property], bucket: Bucket, screen: Screen) -> String {
    // A server may know a zone that this system does not.
    let zone = Zone::named(&answer.time_zone).unwrap_or(Zone::UTC);
    let mut head = format!("From {} until {}, {zone}.", day_or_time(answer.from, &zone), day_or_time(answer.to, &zone));
    if answer.rows.is_empty() {
        return head + " No turns.\n";
    }
    if let Some(prices) = &answer.prices {
        head.push_str(&["\nPrices: ", &plain(&prices.table), " of ", &plain(&prices.date), "."].concat());
    }
    let is_one_period = bucket == Bucket::All;
    let period = Column::number(if matches!(bucket, Bucket::Hour | Bucket::Quarter) { "begin" } else { bucket.name() });
    let columns = (!is_one_period).then_some(period).into_iter();
    let columns = columns.chain(by.iter().map(|property| Column::text(property.name()))).chain(COLUMNS);
    let mut table = Table::new(columns);
    for row in &answer.rows {
        let begin = (!is_one_period).then(|| begin(row.start, bucket, &zone));
        let labels =
            by.iter().map(|property| property.of(row).map_or_else(Cell::unknown, |text| Cell::new(plain(text))));
        table.row(begin.into_iter().chain(labels).chain(cells(row)));
    }
    if let [_, _, ..] = answer.rows[..] {
        let blanks = usize::from(!is_one_period) + by.len();
        let mut first = if blanks == 0 { Vec::new() } else { vec![Cell::new("total")] };
        first.resize_with(blanks, Cell::default);
        table.bold_row(first.into_iter().chain(totals(&answer.rows)));
    }
    let cost = figures::sum_of_costs(answer.rows.iter().map(|row| &row.cost));
    format!("{head}\n\n{}{}", table.render(screen), figures::unpriced_note(&cost))
}

/// Formats a moment. If a day begins at the moment, the time is left out.
fn day_or_time(millis: i64, zone: &Zone) -> String {
    let Some(clock) = zone.clock(millis) else { return millis.to_string() };
    let is_midnight = clock.hour() == 0 && clock.minute() == 0;
    clock.strftime(if is_midnight { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M" }).to_string()
}

/// Formats the beginning of a row's period. An hour that comes twice, when the clocks are put back, shows its offset.
fn begin(millis: i64, bucket: Bucket, zone: &Zone) -> Cell {
    let Some(clock) = zone.clock(millis) else { return Cell::unknown() };
    let text = |format| clock.strftime(format).to_string();
    if !matches!(bucket, Bucket::Hour | Bucket::Quarter) {
        return Cell::new(text("%Y-%m-%d"));
    }
    let offset = zone.offset_if_repeated(millis).map(|offset| format!(" {offset}")).unwrap_or_default();
    Cell::with_short(text("%Y-%m-%d %H:%M") + &offset, text("%m-%d %H:%M") + &offset)
}

const COLUMNS: [Column; 11] = [
    Column::number("turns"),
    Column::number("steps").left_out(2),
    Column::number("input"),
    Column::number("output"),
    Column::number("cache read").left_out(4),
    Column::number("cache write").left_out(1),
    Column::number("cached").left_out(7),
    Column::number("TTFT").left_out(5),
    Column::number("tok/s").left_out(6),
    Column::number("duration").left_out(3),
    Column::number("cost $"),
];

fn cells(row: &ReportRow) -> [Cell; 11] {
    let usage = row.usage;
    [
        figures::count(row.turns),
        figures::count(row.steps),
        figures::count(usage.input_tokens),
        figures::count(usage.output_tokens),
        figures::optional_count(usage.cache_read_tokens),
        figures::optional_count(usage.cache_write_tokens),
        figures::share(row.cache_rate),
        figures::millis(row.ttft_ms.map(|times| times.p50)),
        figures::speed(row.output_tokens_per_second.map(|speeds| speeds.p50)),
        figures::millis(row.duration_ms.map(|times| times.p50)),
        figures::cost(&row.cost),
    ]
}

/// Returns the sums of all rows. Shares and medians are not summed.
fn totals(rows: &[ReportRow]) -> [Cell; 11] {
    let sum = |of: fn(&ReportRow) -> i128| figures::count(rows.iter().map(of).fold(0, i128::saturating_add));
    let known = |of: fn(&ReportRow) -> Option<i128>| {
        figures::optional_count(rows.iter().filter_map(of).reduce(i128::saturating_add))
    };
    [
        sum(|row| row.turns),
        sum(|row| row.steps),
        sum(|row| row.usage.input_tokens),
        sum(|row| row.usage.output_tokens),
        known(|row| row.usage.cache_read_tokens),
        known(|row| row.usage.cache_write_tokens),
        Cell::default(),
        Cell::default(),
        Cell::default(),
        Cell::default(),
        figures::cost(&figures::sum_of_costs(rows.iter().map(|row| &row.cost))),
    ]
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::super::table::Look;
    use super::*;

    fn row(start: i64, model: &str, usd: &str, unpriced: u64) -> String {
        format!(
            r#"{{"start":{start},"end":{},"model":{model:?},"turns":2,"steps":3,"usage":{{"inputTokens":12345678,"outputTokens":900,"cacheReadTokens":18000}},"cacheRate":0.72,"cacheCoverage":1,"cost":{{"usd":{usd},"unpricedTokens":{unpriced},"unpricedModels":[]}},"cacheSavedUsd":"0.048600000000","ttftMs":{{"count":2,"min":420,"p50":420,"p90":437.02028336678154,"p99":440,"max":440}},"outputTokensPerSecond":null,"durationMs":null}}"#,
            start + 86_400_000
        )
    }

    fn answer(rows: &[String]) -> ReportAnswer {
        let json = format!(
            r#"{{"from":1779919200000,"to":1780093800000,"timeZone":"Europe/Berlin","bucket":"day","prices":{{"table":"genai-prices 0.2.1","date":"2026-10-30"}},"rows":[{}]}}"#,
            rows.join(",")
        );
        serde_json::from_str(&json).unwrap()
    }

    const WIDE: Screen = Screen { look: Look::Plain, width: None };

    #[test]
    fn a_report_has_a_row_for_each_period_and_group_and_their_sums() {
        let rows = [row(1_779_919_200_000, "a", r#""0.050400000000""#, 0), row(1_780_005_600_000, "b", "null", 7)];
        let answer = answer(&rows);
        let expected = "
From 2026-05-28 until 2026-05-30 00:30, Europe/Berlin.
Prices: genai-prices 0.2.1 of 2026-10-30.

       day  model  turns  steps     input  output  cache read  cache write  cached  TTFT  tok/s  duration   cost $
2026-05-28  a          2      3  12345678     900       18000            -   72.0%   420      -         -   0.0504
2026-05-29  b          2      3  12345678     900       18000            -   72.0%   420      -         -        -
     total             4      6  24691356    1800       36000            -                                 0.0504+
In no cost, as their model has no price or is not known (+): 7 tokens.
See `turn-metrics prices check`.
";
        assert_eq!(render(&answer, &[Property::Model], Bucket::Day, WIDE), expected[1..]);
        let one = self::answer(&rows[..1]);
        let text = render(&one, &[], Bucket::All, WIDE);
        assert!(text.lines().nth(3).unwrap().starts_with("turns  steps") && !text.contains("total"), "{text}");
        let none = render(&self::answer(&[]), &[], Bucket::Day, WIDE);
        assert_eq!(none, "From 2026-05-28 until 2026-05-30 00:30, Europe/Berlin. No turns.\n");
    }

    #[test]
    fn an_hour_that_comes_twice_differs_by_its_offset() {
        let zone = Zone::named("Europe/Berlin").unwrap();
        // The clocks were put back on 2026-10-25 at 01:00 in UTC.
        let texts = [-2, -1, 0, 1].map(|hour| {
            let mut table = Table::new([Column::text("x")]);
            table.row([begin(1_792_890_000_000 + hour * 3_600_000, Bucket::Hour, &zone)]);
            table.render(WIDE).lines().nth(1).unwrap().to_owned()
        });
        let expected = ["2026-10-25 01:00", "2026-10-25 02:00 +02", "2026-10-25 02:00 +01", "2026-10-25 03:00"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_sheet_has_every_figure_of_the_answer() {
        let text =
            sheet(&answer(&[row(1_779_919_200_000, "a,b", r#""0.050400000000""#, 0)]), &[Property::Model]).unwrap();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap(),
            "start,end,model,turns,steps,inputTokens,outputTokens,cacheReadTokens,cacheWriteTokens,cacheRate,cacheCoverage,\
             usd,unpricedTokens,unpricedModels,cacheSavedUsd,\
             ttftMsCount,ttftMsMin,ttftMsP50,ttftMsP90,ttftMsP99,ttftMsMax,\
             outputTokensPerSecondCount,outputTokensPerSecondMin,outputTokensPerSecondP50,outputTokensPerSecondP90,\
             outputTokensPerSecondP99,outputTokensPerSecondMax,\
             durationMsCount,durationMsMin,durationMsP50,durationMsP90,durationMsP99,durationMsMax"
        );
        assert_eq!(
            lines.next().unwrap(),
            "1779919200000,1780005600000,\"a,b\",2,3,12345678,900,18000,,0.72,1,0.050400000000,0,,0.048600000000,2,420,420,437.02028336678154,440,440,,,,,,,,,,,,"
        );
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn nothing_that_was_posted_reaches_the_terminal_raw() {
        let mut answer = answer(&[row(1_779_919_200_000, "a", "null", 7)]);
        answer.rows[0].model = Some("\u{1b}[2J\u{202e}\r\n".into());
        answer.rows[0].cost.unpriced_models = vec!["\u{9b}".into()];
        let text = render(&answer, &[Property::Model], Bucket::Day, WIDE);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }

    #[test]
    fn values_have_the_names_that_the_server_takes() {
        for bucket in Bucket::value_variants() {
            assert_eq!(bucket.to_possible_value().unwrap().get_name(), bucket.name());
        }
        for property in Property::value_variants() {
            assert_eq!(property.to_possible_value().unwrap().get_name(), property.name());
        }
    }
}

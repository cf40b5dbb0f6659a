use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of pairs of rounds. In each pair, one round measures our code and the other the limit or rival that it is
/// compared with. The rounds alternate, so that a slow moment of the machine affects both sides.
pub(crate) const ROUNDS: usize = 7;
/// The number of pairs of rounds if a round takes seconds.
pub(crate) const FEW_ROUNDS: usize = 5;

/// A table of results, one row for each measurement.
pub(crate) struct Report {
    wanted: Vec<String>,
    rows: Vec<String>,
}

/// What the row measures.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The limit or the rival with which the result is compared.
    pub(crate) against: &'static str,
    pub(crate) goal: &'static str,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, against: &'static str, goal: &'static str) -> Self {
        Self { name: name.into(), against, goal }
    }
}

/// The unit of the values of a row.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    PerSecond,
    Bytes,
    Mebibytes,
    Milliseconds,
    Microseconds,
    Percent,
}

/// The result of one round.
pub(crate) struct Round {
    pub(crate) done: usize,
    pub(crate) took: Duration,
    /// The 99th percentile of the times of single operations, if these are measured.
    pub(crate) p99: Option<Duration>,
    /// The longest time of a single operation, if these are measured.
    pub(crate) worst: Option<Duration>,
    /// The number of refused operations, which are not included in `done`.
    pub(crate) refused: usize,
}

impl Round {
    /// Times `work`, which returns the number of operations that it did.
    pub(crate) fn of(work: impl FnOnce() -> usize) -> Self {
        let start = Instant::now();
        let done = work();
        Self { done, took: start.elapsed(), p99: None, worst: None, refused: 0 }
    }

    /// Times asynchronous `work`, which returns the number of operations that it did.
    pub(crate) async fn of_async(work: impl Future<Output = usize>) -> Self {
        let start = Instant::now();
        let done = work.await;
        Self { done, took: start.elapsed(), p99: None, worst: None, refused: 0 }
    }

    /// Times `work`, which returns the time of each operation.
    pub(crate) async fn of_each(work: impl Future<Output = Vec<Duration>>) -> Self {
        let start = Instant::now();
        let times = work.await;
        Self::timed(times.len(), start.elapsed(), times)
    }

    /// Makes a round that was timed elsewhere, with the time of each operation.
    pub(crate) fn timed(done: usize, took: Duration, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).copied();
        Self { done, took, p99, worst: times.last().copied(), refused: 0 }
    }

    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

impl Report {
    pub(crate) fn new(wanted: Vec<String>) -> Self {
        let header = [
            "| what | here | compared with | there | ratio (min to max) | ratio of the p99 | goal |",
            "|---|---|---|---|---|---|---|",
        ];
        for line in header {
            println!("{line}");
        }
        Self { wanted, rows: header.map(String::from).into() }
    }

    /// Returns whether the row with this name is to be run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }

    /// Measures the rate of `ours` and that of `limit`, round by round, and adds a row.
    pub(crate) fn compare(&mut self, row: &Row, ours: impl FnMut() -> Round, limit: impl FnMut() -> Round) {
        if self.wants(&row.name) {
            self.add_rates(row, &alternate(ROUNDS, ours, limit));
        }
    }

    /// Adds a row of rates from pairs of rounds.
    pub(crate) fn add_rates(&mut self, row: &Row, pairs: &[(Round, Round)]) {
        let rates: Vec<_> = pairs.iter().map(|(ours, limit)| (ours.rate(), limit.rate())).collect();
        let p99 = pairs.iter().filter_map(|(ours, limit)| Some(ours.p99?.as_secs_f64() / limit.p99?.as_secs_f64()));
        let p99 = sorted(p99);
        let p99 = if p99.is_empty() { String::new() } else { ratio(median(&p99)) };
        self.add_pairs(row, Unit::PerSecond, &rates, &p99);
    }

    /// Adds a row from pairs of values; ours is the first of each pair.
    pub(crate) fn add_pairs(&mut self, row: &Row, unit: Unit, pairs: &[(f64, f64)], p99: &str) {
        let ratios = sorted(pairs.iter().map(|(ours, other)| ours / other));
        self.push(format!(
            "| {} | {} | {} | {} | {} ({} to {}) | {p99} | {} |",
            row.name,
            unit.show(median(&sorted(pairs.iter().map(|(ours, _)| *ours)))),
            row.against,
            unit.show(median(&sorted(pairs.iter().map(|(_, other)| *other)))),
            ratio(median(&ratios)),
            ratio(ratios[0]),
            ratio(ratios[ratios.len() - 1]),
            row.goal,
        ));
    }

    /// Adds a row of values that are compared with nothing but a goal.
    pub(crate) fn add_values(&mut self, row: &Row, unit: Unit, values: &[f64]) {
        let values = sorted(values.iter().copied());
        let (least, most) = (unit.show(values[0]), unit.show(values[values.len() - 1]));
        let spread = if values.len() > 1 { format!(" ({least} to {most})") } else { String::new() };
        let (name, against, goal) = (&row.name, row.against, row.goal);
        self.push(format!("| {name} | {}{spread} | {against} | | | | {goal} |", unit.show(median(&values))));
    }

    fn push(&mut self, row: String) {
        println!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn finish(self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-report.md");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, self.rows.join("\n") + "\n").unwrap();
        println!("\nwritten to target/bench-report.md");
    }
}

/// Runs rounds of the two sides alternately, after one warm-up round of each.
pub(crate) fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> Round,
    mut limit: impl FnMut() -> Round,
) -> Vec<(Round, Round)> {
    ours();
    limit();
    (0..rounds).map(|_| (ours(), limit())).collect()
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", human(value)),
            Self::Bytes => format!("{value:.0} B"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Microseconds => format!("{value:.1} us"),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Formats a value with two or three significant digits.
fn ratio(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

fn human(rate: f64) -> String {
    match rate {
        r if r >= 1e9 => format!("{:.2} G", r / 1e9),
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k", r / 1e3),
        r => format!("{r:.0} "),
    }
}

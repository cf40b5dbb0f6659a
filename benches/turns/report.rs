use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often each pair is measured; the rounds of the two alternate, so that a slow moment of the machine hits both.
const ROUNDS: usize = 7;

/// A table of what was measured, row by row.
pub(crate) struct Report {
    wanted: Vec<String>,
    rows: Vec<String>,
}

/// What one round did.
pub(crate) struct Round {
    pub(crate) done: usize,
    pub(crate) took: Duration,
    /// How long the slowest of a hundred took, where single ones are timed.
    pub(crate) p99: Option<Duration>,
}

impl Round {
    /// Times `work`, which tells how much it did.
    pub(crate) fn of(work: impl FnOnce() -> usize) -> Self {
        let start = Instant::now();
        let done = work();
        Self { done, took: start.elapsed(), p99: None }
    }

    /// Times what `work` does until it is through.
    pub(crate) async fn of_async(work: impl Future<Output = usize>) -> Self {
        let start = Instant::now();
        let done = work.await;
        Self { done, took: start.elapsed(), p99: None }
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

impl Report {
    pub(crate) fn new(wanted: Vec<String>) -> Self {
        let header = [
            "| what | a second | limit | a second | ratio (min to max) | p99 to the limit's |",
            "|---|---|---|---|---|---|",
        ];
        for line in header {
            println!("{line}");
        }
        Self { wanted, rows: header.map(String::from).into() }
    }

    /// Whether a row of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }

    /// Measures `ours` against `limit`, round by round, and adds a row.
    pub(crate) fn compare(
        &mut self,
        name: &str,
        limit_name: &str,
        mut ours: impl FnMut() -> Round,
        mut limit: impl FnMut() -> Round,
    ) {
        if !self.wants(name) {
            return;
        }
        // One of each to warm up.
        ours();
        limit();
        let pairs: Vec<_> = (0..ROUNDS).map(|_| (ours(), limit())).collect();
        let ratios = sorted(pairs.iter().map(|(ours, limit)| ours.rate() / limit.rate()));
        let p99 = pairs.iter().filter_map(|(ours, limit)| Some(ours.p99?.as_secs_f64() / limit.p99?.as_secs_f64()));
        let p99 = sorted(p99);
        let row = format!(
            "| {name} | {} | {limit_name} | {} | {:.2} ({:.2} to {:.2}) | {} |",
            human(median(&sorted(pairs.iter().map(|(ours, _)| ours.rate())))),
            human(median(&sorted(pairs.iter().map(|(_, limit)| limit.rate())))),
            median(&ratios),
            ratios[0],
            ratios[ROUNDS - 1],
            if p99.is_empty() { String::new() } else { format!("{:.2}", median(&p99)) },
        );
        println!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn finish(self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-report.md");
        fs::write(&path, self.rows.join("\n") + "\n").unwrap();
        println!("\nwritten to target/bench-report.md");
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

fn human(rate: f64) -> String {
    match rate {
        r if r >= 1e9 => format!("{:.2} G", r / 1e9),
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

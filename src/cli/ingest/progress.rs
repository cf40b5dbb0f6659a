use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::super::client::HttpReceipt;
use super::super::output;
use super::batch::LineBatch;

/// Shows on a terminal how much was sent, and sums it up at the end.
pub(super) struct UploadProgress {
    bar: ProgressBar,
    started: Instant,
    /// The number of lines of the current input, from its start, that are acknowledged or were refused.
    pub(super) acknowledged_lines: u64,
    /// Whether some of the acknowledged or refused lines were refused.
    pub(super) is_any_refused: bool,
    /// The position on the bar at which the current input begins.
    base: u64,
    /// The numbers of accepted and of ignored events in earlier inputs.
    before: (u64, u64),
    accepted: u64,
    ignored: u64,
    sealed: u64,
    duplicates: u64,
}

impl UploadProgress {
    pub(super) fn new() -> Self {
        Self {
            bar: ProgressBar::with_draw_target(None, output::progress_target()),
            started: Instant::now(),
            acknowledged_lines: 0,
            is_any_refused: false,
            base: 0,
            before: (0, 0),
            accepted: 0,
            ignored: 0,
            sealed: 0,
            duplicates: 0,
        }
    }

    /// Shows the bar. The bar has a length only if the total size is known.
    pub(super) fn begin(&self, total_bytes: Option<u64>) {
        let template = match total_bytes {
            Some(_) => "{bar:30} {bytes}/{total_bytes} {msg} ({eta} left)",
            None => "{spinner} {bytes} {msg} ({elapsed})",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if let Some(bytes) = total_bytes {
            self.bar.set_length(bytes);
        }
        output::keep_drawing(&self.bar);
    }

    /// Begins the next input, which starts `base` bytes after the start of the first one.
    pub(super) fn begin_input(&mut self, base: u64, from_line: u64) {
        self.base = base;
        self.before = (self.accepted, self.ignored);
        self.acknowledged_lines = from_line.saturating_sub(1);
        self.is_any_refused = false;
    }

    /// Returns whether any event of the run was accepted.
    pub(super) fn has_ever_accepted(&self) -> bool {
        self.accepted > 0
    }

    /// Returns whether any event of the current input was accepted.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted > self.before.0
    }

    /// Returns whether any event of the current input was ignored.
    pub(super) fn has_ignored(&self) -> bool {
        self.ignored > self.before.1
    }

    /// Moves the bar to a position in the current input.
    pub(super) fn move_to(&self, position: u64) {
        self.bar.set_position(self.base + position);
    }

    /// Counts a batch that is acknowledged.
    pub(super) fn advance(&mut self, batch: &LineBatch, receipt: &HttpReceipt) {
        self.acknowledged_lines = batch.first_line + batch.lines - 1;
        self.accepted += receipt.accepted;
        self.ignored += receipt.ignored + batch.dropped;
        let duplicates = receipt.sealed.iter().filter(|turn| turn.duplicate).count() as u64;
        self.duplicates += duplicates;
        self.sealed += receipt.sealed.len() as u64 - duplicates;
        self.bar.set_message(format!("{} turns sealed", HumanCount(self.sealed)));
    }

    /// Records that all lines up to this one are acknowledged or were refused.
    pub(super) fn acknowledge_to(&mut self, line: u64) {
        self.acknowledged_lines = line;
    }

    /// Prints a message without disturbing the bar.
    pub(super) fn note(&self, line: &str) {
        self.bar.suspend(|| output::note(line));
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Returns the summary in one line.
    pub(super) fn summary(&self) -> String {
        let Self { accepted, ignored, sealed, duplicates, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        format!(
            "{accepted} events accepted, {ignored} ignored, {sealed} turns sealed, {duplicates} duplicates, {seconds:.1} seconds\n"
        )
    }
}

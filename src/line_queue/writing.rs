use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::{Item, Losses, Notice};

/// How long the thread sleeps while lines gather. A line may be written this much later than it was queued.
const NAP: Duration = Duration::from_millis(1);

/// The thread's side of the queue: the writer and the counts of its lines.
pub(super) struct Writing<'a, W> {
    writer: W,
    losses: &'a Losses,
    /// Lines written since the last flush.
    unflushed: u64,
    errors: u64,
    notice: Option<Notice>,
    /// How many lost lines the notices so far have reported.
    reported: u64,
    /// The latest error that no notice has reported yet.
    latest_error: Option<io::Error>,
}

impl<'a, W: Write> Writing<'a, W> {
    pub(super) fn new(writer: W, losses: &'a Losses, notice: Option<Notice>) -> Self {
        Self { writer, losses, unflushed: 0, errors: 0, notice, reported: 0, latest_error: None }
    }

    /// Writes lines until the queue is closed and empty.
    pub(super) fn run(mut self, items: &Receiver<Item>, closing: &AtomicBool) {
        let mut has_written = false;
        loop {
            // Read the flag before the queue. So if the flag is set, the queue is seen with every line that was queued
            // before the close.
            let closed = closing.load(Ordering::Acquire);
            let item = match items.try_recv() {
                Ok(item) => item,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // The queue is empty: flush before the thread sleeps.
                    self.settle();
                    if closed {
                        return;
                    }
                    // While the thread sleeps, lines gather without waking it. Waking it for each line would cost the
                    // caller more than the line itself.
                    if std::mem::take(&mut has_written) {
                        #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
                        std::thread::sleep(NAP);
                        continue;
                    }
                    match items.recv() {
                        Ok(item) => item,
                        Err(_) => break,
                    }
                }
            };
            match item {
                Item::Line { bytes, untaken_before } => {
                    self.write(&bytes, untaken_before);
                    has_written = true;
                }
                Item::Mark(mark) => {
                    self.settle();
                    let _ = mark.try_send(());
                }
                Item::Wake => {}
            }
        }
        self.settle();
    }

    pub(super) fn write(&mut self, line: &[u8], untaken_before: u64) {
        match self.report_losses(untaken_before).and_then(|()| self.writer.write_all(line)) {
            Ok(()) => self.unflushed += 1,
            Err(error) => {
                self.losses.refused.fetch_add(1, Ordering::Relaxed);
                self.fail(error);
            }
        }
    }

    /// Reports the losses after the last line and flushes.
    pub(super) fn settle(&mut self) {
        if let Err(error) = self.report_losses(self.losses.untaken.load(Ordering::Relaxed)) {
            self.fail(error);
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let flushed = self.writer.flush();
        if flushed.is_ok() {
            self.unflushed = 0;
        }
        self.losses.in_doubt.store(self.unflushed, Ordering::Relaxed);
        if let Err(error) = flushed {
            self.fail(error);
        }
    }

    /// Writes a notice if lines are missing that no notice has reported yet.
    fn report_losses(&mut self, untaken: u64) -> io::Result<()> {
        let Some(notice) = &self.notice else { return Ok(()) };
        let lost = untaken + self.losses.refused.load(Ordering::Relaxed);
        // Threads may queue lines in another order than they read the count. So the count of this line may be lower
        // than the number that was reported.
        if lost > self.reported {
            self.writer.write_all(&notice(lost - self.reported, self.latest_error.as_ref()))?;
            self.reported = lost;
            self.latest_error = None;
        }
        Ok(())
    }

    fn fail(&mut self, error: io::Error) {
        if self.notice.is_some() {
            self.latest_error = Some(error);
            return;
        }
        self.errors += 1;
        // Log ever fewer of the errors, because on a full disk every line fails.
        if self.errors.is_power_of_two() {
            let Losses { refused, in_doubt, .. } = self.losses;
            let so_far = refused.load(Ordering::Relaxed) + in_doubt.load(Ordering::Relaxed);
            tracing::warn!(%error, so_far, "lines could not be written");
        }
    }
}

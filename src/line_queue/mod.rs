//! Lines on their way to a slow place: a bounded queue before a thread that writes.
//!
//! Whoever has a line never waits. A line that finds the queue full is lost, and so is one that the place refuses; both
//! are counted.
#![cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the log of a server needs all of it"))]

#[cfg(test)]
mod tests;
mod writing;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use self::writing::Writing;

/// The most lines that can wait: room for them is made at once.
const MOST_WAITING: usize = 10_000_000;

/// Takes lines without ever waiting for them to be written.
#[derive(Debug, Clone)]
pub(crate) struct LineQueue {
    items: SyncSender<Item>,
    losses: Arc<Losses>,
}

/// What the thread receives.
#[derive(Debug)]
enum Item {
    Line {
        bytes: Vec<u8>,
        /// Lines lost to a full queue before this one was taken.
        untaken_before: u64,
    },
    /// Answered once everything taken before it is written.
    Mark(SyncSender<()>),
    /// Wakes the thread, so that it sees that it is to end.
    Wake,
}

/// Lines that are not written.
#[derive(Debug, Default)]
struct Losses {
    /// Those that the queue did not take.
    untaken: AtomicU64,
    /// Those that the writer did not take.
    refused: AtomicU64,
    /// Those that it took since it last flushed, if it has failed to flush them: they may yet be written.
    in_doubt: AtomicU64,
}

/// Why a line was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineLost {
    /// Too many lines wait to be written.
    Full,
    /// The writer is closed.
    Closed,
}

/// Returns the line that reports this many lost ones, and the latest error if writing failed.
pub(crate) type Notice = Box<dyn Fn(u64, Option<&io::Error>) -> Vec<u8> + Send>;

/// The thread that writes. Dropping it waits until everything taken before is written; [`LineWriter::close_within`]
/// bounds that wait.
#[derive(Debug)]
pub(crate) struct LineWriter {
    items: SyncSender<Item>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends. The lock makes this type `Sync`; nothing ever waits for it.
    ended: Mutex<Receiver<()>>,
}

/// Starts a thread of this name that writes the queue's lines, of which at most `limit` wait: at least one, and no
/// more than [`MOST_WAITING`]. Failures to write are logged.
pub(crate) fn start(
    name: &str,
    limit: usize,
    writer: impl Write + Send + 'static,
) -> io::Result<(LineQueue, LineWriter)> {
    spawn(name, limit, writer, None)
}

/// Like [`start`], with a notice among the lines wherever some are missing. For the log itself: it cannot report its
/// own failures through itself as others do.
pub(crate) fn start_with_notice(
    name: &str,
    limit: usize,
    writer: impl Write + Send + 'static,
    notice: Notice,
) -> io::Result<(LineQueue, LineWriter)> {
    spawn(name, limit, writer, Some(notice))
}

fn spawn(
    name: &str,
    limit: usize,
    writer: impl Write + Send + 'static,
    notice: Option<Notice>,
) -> io::Result<(LineQueue, LineWriter)> {
    let (items, received) = sync_channel(limit.clamp(1, MOST_WAITING));
    let (closing, losses) = (Arc::<AtomicBool>::default(), Arc::<Losses>::default());
    let (end, ended) = channel();
    let thread = {
        let (closing, losses) = (Arc::clone(&closing), Arc::clone(&losses));
        Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped when the thread ends, by a panic of the writer too.
            let _end: std::sync::mpsc::Sender<()> = end;
            Writing::new(writer, &losses, notice).run(&received, &closing);
        })?
    };
    let queue = LineQueue { items: items.clone(), losses };
    Ok((queue, LineWriter { items, closing, thread: Some(thread), ended: Mutex::new(ended) }))
}

impl LineQueue {
    /// Takes a line, with its line break, or gives up on it; at once.
    pub(crate) fn offer(&self, line: Vec<u8>) -> Result<(), LineLost> {
        let untaken_before = self.losses.untaken.load(Ordering::Relaxed);
        self.items.try_send(Item::Line { bytes: line, untaken_before }).map_err(|error| {
            self.losses.untaken.fetch_add(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => LineLost::Full,
                TrySendError::Disconnected(_) => LineLost::Closed,
            }
        })
    }

    /// How many lines were taken and then not written, because writing failed; with those of which it is not known,
    /// until the writer has flushed them after all.
    pub(crate) fn failures(&self) -> u64 {
        let Losses { refused, in_doubt, .. } = &*self.losses;
        refused.load(Ordering::Relaxed) + in_doubt.load(Ordering::Relaxed)
    }

    /// How many of the lines that were offered are not written: those of [`LineQueue::failures`] and those not taken.
    pub(crate) fn lost(&self) -> u64 {
        self.losses.untaken.load(Ordering::Relaxed) + self.failures()
    }

    /// Waits until everything taken so far is written, at most so long. Returns whether it is. Does not wait if the
    /// queue is full.
    pub(crate) fn flush_within(&self, patience: Duration) -> bool {
        let (mark, marked) = sync_channel(1);
        self.items.try_send(Item::Mark(mark)).is_ok() && marked.recv_timeout(patience).is_ok()
    }
}

impl LineWriter {
    /// Closes the queue and waits until everything taken before is written, at most so long. Returns whether it is.
    ///
    /// A thread that is still writing then is left to itself: only the end of the process stops a write that never
    /// returns.
    pub(crate) fn close_within(&mut self, patience: Duration) -> bool {
        self.close();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let has_ended = ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
        let thread = self.thread.take();
        if has_ended && let Some(thread) = thread {
            let _ = thread.join();
        }
        has_ended
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        // Wakes a writer that waits. One that has a full queue before it sees the flag when that is empty.
        let _ = self.items.try_send(Item::Wake);
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.close();
            let _ = thread.join();
        }
    }
}

//! Writes lines to a slow destination: a bounded queue in front of a thread that writes.
//!
//! A caller never waits. A line is lost if the queue is full, or if the destination refuses it. Both cases are counted.
//!
//! - `writing`: the thread's side of the queue.
//! - `tests`: full queues, failing writers, and the counts of lost lines.

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

/// The maximum queue length. The memory for a queue is allocated at once, so its length must be limited.
const MAX_WAITING: usize = 10_000_000;

/// Accepts lines. The caller does not wait until they are written.
#[derive(Debug, Clone)]
pub(crate) struct LineQueue {
    items: SyncSender<Item>,
    losses: Arc<Losses>,
}

/// A message to the thread.
#[derive(Debug)]
enum Item {
    Line {
        bytes: Vec<u8>,
        /// The number of lines that were lost to a full queue before this line was queued.
        untaken_before: u64,
    },
    /// The thread answers when everything that was queued before is written.
    Mark(SyncSender<()>),
    /// Wakes the thread, so that it checks whether it should end.
    Wake,
}

/// Counts the lines that were not written.
#[derive(Debug, Default)]
struct Losses {
    /// Lines that the queue refused.
    untaken: AtomicU64,
    /// Lines that the writer failed to write.
    refused: AtomicU64,
    /// Lines written since the last successful flush, if the latest flush failed. A later flush may still write them.
    in_doubt: AtomicU64,
}

/// The reason why a line was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineLost {
    /// The queue is full.
    Full,
    /// The writer is closed.
    Closed,
}

/// Formats the notice about this many lost lines, with the latest error if writing failed.
pub(crate) type Notice = Box<dyn Fn(u64, Option<&io::Error>) -> Vec<u8> + Send>;

/// The thread that writes. Dropping this value waits until everything that was queued before is written;
/// [`LineWriter::close_within`] limits the wait.
#[derive(Debug)]
pub(crate) struct LineWriter {
    items: SyncSender<Item>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends. The lock only makes this type `Sync`; two threads never wait for it.
    ended: Mutex<Receiver<()>>,
}

/// Starts a thread of this name that writes the lines of a queue. The queue holds at most `limit` lines, from 1 to
/// [`MAX_WAITING`]. Write errors are logged.
pub(crate) fn start(
    name: &str,
    limit: usize,
    writer: impl Write + Send + 'static,
) -> io::Result<(LineQueue, LineWriter)> {
    spawn(name, limit, writer, None)
}

/// Like [`start`], but also writes a notice in the place of missing lines. The log uses this, because it cannot report
/// its own failures by logging them.
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
    let (items, received) = sync_channel(limit.clamp(1, MAX_WAITING));
    let (closing, losses) = (Arc::<AtomicBool>::default(), Arc::<Losses>::default());
    let (end, ended) = channel();
    let thread = {
        let (closing, losses) = (Arc::clone(&closing), Arc::clone(&losses));
        Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped when the thread ends, even if the writer panics.
            let _end: std::sync::mpsc::Sender<()> = end;
            Writing::new(writer, &losses, notice).run(&received, &closing);
        })?
    };
    let queue = LineQueue { items: items.clone(), losses };
    Ok((queue, LineWriter { items, closing, thread: Some(thread), ended: Mutex::new(ended) }))
}

impl LineQueue {
    /// Queues a line, including its line break, or drops it; never waits.
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

    /// Returns the number of queued lines that were not written because of an error. It includes lines in doubt until a
    /// later flush succeeds.
    pub(crate) fn failures(&self) -> u64 {
        let Losses { refused, in_doubt, .. } = &*self.losses;
        refused.load(Ordering::Relaxed) + in_doubt.load(Ordering::Relaxed)
    }

    /// Returns the number of lines that were offered and not written: [`LineQueue::failures`] plus the lines that the
    /// queue refused.
    pub(crate) fn lost(&self) -> u64 {
        self.losses.untaken.load(Ordering::Relaxed) + self.failures()
    }

    /// Waits until everything that was queued so far is written, but no longer than `patience`. Returns whether
    /// everything is written. If the queue is full, returns `false` at once.
    pub(crate) fn flush_within(&self, patience: Duration) -> bool {
        let (mark, marked) = sync_channel(1);
        self.items.try_send(Item::Mark(mark)).is_ok() && marked.recv_timeout(patience).is_ok()
    }
}

impl LineWriter {
    /// Closes the queue, and waits until everything in it is written, but no longer than `patience`. Returns whether
    /// everything is written.
    ///
    /// If the thread is still writing then, it is abandoned: only the end of the process can stop a write that never
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
        // Wakes the thread if it waits for a line. If the queue is full, the thread is busy, and checks the flag once
        // the queue is empty.
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

//! Lines on their way to a slow place: a bounded queue before a thread that writes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

/// The most lines that can wait: room for them is made at once.
const MOST_WAITING: usize = 10_000_000;

/// Takes lines without ever waiting for them to be written.
#[derive(Debug, Clone)]
pub(crate) struct LineQueue {
    lines: SyncSender<Option<Vec<u8>>>,
    failures: Arc<Failures>,
}

/// Lines that are not written.
#[derive(Debug, Default)]
struct Failures {
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

/// The thread that writes. Dropping it waits until what was taken before is written.
#[derive(Debug)]
pub(crate) struct LineWriter {
    lines: SyncSender<Option<Vec<u8>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a thread of this name that writes the queue's lines, of which at most `limit` wait: at least one, and no
/// more than [`MOST_WAITING`].
pub(crate) fn start(
    name: &str,
    limit: usize,
    writer: impl Write + Send + 'static,
) -> io::Result<(LineQueue, LineWriter)> {
    let (lines, received) = sync_channel(limit.clamp(1, MOST_WAITING));
    let (closing, failures) = (Arc::<AtomicBool>::default(), Arc::<Failures>::default());
    let thread = {
        let (closing, failures) = (Arc::clone(&closing), Arc::clone(&failures));
        Builder::new().name(name.to_owned()).spawn(move || run(&received, writer, &closing, &failures))?
    };
    let queue = LineQueue { lines: lines.clone(), failures };
    Ok((queue, LineWriter { lines, closing, thread: Some(thread) }))
}

impl LineQueue {
    /// Takes a line, with its line break, or gives up on it; at once.
    pub(crate) fn offer(&self, line: Vec<u8>) -> Result<(), LineLost> {
        self.lines.try_send(Some(line)).map_err(|error| match error {
            TrySendError::Full(_) => LineLost::Full,
            TrySendError::Disconnected(_) => LineLost::Closed,
        })
    }

    /// How many lines were taken and then not written, because writing failed; with those of which it is not known,
    /// until the writer has flushed them after all.
    pub(crate) fn failures(&self) -> u64 {
        let Failures { refused, in_doubt } = &*self.failures;
        refused.load(Ordering::Relaxed) + in_doubt.load(Ordering::Relaxed)
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes a writer that waits. One that has a full queue before it sees the flag when that is empty.
        let _ = self.lines.try_send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(lines: &Receiver<Option<Vec<u8>>>, writer: impl Write, closing: &AtomicBool, failures: &Failures) {
    let mut writing = Writing { writer, failures, unflushed: 0, errors: 0 };
    loop {
        // Read before the queue is: what was taken before the writer was dropped is then seen by the look that follows.
        let closed = closing.load(Ordering::Acquire);
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                // Nothing waits: what is buffered becomes visible before the thread sleeps.
                writing.flush();
                if closed {
                    return;
                }
                match lines.recv() {
                    Ok(line) => line,
                    Err(_) => break,
                }
            }
        };
        if let Some(line) = line {
            writing.write(&line);
        }
    }
    writing.flush();
}

/// The writer, and what became of its lines.
struct Writing<'a, W> {
    writer: W,
    failures: &'a Failures,
    /// Lines that it took since it last flushed.
    unflushed: u64,
    errors: u64,
}

impl<W: Write> Writing<'_, W> {
    fn write(&mut self, line: &[u8]) {
        match self.writer.write_all(line) {
            Ok(()) => self.unflushed += 1,
            Err(error) => {
                self.failures.refused.fetch_add(1, Ordering::Relaxed);
                self.tell(&error);
            }
        }
    }

    fn flush(&mut self) {
        let flushed = self.writer.flush();
        if flushed.is_ok() {
            self.unflushed = 0;
        }
        self.failures.in_doubt.store(self.unflushed, Ordering::Relaxed);
        if let Err(error) = flushed {
            self.tell(&error);
        }
    }

    fn tell(&mut self, error: &io::Error) {
        self.errors += 1;
        // Told ever more rarely: a full disk fails for every line.
        if self.errors.is_power_of_two() {
            let Failures { refused, in_doubt } = self.failures;
            let so_far = refused.load(Ordering::Relaxed) + in_doubt.load(Ordering::Relaxed);
            tracing::warn!(%error, so_far, "lines could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    /// Writes to a text that the test can see.
    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_taken_is_written_in_order_before_the_writer_is_gone_and_nothing_after() {
        let shown = Shown::default();
        let (queue, writer) = start("test", 1000, shown.clone()).unwrap();
        let lines: Vec<_> = (0..1000).map(|n| format!("{n}\n").into_bytes()).collect();
        for line in &lines {
            queue.offer(line.clone()).unwrap();
        }
        drop(writer);
        assert_eq!(*shown.0.lock().unwrap(), lines.concat());
        assert_eq!(queue.offer(b"late\n".to_vec()), Err(LineLost::Closed));
    }

    /// Tells the test when a line has come and waits until it may go on.
    struct Stuck(Sender<()>, Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_writer_holds_nobody_up_and_its_queue_does_not_grow() {
        let (arrived, has_arrived) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let (queue, writer) = start("test", 2, Stuck(arrived, may_go_on)).unwrap();
        queue.offer(b"in hand\n".to_vec()).unwrap();
        has_arrived.recv().unwrap();
        queue.offer(b"waits\n".to_vec()).unwrap();
        queue.offer(b"waits too\n".to_vec()).unwrap();
        assert_eq!(queue.offer(b"one too many\n".to_vec()), Err(LineLost::Full));
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        drop(writer);
        assert_eq!(has_arrived.try_iter().count(), 2, "the full queue was written, though it had no room for the end");
    }

    /// Writes to a text; tells the test when it is asked to flush, and waits until it may go on.
    struct StuckInFlush(Shown, Sender<()>, Receiver<()>);

    impl Write for StuckInFlush {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            // Who is let go of at the end is not held up.
            let _ = self.1.send(());
            let _ = self.2.recv();
            Ok(())
        }
    }

    #[test]
    fn a_line_taken_during_a_flush_is_written_though_the_writer_is_dropped_before_its_end() {
        let shown = Shown::default();
        let (arrived, has_arrived) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let (queue, writer) = start("test", 2, StuckInFlush(shown.clone(), arrived, may_go_on)).unwrap();
        has_arrived.recv().unwrap();
        queue.offer(b"during the flush\n".to_vec()).unwrap();
        let closing = Arc::clone(&writer.closing);
        let dropping = std::thread::spawn(move || drop(writer));
        while !closing.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        drop(go_on);
        dropping.join().unwrap();
        assert_eq!(*shown.0.lock().unwrap(), b"during the flush\n");
        assert_eq!(queue.failures(), 0);
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (queue, writer) = start("test", 8, Broken).unwrap();
        for _ in 0..3 {
            queue.offer(b"x\n".to_vec()).unwrap();
        }
        drop(writer);
        assert_eq!(queue.failures(), 3);
    }

    /// Has no room as long as the flag is set.
    struct Disk(Arc<AtomicBool>, Shown);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::Acquire) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_in_a_buffer_that_cannot_be_flushed_are_all_counted_until_they_are_written_after_all() {
        let (full, shown, failures) = (Arc::<AtomicBool>::default(), Shown::default(), Failures::default());
        let writer = io::BufWriter::with_capacity(6, Disk(Arc::clone(&full), shown.clone()));
        let mut writing = Writing { writer, failures: &failures, unflushed: 0, errors: 0 };
        let counts = || (failures.refused.load(Ordering::Relaxed), failures.in_doubt.load(Ordering::Relaxed));
        full.store(true, Ordering::Release);
        for line in ["1\n", "2\n", "3\n"] {
            writing.write(line.as_bytes());
        }
        writing.flush();
        assert_eq!(counts(), (0, 3));
        writing.write(b"4\n");
        writing.flush();
        assert_eq!(counts(), (1, 3), "the buffer has no room for it");
        full.store(false, Ordering::Release);
        writing.write(b"5\n");
        writing.flush();
        assert_eq!(counts(), (1, 0));
        assert_eq!(*shown.0.lock().unwrap(), b"1\n2\n3\n5\n");
    }
}

use std::sync::mpsc::Sender;

use super::*;
use crate::testing::Written;

#[test]
fn queued_lines_are_written_in_order_before_the_writer_is_dropped_and_later_ones_are_refused() {
    let shown = Written::default();
    let (queue, writer) = start("test", 1000, shown.clone()).unwrap();
    let lines: Vec<_> = (0..1000).map(|n| format!("{n}\n").into_bytes()).collect();
    for line in &lines {
        queue.offer(line.clone()).unwrap();
    }
    drop(writer);
    assert_eq!(shown.bytes(), lines.concat());
    assert_eq!(queue.offer(b"late\n".to_vec()), Err(LineLost::Closed));
}

/// A writer that signals each line and then waits until the test lets it continue.
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
fn a_stuck_writer_blocks_no_caller_and_its_queue_does_not_grow() {
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
    assert_eq!(
        has_arrived.try_iter().count(),
        2,
        "the full queue was written, although it had no room for the message that ends the thread"
    );
}

/// A writer into a string. It signals each flush and then waits until the test lets it continue.
struct StuckInFlush(Written, Sender<()>, Receiver<()>);

impl Write for StuckInFlush {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // At the end of the test the sender is dropped, and flushes no longer wait.
        let _ = self.1.send(());
        let _ = self.2.recv();
        Ok(())
    }
}

#[test]
fn a_line_queued_during_a_flush_is_written_even_if_the_writer_is_dropped_meanwhile() {
    let shown = Written::default();
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
    assert_eq!(shown.bytes(), b"during the flush\n");
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

/// A writer that fails, as on a full disk, while the flag is set.
struct Disk(Arc<AtomicBool>, Written);

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
fn lines_in_an_unflushed_buffer_count_as_failed_until_a_flush_succeeds() {
    let (full, shown, losses) = (Arc::<AtomicBool>::default(), Written::default(), Losses::default());
    let writer = io::BufWriter::with_capacity(6, Disk(Arc::clone(&full), shown.clone()));
    let mut writing = Writing::new(writer, &losses, None);
    let counts = || (losses.refused.load(Ordering::Relaxed), losses.in_doubt.load(Ordering::Relaxed));
    full.store(true, Ordering::Release);
    for line in ["1\n", "2\n", "3\n"] {
        writing.write(line.as_bytes(), 0);
    }
    writing.flush();
    assert_eq!(counts(), (0, 3));
    writing.write(b"4\n", 0);
    writing.flush();
    assert_eq!(counts(), (1, 3), "the buffer has no room for it");
    full.store(false, Ordering::Release);
    writing.write(b"5\n", 0);
    writing.flush();
    assert_eq!(counts(), (1, 0));
    assert_eq!(shown.bytes(), b"1\n2\n3\n5\n");
}

/// A notice that shows the arguments it was made from.
fn notice() -> Notice {
    Box::new(|lost, error| format!("{lost} lost, {:?}\n", error.map(io::Error::kind)).into_bytes())
}

/// A writer into a string. It signals each line and then waits until the test lets it continue.
struct Gate(Written, Sender<()>, Receiver<()>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.1.send(());
        let _ = self.2.recv();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Gated {
    shown: Written,
    has_arrived: Receiver<()>,
    /// Dropping this lets all lines pass.
    go_on: Sender<()>,
    queue: LineQueue,
    writer: LineWriter,
}

/// Returns a queue of two lines, whose writer is blocked by one line.
fn gated() -> Gated {
    let shown = Written::default();
    let (arrived, has_arrived) = channel();
    let (go_on, may_go_on) = channel();
    let gate = Gate(shown.clone(), arrived, may_go_on);
    let (queue, writer) = spawn("test", 2, gate, Some(notice())).unwrap();
    queue.offer(b"in hand\n".to_vec()).unwrap();
    has_arrived.recv().unwrap();
    Gated { shown, has_arrived, go_on, queue, writer }
}

#[test]
fn a_notice_stands_where_lines_are_missing_and_each_lost_line_is_counted_once() {
    let Gated { shown, has_arrived, go_on, queue, writer } = gated();
    for line in ["1\n", "2\n", "3\n", "4\n", "5\n"] {
        let _ = queue.offer(line.into());
    }
    go_on.send(()).unwrap();
    // The thread is busy with the first line, so the queue has room for one more.
    has_arrived.recv().unwrap();
    queue.offer(b"6\n".to_vec()).unwrap();
    queue.offer(b"7\n".to_vec()).unwrap_err();
    drop(go_on);
    drop(writer);
    assert_eq!(shown.bytes(), b"in hand\n1\n2\n3 lost, None\n6\n1 lost, None\n");
    assert_eq!(queue.failures(), 0);
}

#[test]
fn a_notice_counts_the_lines_lost_to_a_full_disk_once_it_has_room() {
    let (full, shown, losses) = (Arc::<AtomicBool>::default(), Written::default(), Losses::default());
    let mut writing = Writing::new(Disk(Arc::clone(&full), shown.clone()), &losses, Some(notice()));
    writing.write(b"1\n", 0);
    full.store(true, Ordering::Release);
    writing.write(b"2\n", 0);
    writing.settle();
    writing.write(b"3\n", 0);
    full.store(false, Ordering::Release);
    writing.write(b"4\n", 5);
    writing.settle();
    assert_eq!(shown.bytes(), b"1\n7 lost, Some(StorageFull)\n4\n");
}

#[test]
fn closing_a_stuck_writer_returns_after_the_patience_and_abandons_the_thread() {
    let Gated { shown, go_on, queue, mut writer, .. } = gated();
    assert!(!writer.close_within(Duration::ZERO));
    // Without the limit this call would block for ever.
    drop(writer);
    queue.offer(b"late\n".to_vec()).unwrap();
    drop(go_on);
    let wrote_all = || shown.bytes() == b"in hand\nlate\n";
    while !wrote_all() {
        std::thread::yield_now();
    }
}

#[test]
fn closing_with_enough_patience_writes_everything() {
    let shown = Written::default();
    let (queue, mut writer) = start("test", 8, shown.clone()).unwrap();
    queue.offer(b"x\n".to_vec()).unwrap();
    assert!(writer.close_within(Duration::MAX));
    assert_eq!(shown.bytes(), b"x\n");
    assert_eq!(queue.offer(b"late\n".to_vec()), Err(LineLost::Closed));
}

#[test]
fn a_flush_waits_for_the_queued_lines_but_no_longer_than_its_patience() {
    let Gated { shown, go_on, queue, writer, .. } = gated();
    queue.offer(b"waits\n".to_vec()).unwrap();
    assert!(!queue.flush_within(Duration::ZERO));
    assert!(!queue.flush_within(Duration::MAX), "the queue is full, and a flush does not wait for room in it");
    drop(go_on);
    drop(writer);
    let (queue, _writer) = start("test", 8, shown.clone()).unwrap();
    queue.offer(b"more\n".to_vec()).unwrap();
    assert!(queue.flush_within(Duration::MAX));
    assert_eq!(shown.bytes(), b"in hand\nwaits\nmore\n");
}

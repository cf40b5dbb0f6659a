use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Pass, Scrubber};

/// How long after the end of a pass the next one begins.
const REST: Duration = Duration::from_hours(1);

/// How long to wait after a step that failed because the store is closed or its disk fails.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The handle of the thread that scrubs. The thread ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct ScrubThread(#[expect(dead_code, reason = "dropping it ends the thread")] SyncSender<()>);

impl ScrubThread {
    /// Starts the thread, unless the rate is 0. The first pass begins after `wait`. The thread calls `have_it_checked`
    /// after a step that failed: after an I/O error, nothing can be read until the files are opened again.
    pub(crate) fn start(
        scrubber: Arc<Scrubber>,
        bytes_per_second: usize,
        mut wait: Duration,
        have_it_checked: impl Fn() + Send + 'static,
    ) -> io::Result<Option<Self>> {
        if bytes_per_second == 0 {
            return Ok(None);
        }
        let (handle, dropped) = sync_channel(0);
        thread::Builder::new().name("store-scrub".into()).spawn(move || {
            let (mut pass, mut has_begun) = (Pass::default(), false);
            while dropped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if !has_begun {
                    tracing::info!("a scrub begins");
                    has_begun = true;
                }
                let begun = Instant::now();
                wait = if let Ok(bytes) = scrubber.step(&mut pass) {
                    pause(bytes, bytes_per_second).saturating_sub(begun.elapsed())
                } else {
                    have_it_checked();
                    AFTER_FAILURE
                };
                if pass.is_done() {
                    tracing::info!(rows = pass.rows(), "a scrub has ended");
                    (pass, has_begun, wait) = (Pass::default(), false, REST);
                }
            }
        })?;
        Ok(Some(Self(handle)))
    }
}

/// Returns how long a step that reads so many bytes may take, together with the pause after it.
fn pause(bytes: usize, bytes_per_second: usize) -> Duration {
    let micros = (bytes as u64).saturating_mul(1_000_000) / bytes_per_second.max(1) as u64;
    // Even an empty table is no reason for steps without a pause.
    Duration::from_micros(micros.max(1000))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::Fault;
    use crate::store::redb::checkpoint::Checkpoint;
    use crate::store::redb::files::location::Location;
    use crate::store::redb::files::slot::Slot;

    #[test]
    fn the_pause_keeps_to_the_rate() {
        assert_eq!(pause(1 << 20, 1 << 20), Duration::from_secs(1));
        assert_eq!(pause(32 * 1024, 1 << 20), Duration::from_micros(31_250));
        assert_eq!(pause(0, 1), Duration::from_millis(1));
    }

    fn scrubber() -> (Arc<Scrubber>, Arc<Slot>) {
        let slot = Arc::new(Slot::new(Location::Memory.open(1 << 20).unwrap()));
        let checkpoint = Arc::new(Checkpoint::new(Arc::clone(&slot), 1 << 20));
        (Arc::new(Scrubber::new(Arc::clone(&slot), checkpoint)), slot)
    }

    #[test]
    fn the_thread_has_the_store_checked_after_a_step_that_failed() {
        let (scrubber, slot) = scrubber();
        slot.empty(Fault::closed());
        let (asked, asks) = channel();
        let _thread = ScrubThread::start(scrubber, 1, Duration::ZERO, move || asked.send(()).unwrap()).unwrap();
        asks.recv().unwrap();
    }

    #[test]
    fn the_thread_scrubs_until_its_handle_is_dropped_and_none_scrubs_at_rate_0() {
        let (scrubber, _) = scrubber();
        let start = |rate| ScrubThread::start(Arc::clone(&scrubber), rate, Duration::ZERO, || {}).unwrap();
        assert!(start(0).is_none());
        let thread = start(1 << 30).unwrap();
        while scrubber.passes() == 0 {
            std::thread::yield_now();
        }
        drop(thread);
        while Arc::strong_count(&scrubber) > 1 {
            std::thread::yield_now();
        }
    }
}

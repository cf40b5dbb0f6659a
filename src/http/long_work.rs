//! Threads for work that would hold up the other requests of a worker.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// The number of threads. Long work is rare, and the workers need the processors too.
const THREADS: usize = 2;

/// The maximum amount of waiting work. What is more than that is done on the caller's thread.
const MAX_WAITING: usize = 1024;

type Work = Box<dyn FnOnce() + Send>;

/// Does long work on threads of its own, such as parsing a line of several MB, so that a worker serves its other requests
/// meanwhile. Clones share the threads, which start with the first work and end with the last clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LongWork(Arc<OnceLock<Option<SyncSender<Work>>>>);

impl LongWork {
    /// Does the work and returns its result. If no thread could be started, or too much work waits, it is done on this
    /// thread. A panic of the work goes on here.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(threads) = self.0.get_or_init(start) else { return work() };
        let (reply, answer) = oneshot::channel();
        let sent = threads.try_send(Box::new(move || {
            // The caller may not wait any more.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        }));
        if let Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) = sent {
            work();
        }
        // The work catches its panic, so it always replies.
        match answer.await.unwrap_or_else(|gone| Err(Box::new(gone))) {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
impl LongWork {
    /// Occupies all threads until the result is dropped.
    pub(crate) fn occupy(&self) -> SyncSender<()> {
        let (hold, waiting) = sync_channel::<()>(0);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = self.0.get_or_init(start).as_ref().unwrap();
        for _ in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            threads.try_send(Box::new(move || assert!(waiting.lock().unwrap().recv().is_err()))).unwrap();
        }
        hold
    }
}

/// Starts the threads. Returns `None` if the system has not a single one to spare.
fn start() -> Option<SyncSender<Work>> {
    let (works, waiting) = sync_channel::<Work>(MAX_WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    let started = (0..THREADS).filter(|_| {
        let waiting = Arc::clone(&waiting);
        let thread = thread::Builder::new().name("long work".into()).spawn(move || {
            while let Some(work) = next(&waiting) {
                work();
            }
        });
        thread.is_ok()
    });
    (started.count() > 0).then_some(works)
}

/// Waits for the next work. One thread holds the lock while it waits, and the others wait for the lock.
fn next(waiting: &Mutex<Receiver<Work>>) -> Option<Work> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn work_runs_on_another_thread_and_its_panic_goes_on_here() {
        let threads = LongWork::default();
        let here = thread::current().id();
        assert_ne!(threads.run(move || thread::current().id()).await, here);
        for _ in 0..2 * THREADS {
            let task = actix_web::rt::spawn({
                let threads = threads.clone();
                async move { threads.run(|| -> u8 { panic!("this panic is part of a test") }).await }
            });
            assert!(task.await.unwrap_err().is_panic());
        }
        assert_eq!(threads.run(|| 7).await, 7, "the threads go on");
    }

    #[actix_web::test]
    async fn without_a_thread_or_with_too_much_waiting_work_it_is_done_here() {
        let here = thread::current().id();
        let none = LongWork(Arc::new(OnceLock::from(None)));
        assert_eq!(none.run(move || thread::current().id()).await, here);
        let (full, _waiting) = sync_channel::<Work>(0);
        let full = LongWork(Arc::new(OnceLock::from(Some(full))));
        assert_eq!(full.run(move || thread::current().id()).await, here);
    }
}

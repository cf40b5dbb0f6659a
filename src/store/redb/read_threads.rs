use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use super::unwind::caught;
use crate::store::fault::Fault;

/// The maximum number of waiting reads. Each is asked by an actor, which waits for the answer.
const MAX_WAITING: usize = 4096;

type Read = Box<dyn FnOnce() + Send>;

/// Threads for reads that would hold up the caller's thread. They are started with the store, since later the process
/// may have no thread to spare. The threads end when the last clone of this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ReadThreads(SyncSender<Read>);

impl ReadThreads {
    /// Starts this number of threads. Few are enough, because long reads are rare and share one disk.
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let (reads, waiting) = sync_channel::<Read>(MAX_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(name.into()).spawn(move || {
                while let Some(read) = next(&waiting) {
                    read();
                }
            })?;
        }
        Ok(Self(reads))
    }

    /// Runs a read on one of the threads.
    pub(crate) fn read<T: Send + 'static, R: FnOnce() -> T + Send + 'static>(
        &self,
        read: R,
    ) -> impl Future<Output = Result<T, Fault>> + use<T, R> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.try_send(Box::new(move || {
            // The caller may not wait any more.
            let _ = reply.send(caught(read));
        }));
        async move {
            match sent {
                Ok(()) => Ok(answer.await.map_err(Fault::panicked)??),
                Err(TrySendError::Full(_)) => Err(Fault::unreachable("too many reads are waiting")),
                Err(TrySendError::Disconnected(_)) => Err(Fault::unreachable("the threads that read are gone")),
            }
        }
    }
}

/// Waits for the next read. One thread holds the lock while it waits, and the others wait for the lock.
fn next(waiting: &Mutex<Receiver<Read>>) -> Option<Read> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FaultKind;

    const THREADS: usize = 2;

    #[tokio::test]
    async fn a_read_that_panics_is_told_and_the_next_one_goes_on() {
        let threads = ReadThreads::start("reader", THREADS).unwrap();
        for _ in 0..2 * THREADS {
            let fault = threads.read(|| -> u8 { panic!("this panic is part of a test") }).await.unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Panicked);
        }
        assert_eq!(threads.read(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn reads_that_nobody_waits_for_are_bounded() {
        let threads = ReadThreads::start("reader", THREADS).unwrap();
        let (go_on, wait) = sync_channel::<()>(0);
        let wait = Arc::new(Mutex::new(wait));
        let block = || {
            let wait = Arc::clone(&wait);
            threads.read(move || drop(wait.lock().map(|wait| wait.recv())))
        };
        let waiting: Vec<_> = (0..=MAX_WAITING + THREADS).map(|_| block()).collect();
        drop(go_on);
        let mut refused = 0;
        for answer in waiting {
            refused += usize::from(answer.await.is_err());
        }
        assert!(refused >= 1, "no read was refused");
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::location::OpenError;
use super::schema::Failure;
use super::slot::Slot;
use super::write::WriteTables;
use super::{Commit, CommitError, Committed};

/// How long the writer waits before it opens a failed database again; doubled each time, up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the writer is asked.
pub(super) enum Job {
    Commit(Commit, oneshot::Sender<Result<Committed, CommitError>>),
    CheckWrite(oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<()>),
}

/// How the writer's thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterState {
    Running,
    /// It was told to close, and has.
    Closed,
    /// It is gone though nobody told it to: nothing will become durable any more.
    Dead,
}

/// Opens the database anew.
pub(super) type Reopen = Box<dyn FnMut() -> Result<redb::Database, OpenError> + Send>;

/// The only place that writes, on a thread of its own: makes all commits that wait durable with one fsync.
pub(super) struct Writer {
    jobs: Receiver<Job>,
    slot: Arc<Slot>,
    reopen: Reopen,
    /// The most jobs in one transaction.
    batch: usize,
    /// When to open a failed database again, and how long to wait after that; `None` while it is open.
    retry: Option<(Instant, Duration)>,
    state: ReportOnExit,
}

impl Writer {
    pub(super) fn new(
        jobs: Receiver<Job>,
        slot: Arc<Slot>,
        reopen: Reopen,
        batch: usize,
        state: watch::Sender<WriterState>,
    ) -> Self {
        Self { jobs, slot, reopen, batch, retry: None, state: ReportOnExit { state, exit: WriterState::Dead } }
    }

    /// Works until it is told to close or nobody is left to ask.
    pub(super) fn run(mut self) {
        let closed = loop {
            match self.next_batch() {
                Next::Batch(batch) => self.write(batch),
                Next::Retry => self.open_again(),
                Next::Close(batch, reply) => {
                    self.write(batch);
                    break Some(reply);
                }
                Next::Abandoned => break None,
            }
        };
        self.slot.empty("it is closed".into());
        self.state.exit = WriterState::Closed;
        drop(self);
        if let Some(reply) = closed {
            let _ = reply.send(());
        }
    }

    fn next_batch(&mut self) -> Next {
        let first = match self.retry {
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((at, _)) => match at.checked_duration_since(Instant::now()) {
                Some(wait) => self.jobs.recv_timeout(wait),
                None => return Next::Retry,
            },
        };
        let first = match first {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => return Next::Retry,
            Err(RecvTimeoutError::Disconnected) => return Next::Abandoned,
        };
        let mut batch = Vec::new();
        for job in std::iter::once(first).chain(self.jobs.try_iter()) {
            match job {
                Job::Close(reply) => return Next::Close(batch, reply),
                job => batch.push(job),
            }
            if batch.len() >= self.batch {
                break;
            }
        }
        Next::Batch(batch)
    }

    /// Does the jobs in one transaction and answers each when it is durable.
    fn write(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let cause = match self.slot.begin_write() {
            Err(cause) => cause,
            Ok(txn) => {
                // A panic in here would be a defect; it must not end the one thread that makes turns durable.
                let done = catch_unwind(AssertUnwindSafe(|| transact(txn?, &batch)));
                match done {
                    Ok(Ok(answers)) => {
                        return batch.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
                    }
                    Ok(Err(failure)) => self.fail(failure.to_string()),
                    Err(_) => self.fail("the writer panicked".into()),
                }
            }
        };
        for job in batch {
            job.answer(Err(CommitError::Unavailable(cause.clone())));
        }
    }

    /// Closes the database, as its state is in doubt, and plans to open it again.
    fn fail(&mut self, cause: String) -> String {
        tracing::error!(%cause, "the store failed; it is closed and opened again");
        self.slot.empty(cause.clone());
        self.retry = Some((Instant::now() + FIRST_RETRY, FIRST_RETRY));
        cause
    }

    fn open_again(&mut self) {
        match (self.reopen)() {
            Ok(database) => {
                tracing::info!("the store is open again");
                self.slot.fill(database);
                self.retry = None;
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be opened again");
                self.slot.empty(error.to_string());
                let last = self.retry.map_or(FIRST_RETRY, |(_, wait)| wait);
                let wait = (last * 2).min(LONGEST_RETRY);
                self.retry = Some((Instant::now() + wait, wait));
            }
        }
    }
}

enum Next {
    Batch(Vec<Job>),
    Retry,
    Close(Vec<Job>, oneshot::Sender<()>),
    /// Every handle on the store is gone.
    Abandoned,
}

type Answer = Result<Option<Committed>, CommitError>;

impl Job {
    /// Tells the asker. One that is gone has dropped its future, which means that it does not care.
    fn answer(self, answer: Answer) {
        match self {
            Self::Commit(_, reply) => {
                let _ = reply.send(answer.map(Option::unwrap_or_default));
            }
            Self::CheckWrite(reply) => {
                let _ = reply.send(answer.map(|_| ()));
            }
            Self::Close(reply) => {
                let _ = reply.send(());
            }
        }
    }
}

/// Does the jobs in a transaction. When this returns `Ok`, they are durable; on `Err` the outcome is unknown.
fn transact(txn: redb::WriteTransaction, batch: &[Job]) -> Result<Vec<Answer>, Failure> {
    let mut tables = WriteTables::open(&txn)?;
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        answers.push(match job {
            Job::Commit(commit, _) => tables.apply(commit)?.map(Some),
            Job::CheckWrite(_) => {
                tables.touch()?;
                Ok(None)
            }
            Job::Close(_) => Ok(None),
        });
    }
    let changed = tables.changed();
    drop(tables);
    if changed {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok(answers)
}

/// Tells how the thread ended even where it ends by a panic.
struct ReportOnExit {
    state: watch::Sender<WriterState>,
    exit: WriterState,
}

impl Drop for ReportOnExit {
    fn drop(&mut self) {
        self.state.send_replace(self.exit);
    }
}

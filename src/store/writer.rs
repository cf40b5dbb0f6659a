use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::location::OpenError;
use super::schema::Failure;
use super::slot::Slot;
use super::write::WriteTables;
use super::{Commit, CommitError, Committed, unwind};

/// How long the writer waits before it opens a failed database again; doubled each time, up to the longest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Default for Backoff {
    /// A passing failure is over in the blink of an eye; one that stays is not made worse by asking.
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
}

impl Backoff {
    fn after(self, wait: Duration) -> Duration {
        wait.saturating_mul(2).min(self.longest)
    }
}

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
    backoff: Backoff,
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
        backoff: Backoff,
        batch: usize,
        state: watch::Sender<WriterState>,
    ) -> Self {
        let state = ReportOnExit { state, exit: WriterState::Dead };
        Self { jobs, slot, reopen, backoff, batch, retry: None, state }
    }

    /// Works until it is told to close or nobody is left to ask.
    pub(super) fn run(mut self) {
        let closed = loop {
            if let Step::End(closed) = self.step() {
                break closed;
            }
        };
        self.slot.empty("it is closed".into());
        // With nobody left to ask, whoever owned the store is gone: nobody closed it.
        let Some(reply) = closed else { return };
        self.state.exit = WriterState::Closed;
        drop(self);
        let _ = reply.send(());
    }

    /// Does what comes next, and waits for it if need be.
    pub(super) fn step(&mut self) -> Step {
        match self.next_batch() {
            Next::Batch(batch) => self.write(batch),
            Next::Retry => self.open_again(),
            Next::Close(batch, reply) => {
                self.write(batch);
                return Step::End(Some(reply));
            }
            Next::Abandoned => return Step::End(None),
        }
        Step::GoOn
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
        // A panic in here would be a defect, or a damaged file; it must not end the one thread that makes turns durable.
        let done = unwind::caught(|| self.slot.begin_write().map(|txn| transact(txn?, &batch)));
        let cause = match done {
            Ok(Ok(Ok(answers))) => {
                return batch.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
            }
            Ok(Ok(Err(failure))) => self.fail(failure.to_string()),
            Ok(Err(closed)) => closed,
            Err(panic) => self.fail(panic),
        };
        for job in batch {
            job.answer(Err(CommitError::Unavailable(cause.clone())));
        }
    }

    /// Closes the database, as its state is in doubt, and plans to open it again.
    fn fail(&mut self, cause: String) -> String {
        tracing::error!(%cause, "the store failed; it is closed and opened again");
        self.slot.empty(cause.clone());
        self.retry = Some((Instant::now() + self.backoff.first, self.backoff.first));
        cause
    }

    pub(super) fn open_again(&mut self) {
        match (self.reopen)() {
            Ok(database) => {
                tracing::info!("the store is open again");
                self.slot.fill(database);
                self.retry = None;
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be opened again");
                self.slot.empty(error.without_path());
                let wait = self.retry.map_or(self.backoff.first, |(_, wait)| self.backoff.after(wait));
                self.retry = Some((Instant::now() + wait, wait));
            }
        }
    }
}

/// Whether the writer goes on.
pub(super) enum Step {
    GoOn,
    /// It ends; who told it to close wants to know when it has.
    End(Option<oneshot::Sender<()>>),
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

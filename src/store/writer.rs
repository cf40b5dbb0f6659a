use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redb::{ReadableTable, WriteTransaction};
use tokio::sync::{oneshot, watch};

use super::checkpoint::{Background, Checkpoint};
use super::entry::{Entry, encode_row};
use super::schema::{Failure, META, META_WRITE_CHECK, ROWS, write_running_time};
use super::slot::{Files, Slot};
use super::write::Draft;
use super::{Commit, CommitError, Committed, Location, unwind};
use crate::settings::StoreSettings;
use crate::turn::RunningTime;

/// How long the writer waits before it opens a failed store again; doubled each time, up to the longest.
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
    /// Add this to how long the service has run.
    Tick(Duration, oneshot::Sender<Result<(), CommitError>>),
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

/// The only place that appends to the journal, on a thread of its own: makes all commits that wait durable with one
/// fsync.
pub(super) struct Writer {
    jobs: Receiver<Job>,
    /// Jobs that were in the queue when those before them were done.
    taken: VecDeque<Job>,
    slot: Arc<Slot>,
    checkpoint: Arc<Checkpoint>,
    /// Wakes the thread that takes the checkpoint's steps; without one they are taken here.
    background: Option<Background>,
    location: Location,
    settings: StoreSettings,
    backoff: Backoff,
    /// How many jobs there will be when those whose jobs were answered last come again. Without waiting for them they
    /// would make batches of their own, in turns with those that came meanwhile, each of half the size.
    expected: usize,
    /// How long to wait for them: as long as writing took, so that waiting in vain at most doubles it, and no longer
    /// than it takes them where nothing is slow.
    patience: Duration,
    /// When to open a failed store again, and how long to wait after that; `None` while it is open.
    retry: Option<(Instant, Duration)>,
    state: ReportOnExit,
}

impl Writer {
    pub(super) fn new(
        jobs: Receiver<Job>,
        slot: Arc<Slot>,
        location: Location,
        settings: StoreSettings,
        backoff: Backoff,
        state: watch::Sender<WriterState>,
    ) -> Self {
        let state = ReportOnExit { state, exit: WriterState::Dead };
        let checkpoint = Arc::new(Checkpoint::new(Arc::clone(&slot), settings.journal_bytes));
        Self {
            jobs,
            taken: VecDeque::new(),
            slot,
            checkpoint,
            background: None,
            location,
            settings,
            backoff,
            expected: 1,
            patience: Duration::ZERO,
            retry: None,
            state,
        }
    }

    /// Has the checkpoint's steps taken on another thread while no commit waits for one.
    pub(super) fn checkpoint_in_background(&mut self) -> std::io::Result<()> {
        self.background = Some(Background::start(Arc::clone(&self.checkpoint))?);
        Ok(())
    }

    /// Works until it is told to close or nobody is left to ask.
    pub(super) fn run(self) {
        // The log has the failure.
        let _ = self.run_and_close();
    }

    /// Does the same, and fails with the reason why the journal is still needed.
    pub(super) fn run_and_close(mut self) -> Result<(), String> {
        let closed = loop {
            if let Step::End(closed) = self.step() {
                break closed;
            }
        };
        // With nobody left to ask, whoever owned the store is gone: nobody closed it.
        let Some(reply) = closed else {
            let _no_step = self.checkpoint.pause();
            self.slot.empty("it is closed".into());
            return Ok(());
        };
        let closed = self.close();
        self.state.exit = WriterState::Closed;
        drop(self);
        let _ = reply.send(());
        closed
    }

    /// Closes the files, with everything in the tables if that can be; fails with why it cannot.
    fn close(&mut self) -> Result<(), String> {
        let moved = self.move_all();
        let _no_step = self.checkpoint.pause();
        let Some(files) = self.slot.take("it is closed".into()) else { return Err("it is closed".into()) };
        match moved {
            Ok(()) => self.location.retire(files),
            Err(cause) => {
                tracing::warn!(%cause, "the journal could not be moved into the tables; it is read when the store is opened");
                files.close();
                Err(cause)
            }
        }
    }

    /// Moves all of the image into the tables.
    pub(super) fn move_all(&self) -> Result<(), String> {
        if let Some(cause) = self.checkpoint.failure() {
            return Err(cause);
        }
        while !self.slot.with(|files| files.image().layers().is_empty()).unwrap_or(true) {
            self.checkpoint.step()?;
        }
        Ok(())
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
        let wait = match self.retry {
            None => None,
            Some((at, _)) => match at.checked_duration_since(Instant::now()) {
                Some(wait) => Some(wait),
                None => return Next::Retry,
            },
        };
        let first = match (self.taken.pop_front(), wait) {
            (Some(job), _) => Ok(job),
            (None, Some(wait)) => self.jobs.recv_timeout(wait),
            (None, None) => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(job) => self.gather(job),
            Err(RecvTimeoutError::Timeout) => Next::Retry,
            Err(RecvTimeoutError::Disconnected) => Next::Abandoned,
        }
    }

    /// Takes all jobs that wait, and waits a moment for those that are likely to come.
    fn gather(&mut self, first: Job) -> Next {
        let mut batch = Vec::with_capacity(self.expected);
        let mut next = Some(first);
        let deadline = Instant::now() + self.patience;
        loop {
            while let Some(job) = next.take().or_else(|| self.taken.pop_front()).or_else(|| self.jobs.try_recv().ok()) {
                match job {
                    Job::Close(reply) => return Next::Close(batch, reply),
                    job => batch.push(job),
                }
                if batch.len() >= self.settings.batch_commits {
                    return Next::Batch(batch);
                }
            }
            if batch.len() >= self.expected || Instant::now() >= deadline {
                return Next::Batch(batch);
            }
            std::thread::yield_now();
        }
    }

    /// Does the jobs in one transaction and answers each when it is durable.
    fn write(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let mut begun = Instant::now();
        let done = self.make_room().and_then(|()| {
            begun = Instant::now();
            // A panic in here would be a defect, or a damaged file; it must not end the one thread that makes turns
            // durable.
            unwind::caught(|| self.transact(&batch)).and_then(|done| done)
        });
        let cause = match done {
            Ok(answers) => {
                self.taken.extend(self.jobs.try_iter().take(self.settings.batch_commits));
                self.expected = batch.len() + self.taken.len();
                self.patience = begun.elapsed().min(MOST_PATIENCE);
                batch.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
                if let Some(background) = &self.background {
                    background.wake();
                }
                return;
            }
            // It is closed already, and opened again in time.
            Err(cause) if self.retry.is_some() => cause,
            Err(cause) => self.fail(cause),
        };
        for job in batch {
            job.answer(Err(CommitError::Unavailable(cause.clone())));
        }
    }

    /// Waits until the image has room for more: its size bounds the memory, the journal, and the time that opening takes.
    fn make_room(&self) -> Result<(), String> {
        if let Some(cause) = self.checkpoint.failure() {
            return Err(cause);
        }
        while self.checkpoint.is_due() {
            self.checkpoint.step()?;
        }
        Ok(())
    }

    /// Does the jobs in a transaction. When this returns `Ok`, they are durable; on `Err` the outcome is unknown.
    fn transact(&self, batch: &[Job]) -> Result<Vec<Answer>, String> {
        let drafted = self.slot.with(|files| draft(files, batch))?;
        let Drafted { answers, entries, row, trim } = drafted.map_err(|failure| failure.to_string())?;
        let checks = batch.iter().any(|job| matches!(job, Job::CheckWrite(_)));
        if checks {
            self.check_tables().map_err(|failure| failure.to_string())?;
        }
        let mut row_bytes = 0;
        let ticked = self.slot.with(|files| ticked(files.running_time(), batch))?;
        if checks || ticked.is_some() || !entries.is_empty() {
            let appended = self.slot.with(|files| append(files, &entries, checks, ticked, row, trim))?;
            row_bytes = appended.map_err(|failure| failure.to_string())?;
        }
        if !entries.is_empty() {
            let taken = self.slot.with(|files| {
                let mut image = files.image_mut();
                image.took_row(row, row_bytes);
                entries.into_iter().try_for_each(|entry| image.take(entry))
            })?;
            taken.map_err(|damaged| damaged.to_string())?;
        }
        Ok(answers)
    }

    /// Shows that the tables can be written to.
    fn check_tables(&self) -> Result<(), Failure> {
        let _no_step = self.checkpoint.pause();
        let Ok(txn) = self.slot.with(Files::write_tables) else { return Ok(()) };
        let txn = txn?;
        touch(&txn)?;
        Ok(txn.commit()?)
    }

    /// Closes the store, as its state is in doubt, and plans to open it again.
    fn fail(&mut self, cause: String) -> String {
        tracing::error!(%cause, "the store failed; it is closed and opened again");
        let _no_step = self.checkpoint.pause();
        self.slot.empty(cause.clone());
        self.checkpoint.forget_failure();
        self.retry = Some((Instant::now() + self.backoff.first, self.backoff.first));
        cause
    }

    pub(super) fn open_again(&mut self) {
        match self.location.reopen(self.settings.cache_bytes) {
            Ok(files) => {
                tracing::info!("the store is open again");
                self.slot.fill(files);
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

    #[cfg(test)]
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

/// Whoever has not come again by then is not about to.
const MOST_PATIENCE: Duration = Duration::from_millis(1);

/// What some jobs become.
struct Drafted {
    answers: Vec<Answer>,
    entries: Vec<Entry>,
    /// The row of the journal that they are to be.
    row: u64,
    /// The last row that is of no more use.
    trim: u64,
}

fn draft(files: &Files, batch: &[Job]) -> Result<Drafted, Failure> {
    let image = files.image();
    let tables = files.read_tables()?;
    let mut draft = Draft::new(&image, &tables);
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        answers.push(match job {
            Job::Commit(commit, _) => draft.apply(commit)?.map(Some),
            Job::CheckWrite(_) | Job::Tick(..) | Job::Close(_) => Ok(None),
        });
    }
    Ok(Drafted { answers, entries: draft.into_entries(), row: image.last_row() + 1, trim: image.checkpoint() })
}

/// How many rows of no more use are dropped with each one that is appended: more than one, so that they become fewer,
/// and few, so that no commit waits for it.
const TRIMMED_ROWS: usize = 8;

/// Appends a row to the journal, and gives its size. When this returns `Ok`, it is durable.
fn append(
    files: &Files,
    entries: &[Entry],
    touches: bool,
    ticked: Option<RunningTime>,
    row: u64,
    trim: u64,
) -> Result<usize, Failure> {
    let txn = files.write_journal()?;
    let mut row_bytes = 0;
    if touches {
        touch(&txn)?;
    }
    if let Some(running) = ticked {
        write_running_time(&mut txn.open_table(META)?, running)?;
    }
    if !entries.is_empty() {
        let mut rows = txn.open_table(ROWS)?;
        for _ in 0..TRIMMED_ROWS {
            if rows.first()?.is_none_or(|(first, _)| first.value() > trim) {
                break;
            }
            rows.pop_first()?;
        }
        let encoded = encode_row(entries)?;
        rows.insert(row, &*encoded)?;
        row_bytes = encoded.len();
    }
    txn.commit()?;
    if let Some(running) = ticked {
        files.set_running_time(running);
    }
    Ok(row_bytes)
}

/// How long the service will have run with the ticks of the batch; `None` if it has none.
fn ticked(running: RunningTime, batch: &[Job]) -> Option<RunningTime> {
    let elapsed = batch.iter().filter_map(|job| if let Job::Tick(elapsed, _) = job { Some(*elapsed) } else { None });
    let elapsed = elapsed.reduce(Duration::saturating_add)?;
    Some(running.saturating_add(elapsed))
}

/// Writes something, anything, so that making it durable shows that writes work.
fn touch(txn: &WriteTransaction) -> Result<(), Failure> {
    let mut meta = txn.open_table(META)?;
    let previous = meta.get(META_WRITE_CHECK)?.and_then(|bytes| bytes.value().try_into().ok());
    let count = previous.map_or(0, u64::from_le_bytes).wrapping_add(1);
    meta.insert(META_WRITE_CHECK, count.to_le_bytes().as_slice())?;
    Ok(())
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
            Self::CheckWrite(reply) | Self::Tick(_, reply) => {
                let _ = reply.send(answer.map(|_| ()));
            }
            Self::Close(reply) => {
                let _ = reply.send(());
            }
        }
    }
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

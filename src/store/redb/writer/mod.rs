//! The writer: one thread, which makes all waiting commits durable with one fsync.
//!
//! Invariant: the journal is appended to here alone.
//!
//! - `admission`: bounds the turns in unanswered commits.
//! - `job`: what the writer is asked.
//! - `batch`: the jobs of one transaction.
//! - `pace`: how large a batch may be, how many turns may wait, how long to wait for the checkpoint. Pure.
//! - `write_set`: what the commits of a batch change.
//! - `transaction`: prepares a batch and appends it to the journal.
//! - `background`: the thread that runs the flushes of the checkpoint.
//! - `backoff`: how long to wait before failed files are opened again.
//! - `state`: reports how the writer's thread ended.
//!
//! # How long a commit waits
//!
//! The aim: on a healthy disk a commit is answered within 50 ms, or refused as overload. Every part of its wait is bounded.
//! The limits in turns follow from how long the last batches took.
//!
//! | part | bound |
//! |---|---|
//! | the queue | Unanswered commits hold at most the turns of 20 ms of work, and at least 256 turns. A commit beyond that is refused before it is queued. Small commits of together 64 turns have places of their own in the queue, and one that has such a place is not refused for its wait. |
//! | the wait in the queue | If more turns wait than fit into a batch, or more than 256 while the checkpoint is behind, a commit that has waited too long is refused: 20 ms less the time of the last write, at least 10 ms. |
//! | the pause before a batch | From six tenths of the memtable's limit on, the writer waits until the checkpoint has moved a share of what the last batch added: none at six tenths, twice as much at the limit. It waits no longer than leaves time for two writes within 20 ms, and may always wait for 2 ms. Commits that arrive meanwhile join the batch. |
//! | a full memtable | The writer waits until the bytes of one flush are moved. If there is still no room, it refuses the commits of the batch, but for small ones with places of their own, for which there is a sixteenth more room. |
//! | a batch | The turns of 12 ms of work, or of 6 ms while the checkpoint is behind, and at least 256. If that work takes a third longer, what is beyond 256 turns is left to the next batch. A batch also ends at 4 MiB of commits. |
//! | a flush of the checkpoint | About 12 ms, by what earlier flushes took. Whoever waits for a flush is next. |
//!
//! Of each fsync only the first 10 ms count, for the queue and for the wait in it: on a slow disk commits wait together and
//! share the fsync, and refusing them would make nothing faster. The bounds do not help a writer that gets no processor.

pub(crate) mod admission;
pub(crate) mod background;
pub(crate) mod backoff;
mod batch;
pub(crate) mod job;
pub(crate) mod pace;
pub(crate) mod state;
mod transaction;
pub(crate) mod write_set;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use self::admission::Admission;
use self::background::Background;
use self::backoff::Backoff;
use self::batch::{Batch, Room};
use self::job::{Job, JobResult};
use self::pace::{BatchSize, Capacity, Growth};
use self::state::ReportOnExit;
use self::transaction::Transaction;
use crate::settings::StoreSettings;
use crate::store::contract::{CommitError, Health};
use crate::store::fault::Fault;
use crate::store::redb::checkpoint::Checkpoint;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::Files;
use crate::store::redb::files::slot::Slot;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::unwind;

/// The only place that appends to the journal, on a thread of its own: makes all commits that wait durable with one
/// fsync.
pub(crate) struct Writer {
    jobs: Receiver<Job>,
    /// Jobs that were in the queue when those before them were done.
    taken: VecDeque<Job>,
    slot: Arc<Slot>,
    checkpoint: Arc<Checkpoint>,
    /// Wakes the thread that runs the flushes of the checkpoint; without one they are taken here.
    background: Option<Background>,
    admission: Arc<Admission>,
    capacity: Capacity,
    batch_size: BatchSize,
    /// The maximum number of turns in the current batch.
    batch_turns: usize,
    /// Whether the checkpoint had fallen behind when the current batch was begun.
    is_behind: bool,
    /// While no more turns than this wait, no commit is refused for having waited too long.
    patient_turns: usize,
    growth: Growth,
    last: LastBatch,
    location: Location,
    settings: StoreSettings,
    backoff: Backoff,
    /// The expected batch size: the callers just answered plus the queued jobs. Without a wait for those callers, they and
    /// the callers of the queued jobs would make batches in turns, each of half the size.
    expected: usize,
    /// How long to wait for them: as long as writing took, so that waiting in vain at most doubles it, and no longer
    /// than it takes them where nothing is slow.
    patience: Duration,
    /// When to open a failed store again, and how long to wait after that; `None` while it is open.
    retry: Option<(Instant, Duration)>,
    state: ReportOnExit,
}

impl Writer {
    pub(crate) fn new(
        jobs: Receiver<Job>,
        slot: Arc<Slot>,
        location: Location,
        settings: StoreSettings,
        backoff: Backoff,
        admission: Arc<Admission>,
        state: watch::Sender<Health>,
    ) -> Self {
        let state = ReportOnExit { state, exit: Health::Ended };
        let checkpoint = Arc::new(Checkpoint::new(Arc::clone(&slot), settings.redb.journal_bytes));
        Self {
            jobs,
            taken: VecDeque::new(),
            slot,
            checkpoint,
            background: None,
            admission,
            capacity: Capacity::default(),
            batch_size: BatchSize::default(),
            batch_turns: BatchSize::default().turns(false),
            is_behind: false,
            patient_turns: BatchSize::default().patient_turns(false),
            growth: Growth::new(settings.redb.journal_bytes),
            last: LastBatch::default(),
            location,
            settings,
            backoff,
            expected: 1,
            patience: Duration::ZERO,
            retry: None,
            state,
        }
    }

    /// Runs the flushes of the checkpoint in the background, on a thread of their own.
    pub(crate) fn checkpoint_in_background(&mut self) -> std::io::Result<()> {
        self.background = Some(Background::start(Arc::clone(&self.checkpoint))?);
        Ok(())
    }

    /// Works until it is told to close, or until every handle on the store is dropped.
    pub(crate) fn run(mut self) {
        let closed = loop {
            if let ControlFlow::Break(closed) = self.run_once() {
                break closed;
            }
        };
        // If every handle is dropped, the owner of the store is gone without closing it.
        let Some(reply) = closed else {
            let _no_flush = self.checkpoint.pause();
            self.slot.empty(Fault::closed());
            return;
        };
        // The failure is in the log.
        let _ = self.checkpoint.close(&self.location);
        self.state.exit = Health::Closed;
        drop(self);
        let _ = reply.send(());
    }

    /// Does what comes next, and waits for it if need be. Breaks when the writer ends, with the answer that the caller
    /// that closed it waits for, if one did.
    pub(crate) fn run_once(&mut self) -> ControlFlow<Option<oneshot::Sender<()>>> {
        match self.next_batch() {
            Next::Batch(batch) => self.write(batch),
            Next::Retry => self.open_again(),
            Next::Close(batch, reply) => {
                self.write(Batch { is_last: true, ..batch });
                return ControlFlow::Break(Some(reply));
            }
            Next::Abandoned => return ControlFlow::Break(None),
        }
        ControlFlow::Continue(())
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
        let begun = Instant::now();
        self.is_behind = self.checkpoint.is_behind();
        self.batch_turns = self.batch_size.turns(self.is_behind);
        self.patient_turns = self.batch_size.patient_turns(self.is_behind);
        let room = self.make_room();
        let mut batch =
            Batch { jobs: Vec::with_capacity(self.expected), turns: 0, bytes: 0, begun, room, is_last: false };
        let mut next = Some(first);
        let now = Instant::now();
        let (alert_until, deadline) = (now + ALERT, now + self.patience);
        loop {
            while let Some(job) = next.take().or_else(|| self.taken.pop_front()).or_else(|| self.jobs.try_recv().ok()) {
                match job {
                    Job::Close(reply) => return Next::Close(batch, reply),
                    job if self.is_overdue(&job, now) => job.answer(Err(CommitError::Overloaded)),
                    job => batch.add(job),
                }
                let has_many = batch.jobs.len() >= self.settings.batch_commits || batch.turns >= self.batch_turns;
                if has_many || batch.is_full() {
                    return Next::Batch(batch);
                }
            }
            let now = Instant::now();
            if batch.jobs.len() >= self.expected || now >= deadline {
                return Next::Batch(batch);
            }
            if now < alert_until {
                std::thread::yield_now();
            } else {
                #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
                std::thread::sleep(NAP);
            }
        }
    }

    /// Whether a commit has waited so long that it is refused instead of written. Never while few turns wait: then it is
    /// the machine that is slow, and a refusal would shorten nobody's wait. Nor would that of one of the few small commits
    /// with places of their own.
    fn is_overdue(&self, job: &Job, now: Instant) -> bool {
        let is_overloaded = || self.background.is_some() && self.admission.unanswered() > self.patient_turns;
        !job.is_reserved() && job.waited(now) > pace::longest_queueing(self.last.write) && is_overloaded()
    }

    /// Does the jobs in one transaction and answers each when it is durable. Those not reached in time are next.
    fn write(&mut self, Batch { jobs: mut batch, begun: gathered, room, is_last, .. }: Batch) {
        if batch.is_empty() {
            return;
        }
        let begun = Instant::now();
        let has_room = room == Ok(Room::All);
        let done = self.checkpoint.failure().map_or(room, Err).and_then(|room| {
            // A panic in here would be a defect, or a damaged file; it must not end the one thread that makes turns
            // durable.
            unwind::caught_as_fault(|| self.transact(&batch, room, is_last))
        });
        let cause = match done {
            Ok(answers) => {
                batch.drain(answers.len()..).rev().for_each(|job| self.taken.push_front(job));
                self.taken.extend(self.jobs.try_iter().take(self.settings.batch_commits));
                self.expected = batch.len() + self.taken.len();
                self.last.write = begun.elapsed();
                self.patience = self.last.write.min(MAX_PATIENCE);
                self.admission.excuse(pace::beyond_healthy(self.last.append));
                if has_room {
                    self.capacity.learn(turns_of(&batch), gathered.elapsed(), self.last.append);
                    self.admission.set_most(self.capacity.turns());
                }
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

    /// Waits if the checkpoint has fallen behind: the fuller the memtable, the longer, so that intake does not outrun
    /// the checkpoint and the memtable is seldom full. Waits before a batch is gathered, so that commits that arrive
    /// meanwhile join it. Returns which commits the memtable has room for. Its size bounds the memory, the journal and the
    /// time to open the store.
    fn make_room(&self) -> Result<Room, Fault> {
        let Some(background) = self.background.as_ref() else {
            while self.checkpoint.is_due() {
                self.checkpoint.flush()?;
            }
            return Ok(Room::All);
        };
        if self.checkpoint.is_due() {
            background.wake();
            return Ok(match self.checkpoint.wait_for_room() {
                true => Room::All,
                false if self.checkpoint.has_reserve() => Room::Small,
                false => Room::None,
            });
        }
        let added_bytes = self.growth.of(self.last.turns);
        let owed_bytes = self.checkpoint.owed_bytes(added_bytes);
        if owed_bytes > 0 {
            background.wake();
            let at_most = pace::longest_pause(self.last.write);
            self.checkpoint.wait_until_moved(self.last.moved_bytes + owed_bytes, at_most);
        }
        Ok(Room::All)
    }

    /// Does the first jobs in one transaction, as many as its time allows, but refuses commits that the memtable has no
    /// room for. After `Ok`, those with an answer are done; after `Err`, the outcome is unknown.
    fn transact(&mut self, batch: &[Job], room: Room, is_last: bool) -> Result<Vec<JobResult>, Fault> {
        let begun = Instant::now();
        let is_cut = |turns| !is_last && BatchSize::is_cut(turns, begun.elapsed(), self.is_behind);
        let transaction = self.slot.with(|files| Transaction::prepare(files, batch, room, is_cut))??;
        let turns = turns_of(&batch[..transaction.answers.len()]);
        if room == Room::All {
            self.batch_size.learn(turns, begun.elapsed());
        }
        if transaction.checks_write {
            self.check_tables()?;
        }
        let begun = Instant::now();
        let appended = self.slot.with(|files| transaction.append(files))??;
        self.last.append = begun.elapsed();
        let Transaction { answers, entries, .. } = transaction;
        (self.last.turns, self.last.moved_bytes) = (0, self.checkpoint.moved_bytes());
        if let Some((row, row_bytes)) = appended {
            let piece_bytes = self.checkpoint.piece_bytes();
            let taken = self.slot.with(|files| -> Result<_, DamagedRecord> {
                let mut memtable = files.memtable_mut();
                let before = memtable.size();
                memtable.took_row(row, row_bytes);
                entries.into_iter().try_for_each(|entry| memtable.take_in_pieces(entry, piece_bytes))?;
                Ok(memtable.size().saturating_sub(before))
            })?;
            let bytes = taken?;
            self.last.turns = turns;
            self.growth.learn(turns, bytes);
        }
        Ok(answers)
    }

    /// Shows that the tables can be written to.
    fn check_tables(&self) -> Result<(), Failure> {
        let _no_flush = self.checkpoint.pause();
        let Ok(txn) = self.slot.with(Files::write_tables) else { return Ok(()) };
        let txn = txn?;
        WriteMeta::write(&txn)?.touch()?;
        Ok(txn.commit()?)
    }

    /// Closes the store, as its state is in doubt, and plans to open it again.
    fn fail(&mut self, cause: Fault) -> Fault {
        tracing::error!(cause = cause.in_full(), "the store failed; it is closed and opened again");
        let _no_flush = self.checkpoint.pause();
        self.slot.empty(cause.clone());
        self.checkpoint.forget_failure();
        self.retry = Some((Instant::now() + self.backoff.first, self.backoff.first));
        cause
    }

    pub(crate) fn open_again(&mut self) {
        match self.location.reopen(self.settings.redb.cache_bytes) {
            Ok(files) => {
                tracing::info!("the store is open again");
                self.slot.fill(files);
                self.retry = None;
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be opened again");
                self.slot.empty(error.into());
                let wait = self.retry.map_or(self.backoff.first, |(_, wait)| self.backoff.after(wait));
                self.retry = Some((Instant::now() + wait, wait));
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// Runs no flushes in the background; the test runs them itself.
    #[cfg(test)]
    pub(crate) fn checkpoint_by_hand(&mut self) {
        self.background = Some(Background::by_hand());
    }
}

fn turns_of(jobs: &[Job]) -> usize {
    jobs.iter().map(Job::turns).sum()
}

/// A caller that has not sent its next commit by then will probably not send one soon.
const MAX_PATIENCE: Duration = Duration::from_millis(1);
/// Most callers that send again do so within this time. Later ones are not worth a busy thread.
const ALERT: Duration = Duration::from_micros(150);
const NAP: Duration = Duration::from_micros(100);

enum Next {
    Batch(Batch),
    Retry,
    Close(Batch, oneshot::Sender<()>),
    /// Every handle on the store is gone.
    Abandoned,
}

/// Measurements of the last batch.
#[derive(Debug, Default)]
struct LastBatch {
    /// How many turns it had.
    turns: usize,
    /// The checkpoint's `moved_bytes` when the batch was taken in.
    moved_bytes: u64,
    /// How long its write took.
    write: Duration,
    /// The part of that time that the journal took.
    append: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::engine::RedbEngine;
    use crate::store::{Commit, Version};
    use crate::turn::ConversationId;

    fn queue(store: &RedbEngine, nth: usize) {
        let conversation_id = ConversationId::new(format!("c{nth}")).unwrap();
        let (staged, sealed) = (Vec::new(), Vec::new());
        drop(store.commit(Commit { conversation_id, expected_version: Version(0), staged, sealed }));
    }

    #[test]
    fn of_commits_that_waited_too_long_those_are_refused_that_exceed_the_few() {
        let (store, mut writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        writer.checkpoint_by_hand();
        let most = 100;
        writer.patient_turns = most;
        // Those with places of their own come first, and are not refused however long they have waited.
        (0..Admission::RESERVED_TURNS + most + 2).for_each(|nth| queue(&store, nth));
        let jobs: Vec<_> = writer.jobs.try_iter().collect();
        let now = Instant::now();
        let late = now + Duration::from_hours(1);
        writer.admission.excuse(Duration::from_mins(30));
        assert!(!jobs.iter().any(|job| writer.is_overdue(job, now)), "nothing has waited");
        let mut refused = 0;
        for job in jobs {
            if writer.is_overdue(&job, late) {
                job.answer(Err(CommitError::Overloaded));
                refused += 1;
            } else {
                // It stays unanswered.
                writer.taken.push_back(job);
            }
        }
        assert_eq!((refused, writer.taken.len()), (2, Admission::RESERVED_TURNS + most));
    }
}

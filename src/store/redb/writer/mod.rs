//! The writer: one thread, which makes all waiting commits durable with one fsync.
//!
//! Invariant: no other code appends to the journal.
//!
//! - `admission`: bounds the turns in unanswered commits.
//! - `job`: the jobs that the writer is given.
//! - `batch`: the jobs of one transaction.
//! - `pace`: how large a batch may be, how many turns may wait, how long to wait for the checkpoint. Pure.
//! - `write_set`: the changes of the commits of a batch.
//! - `transaction`: prepares a batch and appends it to the journal.
//! - `background`: the thread that runs the flushes of the checkpoint.
//! - `backoff`: how long to wait before failed files are opened again.
//! - `state`: reports how the writer's thread ended.
//!
//! # How long a commit waits
//!
//! The aim: on a healthy disk, each commit is answered within 50 ms or refused because of overload. Every part of its
//! wait is bounded. The limits in turns are derived from how long the last batches took.
//!
//! | part | bound |
//! |---|---|
//! | the queue | Unanswered commits may have the turns of 20 ms of work, and always 256 turns. Further commits are refused before they are queued. Small commits of 64 turns in all have reserved places in the queue, half of them for commits of a single turn, and may always wait for 25 ms, whoever sends them. |
//! | the wait in the queue | If more turns wait than fit into a batch, or more than 256 while the checkpoint is behind, or if a batch with as many turns as its time allows left turns to the next one, each commit that has waited too long is refused. The limit is 34 ms less one and a half times the last write, within 10 and 20 ms. |
//! | the pause before a batch | From six tenths of the memtable's limit on, the writer waits until the checkpoint has moved a share of what the last batch added: none at six tenths, twice as much at the limit. It waits at most 14 ms less the time of two writes, but may always wait for 2 ms. Commits that arrive meanwhile join the batch. |
//! | a full memtable | The writer waits until the bytes of one flush are moved. If there is still no room, it refuses the commits of the batch. Small commits that have reserved places do not wait for room: they may add a sixteenth of the limit to a full memtable, the last half of it only in commits of a single turn, however far a large commit has filled it beyond the limit. |
//! | a batch | The turns of 9 ms of work, or of 5 ms while the checkpoint is behind, and at least 256. If that work takes a third longer, the batch ends, and its other turns are left to the next batch. A batch also ends at 4 MiB of commits. |
//! | a flush of the checkpoint | About 12 ms, by what earlier flushes took. A thread that waits for a flush runs the next one. |
//!
//! For the queue and for the wait in it, only the first 10 ms of each fsync count: on a slow disk, commits wait
//! together and share the fsync, so refusing some would make no other commit faster. The bounds do not hold if the
//! writer's thread gets no processor time.

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
use crate::store::redb::checkpoint::debt::Account;
use crate::store::redb::files::location::Location;
use crate::store::redb::files::open_files::{Extent, Files};
use crate::store::redb::files::slot::Slot;
use crate::store::redb::tables::failure::Failure;
use crate::store::redb::tables::meta::WriteMeta;
use crate::store::redb::tables::record::damaged::DamagedRecord;
use crate::store::redb::unwind;

/// The writer of a store. On its own thread, it makes all waiting commits durable with one fsync.
pub(crate) struct Writer {
    jobs: Receiver<Job>,
    /// Jobs that were left over from a batch or taken from the queue, and wait for the next batch.
    taken: VecDeque<Job>,
    slot: Arc<Slot>,
    checkpoint: Arc<Checkpoint>,
    /// Wakes the thread that runs the flushes of the checkpoint. Without such a thread, the writer runs the flushes
    /// itself.
    background: Option<Background>,
    admission: Arc<Admission>,
    capacity: Capacity,
    batch_size: BatchSize,
    /// The maximum number of turns in the current batch.
    batch_turns: usize,
    /// Whether the checkpoint had fallen behind when the current batch was begun.
    is_behind: bool,
    /// Whether the last batch had as many turns as its time allows, and left turns to the next one.
    leaves_turns: bool,
    growth: Growth,
    /// The bytes that small commits have added to the memtable since it has no room for other commits.
    reserve_used: usize,
    last: LastBatch,
    /// What the checkpoint has moved for the batches so far.
    account: Account,
    location: Location,
    settings: StoreSettings,
    backoff: Backoff,
    /// The expected batch size: the callers just answered plus the queued jobs. The writer waits for the callers just
    /// answered. Otherwise these callers and the callers of the queued jobs would alternate, in batches of half the
    /// size.
    expected: usize,
    /// How long to wait for the callers just answered: as long as the last write took, so that waiting in vain at most
    /// doubles the time, and at most `MAX_PATIENCE`.
    patience: Duration,
    /// The moment at which to open a failed store again, and how long to wait if that fails. `None` while the store is
    /// open.
    retry: Option<(Instant, Duration)>,
    /// Whether the files were not in their places when the last batch was written.
    is_displaced: bool,
    /// What the files had when commits were last acknowledged.
    acknowledged: Option<Extent>,
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
        let acknowledged = slot.with(Files::extent).ok();
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
            leaves_turns: false,
            growth: Growth::new(settings.redb.journal_bytes),
            reserve_used: 0,
            last: LastBatch::default(),
            account: Account::default(),
            location,
            settings,
            backoff,
            expected: 1,
            patience: Duration::ZERO,
            retry: None,
            is_displaced: false,
            acknowledged,
            state,
        }
    }

    /// Starts the thread that runs the flushes of the checkpoint.
    pub(crate) fn checkpoint_in_background(&mut self) -> std::io::Result<()> {
        self.background = Some(Background::start(Arc::clone(&self.checkpoint))?);
        Ok(())
    }

    /// Runs the writer until it is told to close, or until every handle on the store is dropped.
    pub(crate) fn run(mut self) {
        let closed = loop {
            if let ControlFlow::Break(closed) = self.run_once() {
                break closed;
            }
        };
        // Every handle was dropped: the owner of the store is gone without closing the store.
        let Some(reply) = closed else {
            let _no_flush = self.checkpoint.pause();
            self.slot.empty(Fault::closed());
            return;
        };
        // A failure of the close has been logged already.
        let _ = self.checkpoint.close(&self.location);
        self.state.exit = Health::Closed;
        drop(self);
        let _ = reply.send(());
    }

    /// Waits for the next batch or the next attempt to open the store, and does it. Breaks when the writer ends, with
    /// the channel to answer the caller of the close, if the store was closed.
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

    /// Gathers a batch: takes all waiting jobs, and waits a moment for jobs that are likely to come.
    fn gather(&mut self, first: Job) -> Next {
        let begun = Instant::now();
        self.is_behind = self.checkpoint.is_behind();
        self.batch_turns = self.batch_size.turns(self.is_behind);
        self.taken.push_front(first);
        let (room, is_for_small) = match self.make_room() {
            Ok(FoundRoom::ForBatch(room)) => (Ok(room), false),
            Ok(FoundRoom::ForSmallJobs) => (Ok(Room::Small), true),
            Err(cause) => (Err(cause), false),
        };
        let mut batch =
            Batch { jobs: Vec::with_capacity(self.expected), turns: 0, bytes: 0, begun, room, is_last: false };
        if is_for_small {
            return Next::Batch(self.gather_small(batch));
        }
        let mut next = None;
        let now = Instant::now();
        let (alert_until, deadline) = (now + ALERT, now + self.patience);
        let most = self.longest_queueing();
        self.leaves_turns = false;
        loop {
            while let Some(job) = next.take().or_else(|| self.taken.pop_front()).or_else(|| self.jobs.try_recv().ok()) {
                match job {
                    Job::Close(reply) => return Next::Close(batch, reply),
                    job if job.waited(now) > Self::longest_wait_of(&job, most) => {
                        job.answer(Err(CommitError::Overloaded));
                    }
                    job => batch.add(job),
                }
                let has_many = batch.turns >= self.batch_turns;
                self.leaves_turns = has_many && self.admission.all_unanswered() > batch.turns;
                if has_many || batch.is_full() || batch.jobs.len() >= self.settings.batch_commits {
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

    /// Adds the waiting jobs that need no room in a full memtable. The other jobs go on waiting.
    fn gather_small(&mut self, mut batch: Batch) -> Batch {
        for job in std::mem::take(&mut self.taken) {
            if self.fits_reserve(&job) && batch.jobs.len() < self.settings.batch_commits {
                batch.add(job);
            } else {
                self.taken.push_back(job);
            }
        }
        batch
    }

    /// Returns whether small commits may add more to a memtable that has no room for other commits.
    fn has_reserve(&self) -> bool {
        self.reserve_used <= self.checkpoint.reserve_bytes()
    }

    /// Takes all jobs from the queue. Returns whether one of the waiting jobs needs no room in a full memtable.
    fn has_small_job(&mut self) -> bool {
        let most = self.settings.queue_commits.saturating_sub(self.taken.len());
        self.taken.extend(self.jobs.try_iter().take(most));
        self.taken.iter().any(|job| self.fits_reserve(job))
    }

    /// Returns whether the writer may do the job while the memtable has no room for other commits. Half of the reserve
    /// is for commits of a single turn.
    fn fits_reserve(&self, job: &Job) -> bool {
        let reserve = self.checkpoint.reserve_bytes();
        let most = if job.turns() <= 1 { reserve } else { reserve / 2 };
        job.needs_no_room() && self.reserve_used <= most
    }

    /// Returns how long a commit may have waited before it is refused instead of written. There is no limit unless the
    /// store is overloaded: while few turns wait, the machine is slow, and a refusal would shorten nobody's wait. Few
    /// turns are those that fit into one batch. While the checkpoint has fallen behind, they are fewer, because each
    /// batch also waits for the checkpoint.
    ///
    /// It is called once for each batch: each refusal lowers the number of turns that wait, so the last few commits of
    /// an overloaded store would never be refused.
    fn longest_queueing(&self) -> Duration {
        let few = if self.is_behind { BatchSize::MIN_TURNS } else { self.batch_turns };
        let has_many = self.leaves_turns || self.admission.unanswered() > few;
        let is_overloaded = self.background.is_some() && has_many;
        if is_overloaded { pace::longest_queueing(self.last.write) } else { Duration::MAX }
    }

    /// Returns how long this job may wait if other jobs may wait for `most`. A commit that has a reserved place may
    /// wait a little longer, so that clients who send little are served while other clients send more than the store
    /// can take.
    fn longest_wait_of(job: &Job, most: Duration) -> Duration {
        if job.is_reserved() { most.max(pace::LONGEST_RESERVED) } else { most }
    }

    /// Does the jobs in one transaction, and answers each job when it is durable. Jobs that are not reached in time go
    /// to the next batch.
    fn write(&mut self, Batch { jobs: mut batch, begun: gathered, room, is_last, .. }: Batch) {
        if batch.is_empty() {
            return;
        }
        // The files are looked for after each batch, and also before it if they were gone then.
        if self.is_displaced
            && let Err(cause) = self.check_in_place()
        {
            for job in batch {
                job.answer(Err(CommitError::Unavailable(cause.clone())));
            }
            return;
        }
        let begun = Instant::now();
        let has_room = room == Ok(Room::All);
        let done = self.checkpoint.failure().map_or(room, Err).and_then(|room| {
            // A panic here means a defect or a damaged file. It must not end the only thread that makes turns durable.
            unwind::caught_as_fault(|| self.transact(&batch, room, is_last))
        });
        let cause = match done {
            Ok(answers) => {
                self.leaves_turns |= answers.len() < batch.len();
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
                // What was written to files that are gone by now must not be acknowledged.
                let in_place = self.check_in_place();
                self.is_displaced = in_place.is_err();
                self.acknowledged = self.slot.with(Files::extent).ok().or(self.acknowledged);
                let in_place = in_place.map_err(CommitError::Unavailable);
                for (job, answer) in batch.into_iter().zip(answers) {
                    job.answer(in_place.clone().and(answer));
                }
                if let Some(background) = &self.background {
                    background.wake();
                }
                return;
            }
            // The store is closed already, and the writer will open it again.
            Err(cause) if self.retry.is_some() => cause,
            Err(cause) => match self.overwritten() {
                Some(overwritten) => {
                    self.is_displaced = true;
                    overwritten
                }
                None => self.fail(cause),
            },
        };
        for job in batch {
            job.answer(Err(CommitError::Unavailable(cause.clone())));
        }
    }

    /// Waits if the checkpoint has fallen behind. The fuller the memtable is, the longer is the wait, so that the
    /// memtable is seldom full. The wait comes before a batch is gathered, so that commits that arrive meanwhile join
    /// the batch. Small jobs do not wait for room in a full memtable. Returns which commits the memtable has room for.
    /// The limit on the memtable also bounds the journal and the time to open the store.
    fn make_room(&mut self) -> Result<FoundRoom, Fault> {
        let Some(background) = self.background.as_ref() else {
            while self.checkpoint.is_due() {
                self.checkpoint.flush()?;
            }
            return Ok(FoundRoom::ForBatch(Room::All));
        };
        if self.checkpoint.is_due() {
            background.wake();
            let checkpoint = Arc::clone(&self.checkpoint);
            let has_reserve = self.has_reserve();
            let mut has_small_job = false;
            let has_room = checkpoint.wait_for_room(|| {
                has_small_job = has_reserve && self.has_small_job();
                has_small_job
            });
            if has_room {
                self.reserve_used = 0;
            }
            if has_small_job {
                return Ok(FoundRoom::ForSmallJobs);
            }
            let refused = if has_reserve { Room::Small } else { Room::None };
            return Ok(FoundRoom::ForBatch(if has_room { Room::All } else { refused }));
        }
        self.reserve_used = 0;
        let added_bytes = self.growth.of(self.last.turns);
        let owed_bytes = self.checkpoint.owed_bytes(added_bytes);
        if owed_bytes > 0 {
            background.wake();
            let at_most = pace::longest_pause(self.last.write);
            self.checkpoint.wait_until_moved(self.account.due(owed_bytes), at_most);
        }
        let (moved_bytes, flush_bytes) = self.checkpoint.moved_bytes();
        self.account.settle(owed_bytes, moved_bytes, flush_bytes);
        Ok(FoundRoom::ForBatch(Room::All))
    }

    /// Does the first jobs in one transaction, as many as the time allows. Refuses the commits that the memtable has no
    /// room for. After `Ok`, the jobs that have an answer are done. After `Err`, the outcome is unknown.
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
        self.last.turns = 0;
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
            // Refused commits add nothing.
            let accepted = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
            self.last.turns = accepted.map(|(job, _)| job.turns()).sum();
            self.growth.learn(self.last.turns, bytes);
            if room == Room::Small {
                self.reserve_used += bytes;
            }
        }
        Ok(answers)
    }

    /// Returns an error if the names of the files lead to other files, or to none.
    fn check_in_place(&self) -> Result<(), Fault> {
        match self.slot.with(Files::in_place) {
            Ok(in_place) => in_place.check(),
            // The files are closed. The batch fails for that reason.
            Err(_) => Ok(()),
        }
    }

    /// Returns why nothing can be written if another program has written over one of the files. Then the files stay open.
    fn overwritten(&self) -> Option<Fault> {
        let in_place = self.slot.with(Files::in_place).ok()?;
        in_place.overwritten().and_then(|_| in_place.check().err())
    }

    /// Writes to the tables, to show that a write works. The write also notes the newest row.
    fn check_tables(&self) -> Result<(), Failure> {
        let _no_flush = self.checkpoint.pause();
        let begun = self.slot.with(|files| Ok::<_, Failure>((files.memtable().last_row(), files.write_tables()?)));
        let Ok(begun) = begun else { return Ok(()) };
        let (newest, txn) = begun?;
        {
            let mut meta = WriteMeta::write(&txn)?;
            meta.touch()?;
            meta.note_newest(newest)?;
        }
        Ok(txn.commit()?)
    }

    /// Closes the store, as its state is unknown, and plans to open it again.
    fn fail(&mut self, cause: Fault) -> Fault {
        tracing::error!(cause = cause.in_full(), "the store failed; it is closed and opened again");
        let _no_flush = self.checkpoint.pause();
        self.slot.empty(cause.clone());
        self.checkpoint.forget_failure();
        self.retry = Some((Instant::now() + self.backoff.first, self.backoff.first));
        cause
    }

    pub(crate) fn open_again(&mut self) {
        match self.location.reopen(self.settings.redb.cache_bytes, self.acknowledged) {
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

    /// Returns the checkpoint, whose flushes other writes to the tables must not meet.
    pub(crate) fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// Runs no flushes in the background, because the test runs them itself.
    #[cfg(test)]
    pub(crate) fn checkpoint_by_hand(&mut self) {
        self.background = Some(Background::by_hand());
    }
}

fn turns_of(jobs: &[Job]) -> usize {
    jobs.iter().map(Job::turns).sum()
}

/// The longest wait for the callers just answered. A caller that has not sent its next commit by then will probably not
/// send one soon.
const MAX_PATIENCE: Duration = Duration::from_millis(1);
/// How long the writer polls the queue without sleeping. Most callers that send again do so within this time; for the
/// others it sleeps between two looks.
const ALERT: Duration = Duration::from_micros(150);
const NAP: Duration = Duration::from_micros(100);

/// The jobs for which the memtable was found to have room.
enum FoundRoom {
    /// The next batch may have any jobs. Those of its commits that the memtable has no room for are refused.
    ForBatch(Room),
    /// The memtable is full, and some jobs need no room. The other jobs go on waiting.
    ForSmallJobs,
}

enum Next {
    Batch(Batch),
    Retry,
    Close(Batch, oneshot::Sender<()>),
    /// Every handle on the store was dropped.
    Abandoned,
}

/// Measurements of the last batch.
#[derive(Debug, Default)]
struct LastBatch {
    /// The number of turns.
    turns: usize,
    /// How long the batch took to write.
    write: Duration,
    /// The part of this time that the append to the journal took.
    append: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::engine::RedbEngine;
    use crate::store::redb::journal::entry::Entry;
    use crate::store::redb::memtable::tally::TallyKey;
    use crate::store::redb::tables::journal_mark::JournalMark;
    use crate::store::redb::tables::meta::RolledUp;
    use crate::store::redb::tables::record::conversation::ConversationRecord;
    use crate::store::{Commit, Life, Version};
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId};

    fn queue(store: &RedbEngine, nth: usize) {
        let conversation_id = ConversationId::new(format!("c{nth}")).unwrap();
        let (staged, sealed) = (Vec::new(), Vec::new());
        drop(store.commit(Commit {
            conversation_id,
            expected_version: Version(0),
            staged,
            sealed,
            imported_from: None,
        }));
    }

    #[test]
    fn only_an_overloaded_store_refuses_commits_for_having_waited_and_then_all_that_waited_too_long() {
        let (store, mut writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        writer.checkpoint_by_hand();
        (writer.batch_turns, writer.is_behind) = (BatchSize::MIN_TURNS + 1, true);
        // The commits stay in the queue, so they count as unanswered, except the first ones, which have reserved
        // places.
        (0..Admission::RESERVED_TURNS + BatchSize::MIN_TURNS).for_each(|nth| queue(&store, nth));
        assert_eq!(writer.longest_queueing(), Duration::MAX);
        writer.leaves_turns = true;
        assert!(writer.longest_queueing() <= Duration::from_millis(20), "a batch was full, and turns are left");
        writer.leaves_turns = false;
        queue(&store, 1000);
        assert!(writer.longest_queueing() <= Duration::from_millis(20));
        writer.is_behind = false;
        assert_eq!(writer.longest_queueing(), Duration::MAX, "all turns fit into one batch");
        queue(&store, 1001);
        assert!(writer.longest_queueing() <= Duration::from_millis(20));
        writer.background = None;
        assert_eq!(
            writer.longest_queueing(),
            Duration::MAX,
            "without a checkpoint in the background nothing is refused"
        );
    }

    #[test]
    fn a_panic_while_turns_are_counted_makes_each_later_flush_fail() {
        let (_store, writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        let checkpoint = writer.checkpoint();
        checkpoint.flush().unwrap();
        let panicking =
            || writer.slot.with_sums(|_, _| Ok(()), |_, ()| panic!("while it adds sums")).map(|_: Result<(), _>| ());
        unwind::caught(panicking).unwrap_err();
        checkpoint.flush().unwrap_err();
        assert!(!checkpoint.flush_in_background());
        assert!(checkpoint.failure().is_some(), "the next batch opens the store again");
    }

    #[test]
    fn a_full_memtable_is_worth_a_flush_even_if_most_of_it_are_rows_without_turns_to_count() {
        const LIMIT: usize = 1 << 20;
        let settings = StoreSettings::with_journal_bytes(LIMIT);
        let (_store, mut writer) = RedbEngine::prepare(Location::Memory, &settings, Backoff::default()).unwrap();
        writer.checkpoint_by_hand();
        let replay = |files: &Files| {
            let mut memtable = files.memtable_mut();
            let key = TallyKey::Conversation(ConversationId::new("c").unwrap(), Life(1));
            memtable.replays_row(1, RolledUp::default(), Some(&(1, key)));
            memtable.took_row(JournalMark { number: 1, checksum: 1 }, 2 * LIMIT);
            memtable.replayed();
            let id = ConversationId::new("c").unwrap();
            let conversation = ConversationRecord { version: Version(1), ..ConversationRecord::begin(id) };
            let (sealed, staged) = (Vec::new(), Vec::new());
            memtable.take(Entry { conversation, erased: None, key: None, position: 1, sealed, staged }).unwrap();
        };
        writer.slot.with(replay).unwrap();
        let checkpoint = writer.checkpoint();
        assert_eq!((checkpoint.is_due(), checkpoint.is_worthwhile()), (true, true));
        assert!(checkpoint.flush_in_background());
        assert_eq!((checkpoint.is_due(), checkpoint.is_worthwhile()), (false, false));
    }

    #[tokio::test]
    async fn a_small_commit_does_not_wait_for_room_while_a_large_one_does() {
        const LIMIT: usize = 1 << 20;
        let settings = StoreSettings::with_journal_bytes(LIMIT);
        let (store, mut writer) = RedbEngine::prepare(Location::Memory, &settings, Backoff::default()).unwrap();
        // No flush runs, so the memtable stays full.
        writer.checkpoint_by_hand();
        let id = ConversationId::new("c").unwrap();
        let fill = |files: &Files| {
            let mut memtable = files.memtable_mut();
            // A large commit took the memtable far over its limit.
            memtable.took_row(JournalMark { number: 1, checksum: 1 }, 2 * LIMIT);
            let conversation = ConversationRecord { version: Version(1), ..ConversationRecord::begin(id) };
            let (sealed, staged) = (Vec::new(), Vec::new());
            memtable.take(Entry { conversation, erased: None, key: None, position: 1, sealed, staged }).unwrap();
        };
        writer.slot.with(fill).unwrap();
        assert!(writer.checkpoint().is_due());
        let commit = |conversation: &str, turns: usize| {
            let turn = |nth: usize| OpenTurn::new(TurnId::new(format!("t{nth}")).unwrap());
            let sealed = (0..turns).map(|nth| turn(nth).seal(&Done::because("stop"), EpochMillis::new(1))).collect();
            let conversation_id = ConversationId::new(conversation).unwrap();
            store.commit(Commit {
                conversation_id,
                expected_version: Version(0),
                staged: Vec::new(),
                sealed,
                imported_from: None,
            })
        };
        let large = commit("large", 100);
        let small = commit("small", 1);
        let ControlFlow::Continue(()) = writer.run_once() else { panic!("it was not told to close") };
        now(small).await.expect("the small commit is answered").unwrap();
        assert_eq!(now(large).await, None, "the large commit waits for room");
        assert!(writer.reserve_used > 0 && writer.has_reserve());
        writer.reserve_used = LIMIT;
        assert!(!writer.has_reserve(), "small commits have used up their share");
    }

    /// Returns the answer if it is there already.
    async fn now<T>(answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn a_commit_with_a_place_of_its_own_may_wait_longer_but_not_for_any_time() {
        let (store, writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        (0..=Admission::RESERVED_TURNS).for_each(|nth| queue(&store, nth));
        let limits_of_all = |most| writer.jobs.try_iter().map(|job| Writer::longest_wait_of(&job, most)).collect();
        let limits: Vec<_> = limits_of_all(Duration::from_millis(10));
        assert!(limits[..Admission::RESERVED_TURNS].iter().all(|limit| *limit == pace::LONGEST_RESERVED));
        assert_eq!(limits[Admission::RESERVED_TURNS..], [Duration::from_millis(10)]);
    }

    #[test]
    fn a_full_batch_says_whether_it_leaves_turns_to_the_next_one() {
        let (store, mut writer) =
            RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        writer.batch_size.learn(BatchSize::MIN_TURNS, Duration::from_hours(1));
        let mut leaves_after = |turns| {
            (0..turns).for_each(|nth| queue(&store, nth));
            let ControlFlow::Continue(()) = writer.run_once() else { panic!("it was not told to close") };
            writer.leaves_turns
        };
        assert!(!leaves_after(BatchSize::MIN_TURNS - 1), "the batch is not full");
        assert!(!leaves_after(BatchSize::MIN_TURNS), "the batch takes all turns");
        assert!(leaves_after(BatchSize::MIN_TURNS + 1));
        assert!(!leaves_after(0), "that batch takes the turn that was left");
    }
}

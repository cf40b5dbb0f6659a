use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot, watch};

use super::checkpoint::Checkpoint;
use super::files::location::Location;
use super::files::open_error::OpenError;
use super::files::open_files::Files;
use super::files::slot::Slot;
use super::maintenance::backup::{Snapshot, Workshop};
use super::maintenance::scrub::Scrubber;
use super::maintenance::scrub::background::ScrubThread;
use super::memtable::Memtable;
use super::memtable::tally::{Lacking, Recent, TurnsToCount};
use super::query::conversations::ConversationsQuery;
use super::query::erased::erased_sums;
use super::query::order::OrderQuery;
use super::query::report::ReportQuery;
use super::query::{CountQuery, LeftOut, StaleQuery, StateQuery, TurnCount, TurnsQuery, dropped_turns};
use super::read_threads::ReadThreads;
use super::tables::failure::Failure;
use super::tables::meta::Repricing;
use super::tables::read::ReadTables;
use super::unwind::{self, Panic};
use super::writer::Writer;
use super::writer::admission::{Admission, Permit};
use super::writer::backoff::Backoff;
use super::writer::job::Job;
use super::writer::pace::Capacity;
use crate::report::{NoPrices, SharedPriceBook};
use crate::settings::StoreSettings;
use crate::store::contract::{
    Backup, BackupError, Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationQuestion,
    ConversationState, DamageReport, DropError, DropTurns, DroppedTurns, ExportHold, Health, ListSealedError,
    ListedConversation, OpenTurns, Report, ReportError, ReportQuestion, RepricingProgress, Revision, SealedPage,
    StaleBefore, StaleTurn, StoreSizes, TurnRange,
};
use crate::store::erased_sums::{ErasedSums, ErasedSumsId, ErasedSumsPage};
use crate::store::fault::{Fault, FaultKind};
use crate::store::position::{Lineage, Position};
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

/// The maximum number of long turns that are read at a time: one for each thread that reads them.
const LONG_READS: usize = 2;

/// The longest time that an export waits until the sums of erased conversations are in their place.
const MAX_SETTLING: Duration = Duration::from_secs(10);

/// The store on redb. Cheap to clone. Writes run on the writer's thread, reads on the caller's thread.
///
/// The futures that it returns borrow nothing, so an actor may spawn them.
#[derive(Debug, Clone)]
pub(crate) struct RedbEngine {
    jobs: SyncSender<Job>,
    admission: Arc<Admission>,
    slot: Arc<Slot>,
    writer: watch::Receiver<Health>,
    damaged_records: Arc<AtomicU64>,
    workshop: Workshop,
    location: Location,
    cache_bytes: usize,
    max_commit_bytes: usize,
    scrubber: Arc<Scrubber>,
    checkpoint: Arc<Checkpoint>,
    /// The thread that scrubs in the background.
    scrub_thread: Option<Arc<ScrubThread>>,
    /// The threads for reads of a page of rows.
    readers: ReadThreads,
    /// The threads for reads that may visit every row of a table. Other reads do not wait behind such reads.
    report_reader: ReadThreads,
    /// The thread for short lists of conversations. They do not wait behind long turns.
    list_reader: ReadThreads,
    /// Permits to read a long turn. See [`RedbEngine::long_read`].
    long_reads: Arc<Semaphore>,
}

impl RedbEngine {
    /// Opens the store and starts its writer. No model has a price.
    pub(crate) fn open(location: Location, settings: &StoreSettings) -> Result<Self, OpenError> {
        Self::open_pricing(location, settings, Arc::new(NoPrices))
    }

    /// Opens a store that prices turns by `book`, and starts its writer.
    pub(crate) fn open_pricing(
        location: Location,
        settings: &StoreSettings,
        book: SharedPriceBook,
    ) -> Result<Self, OpenError> {
        let (mut engine, mut writer) = Self::prepare_pricing(location, settings, Backoff::default(), book)?;
        let scrubber = Arc::clone(&engine.scrubber);
        let (rate, wait) = (settings.redb.scrub_bytes_per_second, settings.redb.scrub_after);
        let jobs = engine.jobs.clone();
        let scrubbing = ScrubThread::start(scrubber, rate, wait, move || have_it_checked(&jobs));
        let scrubbing = scrubbing.map_err(OpenError::Thread)?;
        engine.scrub_thread = scrubbing.map(Arc::new);
        writer.checkpoint_in_background().map_err(OpenError::Thread)?;
        let thread = std::thread::Builder::new().name("store-writer".into());
        thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;
        Ok(engine)
    }

    /// Opens the store, in which no model has a price. Nothing is written until the caller runs the writer.
    #[cfg(test)]
    pub(crate) fn prepare(
        location: Location,
        settings: &StoreSettings,
        backoff: Backoff,
    ) -> Result<(Self, Writer), OpenError> {
        Self::prepare_pricing(location, settings, backoff, Arc::new(NoPrices))
    }

    /// Opens the store. Nothing is written until the caller runs the writer.
    pub(crate) fn prepare_pricing(
        location: Location,
        settings: &StoreSettings,
        backoff: Backoff,
        book: SharedPriceBook,
    ) -> Result<(Self, Writer), OpenError> {
        let cache_bytes = settings.redb.cache_bytes;
        let slot = Arc::new(Slot::pricing(location.open(cache_bytes)?, book));
        location.remove_unfinished();
        let (jobs, received) = sync_channel(settings.queue_commits);
        let (state, writer) = watch::channel(Health::Running);
        let workshop = Workshop::of(&location, settings.redb.backup_reserve_bytes);
        let admission = Arc::new(Admission::new(Capacity::default().turns()));
        let (files, counted) = (Arc::clone(&slot), Arc::clone(&admission));
        let running = Writer::new(received, files, location.clone(), settings.clone(), backoff, counted, state);
        let checkpoint = Arc::clone(running.checkpoint());
        let scrubber = Arc::new(Scrubber::new(Arc::clone(&slot), Arc::clone(&checkpoint)));
        let (damaged_records, max_commit_bytes) = (Arc::default(), settings.max_commit_bytes);
        let readers = ReadThreads::start("store-reader", 2).map_err(OpenError::Thread)?;
        let report_reader = ReadThreads::start("store-report", 1).map_err(OpenError::Thread)?;
        let list_reader = ReadThreads::start("store-list", 1).map_err(OpenError::Thread)?;
        let engine = Self {
            jobs,
            admission,
            slot,
            writer,
            damaged_records,
            workshop,
            location,
            cache_bytes,
            max_commit_bytes,
            checkpoint,
            scrubber,
            scrub_thread: None,
            readers,
            report_reader,
            list_reader,
            long_reads: Arc::new(Semaphore::new(LONG_READS)),
        };
        Ok((engine, running))
    }

    /// Returns a store whose writer panics at once.
    #[cfg(test)]
    pub(crate) fn with_dying_writer() -> Self {
        let (engine, writer) = Self::prepare(Location::Memory, &StoreSettings::default(), Backoff::default()).unwrap();
        std::thread::spawn(move || {
            let _writer = writer;
            panic!("this panic is part of a test");
        });
        engine
    }

    /// Resolves when the commit is durable, or with the reason why it is not.
    pub(crate) fn commit<C: Into<Arc<Commit>>>(
        &self,
        commit: C,
    ) -> impl Future<Output = Result<Committed, CommitError>> + use<C> {
        let commit = commit.into();
        let (reply, answer) = oneshot::channel();
        let admitted = self.admit(commit.weight(), commit.bytes());
        self.ask(admitted.map(|permit| Job::Commit(commit, reply, permit)), answer)
    }

    /// Resolves when the commits are durable, or with the reason why some of them are not.
    pub(crate) fn commit_series(&self, series: Arc<CommitSeries>) -> impl Future<Output = CommittedSeries> + use<> {
        let (reply, answer) = oneshot::channel();
        let admitted = self.admit(series.weight(), series.bytes());
        let committing = self.ask(admitted.map(|permit| Job::Series(series, reply, permit)), answer);
        async { committing.await.unwrap_or_else(CommittedSeries::from) }
    }

    /// Admits changes of this many turns and bytes.
    fn admit(&self, turns: usize, bytes: usize) -> Result<Permit, CommitError> {
        let limit = self.max_commit_bytes;
        if bytes > limit {
            // A row that is too large for the database would make the journal fail, and with it all commits of the batch.
            return Err(CommitError::TooLarge { bytes, limit });
        }
        let is_small = Admission::is_small(turns, bytes);
        let permit = if is_small { self.admission.admit_small(turns) } else { self.admission.admit(turns) };
        permit.ok_or(CommitError::Overloaded)
    }

    /// Resolves when the conversation is erased durably, with whether there was anything to erase.
    pub(crate) fn erase(&self, id: ConversationId) -> impl Future<Output = Result<bool, CommitError>> + use<> {
        let (reply, answer) = oneshot::channel();
        let permit = self.admission.admit_small(1).ok_or(CommitError::Overloaded);
        self.ask(permit.map(|permit| Job::Erase(id, reply, permit)), answer)
    }

    /// Drops some of the turns that are too old. Resolves when that is durable.
    pub(crate) fn drop_turns(
        &self,
        question: DropTurns,
    ) -> impl Future<Output = Result<DroppedTurns, DropError>> + use<> {
        let running = self.running_time();
        self.read_elsewhere(move |engine| engine.checkpoint.drop_some(&question, running))
    }

    /// Prepares an export. Until the hold is dropped, no turn is dropped. Resolves when the sums of conversations that were
    /// erased before are among the sums of erased turns, or after some seconds.
    pub(crate) fn begin_export(&self) -> impl Future<Output = Result<ExportHold, Fault>> + use<> {
        let engine = self.clone();
        async move {
            let hold = engine.read_elsewhere(|engine| Ok::<_, Fault>(engine.checkpoint.begin_export())).await?;
            let deadline = Instant::now() + MAX_SETTLING;
            while !engine.read_elsewhere(|engine| engine.checkpoint.settle_erasures()).await? {
                if Instant::now() >= deadline {
                    return Err(Fault::new(
                        FaultKind::Database,
                        "the sums of erased conversations are still being moved; export again later",
                    ));
                }
            }
            Ok(ExportHold::new(hold))
        }
    }

    /// Returns a page of the sums of erased turns.
    pub(crate) fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> Result<ErasedSumsPage, Fault> {
        self.read(
            |files| Ok((files.lineage(), files.read_tables()?)),
            |(lineage, tables), left_out| erased_sums(&tables, lineage, after, limit, left_out),
        )
    }

    /// Takes in sums of erased turns of another store. Resolves when they are durable, with how many changed something.
    pub(crate) fn take_erased_sums(
        &self,
        sums: Vec<ErasedSums>,
    ) -> impl Future<Output = Result<u64, CommitError>> + use<> {
        let taken = self.read_elsewhere(move |engine| engine.checkpoint.take_erased_sums(&sums));
        async { taken.await.map_err(CommitError::Unavailable) }
    }

    /// Makes a write of nothing durable, and resolves when that is done.
    pub(crate) fn check_write(&self) -> impl Future<Output = Result<(), CommitError>> + use<> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ok(Job::CheckWrite(reply)), answer)
    }

    /// Adds to the running time, and resolves with the sum once the sum is durable.
    pub(crate) fn tick(&self, elapsed: Duration) -> impl Future<Output = Result<RunningTime, CommitError>> + use<> {
        let (reply, answer) = oneshot::channel();
        let added = self.ask(Ok(Job::Tick(elapsed, reply)), answer);
        let slot = Arc::clone(&self.slot);
        async move {
            added.await?;
            slot.with(Files::running_time).map_err(CommitError::Unavailable)
        }
    }

    /// Returns the durable running time; 0 if the store is closed.
    pub(crate) fn running_time(&self) -> RunningTime {
        self.slot.with(Files::running_time).unwrap_or_default()
    }

    /// Queues the job at once, and not when the future is first polled: so writes happen in the order of the calls.
    fn ask<T>(
        &self,
        job: Result<Job, CommitError>,
        answer: oneshot::Receiver<Result<T, CommitError>>,
    ) -> impl Future<Output = Result<T, CommitError>> + use<T> {
        let sent = job.and_then(|job| match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(CommitError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(CommitError::Unavailable(self.end())),
        });
        async move {
            sent?;
            answer.await.unwrap_or_else(|_| Err(CommitError::Unavailable(gone())))
        }
    }

    /// Returns the reason why the writer has ended.
    fn end(&self) -> Fault {
        if *self.writer.borrow() == Health::Closed { Fault::closed() } else { gone() }
    }

    /// Writes the commits that wait and closes the files. Resolves when the files are closed, at once if they are
    /// closed already.
    pub(crate) fn close(&self) -> impl Future<Output = ()> + use<> {
        let (reply, closed) = oneshot::channel();
        let jobs = self.jobs.clone();
        let mut writer = self.writer.clone();
        // Sending blocks if the queue is full, so it runs on a thread for long reads and not on the actor's thread. A
        // long read that runs there delays it.
        let sending = self.readers.read(move || jobs.send(Job::Close(reply)).is_ok());
        async move {
            let _ = sending.await;
            let _ = closed.await;
            let _ = writer.wait_for(|state| *state != Health::Running).await;
        }
    }

    /// Tells the writer to close, without waiting for it.
    #[cfg(test)]
    pub(crate) fn tell_to_close(&self) {
        let (nobody, _) = oneshot::channel();
        let _ = self.jobs.try_send(Job::Close(nobody));
    }

    /// Returns whether the files are open.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.slot.with(|_| ()).is_ok()
    }

    /// Returns the slot that holds the files.
    #[cfg(test)]
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Returns a receiver that shows the health of the writer's thread.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.writer.clone()
    }

    /// Returns the state of a conversation, and which of these turns are sealed. Returns an error if the files are no
    /// longer in their places: the caller may acknowledge events that this state already has, and these are lost with
    /// the files.
    pub(crate) fn conversation_state(
        &self,
        id: &ConversationId,
        turn_ids: &[TurnId],
    ) -> Result<ConversationState, Fault> {
        self.slot.with(Files::in_place)?.check()?;
        self.read(
            |files| {
                let memtable = files.memtable();
                Ok((StateQuery::of(&memtable, id), files.read_tables()?))
            },
            |(query, tables), left_out| query.read(&tables, id, turn_ids, left_out),
        )
    }

    /// Returns the open turns of a conversation.
    pub(crate) fn open_turns(&self, id: &ConversationId) -> Result<OpenTurns, Fault> {
        self.read(
            |files| {
                let memtable = files.memtable();
                Ok((StateQuery::of(&memtable, id), files.read_tables()?))
            },
            |(query, tables), left_out| query.open_turns(&tables, id, left_out),
        )
    }

    /// Returns the current revision of a conversation's sealed turns.
    pub(crate) fn revision(&self, id: &ConversationId) -> Result<Revision, Fault> {
        self.read(
            |files| {
                let memtable = files.memtable();
                let query = CountQuery::of(&memtable, id);
                let has_dropped = files.has_dropped();
                let tables = if query.needs_tables() || has_dropped { Some(files.read_tables()?) } else { None };
                Ok((files.lineage(), query, tables, has_dropped))
            },
            |(lineage, query, tables, has_dropped), left_out| {
                let TurnCount { life, sealed_turns, begins_after } = query.read(tables.as_ref(), id, left_out)?;
                let tables = tables.filter(|_| has_dropped && sealed_turns > 0);
                let dropped_turns = tables.map_or(Ok(0), |tables| dropped_turns(&tables, id, life))?.max(begins_after);
                Ok(Revision { dropped_turns, ..Revision::new(lineage, life, sealed_turns) })
            },
        )
    }

    /// Returns sealed turns of a conversation, in the order of their ordinals.
    pub(crate) fn turns(&self, range: &TurnRange) -> Result<Vec<StoredTurn>, Fault> {
        self.turns_by(range, TurnsQuery::read)
    }

    /// Like [`turns`](Self::turns), for a thread on which other work waits: the list ends before a long turn. Returns
    /// `None` if the first turn is long.
    pub(crate) fn short_turns(&self, range: &TurnRange) -> Result<Option<Vec<StoredTurn>>, Fault> {
        self.turns_by(range, TurnsQuery::read_short)
    }

    fn turns_by<T>(
        &self,
        range: &TurnRange,
        read: impl FnOnce(TurnsQuery, Option<&ReadTables>, &TurnRange, &mut LeftOut) -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        self.read(
            |files| {
                let memtable = files.memtable();
                let query = TurnsQuery::of(&memtable, range);
                let tables = if query.needs_tables(range) { Some(files.read_tables()?) } else { None };
                Ok((query, tables))
            },
            |(query, tables), left_out| read(query, tables.as_ref(), range, left_out),
        )
    }

    /// Returns all sealed turns of a conversation, read list by list.
    #[cfg(test)]
    pub(crate) fn all_turns(&self, id: &ConversationId) -> Result<Vec<StoredTurn>, Fault> {
        let mut all: Vec<StoredTurn> = Vec::new();
        loop {
            let after = all.last().map_or(0, |turn| turn.ordinal.get());
            let turns = self.turns(&TurnRange::after(id.clone(), after, usize::MAX))?;
            if turns.is_empty() {
                return Ok(all);
            }
            all.extend(turns);
        }
    }

    /// Returns sealed turns of all conversations, in the order in which they became durable.
    pub(crate) fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Result<SealedPage, ListSealedError> {
        self.sealed_turns_by(after, limit, OrderQuery::read)
    }

    /// Like [`sealed_turns`](Self::sealed_turns), for a thread on which other work waits: the page ends with fewer
    /// steps, and before a long turn. Returns `None` if the first turn is long.
    pub(crate) fn short_sealed_turns(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Option<SealedPage>, ListSealedError> {
        self.sealed_turns_by(after, limit, OrderQuery::read_short)
    }

    fn sealed_turns_by<T>(
        &self,
        after: Option<Position>,
        limit: usize,
        read: impl FnOnce(OrderQuery, Lineage, Option<&ReadTables>, &mut LeftOut) -> Result<T, Failure>,
    ) -> Result<T, ListSealedError> {
        let page = self.read(
            |files| {
                let lineage = files.lineage();
                let after = after.unwrap_or(Position { lineage, number: 0 });
                let memtable = files.memtable();
                let query = OrderQuery::of(&memtable, after.number, limit);
                let Some(query) = query.filter(|_| after.lineage == lineage) else { return Ok(Err(after)) };
                let tables = if query.needs_tables() { Some(files.read_tables()?) } else { None };
                Ok(Ok((lineage, query, tables)))
            },
            |begun, left_out| match begun {
                Ok((lineage, query, tables)) => read(query, lineage, tables.as_ref(), left_out).map(Ok),
                Err(unknown) => Ok(Err(unknown)),
            },
        )?;
        page.map_err(ListSealedError::OtherLineage)
    }

    /// Returns conversations that have a sealed turn. Waits for no thread that counts turns: it counts the uncounted
    /// turns of the listed conversations itself.
    pub(crate) fn conversations(&self, question: &ConversationQuestion) -> Result<Vec<ListedConversation>, Fault> {
        self.read_sums(
            |memtable| memtable.contents().present().cloned().collect(),
            |recent, tables, (pieces, uncounted), lacking| {
                Ok((ConversationsQuery::of(pieces, recent, uncounted, lacking), tables))
            },
            |(query, tables), left_out| query.read(&tables, question, &**self.slot.book(), left_out),
        )
    }

    /// Returns sums over the turns of some periods, one row for each period and each group of labels. Counts all turns
    /// of the memtable first.
    pub(crate) fn report(&self, question: &ReportQuestion) -> Result<Report, ReportError> {
        let book = self.slot.book();
        self.end_read(unwind::caught(|| self.slot.count(usize::MAX).map(Ok)), &LeftOut::default())?;
        self.read_sums(
            |_| (),
            |recent, tables, ((), uncounted), lacking| {
                Ok(ReportQuery::of(recent, uncounted, tables, lacking, question))
            },
            |query, left_out| query.read(question, &**book, left_out),
        )?
        .ok_or(ReportError::TooManyRows)
    }

    /// Runs a read that needs the sums of the memtable's turns, in three parts. `copy` copies data from the memtable
    /// while the memtable is locked. `take` gets this copy and the turns that are not counted yet, and copies data from
    /// the sums while these are locked; its last argument says which of the sums the tables lack. `read` then reads
    /// without a lock.
    fn read_sums<M, B, T>(
        &self,
        copy: impl Fn(&Memtable) -> M,
        take: impl FnOnce(&Recent, ReadTables, (M, TurnsToCount), &Lacking) -> Result<B, Failure>,
        read: impl FnOnce(B, &mut LeftOut) -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        let mut left_out = LeftOut::default();
        let begin = |files: &Files, memtable: &Memtable| {
            let copied = (copy(memtable), memtable.all_uncounted());
            Ok((files.read_tables()?, memtable.rolled_up_then().row, copied))
        };
        let take = |recent: &mut Recent, (tables, frozen_row, copied): (ReadTables, u64, _)| {
            let lacking = Lacking::of(&tables.meta()?, frozen_row)?;
            take(recent, tables, copied, &lacking)
        };
        let done = unwind::caught(|| {
            let taken = self.slot.with_sums(begin, take);
            taken.map(|taken| read(taken??, &mut left_out))
        });
        self.end_read(done, &left_out)
    }

    /// Returns open turns that are stale by `before`.
    pub(crate) fn stale_turns(
        &self,
        before: StaleBefore,
        after: Option<&StaleTurn>,
        limit: usize,
    ) -> Result<Vec<StaleTurn>, Fault> {
        self.read(
            |files| {
                let memtable = files.memtable();
                Ok((StaleQuery::of(&memtable), files.read_tables()?))
            },
            |(query, tables), left_out| query.stale_turns(&tables, before, after, limit, left_out),
        )
    }

    /// Returns a copy of the whole store as it is at one moment.
    pub(crate) fn back_up(&self) -> Result<Backup, BackupError> {
        let begin = || Snapshot::of(&self.slot);
        unwind::caught(|| self.workshop.build(begin, self.cache_bytes))
            .unwrap_or_else(|panic| Err(BackupError::Read(panic.into())))
    }

    /// Makes a copy on a new thread, because copying takes long.
    pub(crate) fn back_up_elsewhere(&self) -> impl Future<Output = Result<Backup, BackupError>> + use<> {
        let (reply, made) = oneshot::channel();
        let engine = self.clone();
        let copying = std::thread::Builder::new().name("store-backup".into()).spawn(move || {
            // If the caller does not wait any more, the copy is dropped.
            let _ = reply.send(engine.back_up());
        });
        async move {
            copying
                .map_err(|error| BackupError::Read(Fault::unreachable("no thread can be started").caused_by(error)))?;
            made.await.unwrap_or_else(|error| Err(BackupError::Read(Fault::panicked(error))))
        }
    }

    /// Runs the read of a page on a thread for such reads.
    pub(crate) fn read_elsewhere<T, E, R>(&self, read: R) -> impl Future<Output = Result<T, E>> + use<T, E, R>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        R: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        self.read_on(&self.readers, read)
    }

    /// Runs a read that may visit every row of a table on the thread for such reads.
    pub(crate) fn read_all_elsewhere<T, E, R>(&self, read: R) -> impl Future<Output = Result<T, E>> + use<T, E, R>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        R: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        self.read_on(&self.report_reader, read)
    }

    /// Reads turns on a thread for such reads. Few turns are read at a time, and the next one is read only after the
    /// caller has polled the future of an earlier one to its end. So few long turns are in memory, however many callers
    /// want one, and a caller's thread that is slow to use them gets no more of them.
    pub(crate) fn long_read<T, E, R>(&self, read: R) -> impl Future<Output = Result<T, E>> + use<T, E, R>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        R: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        let engine = self.clone();
        async move {
            // The semaphore is never closed.
            let _permit = engine.long_reads.acquire().await;
            engine.read_elsewhere(read).await
        }
    }

    /// Returns the permits to read a long turn.
    #[cfg(test)]
    pub(crate) fn long_reads(&self) -> &Semaphore {
        &self.long_reads
    }

    /// Runs the read of a short list of conversations on the thread for such reads.
    pub(crate) fn list_elsewhere<T, E, R>(&self, read: R) -> impl Future<Output = Result<T, E>> + use<T, E, R>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        R: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        self.read_on(&self.list_reader, read)
    }

    fn read_on<T, E, R>(&self, threads: &ReadThreads, read: R) -> impl Future<Output = Result<T, E>> + use<T, E, R>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
        R: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        let engine = self.clone();
        let reading = threads.read(move || read(&engine));
        async { reading.await.unwrap_or_else(|fault| Err(fault.into())) }
    }

    /// Returns the sizes of the tables' rows, of both files, and of the memtable. All are 0 if the store is closed.
    pub(crate) fn sizes(&self) -> StoreSizes {
        let sizes = |files: &Files| StoreSizes {
            live_bytes: files.live_bytes().unwrap_or_default(),
            file_bytes: self.location.file_bytes(),
            recent_bytes: files.memtable().bytes() as u64,
        };
        unwind::caught_as_fault(|| self.slot.with(sizes)).unwrap_or_default()
    }

    /// Returns how far the store is in computing all costs anew.
    pub(crate) fn repricing(&self) -> Option<RepricingProgress> {
        let digest = self.slot.book().digest();
        let read = |files: &Files| {
            let meta = files.read_tables()?.meta()?;
            if let Some(Repricing { last, done, .. }) = meta.repricing()? {
                return Ok(Some(RepricingProgress { turns: last, priced_turns: done }));
            }
            // The first step has not run yet.
            let is_due = meta.costs()?.is_repricing(digest);
            let turns = meta.rolled_up()?.position;
            Ok::<_, Failure>(is_due.then_some(RepricingProgress { turns, priced_turns: 0 }))
        };
        unwind::caught_as_fault(|| self.slot.with(read)?.map_err(Fault::from)).ok().flatten()
    }

    /// Returns what the store knows of damage to its data.
    pub(crate) fn damage(&self) -> DamageReport {
        DamageReport {
            left_out_records: self.damaged_records(),
            findings: self.slot.with(|files| files.findings().count()).unwrap_or_default(),
            scrub_passes: self.scrubber.passes(),
            scrubbed_rows: self.scrubber.rows(),
        }
    }

    /// Reads all rows of the tables and compares them with each other.
    pub(crate) fn scrub(&self) -> Result<DamageReport, Fault> {
        self.scrubber.run().inspect_err(|_| have_it_checked(&self.jobs))?;
        Ok(self.damage())
    }

    /// Like [`RedbEngine::scrub`], on a new thread, because that takes long.
    pub(crate) fn scrub_elsewhere(&self) -> impl Future<Output = Result<DamageReport, Fault>> + use<> {
        let (reply, made) = oneshot::channel();
        let engine = self.clone();
        let scrubbing = std::thread::Builder::new().name("store-scrub-once".into()).spawn(move || {
            // The caller may not wait any more.
            let _ = reply.send(engine.scrub());
        });
        async move {
            scrubbing.map_err(|error| Fault::unreachable("no thread can be started").caused_by(error))?;
            made.await.map_err(Fault::panicked)?
        }
    }

    /// Returns how many damaged records all reads together have left out.
    pub(crate) fn damaged_records(&self) -> u64 {
        self.damaged_records.load(Ordering::Relaxed)
    }

    /// Runs a read in two parts: `begin` copies data from the files while they are locked, and `read` then reads
    /// without the lock.
    fn read<B, T>(
        &self,
        begin: impl FnOnce(&Files) -> Result<B, Failure>,
        read: impl FnOnce(B, &mut LeftOut) -> Result<T, Failure>,
    ) -> Result<T, Fault> {
        let mut left_out = LeftOut::default();
        // A damaged page can make the database panic. Such a panic ends this read, and not the caller's thread.
        let done = unwind::caught(|| self.slot.with(begin).map(|begun| read(begun?, &mut left_out)));
        self.end_read(done, &left_out)
    }

    fn end_read<T>(
        &self,
        done: Result<Result<Result<T, Failure>, Fault>, Panic>,
        left_out: &LeftOut,
    ) -> Result<T, Fault> {
        match done {
            Ok(Ok(Ok(value))) => {
                self.tell(left_out);
                Ok(value)
            }
            Ok(Err(closed)) => Err(closed),
            Ok(Ok(Err(failure))) => {
                if failure.is_of_the_disk() {
                    have_it_checked(&self.jobs);
                }
                Err(failure.into())
            }
            Err(panic) => {
                have_it_checked(&self.jobs);
                Err(panic.into())
            }
        }
    }

    fn tell(&self, left_out: &LeftOut) {
        if left_out.count > 0 {
            self.damaged_records.fetch_add(left_out.count, Ordering::Relaxed);
            let (records, first, total) = (left_out.count, &*left_out.first, self.damaged_records());
            tracing::warn!(records, first, total, "damaged records were left out; `turn-metrics check` names them all");
        }
    }
}

/// Asks the writer to check whether the database still works. If not, the writer opens the database again. Without this,
/// all reads would fail until somebody commits.
fn have_it_checked(jobs: &SyncSender<Job>) {
    let (nobody, _) = oneshot::channel();
    // If the queue is full, the jobs in it show the failure to the writer.
    let _ = jobs.try_send(Job::CheckWrite(nobody));
}

fn gone() -> Fault {
    Fault::unreachable("its writer is gone")
}

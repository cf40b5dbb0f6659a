//! The store's actor: the other actors know the store only through it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, MessageResult, Response, ResponseActFuture};

use super::end::{AwaitEnd, never};
use super::reader::{
    BeginExport, BuildReport, FindRevision, ListConversations, ListErasedSums, ListOpenTurns, ListSealed, ListTurns,
    respond,
};
use crate::settings::StoreSettings;
use crate::store::{
    Answer, Backup, BackupError, Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationState,
    DamageReport, DropError, DropTurns, DroppedTurns, Engine, ErasedSums, ErasedSumsPage, ExportHold, Fault,
    ListSealedError, ListedConversation, Location, OpenError, OpenTurns, RedbEngine, Report, ReportError,
    RepricingProgress, Revision, SealedPage, StaleBefore, StaleTurn, StoreSizes,
};
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

/// Answers for an engine, and counts the outcomes of commits. Reads never wait for an fsync.
pub struct Store {
    engine: Arc<dyn Engine>,
    /// How many commits had which outcome. Shared with the commits in progress.
    report: Rc<Cell<StoreReport>>,
}

impl Store {
    /// Opens a store without a runtime and returns its actor, not started yet. This is for a program that brings
    /// conversation actors of its own; a runtime opens its store itself.
    ///
    /// Opening reads the disk, so it blocks the thread. The message [`Close`] ends the store in order.
    ///
    /// ```
    /// use actix::Actor;
    /// use turn_metrics::actors::{Close, OpenConversation, Store};
    /// use turn_metrics::settings::StoreSettings;
    /// use turn_metrics::store::{Location, Version};
    /// use turn_metrics::turn::ConversationId;
    ///
    /// # actix::System::new().block_on(async {
    /// let store = Store::open(Location::Memory, &StoreSettings::default())?.start();
    /// let open = OpenConversation { conversation_id: ConversationId::new("c")?, turn_ids: Vec::new() };
    /// assert_eq!(store.send(open).await??.version, Version(0));
    /// store.send(Close).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn open(location: Location, settings: &StoreSettings) -> Result<Self, OpenError> {
        Ok(Self::new(Arc::new(RedbEngine::open(location, settings)?)))
    }

    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, report: Rc::default() }
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Message for Commit {
    type Result = Result<Committed, CommitError>;
}

impl Handler<Arc<Commit>> for Store {
    type Result = Response<Result<Committed, CommitError>>;

    fn handle(&mut self, commit: Arc<Commit>, _: &mut Self::Context) -> Self::Result {
        counted(Waiting::new(&self.report), self.engine.commit(commit), Waiting::count)
    }
}

impl Message for CommitSeries {
    type Result = CommittedSeries;
}

impl Handler<Arc<CommitSeries>> for Store {
    type Result = Response<CommittedSeries>;

    fn handle(&mut self, series: Arc<CommitSeries>, _: &mut Self::Context) -> Self::Result {
        counted(Waiting::new(&self.report), self.engine.commit_series(series), Waiting::count_series)
    }
}

/// Ask the store for what it knows of a conversation, to start the conversation's actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The answer says which of these turns are sealed.
    pub turn_ids: Vec<TurnId>,
}

impl Message for OpenConversation {
    type Result = Result<ConversationState, Fault>;
}

impl Handler<OpenConversation> for Store {
    type Result = Response<Result<ConversationState, Fault>>;

    fn handle(&mut self, open: OpenConversation, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.open(open.conversation_id, open.turn_ids))
    }
}

impl Handler<ListOpenTurns> for Store {
    type Result = Response<Result<OpenTurns, Fault>>;

    fn handle(&mut self, list: ListOpenTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.open_turns(list.conversation_id))
    }
}

impl Handler<ListTurns> for Store {
    type Result = Response<Result<Vec<StoredTurn>, Fault>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.turns(range))
    }
}

impl Handler<ListSealed> for Store {
    type Result = Response<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.sealed_turns(after, limit))
    }
}

impl Handler<ListConversations> for Store {
    type Result = Response<Result<Vec<ListedConversation>, Fault>>;

    fn handle(&mut self, ListConversations(question): ListConversations, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.conversations(question))
    }
}

impl Handler<BuildReport> for Store {
    type Result = Response<Result<Report, ReportError>>;

    fn handle(&mut self, BuildReport(question): BuildReport, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.report(question))
    }
}

impl Handler<FindRevision> for Store {
    type Result = Response<Result<Revision, Fault>>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.revision(find.conversation_id))
    }
}

/// Tell the store to erase a conversation. It answers, once that is durable, with whether there was anything to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Message for EraseConversation {
    type Result = Result<bool, CommitError>;
}

impl Handler<EraseConversation> for Store {
    type Result = Response<Result<bool, CommitError>>;

    fn handle(&mut self, erase: EraseConversation, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.erase(erase.conversation_id))
    }
}

impl Message for DropTurns {
    type Result = Result<DroppedTurns, DropError>;
}

impl Handler<DropTurns> for Store {
    type Result = Response<Result<DroppedTurns, DropError>>;

    fn handle(&mut self, question: DropTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.drop_turns(question))
    }
}

impl Handler<BeginExport> for Store {
    type Result = Response<Result<ExportHold, Fault>>;

    fn handle(&mut self, _: BeginExport, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.begin_export())
    }
}

impl Handler<ListErasedSums> for Store {
    type Result = Response<Result<ErasedSumsPage, Fault>>;

    fn handle(&mut self, ListErasedSums { after, limit }: ListErasedSums, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.erased_sums(after, limit))
    }
}

/// Tell the store to take in sums of erased turns that another store has listed or exported. It answers when they are
/// durable, with the number of those that changed something.
///
/// The store remembers which sums it has taken in under each id, and adds only what is new. So the same sums may be sent any
/// number of times. Sums of the store's own lineage are passed over. After a [`CommitError::Unavailable`] it is unknown
/// whether all of them are durable or none: send them again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeErasedSums {
    /// The sums; [`ErasedSums::AT_ONCE`] of them, or fewer.
    pub sums: Vec<ErasedSums>,
}

impl Message for TakeErasedSums {
    type Result = Result<u64, CommitError>;
}

impl Handler<TakeErasedSums> for Store {
    type Result = Response<Result<u64, CommitError>>;

    fn handle(&mut self, TakeErasedSums { sums }: TakeErasedSums, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.take_erased_sums(sums))
    }
}

/// Ask the store for a page of stale turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStaleTurns {
    /// An open turn is stale if its latest event came before the moment `open`, or if that event was an `error` and
    /// came before the moment `failed`.
    pub before: StaleBefore,
    /// The last turn of the page before, so that the answer continues after it.
    pub after: Option<StaleTurn>,
    /// The maximum number of turns in the answer.
    pub limit: usize,
}

impl Message for ListStaleTurns {
    type Result = Result<Vec<StaleTurn>, Fault>;
}

impl Handler<ListStaleTurns> for Store {
    type Result = Response<Result<Vec<StaleTurn>, Fault>>;

    fn handle(&mut self, list: ListStaleTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.stale_turns(list.before, list.after, list.limit))
    }
}

/// Ask the store to make a durable write, to show that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckWrite;

impl Message for CheckWrite {
    type Result = Result<(), CommitError>;
}

impl Handler<CheckWrite> for Store {
    type Result = Response<Result<(), CommitError>>;

    fn handle(&mut self, _: CheckWrite, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.check_write())
    }
}

/// Add to the running time. The store answers with the sum once the sum is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The time since the last tick.
    pub elapsed: Duration,
}

impl Message for Tick {
    type Result = Result<RunningTime, CommitError>;
}

impl Handler<Tick> for Store {
    type Result = Response<Result<RunningTime, CommitError>>;

    fn handle(&mut self, Tick { elapsed }: Tick, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.tick(elapsed))
    }
}

/// Ask the store for a copy of its present content. The store works on meanwhile. It makes one backup at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackUp;

impl Message for BackUp {
    type Result = Result<Backup, BackupError>;
}

impl Handler<BackUp> for Store {
    type Result = Response<Result<Backup, BackupError>>;

    fn handle(&mut self, _: BackUp, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.back_up())
    }
}

/// Ask the store to read all its rows and to compare them with each other. It answers when that is done, which may take
/// minutes. The store works on meanwhile. If it fails meanwhile, the answer is an error, and the next such message goes
/// on from there. The store scrubs by itself too, slowly, if `store.redb.scrub_bytes_per_second` says so.
///
/// ```
/// # use turn_metrics::actors::Scrub;
/// # use turn_metrics::runtime::Runtime;
/// # actix::System::new().block_on(async {
/// let runtime = Runtime::builder().start().await?;
/// let report = runtime.handles().operations.scrub.send(Scrub).await??;
/// assert_eq!(report.findings, 0);
/// # runtime.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrub;

impl Message for Scrub {
    type Result = Result<DamageReport, Fault>;
}

impl Handler<Scrub> for Store {
    type Result = Response<Result<DamageReport, Fault>>;

    fn handle(&mut self, _: Scrub, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.scrub())
    }
}

/// Tell the store to write the queued commits and to close its file. It answers when the file is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close;

impl Message for Close {
    type Result = ();
}

impl Handler<Close> for Store {
    type Result = Response<()>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.close())
    }
}

impl Handler<AwaitEnd> for Store {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: AwaitEnd, _: &mut Self::Context) -> Self::Result {
        never()
    }
}

/// Ask the store for its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectStore;

/// The size of the store, and the commits that it was asked for since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreReport {
    /// How many commits are not answered yet.
    pub waiting_commits: usize,
    /// How many commits became durable.
    pub commits: u64,
    /// How many commits have an unknown outcome, because the store became unavailable.
    pub failed_commits: u64,
    /// How many commits the store refused because too many were waiting, or because they were too large.
    pub refused_commits: u64,
    /// How many commits expected another version than the store had.
    pub conflicts: u64,
    /// The size of the store.
    pub sizes: StoreSizes,
    /// How far the store is in computing all costs anew; `None` if it does not.
    pub repricing: Option<RepricingProgress>,
    /// What the store knows of damage to its data.
    pub damage: DamageReport,
}

impl Message for InspectStore {
    type Result = StoreReport;
}

impl Handler<InspectStore> for Store {
    type Result = MessageResult<InspectStore>;

    fn handle(&mut self, _: InspectStore, _: &mut Self::Context) -> Self::Result {
        let Self { engine, report, .. } = self;
        let (sizes, repricing, damage) = (engine.sizes(), engine.repricing(), engine.damage());
        MessageResult(StoreReport { sizes, repricing, damage, ..report.get() })
    }
}

/// Passes an answer on, and counts what it says.
fn counted<T: 'static>(waiting: Waiting, answer: Answer<T>, count: fn(&Waiting, &T)) -> Response<T> {
    match answer {
        Answer::Now(result) => {
            count(&waiting, &result);
            Response::reply(result)
        }
        Answer::Later(committing) => Response::fut(async move {
            let result = committing.await;
            count(&waiting, &result);
            result
        }),
    }
}

/// Counts as one commit that is not answered yet, until it is dropped.
struct Waiting(Rc<Cell<StoreReport>>);

impl Waiting {
    fn new(report: &Rc<Cell<StoreReport>>) -> Self {
        let waiting = Self(Rc::clone(report));
        waiting.change(|report| report.waiting_commits += 1);
        waiting
    }

    fn change(&self, change: impl FnOnce(&mut StoreReport)) {
        let mut report = self.0.get();
        change(&mut report);
        self.0.set(report);
    }

    fn count(&self, result: &Result<Committed, CommitError>) {
        match result {
            Ok(_) => self.change(|report| report.commits += 1),
            Err(error) => self.count_error(error),
        }
    }

    fn count_series(&self, CommittedSeries { committed, ended }: &CommittedSeries) {
        self.change(|report| report.commits += committed.len() as u64);
        if let Some(error) = ended {
            self.count_error(error);
        }
    }

    fn count_error(&self, error: &CommitError) {
        self.change(|report| match error {
            CommitError::Conflict { .. } => report.conflicts += 1,
            CommitError::Overloaded | CommitError::TooLarge { .. } => report.refused_commits += 1,
            CommitError::Unavailable(_) => report.failed_commits += 1,
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.change(|report| report.waiting_commits -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{TurnRange, Version};
    use crate::turn::{Done, EpochMillis, OpenTurn};

    #[actix_rt::test]
    async fn a_store_opened_alone_keeps_what_it_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(Location::Directory(directory.path().into()), &StoreSettings::default());
        let conversation_id = ConversationId::new("c").unwrap();

        let store = open().unwrap().start();
        let sealed = OpenTurn::new(TurnId::new("t").unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
        let commit = Commit {
            conversation_id: conversation_id.clone(),
            expected_version: Version(0),
            staged: vec![],
            sealed: vec![sealed],
            imported_from: None,
        };
        store.send(Arc::new(commit)).await.unwrap().unwrap();
        assert!(matches!(open(), Err(OpenError::InUse { .. })), "two stores had one file");
        store.send(Close).await.unwrap();

        let store = open().unwrap().start();
        let all = TurnRange::after(conversation_id, 0, 10);
        let turns = store.send(ListTurns(all)).await.unwrap().unwrap();
        assert_eq!(turns.iter().map(|turn| turn.metrics.turn_id.as_str()).collect::<Vec<_>>(), ["t"]);
        store.send(Close).await.unwrap();
    }
}

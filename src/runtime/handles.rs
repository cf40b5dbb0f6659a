use actix::{Actor, MailboxError, Recipient};

use crate::actors::{
    BackUp, BeginExport, BuildReport, CheckWrite, CountWork, Erase, Facts, Feed, FeedStart, FindRevision, Import,
    InspectConversation, InspectRetention, InspectStore, InspectSweeper, ListConversations, ListErasedSums,
    ListOpenTurns, ListSealed, ListTurns, LiveFeed, Load, Observe, RetentionReport, Scrub, StoreReader, StoreReport,
    SweeperReport, TakeErasedSums, WorkCounts,
};
use crate::store::ListSealedError;

/// The recipients of a running system, grouped by purpose.
#[derive(Clone)]
pub struct Handles {
    /// Takes events in.
    pub intake: Intake,
    /// Answers questions about turns.
    pub reads: Reads,
    /// Serves the operator of the system.
    pub operations: Operations,
}

/// Takes events, exported turns and exported sums in, and erases conversations.
#[derive(Clone)]
pub struct Intake {
    /// Takes the events of one conversation.
    pub observe: Recipient<Observe>,
    /// Imports sealed turns of another store.
    pub import: Recipient<Import>,
    /// Erases a conversation.
    pub erase: Recipient<Erase>,
    /// Takes in sums of erased turns that another store has exported.
    pub take_erased_sums: Recipient<TakeErasedSums>,
    /// The maximum number of steps of a turn, so that a caller can refuse a turn before it reads its steps. The recipient of
    /// imports does not check it.
    pub max_steps: usize,
    /// The amount of work in progress, so that a caller can refuse more before it reads it.
    pub load: Load,
}

/// Answers questions about turns.
#[derive(Clone)]
pub struct Reads {
    /// Returns sealed turns of a conversation.
    pub list_turns: Recipient<ListTurns>,
    /// Returns the open turns of a conversation.
    pub list_open_turns: Recipient<ListOpenTurns>,
    /// Returns the revision of a conversation's sealed turns, without reading them.
    pub find_revision: Recipient<FindRevision>,
    /// Returns sealed turns of all conversations, in the order in which they became durable.
    pub list_sealed: Recipient<ListSealed>,
    /// Prepares an export, and keeps turns from being dropped meanwhile.
    pub begin_export: Recipient<BeginExport>,
    /// Returns the sums of erased turns.
    pub list_erased_sums: Recipient<ListErasedSums>,
    /// Returns lists of conversations.
    pub list_conversations: Recipient<ListConversations>,
    /// Returns sums over the turns of some periods.
    pub build_report: Recipient<BuildReport>,
    /// The reader that [`Reads::on_this_thread`] starts. `None` if a test answers in place of the store.
    pub reader: Option<StoreReader>,
}

impl Reads {
    /// Returns the same reads, answered on the calling thread. A caller that reads often, such as a worker of an HTTP
    /// server, saves a round trip to another thread.
    ///
    /// Call it in an actix arbiter, once for each thread, because it starts an actor. Without a reader it changes
    /// nothing.
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        let Some(reader) = &self.reader else { return self.clone() };
        let reader = reader.clone().start();
        Self {
            list_turns: reader.clone().recipient(),
            list_open_turns: reader.clone().recipient(),
            find_revision: reader.clone().recipient(),
            list_sealed: reader.clone().recipient(),
            begin_export: reader.clone().recipient(),
            list_erased_sums: reader.clone().recipient(),
            list_conversations: reader.clone().recipient(),
            build_report: reader.recipient(),
            reader: self.reader.clone(),
        }
    }
}

/// Serves the operator of the system.
#[derive(Clone)]
pub struct Operations {
    /// Publishes every turn that is sealed; [`Facts::subscribe`] returns a subscription.
    pub facts: Facts,
    /// Makes a durable write, to show that the store can.
    pub check_write: Recipient<CheckWrite>,
    /// Returns a copy of the whole store.
    pub back_up: Recipient<BackUp>,
    /// Reads all rows of the store and compares them with each other.
    pub scrub: Recipient<Scrub>,
    /// Returns the amount of work in progress.
    pub count_work: Recipient<CountWork>,
    /// Returns the state of a conversation's actor, if it has one.
    pub inspect_conversation: Recipient<InspectConversation>,
    /// Returns the state of the store.
    pub inspect_store: Recipient<InspectStore>,
    /// Returns the state of the sweeper.
    pub inspect_sweeper: Recipient<InspectSweeper>,
    /// Returns what the retention has done.
    pub inspect_retention: Recipient<InspectRetention>,
}

/// The state of every part of a running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemReport {
    /// The conversations' actors and their work.
    pub work: WorkCounts,
    /// The store.
    pub store: StoreReport,
    /// The sweeper.
    pub sweeper: SweeperReport,
    /// The retention.
    pub retention: RetentionReport,
}

impl Operations {
    /// Asks every part of the system for its state. The parts answer one after the other, so the report does not show
    /// one moment. Fails if one part has ended.
    ///
    /// ```
    /// # use turn_metrics::runtime::Runtime;
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let report = runtime.handles().operations.report().await?;
    /// assert_eq!((report.work.active_conversations, report.store.commits), (0, 0));
    /// # runtime.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn report(&self) -> Result<SystemReport, MailboxError> {
        Ok(SystemReport {
            work: self.count_work.send(CountWork).await?,
            store: self.inspect_store.send(InspectStore).await?,
            sweeper: self.inspect_sweeper.send(InspectSweeper).await?,
            retention: self.inspect_retention.send(InspectRetention).await?,
        })
    }
}

impl Handles {
    /// Returns the same handles with [`Reads::on_this_thread`].
    ///
    /// ```
    /// # use turn_metrics::actors::FindRevision;
    /// # use turn_metrics::runtime::Runtime;
    /// # use turn_metrics::turn::ConversationId;
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let handles = runtime.handles().on_this_thread();
    /// let conversation_id = ConversationId::new("c")?;
    /// assert_eq!(handles.reads.find_revision.send(FindRevision { conversation_id }).await??.sealed_turns, 0);
    /// # runtime.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        Self { reads: self.reads.on_this_thread(), ..self.clone() }
    }

    /// Begins a feed: all sealed turns from a position on, first those that the store has and then each new one. Fails
    /// if the store cannot be read, or if the position is not of its lineage.
    ///
    /// A reader that keeps its last position can continue there after a restart, without a gap and without a double.
    ///
    /// ```
    /// use turn_metrics::actors::{FeedStart, Observe};
    /// use turn_metrics::runtime::Runtime;
    /// use turn_metrics::turn::{ConversationId, Done, TurnEvent, TurnEventKind, TurnId};
    ///
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let handles = runtime.handles();
    /// for name in ["one", "two", "three"] {
    ///     let event = TurnEvent { turn_id: TurnId::new("t")?, kind: TurnEventKind::Done(Done::because("stop")) };
    ///     let observe = Observe { conversation_id: ConversationId::new(name)?, events: vec![event] };
    ///     handles.intake.observe.send(observe).await??;
    /// }
    /// let mut feed = handles.feed(FeedStart::First).await?;
    /// let Some(first) = feed.next().await? else { panic!("the system has shut down") };
    /// assert_eq!(first.conversation_id.as_str(), "one");
    ///
    /// let mut resumed = handles.feed(FeedStart::After(first.position)).await?;
    /// let Some(second) = resumed.next().await? else { panic!("the system has shut down") };
    /// assert_eq!((second.conversation_id.as_str(), second.position.number), ("two", 2));
    /// # runtime.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn feed(&self, start: FeedStart) -> Result<Feed, ListSealedError> {
        Feed::begin(self.reads.list_sealed.clone(), &self.operations.facts, start).await
    }

    /// Begins a live feed: a feed that also has open turns as they change, and erasures, as `GET /feed` does. Fails like
    /// [`Handles::feed`].
    ///
    /// ```
    /// use turn_metrics::actors::{Erase, FeedEvent, FeedStart, Observe};
    /// use turn_metrics::runtime::Runtime;
    /// use turn_metrics::turn::{ConversationId, Done, Progress, TurnEvent, TurnEventKind, TurnId, TurnLabels};
    ///
    /// # actix::System::new().block_on(async {
    /// let runtime = Runtime::builder().start().await?;
    /// let handles = runtime.handles();
    /// let (conversation_id, turn_id) = (ConversationId::new("c")?, TurnId::new("t")?);
    /// let observe = |kind| {
    ///     let event = TurnEvent { turn_id: turn_id.clone(), kind };
    ///     handles.intake.observe.send(Observe { conversation_id: conversation_id.clone(), events: vec![event] })
    /// };
    /// let mut feed = handles.live_feed(FeedStart::Now).await?;
    ///
    /// observe(TurnEventKind::Progress(Progress::Start(TurnLabels::default()))).await??;
    /// let Some(FeedEvent::Open { turn, .. }) = feed.next().await? else { panic!("the turn is open") };
    /// assert_eq!(turn.turn.id.as_str(), "t");
    ///
    /// observe(TurnEventKind::Done(Done::because("stop"))).await??;
    /// let Some(FeedEvent::Sealed(sealed)) = feed.next().await? else { panic!("the turn is sealed") };
    /// assert_eq!(sealed.position.number, 1);
    ///
    /// handles.intake.erase.send(Erase { conversation_id: conversation_id.clone() }).await??;
    /// assert_eq!(feed.next().await?, Some(FeedEvent::Erased(conversation_id)));
    /// # runtime.shutdown().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn live_feed(&self, start: FeedStart) -> Result<LiveFeed, ListSealedError> {
        let Reads { list_sealed, list_open_turns, .. } = &self.reads;
        LiveFeed::begin(list_sealed.clone(), list_open_turns.clone(), &self.operations.facts, start).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use super::*;
    use crate::report::{Grouping, Selection};
    use crate::settings::StoreSettings;
    use crate::store::{
        ConversationOrder, ConversationQuestion, Fault, Location, RedbEngine, ReportQuestion, TurnRange,
    };
    use crate::testing::Probe;
    use crate::turn::ConversationId;

    /// Sends one read of each kind. Returns whether all of them succeeded.
    async fn are_answered(reads: &Reads) -> bool {
        let conversation_id = ConversationId::new("c").unwrap();
        let range = TurnRange::after(conversation_id.clone(), 0, 1);
        let (grouping, selection) = (Grouping::default(), Selection::default());
        let list = ConversationQuestion::first(ConversationOrder::Recent, 1);
        let question = ReportQuestion { periods: Vec::new(), grouping, selection };
        reads.list_turns.send(ListTurns(range)).await.unwrap().is_ok()
            & reads
                .list_open_turns
                .send(ListOpenTurns { conversation_id: conversation_id.clone() })
                .await
                .unwrap()
                .is_ok()
            & reads.find_revision.send(FindRevision { conversation_id }).await.unwrap().is_ok()
            & reads.list_sealed.send(ListSealed { after: None, limit: 1 }).await.unwrap().is_ok()
            & reads.begin_export.send(BeginExport).await.unwrap().is_ok()
            & reads.list_erased_sums.send(ListErasedSums { after: None, limit: 1 }).await.unwrap().is_ok()
            & reads.list_conversations.send(ListConversations(list)).await.unwrap().is_ok()
            & reads.build_report.send(BuildReport(question)).await.unwrap().is_ok()
    }

    /// Returns reads to which the store's own thread does not answer.
    fn failing(reader: Option<StoreReader>) -> Reads {
        Reads {
            list_turns: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            list_open_turns: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            find_revision: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            list_sealed: Probe::start(|_| ready(Err(Fault::closed().into()))).recipient(),
            begin_export: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            list_erased_sums: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            list_conversations: Probe::start(|_| ready(Err(Fault::closed()))).recipient(),
            build_report: Probe::start(|_| ready(Err(Fault::closed().into()))).recipient(),
            reader,
        }
    }

    #[actix_rt::test]
    async fn a_reader_answers_every_question_in_place_of_the_store_and_without_one_nothing_changes() {
        let engine = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
        let reads = failing(Some(StoreReader::new(Arc::new(engine))));
        assert!(!are_answered(&reads).await);
        let here = reads.on_this_thread();
        assert!(are_answered(&here).await);
        assert!(are_answered(&here.on_this_thread()).await, "another thread starts its own from these");
        assert!(!are_answered(&failing(None).on_this_thread()).await);
    }

    #[actix_rt::test]
    async fn a_report_has_what_each_part_says_and_fails_if_one_has_ended() {
        let store = StoreReport { commits: 7, ..StoreReport::default() };
        let sweeper = SweeperReport { sweeps: 3, ..SweeperReport::default() };
        let retention = RetentionReport { dropped_turns: 6, ..RetentionReport::default() };
        let work = WorkCounts { active_conversations: 1, in_flight: 2, warnings: 4, died: 5 };
        let mut operations = Operations {
            facts: Facts::new(1),
            check_write: Probe::start(|_| pending()).recipient(),
            back_up: Probe::start(|_| pending()).recipient(),
            scrub: Probe::start(|_| pending()).recipient(),
            count_work: Probe::start(move |_| ready(work)).recipient(),
            inspect_conversation: Probe::start(|_| pending()).recipient(),
            inspect_store: Probe::start(move |_| ready(store)).recipient(),
            inspect_sweeper: Probe::start(move |_| ready(sweeper)).recipient(),
            inspect_retention: Probe::start(move |_| ready(retention)).recipient(),
        };
        assert_eq!(operations.report().await.unwrap(), SystemReport { work, store, sweeper, retention });
        let arbiter = actix::Arbiter::new();
        let (started, start) = tokio::sync::oneshot::channel();
        arbiter.spawn(async move { drop(started.send(Probe::<InspectStore>::start(|_| pending()).recipient())) });
        operations.inspect_store = start.await.unwrap();
        arbiter.stop();
        arbiter.join().unwrap();
        assert!(operations.report().await.is_err());
    }
}

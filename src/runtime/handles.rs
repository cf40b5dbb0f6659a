use actix::{Actor, MailboxError, Recipient};

use crate::actors::{
    BackUp, CheckWrite, CountWork, Facts, FindRevision, InspectConversation, InspectStore, InspectSweeper,
    ListConversations, ListSealed, ListTurns, Load, Observe, StoreReader, StoreReport, SweeperReport, WorkCounts,
};

/// Where a running system takes its messages, by purpose.
#[derive(Clone)]
pub struct Handles {
    /// Takes events in.
    pub intake: Intake,
    /// Answers questions about turns.
    pub reads: Reads,
    /// Serves whoever operates the system.
    pub operations: Operations,
}

/// Takes events in.
#[derive(Clone)]
pub struct Intake {
    /// Takes the events of one conversation.
    pub observe: Recipient<Observe>,
    /// The amount of work in progress, so that a caller can refuse more before it reads it.
    pub load: Load,
}

/// Answers questions about turns.
#[derive(Clone)]
pub struct Reads {
    /// Returns sealed turns of a conversation.
    pub list_turns: Recipient<ListTurns>,
    /// Returns the revision of a conversation's sealed turns, without reading them.
    pub find_revision: Recipient<FindRevision>,
    /// Returns sealed turns of all conversations, in the order in which they became durable.
    pub list_sealed: Recipient<ListSealed>,
    /// Returns conversations by their latest activity.
    pub list_conversations: Recipient<ListConversations>,
    /// The reader that [`Reads::on_this_thread`] starts; `None` where a test answers for the store itself.
    pub reader: Option<StoreReader>,
}

impl Reads {
    /// The same reads, answered on the calling thread: this saves a caller that reads often, such as a worker of an
    /// HTTP server, the way to another thread and back.
    ///
    /// Must be called in an actix arbiter, once for each thread: it starts an actor. Without a reader nothing changes.
    #[must_use]
    pub fn on_this_thread(&self) -> Self {
        let Some(reader) = &self.reader else { return self.clone() };
        let reader = reader.clone().start();
        Self {
            list_turns: reader.clone().recipient(),
            find_revision: reader.clone().recipient(),
            list_sealed: reader.clone().recipient(),
            list_conversations: reader.recipient(),
            reader: self.reader.clone(),
        }
    }
}

/// Serves whoever operates the system.
#[derive(Clone)]
pub struct Operations {
    /// Publishes every turn that is sealed; [`Facts::subscribe`] listens.
    pub facts: Facts,
    /// Makes a durable write, to show that one works.
    pub check_write: Recipient<CheckWrite>,
    /// Returns a copy of the whole store.
    pub back_up: Recipient<BackUp>,
    /// Returns the amount of work in progress.
    pub count_work: Recipient<CountWork>,
    /// Returns the state of a conversation's actor, if it has one.
    pub inspect_conversation: Recipient<InspectConversation>,
    /// Returns the state of the store.
    pub inspect_store: Recipient<InspectStore>,
    /// Returns the state of the sweeper.
    pub inspect_sweeper: Recipient<InspectSweeper>,
}

/// Everything that can be observed of a running system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemReport {
    /// The conversations' actors and their work.
    pub work: WorkCounts,
    /// The store.
    pub store: StoreReport,
    /// The sweeper.
    pub sweeper: SweeperReport,
}

impl Operations {
    /// Asks every part of the system for its state. The parts answer one after the other, not at one moment. Fails if
    /// one of them has ended.
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
        })
    }
}

impl Handles {
    /// The same handles with [`Reads::on_this_thread`].
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
}

//! The directory: it alone routes a message from a conversation's id to the conversation's actor.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseActFuture, ResponseFuture};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::conversation::{
    Abandon, Conversation, ConversationReport, Erase, EraseError, InspectConversation, LoggedWarnings, Memory, Observe,
    ObserveError, Receipt, StoreRecipients,
};
use super::end::{AwaitEnd, never};
use super::facts::Facts;
use super::import::{AwaitAnswers, Import, ImportError, ImportFailure, ImportReceipt, Importer};
use super::load::Load;
use crate::clock::{RunningClock, SharedClock};
use crate::settings::TurnSettings;
use crate::store::{CommitSeries, Fault};
use crate::turn::{ConversationId, RunningTime};

/// Starts a conversation's actor when it is first needed, passes messages on to it, and retires it when it is idle.
///
/// Only the directory holds addresses of conversations, and it knows how many messages of each conversation are
/// unanswered. It retires a conversation without unanswered messages by dropping the address. That loses nothing: no
/// message is queued, and everything that the actor has acknowledged is in the store.
pub struct Directory {
    store: StoreRecipients,
    /// Makes imported turns durable; `None` if nothing can be imported.
    series: Option<Recipient<Arc<CommitSeries>>>,
    clock: SharedClock,
    running: RunningClock,
    settings: TurnSettings,
    /// The queue to which sealed turns are published, if anybody wants them.
    facts: Option<Facts>,
    /// The warnings that were logged. They outlive the actors of the conversations.
    logged: LoggedWarnings,
    /// The memory for the open turns of all conversations.
    memory: Memory,
    conversations: HashMap<ConversationId, ActorRef>,
    in_flight: Rc<InFlight>,
    /// Set by the first [`Drain`], and never cleared.
    draining: bool,
}

#[derive(Clone)]
struct ActorRef {
    address: Addr<Conversation>,
    state: Rc<ActorState>,
}

/// The directory's knowledge of a conversation's actor.
struct ActorState {
    unanswered: Cell<usize>,
    last_used: Cell<Instant>,
    /// Whether the actor has died. It never ends by itself, so only a panic ends it.
    died: Cell<bool>,
}

/// The work of all conversations together.
struct InFlight {
    load: Load,
    /// How many actors have died. An actor counts once, even if many messages were lost with it.
    died: Cell<u64>,
    /// How many warnings receipts have had so far.
    warnings: Cell<u64>,
    none_left: Notify,
}

impl InFlight {
    fn new(load: Load) -> Self {
        Self { load, died: Cell::default(), warnings: Cell::default(), none_left: Notify::default() }
    }
}

impl Directory {
    /// Returns a directory without conversations, not started yet.
    pub fn new(store: StoreRecipients, clock: SharedClock, settings: TurnSettings) -> Self {
        let in_flight = Rc::new(InFlight::new(Load::new(settings.max_in_flight)));
        let memory = Memory::new(settings.max_active_bytes);
        Self {
            store,
            series: None,
            clock,
            running: RunningClock::default(),
            settings,
            facts: None,
            logged: LoggedWarnings::default(),
            memory,
            conversations: HashMap::new(),
            in_flight,
            draining: false,
        }
    }

    /// Shows the amount of work in `load`, and uses the limit of `load`.
    #[must_use]
    pub fn showing(mut self, load: Load) -> Self {
        self.in_flight = Rc::new(InFlight::new(load));
        self
    }

    /// Sets the clock that measures the running time for conversations. Without this call, the running time is always
    /// 0.
    #[must_use]
    pub fn counting(mut self, running: RunningClock) -> Self {
        self.running = running;
        self
    }

    /// Sets the store that imported turns go to. Without this call, each import is answered as if the store were gone.
    #[must_use]
    pub fn importing(mut self, series: Recipient<Arc<CommitSeries>>) -> Self {
        self.series = Some(series);
        self
    }

    /// Makes the conversations publish the turns that they seal, and the directory those that it imports.
    #[must_use]
    pub fn telling(mut self, facts: Facts) -> Self {
        self.facts = Some(facts);
        self
    }

    fn pass_on<M>(&mut self, id: &ConversationId, message: M) -> ResponseFuture<Result<Receipt, ObserveError>>
    where
        M: Message<Result = Result<Receipt, ObserveError>> + Send + 'static,
        Conversation: Handler<M>,
    {
        let (address, ticket) = match self.admit(id) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::pin(async move { Err(refusal.into()) }),
        };
        let answer = address.send(message);
        let id = id.clone();
        Box::pin(async move {
            // If the actor dies, a queued message gets the mailbox's error, and the message in progress gets its own.
            let answer = answer.await.unwrap_or(Err(ObserveError::ActorGone));
            match &answer {
                Ok(receipt) => ticket.count_warnings(receipt),
                Err(ObserveError::ActorGone) => ticket.count_death(&id),
                Err(_) => {}
            }
            answer
        })
    }

    /// Refuses further work while there is too much, and while the service stops.
    fn check_load(&self) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::ShuttingDown);
        }
        if self.in_flight.load.is_full() { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    fn admit(&mut self, id: &ConversationId) -> Result<(Addr<Conversation>, Ticket), Refusal> {
        self.check_load()?;
        let ActorRef { address, state } = match self.conversations.get(id) {
            Some(actor) if actor.address.connected() && !actor.state.died.get() => actor.clone(),
            _ => self.start(id)?,
        };
        Ok((address, Ticket::new(state, &self.in_flight)))
    }

    fn start(&mut self, id: &ConversationId) -> Result<ActorRef, Refusal> {
        if self.conversations.len() >= self.settings.max_active_conversations {
            self.retire_idle_for(Duration::ZERO);
            if self.conversations.len() >= self.settings.max_active_conversations {
                return Err(Refusal::Overloaded);
            }
        }
        let conversation = Conversation::new(id.clone(), self.store.clone(), self.clock.clone(), &self.settings);
        let conversation = conversation.counting(self.running.clone()).remembering(self.logged.clone());
        let conversation = conversation.sharing(self.memory.clone());
        let conversation = match &self.facts {
            Some(facts) => conversation.telling(facts.clone()),
            None => conversation,
        };
        let state = Rc::new(ActorState {
            unanswered: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            died: Cell::new(false),
        });
        let actor = ActorRef { address: conversation.start(), state };
        self.conversations.insert(id.clone(), actor.clone());
        Ok(actor)
    }

    fn retire_idle_for(&mut self, age: Duration) {
        let now = Instant::now();
        self.conversations.retain(|_, ActorRef { state, .. }| {
            state.unanswered.get() > 0 || now.saturating_duration_since(state.last_used.get()) < age
        });
    }
}

/// Why the directory passes a message on to no conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Overloaded,
    ShuttingDown,
}

impl From<Refusal> for ObserveError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded => Self::Overloaded,
            Refusal::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl From<Refusal> for EraseError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded => Self::Overloaded,
            Refusal::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl From<Refusal> for ImportFailure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded => Self::Overloaded,
            Refusal::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// Counts as one unanswered message of a directory until it is dropped, even if the sender has gone.
struct Work(Rc<InFlight>);

impl Work {
    fn new(in_flight: &Rc<InFlight>) -> Self {
        in_flight.load.add();
        Self(Rc::clone(in_flight))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.load.remove();
        if self.0.load.in_flight() == 0 {
            self.0.none_left.notify_waiters();
        }
    }
}

/// Counts as one unanswered message of a conversation until it is dropped, even if the sender has gone.
struct Ticket {
    state: Rc<ActorState>,
    work: Work,
}

impl Ticket {
    fn new(state: Rc<ActorState>, in_flight: &Rc<InFlight>) -> Self {
        state.unanswered.update(|count| count + 1);
        Self { state, work: Work::new(in_flight) }
    }

    fn count_warnings(&self, receipt: &Receipt) {
        self.work.0.warnings.update(|count| count + receipt.warnings.len() as u64);
    }

    fn count_death(&self, id: &ConversationId) {
        if !self.state.died.replace(true) {
            self.work.0.died.update(|count| count + 1);
            tracing::error!(conversationId = %id, "a conversation's actor died; it is started anew with the next event");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.unanswered.update(|count| count - 1);
        self.state.last_used.set(Instant::now());
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Look for idle conversations four times within the time that makes a conversation idle.
        let every = (self.settings.idle_after / 4).max(Duration::from_millis(1));
        ctx.run_interval(every, |directory, _| directory.retire_idle_for(directory.settings.idle_after));
    }
}

impl Handler<Observe> for Directory {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, observe: Observe, _: &mut Self::Context) -> Self::Result {
        self.pass_on(&observe.conversation_id.clone(), observe)
    }
}

impl Handler<Abandon> for Directory {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, abandon: Abandon, _: &mut Self::Context) -> Self::Result {
        self.pass_on(&abandon.conversation_id.clone(), abandon)
    }
}

impl Handler<Import> for Directory {
    type Result = ResponseFuture<Result<ImportReceipt, ImportError>>;

    fn handle(&mut self, import: Import, ctx: &mut Self::Context) -> Self::Result {
        let no_store = || ImportFailure::StoreUnavailable(Fault::unreachable("nothing can be imported here"));
        let series = self.check_load().map_err(ImportFailure::from);
        match series.and_then(|()| self.series.clone().ok_or_else(no_store)) {
            Ok(series) => {
                let (directory, facts) = (ctx.address().recipient(), self.facts.clone());
                let (importer, work) = (Importer { directory, series, facts }, Work::new(&self.in_flight));
                Box::pin(async move {
                    let _until_answered = work;
                    importer.import(import).await
                })
            }
            Err(why) => Box::pin(async { Err(ImportError { before: ImportReceipt::default(), why }) }),
        }
    }
}

impl Handler<AwaitAnswers> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, AwaitAnswers(ids): AwaitAnswers, _: &mut Self::Context) -> Self::Result {
        let working = ids.into_iter().filter_map(|id| {
            let actor = self.conversations.get(&id).filter(|actor| actor.state.unanswered.get() > 0)?;
            // To abandon no turn changes nothing. The actor answers it after all that it was sent before.
            Some(actor.address.send(Abandon {
                conversation_id: id,
                turn_ids: Vec::new(),
                before: RunningTime::default().into(),
            }))
        });
        let answers: Vec<_> = working.collect();
        Box::pin(async move {
            for answer in answers {
                // If the actor has died, it has no more work.
                let _ = answer.await;
            }
        })
    }
}

impl Handler<Erase> for Directory {
    type Result = ResponseFuture<Result<bool, EraseError>>;

    fn handle(&mut self, erase: Erase, _: &mut Self::Context) -> Self::Result {
        let id = erase.conversation_id.clone();
        let (address, ticket) = match self.admit(&id) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::pin(async move { Err(refusal.into()) }),
        };
        // Nothing of the conversation stays in memory, and the next life has warnings of its own.
        self.logged.forget(&id);
        let answer = address.send(erase);
        Box::pin(async move {
            let answer = answer.await.unwrap_or(Err(EraseError::ActorGone));
            if answer == Err(EraseError::ActorGone) {
                ticket.count_death(&id);
            }
            answer
        })
    }
}

/// Tell the directory to refuse new work. It answers when its present work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain;

impl Message for Drain {
    type Result = ();
}

impl Handler<Drain> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let in_flight = Rc::clone(&self.in_flight);
        Box::pin(async move {
            // All actors share one thread, so nothing can be answered between this look and the wait.
            if in_flight.load.in_flight() > 0 {
                in_flight.none_left.notified().await;
            }
        })
    }
}

impl Handler<AwaitEnd> for Directory {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: AwaitEnd, _: &mut Self::Context) -> Self::Result {
        never()
    }
}

/// Ask the directory how much work it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWork;

/// How much work a directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkCounts {
    /// How many conversations have an actor.
    pub active_conversations: usize,
    /// How many messages to conversations are not answered yet.
    pub in_flight: usize,
    /// How many warnings receipts have had since the start.
    pub warnings: u64,
    /// How many actors of conversations have died by a panic since the start. Each such panic is a defect.
    pub died: u64,
}

impl Message for CountWork {
    type Result = WorkCounts;
}

impl Handler<CountWork> for Directory {
    type Result = actix::MessageResult<CountWork>;

    fn handle(&mut self, _: CountWork, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(WorkCounts {
            active_conversations: self.conversations.len(),
            in_flight: self.in_flight.load.in_flight(),
            warnings: self.in_flight.warnings.get(),
            died: self.in_flight.died.get(),
        })
    }
}

impl Handler<InspectConversation> for Directory {
    type Result = ResponseFuture<Option<ConversationReport>>;

    fn handle(&mut self, inspect: InspectConversation, _: &mut Self::Context) -> Self::Result {
        // No ticket: a look at a conversation neither starts its actor nor keeps it from being retired.
        let actor = self.conversations.get(&inspect.conversation_id);
        let Some(report) = actor.map(|actor| actor.address.send(inspect)) else {
            return Box::pin(async { None });
        };
        Box::pin(async { report.await.ok().flatten() })
    }
}

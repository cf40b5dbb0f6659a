//! The directory: the only router from a conversation's id to its actor.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseActFuture, ResponseFuture};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::conversation::{
    Abandon, Conversation, ConversationReport, InspectConversation, LoggedWarnings, Memory, Observe, ObserveError,
    Receipt, StoreRecipients,
};
use super::end::{AwaitEnd, never};
use super::facts::Facts;
use super::load::Load;
use crate::clock::{RunningClock, SharedClock};
use crate::settings::TurnSettings;
use crate::turn::ConversationId;

/// Starts a conversation's actor when it is first needed, passes its messages on, retires it when it is idle.
///
/// It alone holds addresses of conversations, and knows how many messages of each are unanswered. One with none can
/// be retired by dropping its address: nothing of it is queued, and all it has acknowledged is in the store.
pub struct Directory {
    store: StoreRecipients,
    clock: SharedClock,
    running: RunningClock,
    settings: TurnSettings,
    /// Whom its conversations tell of sealed turns, if anybody.
    facts: Option<Facts>,
    /// Outlives the actors of conversations.
    logged: LoggedWarnings,
    /// The memory for the open turns of all conversations.
    memory: Memory,
    conversations: HashMap<ConversationId, Route>,
    in_flight: Rc<InFlight>,
    /// Set for good by the first [`Drain`].
    draining: bool,
}

#[derive(Clone)]
struct Route {
    address: Addr<Conversation>,
    activity: Rc<Activity>,
}

/// What one conversation has to do.
struct Activity {
    unanswered: Cell<usize>,
    last_used: Cell<Instant>,
    /// Whether the actor is known to have died: by a panic, as it never ends by itself.
    died: Cell<bool>,
}

/// What all conversations together have to do.
struct InFlight {
    load: Load,
    /// How many actors have died, each counted once however many messages died with it.
    died: Cell<u64>,
    /// The number of warnings in receipts.
    warnings: Cell<u64>,
    none_left: Notify,
}

impl InFlight {
    fn new(load: Load) -> Self {
        Self { load, died: Cell::default(), warnings: Cell::default(), none_left: Notify::default() }
    }
}

impl Directory {
    /// A directory of no conversations, not started yet.
    pub fn new(store: StoreRecipients, clock: SharedClock, settings: TurnSettings) -> Self {
        let in_flight = Rc::new(InFlight::new(Load::new(settings.max_in_flight)));
        let memory = Memory::new(settings.max_active_bytes);
        Self {
            store,
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

    /// Shows how much it has to do in `load`, and takes its limit from there.
    #[must_use]
    pub fn showing(mut self, load: Load) -> Self {
        self.in_flight = Rc::new(InFlight::new(load));
        self
    }

    /// Sets the clock that gives conversations the running time. Without one, it is 0.
    #[must_use]
    pub fn counting(mut self, running: RunningClock) -> Self {
        self.running = running;
        self
    }

    /// Has its conversations tell of the turns that they seal.
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
            Err(refusal) => return Box::pin(async { Err(refusal) }),
        };
        let answer = address.send(message);
        let id = id.clone();
        Box::pin(async move {
            // What the actor had queued ends with the mailbox's error, what it was working on with its own.
            let answer = answer.await.unwrap_or(Err(ObserveError::ActorGone));
            match &answer {
                Ok(receipt) => ticket.count_warnings(receipt),
                Err(ObserveError::ActorGone) => ticket.count_death(&id),
                Err(_) => {}
            }
            answer
        })
    }

    fn admit(&mut self, id: &ConversationId) -> Result<(Addr<Conversation>, Ticket), ObserveError> {
        if self.draining {
            return Err(ObserveError::ShuttingDown);
        }
        if self.in_flight.load.is_full() {
            return Err(ObserveError::Overloaded);
        }
        let Route { address, activity } = match self.conversations.get(id) {
            Some(route) if route.address.connected() && !route.activity.died.get() => route.clone(),
            _ => self.start(id)?,
        };
        Ok((address, Ticket::new(activity, Rc::clone(&self.in_flight))))
    }

    fn start(&mut self, id: &ConversationId) -> Result<Route, ObserveError> {
        if self.conversations.len() >= self.settings.max_active_conversations {
            self.retire_idle_for(Duration::ZERO);
            if self.conversations.len() >= self.settings.max_active_conversations {
                return Err(ObserveError::Overloaded);
            }
        }
        let conversation = Conversation::new(id.clone(), self.store.clone(), self.clock.clone(), &self.settings);
        let conversation = conversation.counting(self.running.clone()).remembering(self.logged.clone());
        let conversation = conversation.sharing(self.memory.clone());
        let conversation = match &self.facts {
            Some(facts) => conversation.telling(facts.clone()),
            None => conversation,
        };
        let activity = Rc::new(Activity {
            unanswered: Cell::new(0),
            last_used: Cell::new(Instant::now()),
            died: Cell::new(false),
        });
        let route = Route { address: conversation.start(), activity };
        self.conversations.insert(id.clone(), route.clone());
        Ok(route)
    }

    fn retire_idle_for(&mut self, age: Duration) {
        let now = Instant::now();
        self.conversations.retain(|_, Route { activity, .. }| {
            activity.unanswered.get() > 0 || now.saturating_duration_since(activity.last_used.get()) < age
        });
    }
}

/// Stands for one unanswered message, also where its sender has gone.
struct Ticket {
    activity: Rc<Activity>,
    in_flight: Rc<InFlight>,
}

impl Ticket {
    fn new(activity: Rc<Activity>, in_flight: Rc<InFlight>) -> Self {
        activity.unanswered.update(|count| count + 1);
        in_flight.load.add();
        Self { activity, in_flight }
    }

    fn count_warnings(&self, receipt: &Receipt) {
        self.in_flight.warnings.update(|count| count + receipt.warnings.len() as u64);
    }

    fn count_death(&self, id: &ConversationId) {
        if !self.activity.died.replace(true) {
            self.in_flight.died.update(|count| count + 1);
            tracing::error!(conversationId = %id, "a conversation's actor died; it is started anew with the next event");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.activity.unanswered.update(|count| count - 1);
        self.activity.last_used.set(Instant::now());
        self.in_flight.load.remove();
        if self.in_flight.load.in_flight() == 0 {
            self.in_flight.none_left.notify_waiters();
        }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Idle conversations are found within a quarter of the time that makes them idle.
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

/// Tell the directory to refuse new work and to answer when what it has is done.
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
            // Actors of one thread: nothing can be answered between the look and the wait.
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

/// Ask the directory how much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWork;

/// How much is going on in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkCounts {
    /// Conversations that have an actor.
    pub active_conversations: usize,
    /// Messages to conversations that are not answered yet.
    pub in_flight: usize,
    /// The number of warnings in receipts since the start.
    pub warnings: u64,
    /// Conversations' actors that have died by a panic since the start, each of them a defect.
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
        // No ticket: looking at a conversation is no work that keeps it, and starts none.
        let route = self.conversations.get(&inspect.conversation_id);
        let Some(report) = route.map(|route| route.address.send(inspect)) else {
            return Box::pin(async { None });
        };
        Box::pin(async { report.await.ok().flatten() })
    }
}

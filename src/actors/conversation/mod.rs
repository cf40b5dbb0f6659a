//! The actor of one conversation: it folds events into open turns, and commits each batch before it answers the
//! senders.
//!
//! - `observe`: the messages that change turns, and their answer.
//! - `erase`: the message that erases the conversation.
//! - `draft`: the changes that a batch of work makes to the turns. Pure.
//! - `touched`: the turns that a draft has changed or looked at. Pure.
//! - `parts`: messages of many events, which become several commits. Pure.
//! - `open_change`: the change of one open turn. Pure.
//! - `known`: the durable state of the conversation, as far as its actor knows it. Pure.
//! - `memory`: bounds the open turns that all conversations hold in memory.
//! - `logged`: the warnings that were logged.
//! - `tests`: messages to one conversation with a store that a test controls.

mod draft;
mod erase;
mod known;
mod logged;
mod memory;
mod observe;
mod open_change;
mod parts;
#[cfg(test)]
mod tests;
mod touched;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Message, Recipient, ResponseFuture, WrapFuture,
};
use tokio::sync::oneshot;

pub use self::erase::{Erase, EraseError};
pub(super) use self::logged::LoggedWarnings;
pub(super) use self::memory::Memory;
pub use self::observe::{Abandon, Observe, ObserveError, Receipt, TurnReceipt};

use self::draft::{Draft, Limits, NotTaken, Now, ReceiptBuilder, Work};
use self::known::{Known, KnownTurns};
use self::memory::{Permit, Rest};
use self::parts::{Parts, end_of_part};
use super::facts::{Facts, TurnSealed};
use super::store::{EraseConversation, OpenConversation};
use crate::clock::{RunningClock, SharedClock};
use crate::settings::TurnSettings;
use crate::store::{Commit, CommitError, Committed, ConversationState, Fault, TurnOutcome, Version};
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnEvent, TurnId};

/// How often a batch is tried again after a conflict. After that, its senders are told to send again later.
const MAX_CONFLICTS: u32 = 8;

/// The messages that a conversation sends to a store, each with its recipient.
#[derive(Clone)]
pub struct StoreRecipients {
    /// Loads what the store knows of the conversation.
    pub open: Recipient<OpenConversation>,
    /// Makes a change durable.
    pub commit: Recipient<Arc<Commit>>,
    /// Erases the conversation.
    pub erase: Recipient<EraseConversation>,
}

/// The actor of one conversation.
///
/// It is a cache: every event that it has acknowledged is in the store, and a new actor starts from the store's state.
pub struct Conversation {
    id: ConversationId,
    store: StoreRecipients,
    clock: SharedClock,
    running: RunningClock,
    limits: Limits,
    /// The memory for open turns, which all conversations of a directory share.
    memory: Memory,
    /// The queue to which the actor publishes sealed turns, if anybody wants them.
    facts: Option<Facts>,
    /// The known durable state. Present while the actor works and while no turn is open. `None` before the first load,
    /// while the conversation is at rest, and after an outcome that left the state in doubt.
    held: Option<Held>,
    /// The claim to that state while the conversation is at rest: turns are open and there is no work.
    rest: Option<Rest>,
    /// Work that arrived while the store was busy with earlier work. It becomes one commit, or several if it is too
    /// much for one.
    waiting: VecDeque<Task>,
    /// The senders that wait for the conversation to be erased. That comes before the waiting tasks.
    erasing: Vec<oneshot::Sender<Result<bool, EraseError>>>,
    /// Whether the actor waits for the store or for memory.
    busy: bool,
    /// How many conflicts came since the last success.
    conflicts: u32,
    /// How many of the next tasks are committed one by one, because their common commit was too large.
    one_by_one: usize,
    logged: LoggedWarnings,
}

/// The known state of the turns, with the permit for the memory that they occupy.
struct Held {
    known: Known,
    permit: Permit,
}

/// A piece of work, with the sender that waits for the answer.
struct Task {
    work: Work,
    reply: oneshot::Sender<Result<Receipt, ObserveError>>,
    /// Whether the actor has asked the store which turns of the work are sealed.
    looked_up: bool,
    /// The progress of the work, if it has several parts.
    parts: Option<Box<Parts>>,
}

impl Task {
    /// Sends the answer. If the sender has gone, the answer is dropped.
    fn answer(self, result: Result<Receipt, ObserveError>) {
        let _ = self.reply.send(result);
        if let Work::Observe(events) = self.work
            && events.len() > FREED_AT_ONCE
        {
            actix::spawn(free(events));
        }
    }
}

/// The number of events that are freed before other actors of the thread run.
const FREED_AT_ONCE: usize = 4096;

/// Frees the events of a message step by step: freeing hundreds of thousands takes some ten milliseconds.
async fn free(mut events: Vec<TurnEvent>) {
    while !events.is_empty() {
        events.truncate(events.len().saturating_sub(FREED_AT_ONCE));
        tokio::task::yield_now().await;
    }
}

/// A commit that was sent to the store, with the tasks whose work is in it.
struct PendingCommit {
    tasks: Vec<(Task, ReceiptBuilder)>,
    /// Shared with the store, which may still hold it after it has answered.
    commit: Arc<Commit>,
}

impl Conversation {
    /// Returns the actor of conversation `id`, not started yet.
    pub fn new(id: ConversationId, store: StoreRecipients, clock: SharedClock, settings: &TurnSettings) -> Self {
        Self {
            id,
            store,
            clock,
            running: RunningClock::default(),
            limits: settings.into(),
            memory: Memory::new(settings.max_active_bytes),
            facts: None,
            held: None,
            rest: None,
            waiting: VecDeque::new(),
            erasing: Vec::new(),
            busy: false,
            conflicts: 0,
            one_by_one: 0,
            logged: LoggedWarnings::default(),
        }
    }

    /// Sets the clock that measures the running time. Without this call, the running time is always 0.
    #[must_use]
    pub fn counting(mut self, running: RunningClock) -> Self {
        self.running = running;
        self
    }

    /// Publishes each turn that this conversation seals, once it is durable.
    #[must_use]
    pub fn telling(mut self, facts: Facts) -> Self {
        self.facts = Some(facts);
        self
    }

    /// Shares the memory for open turns with other conversations. Without this call, the conversation has a whole limit
    /// for itself.
    pub(super) fn sharing(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Shares the memory of logged warnings, so that this actor logs no warning that an earlier actor of the
    /// conversation has logged.
    pub(super) fn remembering(mut self, logged: LoggedWarnings) -> Self {
        self.logged = logged;
        self
    }

    fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) -> ResponseFuture<Result<Receipt, ObserveError>> {
        let (reply, answer) = oneshot::channel();
        let parts = if let Work::Observe(events) = &work { Parts::of(events).map(Box::new) } else { None };
        self.waiting.push_back(Task { work, reply, looked_up: false, parts });
        self.advance(ctx);
        Box::pin(async { answer.await.unwrap_or(Err(ObserveError::ActorGone)) })
    }

    /// Begins the next action, unless one is in progress: loads the state, or commits waiting tasks, at most a full
    /// draft.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if !self.erasing.is_empty() {
            return self.erase(ctx);
        }
        if self.waiting.is_empty() {
            return self.take_rest();
        }
        let Some(held) = self.held.take().or_else(|| self.end_rest()) else { return self.make_room(ctx) };

        let turns = &held.known.turns;
        let now = Now { moment: self.clock.now().max(turns.last_sealed_at), running: self.running.now() };
        let mut draft = Draft::new(&self.id, turns, self.limits, now);
        let mut tasks = Vec::new();
        let mut turn_ids = None;
        while !(draft.is_full() || self.one_by_one > 0 && !tasks.is_empty())
            && let Some(task) = self.waiting.pop_front()
        {
            if task.parts.is_some() {
                if tasks.is_empty() {
                    return self.advance_parts(task, held, now, ctx);
                }
                // Each of its parts becomes a commit of its own, after the one with the tasks before it.
                self.waiting.push_front(task);
                break;
            }
            let (refusal, unresolved) = match draft.take(&task.work, task.looked_up) {
                Ok(receipt_builder) => {
                    tasks.push((task, receipt_builder));
                    continue;
                }
                // An `error` event opens no turn, so the actor must know whether the turn is sealed.
                Err(NotTaken::UnknownFailures(turn_ids)) => (None, turn_ids),
                // Turns that seem new may be sealed. Their events would then be late, and late events count for no
                // limit.
                Err(NotTaken::OverLimit(refusal)) => (Some(refusal), draft.maybe_sealed_before(&task.work)),
            };
            match refusal {
                Some(refusal) if task.looked_up || unresolved.is_empty() => task.answer(Err(refusal)),
                _ => {
                    // Later tasks wait as well, so that events are folded in the order of their messages.
                    self.waiting.push_front(Task { looked_up: tasks.is_empty(), ..task });
                    turn_ids = Some(unresolved);
                    break;
                }
            }
        }
        let open_bytes = turns.open.extent().bytes.max(draft.open().bytes);
        let commit = draft.commit(held.known.version);
        if let (None, Some(turn_ids), true) = (&commit, turn_ids, tasks.is_empty()) {
            // No earlier task has anything to commit, so the look-up can be made at once.
            return self.load(turn_ids, held.permit, ctx);
        }
        self.settle(held, tasks, open_bytes, commit, ctx);
    }

    /// Commits the tasks. Their open turns then have `open_bytes` bytes.
    fn settle(
        &mut self,
        mut held: Held,
        tasks: Vec<(Task, ReceiptBuilder)>,
        open_bytes: usize,
        commit: Option<Commit>,
        ctx: &mut Context<Self>,
    ) {
        if !self.fits(&mut held.permit, open_bytes) {
            self.put_back(tasks, std::mem::take(&mut held.known.turns.sealed));
            self.rest = Some(self.memory.rest(held.known, held.permit));
            return self.make_room(ctx);
        }
        self.held = Some(held);
        if let Some(commit) = commit {
            return self.commit(tasks, commit, ctx);
        }
        self.hand_out(tasks, &HashMap::new());
        self.pause(ctx);
    }

    /// Lets other actors of the thread run, as this one may have much more to do.
    fn pause(&mut self, ctx: &mut Context<Self>) {
        self.wait_for(tokio::task::yield_now(), ctx, |_, ()| {});
    }

    /// Checks or commits the next part of a task.
    fn advance_parts(&mut self, mut task: Task, mut held: Held, now: Now, ctx: &mut Context<Self>) {
        let (Work::Observe(events), Some(parts)) = (&task.work, &mut task.parts) else { return };
        let (next, state) = match &mut **parts {
            Parts::Checking { next, state } => (next, state),
            Parts::Taking { next, sealed, .. } => {
                held.known.turns.sealed.extend(std::mem::take(sealed));
                let turns = &held.known.turns;
                let mut draft = Draft::new(&self.id, turns, Limits::NONE, now);
                let receipt_builder = draft.take_part(&events[*next..end_of_part(events, *next)]);
                let open_bytes = turns.open.extent().bytes.max(draft.open().bytes);
                let commit = draft.commit(held.known.version);
                return self.settle(held, vec![(task, receipt_builder)], open_bytes, commit, ctx);
            }
        };
        let draft = Draft::new(&self.id, &held.known.turns, self.limits, now);
        let end = end_of_part(events, *next);
        let checked = draft.check_part(state.take(), &events[*next..end]);
        let is_last = end == events.len();
        let refusal = match checked {
            Ok(state) if is_last && !task.looked_up && state.has_unknown_failures() => None,
            Ok(state) => {
                **parts = if is_last { Parts::taking() } else { Parts::Checking { next: end, state: Some(state) } };
                self.waiting.push_front(task);
                self.held = Some(held);
                return self.pause(ctx);
            }
            Err(refusal) => Some(refusal),
        };
        let unresolved = if task.looked_up { Vec::new() } else { draft.maybe_sealed_before(&task.work) };
        match refusal {
            Some(refusal) if unresolved.is_empty() => {
                task.answer(Err(refusal));
                held.known.turns.sealed = HashMap::new();
                self.held = Some(held);
                self.pause(ctx);
            }
            _ => {
                let parts = Some(Box::new(Parts::checking()));
                self.waiting.push_front(Task { looked_up: true, parts, ..task });
                self.load(unresolved, held.permit, ctx);
            }
        }
    }

    /// Answers the finished tasks. A task that has parts left goes back to the front of the queue.
    fn hand_out(&mut self, tasks: Vec<(Task, ReceiptBuilder)>, outcomes: &HashMap<TurnId, TurnOutcome>) {
        // Later tasks have no late events of these turns, so the actor need not remember them.
        let sealed_before =
            self.held.as_mut().map(|held| std::mem::take(&mut held.known.turns.sealed)).unwrap_or_default();
        let mut unfinished = None;
        for (mut task, receipt_builder) in tasks {
            let receipt = receipt_builder.receipt(outcomes, &sealed_before);
            for warning in &receipt.warnings {
                let (turn_id, warning) = (warning.turn_id(), warning.summary());
                if self.logged.add(&self.id, warning) {
                    tracing::warn!(
                        conversationId = %self.id, turnId = %turn_id, warning,
                        "events are probably wrong; receipts name further cases"
                    );
                }
            }
            let whole = match (&mut task.parts, &task.work) {
                (Some(parts), Work::Observe(events)) => parts.took(events, receipt),
                _ => Some(receipt),
            };
            match whole {
                Some(receipt) => task.answer(Ok(receipt)),
                None => unfinished = Some(task),
            }
        }
        if let Some(mut task) = unfinished {
            if let Some(parts) = &mut task.parts {
                // Later parts of the task may have late events of turns that this part has sealed.
                parts.remember(sealed_before);
                parts.remember(outcomes.iter().filter_map(|(id, outcome)| Some((id.clone(), outcome.ordinal()?))));
            }
            self.waiting.push_front(task);
        }
    }

    /// Puts tasks back to the front of the queue. `sealed` has the turns that were known to be sealed.
    fn put_back(&mut self, tasks: Vec<(Task, ReceiptBuilder)>, mut sealed: HashMap<TurnId, Ordinal>) {
        for (mut task, _) in tasks.into_iter().rev() {
            if let Some(parts) = &mut task.parts {
                parts.remember(std::mem::take(&mut sealed));
            }
            self.waiting.push_front(Task { looked_up: false, ..task });
        }
    }

    /// Waits for `awaited`, starts nothing else meanwhile, and then begins the next action.
    fn wait_for<T: 'static>(
        &mut self,
        awaited: impl Future<Output = T> + 'static,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, T) + 'static,
    ) {
        self.busy = true;
        ctx.spawn(awaited.into_actor(self).map(|result, conversation, ctx| {
            conversation.busy = false;
            then(conversation, result);
            conversation.advance(ctx);
        }));
    }

    /// Goes to rest: leaves the open turns in the shared memory, where they can be dropped if other conversations need
    /// the room. A conversation without open turns keeps its state, as it occupies no room.
    fn take_rest(&mut self) {
        // Many conversations rest at a time, and even an empty queue keeps its allocation.
        self.waiting = VecDeque::new();
        if let Some(Held { known, mut permit }) = self.held.take() {
            let bytes = known.turns.open.extent().bytes;
            permit.force(bytes);
            if bytes == 0 {
                self.held = Some(Held { known, permit });
            } else {
                self.rest = Some(self.memory.rest(known, permit));
            }
        }
    }

    fn end_rest(&mut self) -> Option<Held> {
        let (known, permit) = self.rest.take()?.end()?;
        Some(Held { known, permit })
    }

    /// Returns whether open turns of this many bytes fit into the memory, and reserves the room if so. A conversation
    /// that already has the maximum room of a conversation never waits for more.
    fn fits(&self, permit: &mut Permit, bytes: usize) -> bool {
        if permit.bytes() >= self.memory.most(self.limits.open_bytes) {
            permit.force(bytes);
            return true;
        }
        permit.resize(bytes)
    }

    /// Waits for a permit for the maximum room of a conversation. Then loads the state, if it is not known.
    fn make_room(&mut self, ctx: &mut Context<Self>) {
        let most = self.memory.permit(self.limits.open_bytes);
        self.busy = true;
        ctx.spawn(most.into_actor(self).map(|permit, conversation, ctx| {
            conversation.busy = false;
            // The memory answers every request for a permit, so this is never an error.
            let Ok(permit) = permit else { return conversation.advance(ctx) };
            match conversation.end_rest() {
                Some(Held { known, .. }) => {
                    conversation.held = Some(Held { known, permit });
                    conversation.advance(ctx);
                }
                None => conversation.load(Vec::new(), permit, ctx),
            }
        }));
    }

    /// Loads the state from the store, and asks which of these turns are sealed.
    fn load(&mut self, turn_ids: Vec<TurnId>, permit: Permit, ctx: &mut Context<Self>) {
        let loading = self.store.open.send(OpenConversation { conversation_id: self.id.clone(), turn_ids });
        self.wait_for(loading, ctx, |conversation, loaded| conversation.loaded(loaded, permit));
    }

    /// Forgets the state and erases the conversation in the store. Nothing else is in progress, so no answer of the store
    /// about the erased life comes later.
    fn erase(&mut self, ctx: &mut Context<Self>) {
        (self.held, self.rest) = (None, None);
        let replies = std::mem::take(&mut self.erasing);
        let erasing = self.store.erase.send(EraseConversation { conversation_id: self.id.clone() });
        self.wait_for(erasing, ctx, |conversation, erased| {
            let answer = match erased {
                Ok(Ok(erased)) => Ok(erased),
                Ok(Err(CommitError::Unavailable(fault))) => Err(EraseError::StoreUnavailable(fault)),
                // An erasure expects no version and has no size, so it is refused only for overload.
                Ok(Err(_)) => Err(EraseError::Overloaded),
                Err(error) => Err(EraseError::StoreUnavailable(no_answer(error))),
            };
            if answer == Ok(true) {
                conversation.facts.iter().for_each(|facts| facts.tell_erased(&conversation.id));
                tracing::info!(conversationId = %conversation.id, "conversation erased");
            }
            // All but the first found nothing.
            let later = if answer == Ok(true) { Ok(false) } else { answer.clone() };
            let answers = std::iter::once(answer).chain(std::iter::repeat(later));
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _ = reply.send(answer);
            }
        });
    }

    fn loaded(&mut self, loaded: Result<Result<ConversationState, Fault>, MailboxError>, permit: Permit) {
        match loaded {
            Ok(Ok(ConversationState { version, last_sealed_at, open_turns, sealed_turns })) => {
                let (open, sealed) = (open_turns.into_iter().collect(), sealed_turns.into_iter().collect());
                let known = Known { version, turns: KnownTurns { open, sealed, last_sealed_at } };
                self.held = Some(Held { known, permit });
            }
            Ok(Err(fault)) => self.refuse_waiting(&fault),
            Err(error) => self.refuse_waiting(&no_answer(error)),
        }
    }

    fn refuse_waiting(&mut self, fault: &Fault) {
        let refusal = || ObserveError::StoreUnavailable(fault.clone());
        self.waiting.drain(..).for_each(|task| task.answer(Err(refusal())));
    }

    fn commit(&mut self, tasks: Vec<(Task, ReceiptBuilder)>, commit: Commit, ctx: &mut Context<Self>) {
        let commit = Arc::new(commit);
        let pending = PendingCommit { tasks, commit: Arc::clone(&commit) };
        self.wait_for(self.store.commit.send(commit), ctx, |conversation, committed| match committed {
            Ok(Ok(committed)) => conversation.committed(pending, committed),
            Ok(Err(error)) => conversation.not_committed(pending, error),
            Err(error) => conversation.not_committed(pending, CommitError::Unavailable(no_answer(error))),
        });
    }

    fn committed(&mut self, pending: PendingCommit, committed: Committed) {
        self.conflicts = 0;
        let PendingCommit { tasks, commit } = pending;
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let outcomes: HashMap<TurnId, TurnOutcome> = committed.outcomes.into_iter().collect();
        if let Some(Held { known, .. }) = &mut self.held {
            known.version = committed.version;
            for change in &commit.staged {
                match outcomes.get(&change.turn_id) {
                    Some(TurnOutcome::Staged) => known.turns.open.change(change),
                    _ => drop(known.turns.open.remove(&change.turn_id)),
                }
            }
            for turn in &commit.sealed {
                known.turns.open.remove(&turn.metrics.turn_id);
                if let Some(TurnOutcome::Sealed(_)) = outcomes.get(&turn.metrics.turn_id) {
                    known.turns.last_sealed_at = known.turns.last_sealed_at.max(turn.sealed_at);
                }
            }
        }
        for turn in &commit.sealed {
            if let Some(TurnOutcome::Sealed(ordinal)) = outcomes.get(&turn.metrics.turn_id) {
                log_sealed(&self.id, turn, ordinal.get());
                if let Some(facts) = &self.facts {
                    facts.tell(|| TurnSealed { conversation_id: self.id.clone(), turn: turn.clone().at(*ordinal) });
                }
            }
        }
        if let (Some(facts), false) = (&self.facts, commit.staged.is_empty()) {
            let is_open = |id: &&TurnId| outcomes.get(*id) == Some(&TurnOutcome::Staged);
            facts.note_open(&self.id, || commit.staged.iter().map(|change| &change.turn_id).filter(is_open));
        }
        self.hand_out(tasks, &outcomes);
    }

    fn not_committed(&mut self, pending: PendingCommit, error: CommitError) {
        let answer = match error {
            CommitError::Conflict { .. } => {
                let sealed = self.held.take().map(|held| held.known.turns.sealed).unwrap_or_default();
                self.conflicts += 1;
                tracing::debug!(conversationId = %self.id, %error, "the conversation has changed since it was loaded");
                if self.conflicts <= MAX_CONFLICTS {
                    // The same work is done again on the state that is loaded next. Folding is idempotent.
                    self.put_back(pending.tasks, sealed);
                    return;
                }
                self.conflicts = 0;
                ObserveError::Contended
            }
            CommitError::Overloaded => ObserveError::Overloaded,
            CommitError::TooLarge { .. } if pending.tasks.len() > 1 => {
                // Each task is committed alone, so that only the task that is too large is refused.
                self.one_by_one = pending.tasks.len();
                return self.put_back(pending.tasks, HashMap::new());
            }
            CommitError::TooLarge { limit, .. } => {
                self.one_by_one = self.one_by_one.saturating_sub(1);
                ObserveError::CommitTooLarge { conversation_id: self.id.clone(), limit }
            }
            CommitError::Unavailable(fault) => {
                self.held = None;
                ObserveError::StoreUnavailable(fault)
            }
        };
        pending.tasks.into_iter().for_each(|(task, _)| task.answer(Err(answer.clone())));
    }
}

fn no_answer(error: MailboxError) -> Fault {
    Fault::unreachable("the store did not answer").caused_by(error)
}

/// Turns may be very many and short, so their lines would make a log much longer than what was posted. The log of a service
/// has a line for each request that seals turns.
fn log_sealed(conversation_id: &ConversationId, turn: &SealedTurn, ordinal: u64) {
    let usage = turn.metrics.usage;
    tracing::debug!(
        conversationId = %conversation_id,
        turnId = %turn.metrics.turn_id,
        ordinal,
        usage.inputTokens = usage.input_tokens.get(),
        usage.outputTokens = usage.output_tokens.get(),
        usage.cacheReadTokens = usage.cache_read_tokens.map(crate::turn::TokenCount::get),
        usage.cacheWriteTokens = usage.cache_write_tokens.map(crate::turn::TokenCount::get),
        "turn sealed"
    );
}

impl Actor for Conversation {
    type Context = Context<Self>;
}

impl Handler<Observe> for Conversation {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, observe: Observe, ctx: &mut Self::Context) -> Self::Result {
        self.enqueue(Work::Observe(observe.events), ctx)
    }
}

impl Handler<Erase> for Conversation {
    type Result = ResponseFuture<Result<bool, EraseError>>;

    fn handle(&mut self, _: Erase, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.erasing.push(reply);
        self.advance(ctx);
        Box::pin(async { answer.await.unwrap_or(Err(EraseError::ActorGone)) })
    }
}

impl Handler<Abandon> for Conversation {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, abandon: Abandon, ctx: &mut Self::Context) -> Self::Result {
        let Abandon { turn_ids, before, .. } = abandon;
        self.enqueue(Work::Abandon { turn_ids, before }, ctx)
    }
}

/// Ask a conversation's actor for its state. The directory passes the message on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
}

/// The state of a conversation's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationReport {
    /// How many turns are open, as far as the actor knows.
    pub open_turns: usize,
    /// The conversation's version in the store. `None` before the first load and whenever the state is in doubt.
    pub version: Option<Version>,
    /// How many messages wait until the store has answered earlier ones.
    pub waiting: usize,
    /// Whether the actor waits for the store or for memory.
    pub busy: bool,
}

impl Message for InspectConversation {
    /// `None` if the conversation has no actor.
    type Result = Option<ConversationReport>;
}

impl Handler<InspectConversation> for Conversation {
    type Result = Option<ConversationReport>;

    fn handle(&mut self, _: InspectConversation, _: &mut Self::Context) -> Self::Result {
        let known = |known: &Known| (known.turns.open.extent().turns, known.version);
        let held = self.held.as_ref().map(|held| known(&held.known));
        let known = held.or_else(|| self.rest.as_ref()?.look(known));
        Some(ConversationReport {
            open_turns: known.map_or(0, |(open_turns, _)| open_turns),
            version: known.map(|(_, version)| version),
            waiting: self.waiting.len(),
            busy: self.busy,
        })
    }
}

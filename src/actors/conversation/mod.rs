//! One conversation: folds its events into its open turns and makes each batch durable before it answers.
//!
//! - `observe`: the messages that change turns, and their answer.
//! - `draft`: what a batch of work makes of the turns. Pure.
//! - `open_change`: what changes of an open turn. Pure.
//! - `logged`: the warnings that were logged.
//! - `tests`: messages to one conversation with a store that a test controls.

mod draft;
mod logged;
mod observe;
mod open_change;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Message, Recipient, ResponseFuture, WrapFuture,
};
use tokio::sync::oneshot;

pub(super) use self::logged::LoggedWarnings;
pub use self::observe::{Abandon, Observe, ObserveError, Receipt, TurnReceipt};

use self::draft::{Draft, KnownTurns, Limits, NotTaken, Now, ReceiptBuilder, Work};
use super::facts::{Facts, TurnSealed};
use super::store::OpenConversation;
use crate::clock::{RunningClock, SharedClock};
use crate::settings::TurnSettings;
use crate::store::{Commit, CommitError, Committed, ConversationState, Fault, StagedTurn, TurnOutcome, Version};
use crate::turn::{ConversationId, SealedTurn, TurnId};

/// How often a batch is repeated after conflicts before its senders are told to send again later.
const MAX_CONFLICTS: u32 = 8;

/// The questions that a conversation asks any store.
#[derive(Clone)]
pub struct StoreRecipients {
    /// Loads what is known of the conversation.
    pub open: Recipient<OpenConversation>,
    /// Makes a change durable.
    pub commit: Recipient<Arc<Commit>>,
}

/// The actor of one conversation.
///
/// It is a cache: every event that it has acknowledged is in the store, and it starts from there.
pub struct Conversation {
    id: ConversationId,
    store: StoreRecipients,
    clock: SharedClock,
    running: RunningClock,
    limits: Limits,
    /// Who is told of sealed turns, if anybody.
    facts: Option<Facts>,
    /// What is durable, as far as known; `None` before the first load and whenever it is in doubt.
    known: Option<Known>,
    /// Work that arrived while the store was busy with earlier work. It becomes one commit.
    waiting: Vec<Task>,
    /// Whether the store is being waited for.
    busy: bool,
    /// Conflicts since the last success.
    conflicts: u32,
    logged: LoggedWarnings,
}

struct Known {
    version: Version,
    turns: KnownTurns,
}

/// A piece of work and whom to tell.
struct Task {
    work: Work,
    reply: oneshot::Sender<Result<Receipt, ObserveError>>,
    /// Whether the store has told which of its turns are sealed.
    looked_up: bool,
}

impl Task {
    /// Answers the sender. A sender that has gone does not need the answer.
    fn answer(self, result: Result<Receipt, ObserveError>) {
        let _ = self.reply.send(result);
    }
}

/// A commit on its way, with the work that it does.
struct PendingCommit {
    tasks: Vec<(Task, ReceiptBuilder)>,
    /// Shared with the store, which may still hold it when it has answered.
    commit: Arc<Commit>,
}

impl Conversation {
    /// The actor of conversation `id`, not started yet.
    pub fn new(id: ConversationId, store: StoreRecipients, clock: SharedClock, settings: &TurnSettings) -> Self {
        let limits = Limits { max_open_turns: settings.max_open_turns, max_steps: settings.max_steps };
        Self {
            id,
            store,
            clock,
            running: RunningClock::default(),
            limits,
            facts: None,
            known: None,
            waiting: Vec::new(),
            busy: false,
            conflicts: 0,
            logged: LoggedWarnings::default(),
        }
    }

    /// Sets the clock that gives the running time. Without one, the running time is 0.
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

    /// Logs no warning that other actors of the conversation have logged before.
    pub(super) fn remembering(mut self, logged: LoggedWarnings) -> Self {
        self.logged = logged;
        self
    }

    fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) -> ResponseFuture<Result<Receipt, ObserveError>> {
        let (reply, answer) = oneshot::channel();
        self.waiting.push(Task { work, reply, looked_up: false });
        self.advance(ctx);
        Box::pin(async { answer.await.unwrap_or(Err(ObserveError::ActorGone)) })
    }

    /// Takes the next step, unless one is under way: load, or commit all that waits.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.waiting.is_empty() {
            return;
        }
        let Some(known) = &self.known else { return self.load(Vec::new(), ctx) };

        let now = Now { moment: self.clock.now().max(known.turns.last_sealed_at), running: self.running.now() };
        let mut draft = Draft::new(&self.id, &known.turns, self.limits, now);
        let mut tasks = Vec::with_capacity(self.waiting.len());
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        let mut unresolved = None;
        for task in waiting.by_ref() {
            let (refusal, turn_ids) = match draft.take(&task.work, task.looked_up) {
                Ok(receipt_builder) => {
                    tasks.push((task, receipt_builder));
                    continue;
                }
                // An `error` opens no turn, so the actor must know whether its turn is sealed.
                Err(NotTaken::UnknownFailures(turn_ids)) => (None, turn_ids),
                // Some of its turns may be sealed and not new. Late events count for no limit.
                Err(NotTaken::OverLimit(refusal)) => (Some(refusal), draft.maybe_sealed_before(&task.work)),
            };
            match refusal {
                Some(refusal) if task.looked_up || turn_ids.is_empty() => task.answer(Err(refusal)),
                _ => {
                    unresolved = Some((task, turn_ids));
                    break;
                }
            }
        }
        let commit = draft.commit(known.version);
        // Tasks behind one that needs a look-up wait with it, so that events are folded in the order of their messages.
        let turn_ids = unresolved.map(|(task, turn_ids)| {
            self.waiting.push(Task { looked_up: tasks.is_empty(), ..task });
            turn_ids
        });
        self.waiting.extend(waiting);
        match (commit, turn_ids) {
            (Some(commit), _) => return self.commit(tasks, commit, ctx),
            // The look-up runs only when no task before it is left to commit.
            (None, Some(turn_ids)) if tasks.is_empty() => return self.load(turn_ids, ctx),
            (None, _) => {}
        }
        // As after a commit, the looked-up ordinals are no longer needed.
        let sealed_before =
            self.known.as_mut().map(|known| std::mem::take(&mut known.turns.sealed)).unwrap_or_default();
        for (task, receipt_builder) in tasks {
            task.answer(Ok(receipt_builder.receipt(&HashMap::new(), &sealed_before)));
        }
        self.advance(ctx);
    }

    fn load(&mut self, turn_ids: Vec<TurnId>, ctx: &mut Context<Self>) {
        self.busy = true;
        let loading = self.store.open.send(OpenConversation { conversation_id: self.id.clone(), turn_ids });
        ctx.spawn(loading.into_actor(self).map(|loaded, conversation, ctx| {
            conversation.busy = false;
            conversation.loaded(loaded);
            conversation.advance(ctx);
        }));
    }

    fn loaded(&mut self, loaded: Result<Result<ConversationState, Fault>, MailboxError>) {
        match loaded {
            Ok(Ok(ConversationState { version, last_sealed_at, open_turns, sealed_turns })) => {
                let open = open_turns.into_iter().map(|staged| (staged.turn.id.clone(), staged)).collect();
                let sealed = sealed_turns.into_iter().collect();
                self.known = Some(Known { version, turns: KnownTurns { open, sealed, last_sealed_at } });
            }
            Ok(Err(fault)) => self.refuse_waiting(&ObserveError::StoreUnavailable(fault)),
            Err(error) => self.refuse_waiting(&ObserveError::StoreUnavailable(no_answer(error))),
        }
    }

    fn refuse_waiting(&mut self, error: &ObserveError) {
        self.waiting.drain(..).for_each(|task| task.answer(Err(error.clone())));
    }

    fn commit(&mut self, tasks: Vec<(Task, ReceiptBuilder)>, commit: Commit, ctx: &mut Context<Self>) {
        self.busy = true;
        let commit = Arc::new(commit);
        let pending = PendingCommit { tasks, commit: Arc::clone(&commit) };
        let committing = self.store.commit.send(commit);
        ctx.spawn(committing.into_actor(self).map(|committed, conversation, ctx| {
            conversation.busy = false;
            match committed {
                Ok(Ok(committed)) => conversation.committed(pending, committed),
                Ok(Err(error)) => conversation.not_committed(pending, error),
                Err(error) => conversation.not_committed(pending, CommitError::Unavailable(no_answer(error))),
            }
            conversation.advance(ctx);
        }));
    }

    fn committed(&mut self, pending: PendingCommit, committed: Committed) {
        self.conflicts = 0;
        let PendingCommit { tasks, commit } = pending;
        let outcomes: HashMap<TurnId, TurnOutcome> = committed.outcomes.into_iter().collect();
        let mut sealed_before = HashMap::new();
        if let Some(known) = &mut self.known {
            known.version = committed.version;
            // Only tasks of this commit have late events of these turns, and they are answered below.
            sealed_before = std::mem::take(&mut known.turns.sealed);
            for change in &commit.staged {
                let before = known.turns.open.remove(&change.turn_id);
                if let Some(TurnOutcome::Staged) = outcomes.get(&change.turn_id) {
                    known.turns.open.insert(change.turn_id.clone(), StagedTurn::after(before, change));
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
        for (task, receipt_builder) in tasks {
            let receipt = receipt_builder.receipt(&outcomes, &sealed_before);
            for warning in &receipt.warnings {
                let (turn_id, warning) = (warning.turn_id(), warning.summary());
                if self.logged.add(&self.id, warning) {
                    tracing::warn!(
                        conversationId = %self.id, turnId = %turn_id, warning,
                        "events are probably wrong; receipts name further cases"
                    );
                }
            }
            task.answer(Ok(receipt));
        }
    }

    fn not_committed(&mut self, pending: PendingCommit, error: CommitError) {
        let answer = match error {
            CommitError::Conflict { .. } => {
                self.known = None;
                self.conflicts += 1;
                tracing::debug!(conversationId = %self.id, %error, "another process changed the conversation");
                if self.conflicts <= MAX_CONFLICTS {
                    // Do the same work again, on the state as it is then. Folding is idempotent.
                    let again = pending.tasks.into_iter().map(|(task, _)| Task { looked_up: false, ..task });
                    self.waiting.splice(..0, again);
                    return;
                }
                self.conflicts = 0;
                ObserveError::Contended
            }
            CommitError::Overloaded => ObserveError::Overloaded,
            CommitError::Unavailable(fault) => {
                self.known = None;
                ObserveError::StoreUnavailable(fault)
            }
        };
        pending.tasks.into_iter().for_each(|(task, _)| task.answer(Err(answer.clone())));
    }
}

fn no_answer(error: MailboxError) -> Fault {
    Fault::unreachable("the store did not answer").caused_by(error)
}

fn log_sealed(conversation_id: &ConversationId, turn: &SealedTurn, ordinal: u64) {
    let usage = turn.metrics.usage;
    tracing::info!(
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

impl Handler<Abandon> for Conversation {
    type Result = ResponseFuture<Result<Receipt, ObserveError>>;

    fn handle(&mut self, abandon: Abandon, ctx: &mut Self::Context) -> Self::Result {
        let Abandon { turn_ids, before, .. } = abandon;
        self.enqueue(Work::Abandon { turn_ids, before }, ctx)
    }
}

/// Ask a conversation how it is; the directory passes it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectConversation {
    /// The conversation.
    pub conversation_id: ConversationId,
}

/// The state of a conversation's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConversationReport {
    /// Turns that are open, as far as it knows.
    pub open_turns: usize,
    /// The version that the conversation has; `None` before the first load and whenever it is in doubt.
    pub version: Option<Version>,
    /// Messages that wait for the store to be done with what came before them.
    pub waiting: usize,
    /// Whether the store is being waited for.
    pub busy: bool,
}

impl Message for InspectConversation {
    /// `None` if the conversation has no actor.
    type Result = Option<ConversationReport>;
}

impl Handler<InspectConversation> for Conversation {
    type Result = Option<ConversationReport>;

    fn handle(&mut self, _: InspectConversation, _: &mut Self::Context) -> Self::Result {
        Some(ConversationReport {
            open_turns: self.known.as_ref().map_or(0, |known| known.turns.open.len()),
            version: self.known.as_ref().map(|known| known.version),
            waiting: self.waiting.len(),
            busy: self.busy,
        })
    }
}

//! The message that imports sealed turns into a conversation, the answer to it, and how the conversation's actor commits
//! the turns.

use std::sync::Arc;

use actix::{Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::import_parts::ImportParts;
use super::{Conversation, Held, MAX_CONFLICTS, Waiting, no_answer};
use crate::actors::facts::TurnSealed;
use crate::store::{Commit, CommitError, Committed, Fault, TurnOutcome};
use crate::turn::{ConversationId, Ordinal, SealedTurn, TurnId};

/// Import these sealed turns of another store into a conversation, in this order. The sender sends the message to the
/// directory, which passes it to the conversation.
///
/// Each turn keeps all that it has, its `sealed_at` too. If no turn of the conversation was ever sealed here, the turns
/// keep their ordinals, from `imported_from` on. Otherwise they are appended. A turn that is sealed already does not
/// change. An open turn of the same id is sealed as it is imported, and other open turns stay open.
///
/// The answer comes when all turns are durable. If there is an error, or the sender drops the future, the outcome is
/// unknown: some of the first turns may be imported. The sender may then send the same turns again: each is stored once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The turns. The `step_details` of a turn must be in the order of its steps.
    pub turns: Vec<SealedTurn>,
    /// The ordinal that the first of `turns` has in the store that the turns come from; 1 if it has none. An ordinal
    /// above [`Commit::MAX_IMPORTED_FROM`](crate::store::Commit::MAX_IMPORTED_FROM) counts as that one.
    pub imported_from: Ordinal,
}

impl Message for Import {
    type Result = Result<ImportReceipt, ImportError>;
}

/// The answer to an [`Import`]: what became of its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportReceipt {
    /// How many turns the message sealed.
    pub imported: u64,
    /// How many turns were sealed before, so that nothing changed.
    pub duplicates: u64,
}

/// Why turns were not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Too much is being worked on. Either nothing was imported, or only the first turns of a message of many. Send the
    /// message again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. Nothing was imported.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// A turn makes a commit that is larger than a commit may be, as [`Commit::bytes`](crate::store::Commit::bytes)
    /// counts it. The turns before it in the message are imported. This turn and those after it are not.
    #[error("turn `{turn_id}` makes a commit of more than {limit} bytes (`store.max_commit_bytes`)")]
    TurnTooLarge {
        /// The turn.
        turn_id: TurnId,
        /// How many bytes a commit may have.
        limit: usize,
        /// What became of the turns before it.
        before: ImportReceipt,
    },
    /// Other writers changed the conversation at each attempt. Either nothing was imported, or only the first turns of a
    /// message of many. Send it again later.
    #[error("the conversation is being changed by others")]
    Contended,
    /// The outcome is unknown: the store failed. Send the message again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor has died. Send the message again; a new actor is started for it.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

/// Turns to import, with the sender that waits for the answer.
pub(super) struct ImportTask {
    parts: ImportParts,
    reply: oneshot::Sender<Result<ImportReceipt, ImportError>>,
}

impl ImportTask {
    /// Sends the answer. If the sender has gone, the answer is dropped.
    pub(super) fn answer(self, result: Result<ImportReceipt, ImportError>) {
        let _ = self.reply.send(result);
    }
}

impl Conversation {
    /// Commits the next turns of an import. They open no turn, so they need no memory for open turns.
    pub(super) fn advance_import(&mut self, import: ImportTask, held: Held, ctx: &mut Context<Self>) {
        let commit = import.parts.commit(&self.id, held.known.version);
        self.held = Some(held);
        let Some(commit) = commit else {
            import.answer(Ok(ImportReceipt::default()));
            return self.pause(ctx);
        };
        let commit = Arc::new(commit);
        let sent = self.store.commit.send(Arc::clone(&commit));
        self.wait_for(sent, ctx, move |conversation, committed| match committed {
            Ok(Ok(committed)) => conversation.imported(import, &commit, &committed),
            Ok(Err(error)) => conversation.not_imported(import, &commit, error),
            Err(error) => conversation.not_imported(import, &commit, CommitError::Unavailable(no_answer(error))),
        });
    }

    fn imported(&mut self, mut import: ImportTask, commit: &Commit, committed: &Committed) {
        self.conflicts = 0;
        let mut known = self.held.as_mut().map(|held| &mut held.known);
        if let Some(known) = &mut known {
            known.version = committed.version;
        }
        for (turn, (id, outcome)) in commit.sealed.iter().zip(&committed.outcomes) {
            if let Some(known) = &mut known {
                known.turns.open.remove(id);
            }
            if let TurnOutcome::Sealed(ordinal) = outcome {
                if let Some(known) = &mut known {
                    // Imported turns keep their moments, so the latest moment may fall, as it does in the store.
                    known.turns.last_sealed_at = turn.sealed_at;
                }
                if let Some(facts) = &self.facts {
                    facts.tell(|| TurnSealed { conversation_id: self.id.clone(), turn: turn.clone().at(*ordinal) });
                }
            }
        }
        match import.parts.took(&committed.outcomes) {
            Some(receipt) => self.end_import(import, Ok(receipt)),
            None => self.waiting.push_front(Waiting::Import(import)),
        }
    }

    fn not_imported(&mut self, mut import: ImportTask, commit: &Commit, error: CommitError) {
        let error = match error {
            CommitError::Conflict { .. } => {
                self.held = None;
                self.conflicts += 1;
                tracing::debug!(conversationId = %self.id, %error, "another process changed the conversation");
                if self.conflicts <= MAX_CONFLICTS {
                    return self.waiting.push_front(Waiting::Import(import));
                }
                self.conflicts = 0;
                ImportError::Contended
            }
            CommitError::Overloaded => ImportError::Overloaded,
            CommitError::TooLarge { limit, .. } => match import.parts.shrink(commit.sealed.len()) {
                Ok(()) => return self.waiting.push_front(Waiting::Import(import)),
                Err(turn_id) => ImportError::TurnTooLarge { turn_id, limit, before: import.parts.receipt() },
            },
            CommitError::Unavailable(fault) => {
                self.held = None;
                ImportError::StoreUnavailable(fault)
            }
        };
        self.end_import(import, Err(error));
    }

    /// Answers an import. The log has one line for all its turns, which may be very many.
    fn end_import(&self, import: ImportTask, result: Result<ImportReceipt, ImportError>) {
        let ImportReceipt { imported, duplicates } = import.parts.receipt();
        if imported > 0 {
            tracing::info!(conversationId = %self.id, imported, duplicates, "turns imported");
        }
        import.answer(result);
    }
}

impl Handler<Import> for Conversation {
    type Result = ResponseFuture<Result<ImportReceipt, ImportError>>;

    fn handle(&mut self, import: Import, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        let parts = ImportParts::new(import.turns, import.imported_from);
        self.waiting.push_back(Waiting::Import(ImportTask { parts, reply }));
        self.advance(ctx);
        Box::pin(async { answer.await.unwrap_or(Err(ImportError::ActorGone)) })
    }
}

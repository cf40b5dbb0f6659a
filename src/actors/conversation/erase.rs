//! The message that erases a conversation, why it may fail, and what the conversation's actor does.

use actix::{Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::{Conversation, no_answer};
use crate::actors::store::EraseConversation;
use crate::store::{CommitError, Fault};
use crate::turn::ConversationId;

/// Erase a conversation: its sealed turns, its open turns and its id. The sender sends the message to the directory,
/// which passes it to the conversation.
///
/// The answer comes when the erasure is durable. It says whether there was anything to erase. Everything that was
/// acknowledged before is gone then, but for what it has added to the sums of reports, which contain no ids. Events that
/// are sent after the answer begin a new life of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Message for Erase {
    type Result = Result<bool, EraseError>;
}

/// Why an erasure was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// Too much is being worked on. Nothing was erased. Send the message again later.
    #[error("too much is being worked on")]
    Overloaded,
    /// The service is shutting down. Nothing was erased.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The outcome is unknown: the store failed. Send the message again later.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(Fault),
    /// The outcome is unknown: the conversation's actor has died. Send the message again.
    #[error("the conversation's actor is gone")]
    ActorGone,
}

impl Conversation {
    /// Forgets the state and erases the conversation in the store. Nothing else is in progress, so no answer of the store
    /// about the erased life comes later.
    pub(super) fn erase(&mut self, ctx: &mut Context<Self>) {
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

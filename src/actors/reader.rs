//! What reads the store on the thread of whoever asks it much.

use actix::{Actor, Context, Handler, MessageResult, Response, ResponseFuture};
use tokio::task::spawn_blocking;

use super::{FindRevision, ListConversations, ListSealed, ListTurns};
use crate::store::{ActiveConversation, ListSealedError, ReadError, RedbEngine, SealedPage, TurnRange};
use crate::turn::StoredTurn;

/// The most turns that are read at once on the reader's own thread: a tenth of a millisecond, in which others on it
/// wait. It takes half of that to hand the work to another thread and get the answer, which is done for longer ranges.
const INLINE_TURNS: u64 = 128;

/// Answers what is asked of the store's sealed turns as the [`Store`](super::Store) does, on the thread that it was
/// started on: for those who are on the same thread there is no other thread to wait for.
///
/// A clone reads the same store and can be started on another thread.
#[derive(Clone)]
pub struct StoreReader {
    engine: RedbEngine,
}

impl StoreReader {
    pub(crate) fn new(engine: RedbEngine) -> Self {
        Self { engine }
    }

    /// Whether few turns are asked for, or there are not many.
    fn is_short(&self, range: &TurnRange) -> bool {
        let few = |turns: u64| turns <= INLINE_TURNS;
        let there = || self.engine.revision(&range.conversation_id).map(|revision| revision.sealed_turns);
        few(range.limit as u64) || there().is_ok_and(|turns| few(turns.saturating_sub(range.after)))
    }
}

impl Actor for StoreReader {
    type Context = Context<Self>;
}

impl Handler<ListTurns> for StoreReader {
    type Result = Response<Result<Vec<StoredTurn>, ReadError>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        if self.is_short(&range) {
            return Response::reply(self.engine.turns(&range));
        }
        let engine = self.engine.clone();
        Response::fut(async move {
            let done = spawn_blocking(move || engine.turns(&range)).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
        })
    }
}

impl Handler<ListSealed> for StoreReader {
    type Result = Response<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        let few = |turns: u64| turns <= INLINE_TURNS;
        let left = |page: SealedPage| page.latest.number - page.next.number;
        // Whoever follows the order is at its end nearly always.
        if few(limit as u64) || self.engine.sealed_turns(after, 0).map(left).is_ok_and(few) {
            return Response::reply(self.engine.sealed_turns(after, limit));
        }
        let engine = self.engine.clone();
        Response::fut(async move {
            let done = spawn_blocking(move || engine.sealed_turns(after, limit)).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string()).into()))
        })
    }
}

impl Handler<ListConversations> for StoreReader {
    type Result = ResponseFuture<Result<Vec<ActiveConversation>, ReadError>>;

    /// Never on its own thread: all conversations of the memtable are looked at.
    fn handle(&mut self, ListConversations { after, limit }: ListConversations, _: &mut Self::Context) -> Self::Result {
        let engine = self.engine.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || engine.conversations(after.as_ref(), limit)).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
        })
    }
}

impl Handler<FindRevision> for StoreReader {
    type Result = MessageResult<FindRevision>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.engine.revision(&find.conversation_id))
    }
}

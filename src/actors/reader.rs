//! What reads the store on the thread of whoever asks it much.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Response};

use super::store::respond;
use super::{FindRevision, ListConversations, ListSealed, ListTurns};
use crate::store::{ActiveConversation, Engine, Fault, ListSealedError, Revision, SealedPage};
use crate::turn::StoredTurn;

/// Answers what is asked of the store's sealed turns as the [`Store`](super::Store) does, on the thread that it was
/// started on: for those who are on the same thread there is no other thread to wait for.
///
/// A clone reads the same store and can be started on another thread.
#[derive(Clone)]
pub struct StoreReader {
    engine: Arc<dyn Engine>,
}

impl StoreReader {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }
}

impl Actor for StoreReader {
    type Context = Context<Self>;
}

impl Handler<ListTurns> for StoreReader {
    type Result = Response<Result<Vec<StoredTurn>, Fault>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.turns(range))
    }
}

impl Handler<ListSealed> for StoreReader {
    type Result = Response<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.sealed_turns(after, limit))
    }
}

impl Handler<ListConversations> for StoreReader {
    type Result = Response<Result<Vec<ActiveConversation>, Fault>>;

    fn handle(&mut self, ListConversations { after, limit }: ListConversations, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.conversations(after, limit))
    }
}

impl Handler<FindRevision> for StoreReader {
    type Result = Response<Result<Revision, Fault>>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.revision(find.conversation_id))
    }
}

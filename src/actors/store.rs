//! The store's actor: the only owner of the database.

use std::fs::File;

use actix::{Actor, Context, Handler, ResponseActFuture, ResponseFuture};
use tokio::task::spawn_blocking;

use super::messages::never;
use super::{AwaitEnd, BackUp, CheckWrite, Close, FindRevision, ListStaleTurns, ListTurns, OpenConversation};
use crate::store::{
    BackupError, Commit, CommitError, Committed, ConversationState, Engine, ReadError, Revision, StaleTurn,
};
use crate::turn::StoredTurn;

/// Answers for the redb engine. It never blocks its own thread: commits go to the engine's writer, reads to the pool
/// of blocking threads, so that a read never waits for an fsync.
pub struct Store {
    engine: Engine,
}

impl Store {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine) -> Result<T, ReadError> + Send + 'static,
    ) -> ResponseFuture<Result<T, ReadError>> {
        let engine = self.engine.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || read(&engine)).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string())))
        })
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Commit> for Store {
    type Result = ResponseFuture<Result<Committed, CommitError>>;

    fn handle(&mut self, commit: Commit, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.engine.commit(commit))
    }
}

impl Handler<OpenConversation> for Store {
    type Result = ResponseFuture<Result<ConversationState, ReadError>>;

    fn handle(&mut self, open: OpenConversation, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.conversation_state(&open.conversation_id, &open.turn_ids))
    }
}

impl Handler<ListTurns> for Store {
    type Result = ResponseFuture<Result<Vec<StoredTurn>, ReadError>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.turns(&range))
    }
}

impl Handler<FindRevision> for Store {
    type Result = ResponseFuture<Result<Revision, ReadError>>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.revision(&find.conversation_id))
    }
}

impl Handler<ListStaleTurns> for Store {
    type Result = ResponseFuture<Result<Vec<StaleTurn>, ReadError>>;

    fn handle(&mut self, list: ListStaleTurns, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.stale_turns(list.idle_since, list.limit))
    }
}

impl Handler<CheckWrite> for Store {
    type Result = ResponseFuture<Result<(), CommitError>>;

    fn handle(&mut self, _: CheckWrite, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.engine.check_write())
    }
}

impl Handler<BackUp> for Store {
    type Result = ResponseFuture<Result<File, BackupError>>;

    fn handle(&mut self, _: BackUp, _: &mut Self::Context) -> Self::Result {
        let engine = self.engine.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || engine.back_up()).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string()).into()))
        })
    }
}

impl Handler<Close> for Store {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.engine.close())
    }
}

impl Handler<AwaitEnd> for Store {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: AwaitEnd, _: &mut Self::Context) -> Self::Result {
        never()
    }
}

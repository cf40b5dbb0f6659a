//! The store's actor: the only owner of the database.

use std::cell::Cell;
use std::rc::Rc;

use actix::{Actor, Context, Handler, MessageResult, Response, ResponseActFuture, ResponseFuture};
use tokio::task::spawn_blocking;

use super::messages::never;
use super::{
    AwaitEnd, BackUp, CheckWrite, Close, FindRevision, InspectStore, ListConversations, ListSealed, ListStaleTurns,
    ListTurns, OpenConversation, StoreReport, Tick,
};
use crate::settings::StoreSettings;
use crate::store::{
    ActiveConversation, Backup, BackupError, Commit, CommitError, Committed, ConversationState, ListSealedError,
    Location, OpenError, ReadError, RedbEngine, Revision, SealedPage, StaleTurn,
};
use crate::turn::{RunningTime, StoredTurn};

/// The most turns that are looked up at once on the actors' thread: some ten microseconds, as long as it takes to hand
/// the work to another thread.
const INLINE_TURN_IDS: usize = 32;

/// Answers for the redb engine. Commits go to the engine's writer, and reads never wait for an fsync: what a conversation
/// starts from is little and read at once, everything else on the pool of blocking threads.
pub struct Store {
    engine: RedbEngine,
    /// What became of the commits so far. Shared with those that are being waited for.
    report: Rc<Cell<StoreReport>>,
}

impl Store {
    /// Opens the store alone, not started yet: for a program that brings conversation actors of its own. A runtime has
    /// one already.
    ///
    /// Reads the disk, so it blocks the thread. [`Close`] ends it in order.
    ///
    /// ```
    /// use actix::Actor;
    /// use turn_metrics::actors::{Close, OpenConversation, Store};
    /// use turn_metrics::settings::StoreSettings;
    /// use turn_metrics::store::{Location, Version};
    /// use turn_metrics::turn::ConversationId;
    ///
    /// # actix::System::new().block_on(async {
    /// let store = Store::open(Location::Memory, &StoreSettings::default())?.start();
    /// let open = OpenConversation { conversation_id: ConversationId::new("c")?, turn_ids: Vec::new() };
    /// assert_eq!(store.send(open).await??.version, Version(0));
    /// store.send(Close).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn open(location: Location, settings: &StoreSettings) -> Result<Self, OpenError> {
        Ok(Self::new(RedbEngine::open(location, settings)?))
    }

    pub(crate) fn new(engine: RedbEngine) -> Self {
        Self { engine, report: Rc::default() }
    }

    fn read<T: Send + 'static, E: From<ReadError> + Send + 'static>(
        &self,
        read: impl FnOnce(&RedbEngine) -> Result<T, E> + Send + 'static,
    ) -> ResponseFuture<Result<T, E>> {
        let engine = self.engine.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || read(&engine)).await;
            done.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string()).into()))
        })
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Commit> for Store {
    type Result = ResponseFuture<Result<Committed, CommitError>>;

    fn handle(&mut self, commit: Commit, _: &mut Self::Context) -> Self::Result {
        let waiting = Waiting::new(&self.report);
        let committing = self.engine.commit(commit);
        Box::pin(async move {
            let result = committing.await;
            waiting.count(&result);
            result
        })
    }
}

impl Handler<OpenConversation> for Store {
    type Result = Response<Result<ConversationState, ReadError>>;

    fn handle(&mut self, open: OpenConversation, _: &mut Self::Context) -> Self::Result {
        let OpenConversation { conversation_id, turn_ids } = open;
        if turn_ids.len() <= INLINE_TURN_IDS {
            return Response::reply(self.engine.conversation_state(&conversation_id, &turn_ids));
        }
        Response::fut(self.read(move |engine| engine.conversation_state(&conversation_id, &turn_ids)))
    }
}

impl Handler<ListTurns> for Store {
    type Result = ResponseFuture<Result<Vec<StoredTurn>, ReadError>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.turns(&range))
    }
}

impl Handler<ListSealed> for Store {
    type Result = ResponseFuture<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, list: ListSealed, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.sealed_turns(list.after, list.limit))
    }
}

impl Handler<ListConversations> for Store {
    type Result = ResponseFuture<Result<Vec<ActiveConversation>, ReadError>>;

    fn handle(&mut self, list: ListConversations, _: &mut Self::Context) -> Self::Result {
        self.read(move |engine| engine.conversations(list.after.as_ref(), list.limit))
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
        self.read(move |engine| engine.stale_turns(list.before, list.after.as_ref(), list.limit))
    }
}

impl Handler<CheckWrite> for Store {
    type Result = ResponseFuture<Result<(), CommitError>>;

    fn handle(&mut self, _: CheckWrite, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.engine.check_write())
    }
}

impl Handler<Tick> for Store {
    type Result = ResponseFuture<Result<RunningTime, CommitError>>;

    fn handle(&mut self, Tick { elapsed }: Tick, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.engine.tick(elapsed))
    }
}

impl Handler<BackUp> for Store {
    type Result = ResponseFuture<Result<Backup, BackupError>>;

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

impl Handler<InspectStore> for Store {
    type Result = MessageResult<InspectStore>;

    fn handle(&mut self, _: InspectStore, _: &mut Self::Context) -> Self::Result {
        MessageResult(StoreReport { sizes: self.engine.sizes(), ..self.report.get() })
    }
}

/// Stands for one commit that is not answered yet.
struct Waiting(Rc<Cell<StoreReport>>);

impl Waiting {
    fn new(report: &Rc<Cell<StoreReport>>) -> Self {
        let waiting = Self(Rc::clone(report));
        waiting.change(|report| report.waiting_commits += 1);
        waiting
    }

    fn change(&self, change: impl FnOnce(&mut StoreReport)) {
        let mut report = self.0.get();
        change(&mut report);
        self.0.set(report);
    }

    fn count(&self, result: &Result<Committed, CommitError>) {
        self.change(|report| match result {
            Ok(_) => report.commits += 1,
            Err(CommitError::Conflict { .. }) => report.conflicts += 1,
            Err(CommitError::Overloaded) => report.refused_commits += 1,
            Err(CommitError::Unavailable(_)) => report.failed_commits += 1,
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.change(|report| report.waiting_commits -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{TurnRange, Version};
    use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, TurnId};

    #[actix_rt::test]
    async fn a_store_opened_alone_keeps_what_it_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(Location::Directory(directory.path().into()), &StoreSettings::default());
        let conversation_id = ConversationId::new("c").unwrap();

        let store = open().unwrap().start();
        let sealed = OpenTurn::new(TurnId::new("t").unwrap()).seal(&Done::because("stop"), EpochMillis::new(1));
        let commit = Commit {
            conversation_id: conversation_id.clone(),
            expected_version: Version(0),
            staged: vec![],
            sealed: vec![sealed],
        };
        store.send(commit).await.unwrap().unwrap();
        assert!(matches!(open(), Err(OpenError::InUse { .. })), "two stores had one file");
        store.send(Close).await.unwrap();

        let store = open().unwrap().start();
        let all = TurnRange { conversation_id, after: 0, limit: 10 };
        let turns = store.send(ListTurns(all)).await.unwrap().unwrap();
        assert_eq!(turns.iter().map(|turn| turn.metrics.turn_id.as_str()).collect::<Vec<_>>(), ["t"]);
        store.send(Close).await.unwrap();
    }
}

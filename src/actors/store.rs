//! The store's actor: what the other actors know of the store.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult, Response, ResponseActFuture};

use super::messages::never;
use super::{
    AwaitEnd, BackUp, CheckWrite, Close, FindRevision, InspectStore, ListConversations, ListSealed, ListStaleTurns,
    ListTurns, OpenConversation, StoreReport, Tick,
};
use crate::settings::StoreSettings;
use crate::store::{
    ActiveConversation, Answer, Backup, BackupError, Commit, CommitError, Committed, ConversationState, Engine, Fault,
    ListSealedError, Location, OpenError, RedbEngine, Revision, SealedPage, StaleTurn,
};
use crate::turn::{RunningTime, StoredTurn};

/// Answers for an engine, and counts what became of the commits. Reads never wait for an fsync.
pub struct Store {
    engine: Arc<dyn Engine>,
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
        Ok(Self::new(Arc::new(RedbEngine::open(location, settings)?)))
    }

    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, report: Rc::default() }
    }
}

/// The engine's answer as an actor gives it.
pub(super) fn respond<T: 'static>(answer: Answer<T>) -> Response<T> {
    match answer {
        Answer::Now(answer) => Response::reply(answer),
        Answer::Later(answer) => Response::fut(answer),
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Arc<Commit>> for Store {
    type Result = Response<Result<Committed, CommitError>>;

    fn handle(&mut self, commit: Arc<Commit>, _: &mut Self::Context) -> Self::Result {
        let waiting = Waiting::new(&self.report);
        match self.engine.commit(commit) {
            Answer::Now(result) => {
                waiting.count(&result);
                Response::reply(result)
            }
            Answer::Later(committing) => Response::fut(async move {
                let result = committing.await;
                waiting.count(&result);
                result
            }),
        }
    }
}

impl Handler<OpenConversation> for Store {
    type Result = Response<Result<ConversationState, Fault>>;

    fn handle(&mut self, open: OpenConversation, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.open(open.conversation_id, open.turn_ids))
    }
}

impl Handler<ListTurns> for Store {
    type Result = Response<Result<Vec<StoredTurn>, Fault>>;

    fn handle(&mut self, ListTurns(range): ListTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.turns(range))
    }
}

impl Handler<ListSealed> for Store {
    type Result = Response<Result<SealedPage, ListSealedError>>;

    fn handle(&mut self, ListSealed { after, limit }: ListSealed, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.sealed_turns(after, limit))
    }
}

impl Handler<ListConversations> for Store {
    type Result = Response<Result<Vec<ActiveConversation>, Fault>>;

    fn handle(&mut self, ListConversations { after, limit }: ListConversations, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.conversations(after, limit))
    }
}

impl Handler<FindRevision> for Store {
    type Result = Response<Result<Revision, Fault>>;

    fn handle(&mut self, find: FindRevision, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.revision(find.conversation_id))
    }
}

impl Handler<ListStaleTurns> for Store {
    type Result = Response<Result<Vec<StaleTurn>, Fault>>;

    fn handle(&mut self, list: ListStaleTurns, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.stale_turns(list.before, list.after, list.limit))
    }
}

impl Handler<CheckWrite> for Store {
    type Result = Response<Result<(), CommitError>>;

    fn handle(&mut self, _: CheckWrite, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.check_write())
    }
}

impl Handler<Tick> for Store {
    type Result = Response<Result<RunningTime, CommitError>>;

    fn handle(&mut self, Tick { elapsed }: Tick, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.tick(elapsed))
    }
}

impl Handler<BackUp> for Store {
    type Result = Response<Result<Backup, BackupError>>;

    fn handle(&mut self, _: BackUp, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.back_up())
    }
}

impl Handler<Close> for Store {
    type Result = Response<()>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        respond(self.engine.close())
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
        store.send(Arc::new(commit)).await.unwrap().unwrap();
        assert!(matches!(open(), Err(OpenError::InUse { .. })), "two stores had one file");
        store.send(Close).await.unwrap();

        let store = open().unwrap().start();
        let all = TurnRange { conversation_id, after: 0, limit: 10 };
        let turns = store.send(ListTurns(all)).await.unwrap().unwrap();
        assert_eq!(turns.iter().map(|turn| turn.metrics.turn_id.as_str()).collect::<Vec<_>>(), ["t"]);
        store.send(Close).await.unwrap();
    }
}

//! The embedded engine passes the conformance suite, wherever its files are and whichever of them holds a turn.

use std::sync::Arc;

use tempfile::TempDir;

use super::checkpoint::Checkpoint;
use super::engine::RedbEngine;
use super::writer::backoff::Backoff;
use crate::settings::StoreSettings;
use crate::store::conformance::{self, StoreUnderTest};
use crate::store::*;
use crate::turn::{ConversationId, StoredTurn, TurnId};

impl StoreUnderTest for RedbEngine {
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Committed, CommitError>> + 'static {
        RedbEngine::commit(self, commit)
    }

    async fn open(&self, id: &ConversationId, turn_ids: &[TurnId]) -> ConversationState {
        self.conversation_state(id, turn_ids).unwrap()
    }

    async fn turns(&self, range: &TurnRange) -> Vec<StoredTurn> {
        RedbEngine::turns(self, range).unwrap()
    }

    async fn stale_turns(&self, before: StaleBefore, after: Option<&StaleTurn>, limit: usize) -> Vec<StaleTurn> {
        RedbEngine::stale_turns(self, before, after, limit).unwrap()
    }

    async fn sealed(&self, after: Option<Position>, limit: usize) -> Result<SealedPage, ListSealedError> {
        self.sealed_turns(after, limit)
    }

    async fn conversations(&self, after: Option<&ActivityPlace>, limit: usize) -> Vec<ActiveConversation> {
        RedbEngine::conversations(self, after, limit).unwrap()
    }

    async fn revision(&self, id: &ConversationId) -> Revision {
        RedbEngine::revision(self, id).unwrap()
    }
}

mod on_disk {
    use super::*;

    async fn open() -> (RedbEngine, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        (RedbEngine::open(location, &StoreSettings::default()).unwrap(), directory)
    }

    conformance::conformance!(open);
}

mod in_memory {
    use super::*;

    async fn open() -> (RedbEngine, ()) {
        (RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap(), ())
    }

    conformance::conformance!(open);
}

/// Reads find nothing in the memtable: everything has been moved into the tables before each.
mod in_the_tables {
    use super::*;

    #[derive(Clone)]
    struct Moved {
        engine: RedbEngine,
        checkpoint: Arc<Checkpoint>,
    }

    impl Moved {
        fn engine(&self) -> &RedbEngine {
            while self.engine.sizes().recent_bytes > 0 {
                self.checkpoint.step().unwrap();
            }
            &self.engine
        }
    }

    impl StoreUnderTest for Moved {
        fn commit(&self, commit: Commit) -> impl Future<Output = Result<Committed, CommitError>> + 'static {
            self.engine.commit(commit)
        }

        async fn open(&self, id: &ConversationId, turn_ids: &[TurnId]) -> ConversationState {
            StoreUnderTest::open(self.engine(), id, turn_ids).await
        }

        async fn turns(&self, range: &TurnRange) -> Vec<StoredTurn> {
            StoreUnderTest::turns(self.engine(), range).await
        }

        async fn stale_turns(&self, before: StaleBefore, after: Option<&StaleTurn>, limit: usize) -> Vec<StaleTurn> {
            StoreUnderTest::stale_turns(self.engine(), before, after, limit).await
        }

        async fn sealed(&self, after: Option<Position>, limit: usize) -> Result<SealedPage, ListSealedError> {
            StoreUnderTest::sealed(self.engine(), after, limit).await
        }

        async fn conversations(&self, after: Option<&ActivityPlace>, limit: usize) -> Vec<ActiveConversation> {
            StoreUnderTest::conversations(self.engine(), after, limit).await
        }

        async fn revision(&self, id: &ConversationId) -> Revision {
            StoreUnderTest::revision(self.engine(), id).await
        }
    }

    async fn open() -> (Moved, ()) {
        let prepared = RedbEngine::prepare(Location::Memory, &StoreSettings::default(), Backoff::default());
        let (engine, mut writer) = prepared.unwrap();
        writer.checkpoint_by_hand();
        let checkpoint = Arc::clone(writer.checkpoint());
        std::thread::spawn(move || writer.run());
        (Moved { engine, checkpoint }, ())
    }

    conformance::conformance!(open);
}

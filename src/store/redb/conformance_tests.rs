//! The engine on redb passes the conformance suite: on a disk, in memory, and with all turns moved into the tables.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;

use super::checkpoint::Checkpoint;
use super::engine::RedbEngine;
use super::writer::backoff::Backoff;
use crate::settings::StoreSettings;
use crate::store::conformance::{self, StoreUnderTest, test_prices};
use crate::store::*;
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

mod on_disk {
    use super::*;

    async fn open() -> (StoreUnderTest, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        (
            StoreUnderTest::new(RedbEngine::open_pricing(location, &StoreSettings::default(), test_prices()).unwrap()),
            directory,
        )
    }

    conformance::conformance!(open);
}

mod in_memory {
    use super::*;

    async fn open() -> (StoreUnderTest, ()) {
        let opened = RedbEngine::open_pricing(Location::Memory, &StoreSettings::default(), test_prices());
        (StoreUnderTest::new(opened.unwrap()), ())
    }

    conformance::conformance!(open);
}

/// A store that moves its memtable into the tables before each read, so that reads find everything in the tables, and
/// removes all rows of erased conversations.
mod in_the_tables {
    use super::*;

    struct Moved {
        engine: RedbEngine,
        checkpoint: Arc<Checkpoint>,
    }

    impl Moved {
        fn moved(&self) -> &dyn Engine {
            while self.engine.sizes().recent_bytes > 0 {
                self.checkpoint.flush().unwrap();
            }
            self.checkpoint.erase_all().unwrap();
            &self.engine
        }
    }

    impl Engine for Moved {
        fn commit(&self, commit: Arc<Commit>) -> Answer<Result<Committed, CommitError>> {
            Engine::commit(&self.engine, commit)
        }

        fn commit_series(&self, series: Arc<CommitSeries>) -> Answer<CommittedSeries> {
            Engine::commit_series(&self.engine, series)
        }

        fn erase(&self, id: ConversationId) -> Answer<Result<bool, CommitError>> {
            Engine::erase(&self.engine, id)
        }

        fn drop_turns(&self, question: DropTurns) -> Answer<Result<DroppedTurns, DropError>> {
            Engine::drop_turns(&self.engine, question)
        }

        fn open(&self, id: ConversationId, turn_ids: Vec<TurnId>) -> Answer<Result<ConversationState, Fault>> {
            self.moved().open(id, turn_ids)
        }

        fn open_turns(&self, id: ConversationId) -> Answer<Result<OpenTurns, Fault>> {
            self.moved().open_turns(id)
        }

        fn turns(&self, range: TurnRange) -> Answer<Result<Vec<StoredTurn>, Fault>> {
            self.moved().turns(range)
        }

        fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Answer<Result<SealedPage, ListSealedError>> {
            self.moved().sealed_turns(after, limit)
        }

        fn begin_export(&self) -> Answer<Result<ExportHold, Fault>> {
            self.moved().begin_export()
        }

        fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> Answer<Result<ErasedSumsPage, Fault>> {
            self.moved().erased_sums(after, limit)
        }

        fn take_erased_sums(&self, sums: Vec<ErasedSums>) -> Answer<Result<u64, CommitError>> {
            Engine::take_erased_sums(&self.engine, sums)
        }

        fn conversations(&self, question: ConversationQuestion) -> Answer<Result<Vec<ListedConversation>, Fault>> {
            self.moved().conversations(question)
        }

        fn report(&self, question: ReportQuestion) -> Answer<Result<Report, ReportError>> {
            self.moved().report(question)
        }

        fn revision(&self, id: ConversationId) -> Answer<Result<Revision, Fault>> {
            self.moved().revision(id)
        }

        fn stale_turns(
            &self,
            before: StaleBefore,
            after: Option<StaleTurn>,
            limit: usize,
        ) -> Answer<Result<Vec<StaleTurn>, Fault>> {
            self.moved().stale_turns(before, after, limit)
        }

        fn check_write(&self) -> Answer<Result<(), CommitError>> {
            Engine::check_write(&self.engine)
        }

        fn tick(&self, elapsed: Duration) -> Answer<Result<RunningTime, CommitError>> {
            Engine::tick(&self.engine, elapsed)
        }

        fn running_time(&self) -> RunningTime {
            self.engine.running_time()
        }

        fn back_up(&self) -> Answer<Result<Backup, BackupError>> {
            self.moved().back_up()
        }

        fn sizes(&self) -> StoreSizes {
            self.engine.sizes()
        }

        fn repricing(&self) -> Option<RepricingProgress> {
            self.engine.repricing()
        }

        fn damage(&self) -> DamageReport {
            self.engine.damage()
        }

        fn scrub(&self) -> Answer<Result<DamageReport, Fault>> {
            Engine::scrub(&self.engine)
        }

        fn health(&self) -> watch::Receiver<Health> {
            self.engine.health()
        }

        fn close(&self) -> Answer<()> {
            Engine::close(&self.engine)
        }
    }

    async fn open() -> (StoreUnderTest, ()) {
        let (settings, backoff) = (StoreSettings::default(), Backoff::default());
        let prepared = RedbEngine::prepare_pricing(Location::Memory, &settings, backoff, test_prices());
        let (engine, mut writer) = prepared.unwrap();
        writer.checkpoint_by_hand();
        let checkpoint = Arc::clone(writer.checkpoint());
        std::thread::spawn(move || writer.run());
        (StoreUnderTest::new(Moved { engine, checkpoint }), ())
    }

    conformance::conformance!(open);
}

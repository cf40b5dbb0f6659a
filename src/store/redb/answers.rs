//! Where this engine does its work: commits on the writer's thread, short reads on the caller's thread, long reads on
//! threads for long reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::engine::RedbEngine;
use crate::store::contract::{
    Backup, BackupError, Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationQuestion,
    ConversationState, DamageReport, DropError, DropTurns, DroppedTurns, ExportHold, Health, ListSealedError,
    ListedConversation, OpenTurns, Report, ReportError, ReportQuestion, RepricingProgress, Revision, SealedPage,
    StaleBefore, StaleTurn, StoreSizes, TurnRange,
};
use crate::store::engine::{Answer, Engine};
use crate::store::erased_sums::{ErasedSums, ErasedSumsId, ErasedSumsPage};
use crate::store::fault::Fault;
use crate::store::position::Position;
use crate::turn::{ConversationId, RunningTime, StoredTurn, TurnId};

/// The maximum number of turn ids that are looked up on the caller's thread. So many take some ten microseconds, which
/// is as long as handing the work to another thread takes.
const INLINE_TURN_IDS: usize = 32;

/// The maximum number of turns that are read on the caller's thread. So many take a tenth of a millisecond, during
/// which the thread's other work waits. Handing the work to another thread and back takes half as long.
const INLINE_TURNS: u64 = 128;

/// The maximum number of conversations in a short list. A list of so many takes a millisecond.
const SHORT_LIST: usize = 128;

impl RedbEngine {
    /// Runs a read on a thread for long reads.
    fn later<T: Send + 'static, E: From<Fault> + Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Answer<Result<T, E>> {
        Answer::later(self.read_elsewhere(read))
    }

    /// Returns whether the range has few turns, because of its limit or because few are stored after its beginning.
    fn is_short(&self, range: &TurnRange) -> bool {
        let few = |turns: u64| turns <= INLINE_TURNS;
        let there = || self.revision(&range.conversation_id).map(|revision| revision.sealed_turns);
        let of = |turns: u64, (first, last): (u64, u64)| turns.min(last).saturating_sub(first - 1);
        let count = |turns| range.ordinals().map_or(0, |ordinals| of(turns, ordinals));
        few(range.limit as u64) || there().is_ok_and(|turns| few(count(turns)))
    }

    /// Returns whether the page has few turns, because of its limit or because few are stored after its beginning. A
    /// reader that follows the order is nearly always at the end of the order.
    fn is_short_page(&self, after: Option<Position>, limit: usize) -> bool {
        let few = |turns: u64| turns <= INLINE_TURNS;
        let left = |page: SealedPage| page.latest.number - page.next.number;
        few(limit as u64) || self.sealed_turns(after, 0).map(left).is_ok_and(few)
    }
}

// Each method calls the method of `RedbEngine` that has the same name. Without such a method, the call would go to the
// method of the trait, which would call itself.
#[deny(unconditional_recursion)]
impl Engine for RedbEngine {
    fn commit(&self, commit: Arc<Commit>) -> Answer<Result<Committed, CommitError>> {
        Answer::later(self.commit(commit))
    }

    fn commit_series(&self, series: Arc<CommitSeries>) -> Answer<CommittedSeries> {
        Answer::later(self.commit_series(series))
    }

    fn erase(&self, id: ConversationId) -> Answer<Result<bool, CommitError>> {
        Answer::later(self.erase(id))
    }

    fn drop_turns(&self, question: DropTurns) -> Answer<Result<DroppedTurns, DropError>> {
        Answer::later(self.drop_turns(question))
    }

    fn open(&self, id: ConversationId, turn_ids: Vec<TurnId>) -> Answer<Result<ConversationState, Fault>> {
        if turn_ids.len() <= INLINE_TURN_IDS {
            return Answer::Now(self.conversation_state(&id, &turn_ids));
        }
        self.later(move |engine| engine.conversation_state(&id, &turn_ids))
    }

    /// Never runs on the caller's thread, because open turns may have thousands of steps.
    fn open_turns(&self, id: ConversationId) -> Answer<Result<OpenTurns, Fault>> {
        self.later(move |engine| engine.open_turns(&id))
    }

    /// A list ends before a long turn, and a long turn is a list of its own: decoding its steps takes milliseconds, so
    /// that never runs on the caller's thread.
    fn turns(&self, range: TurnRange) -> Answer<Result<Vec<StoredTurn>, Fault>> {
        if self.is_short(&range)
            && let Some(turns) = self.short_turns(&range).transpose()
        {
            return Answer::Now(turns);
        }
        Answer::later(self.long_read(move |engine| engine.turns(&range)))
    }

    /// Like [`turns`](Self::turns): a page ends before a long turn, and a long turn is a page of its own.
    fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Answer<Result<SealedPage, ListSealedError>> {
        if !self.is_short_page(after, limit) {
            return Answer::later(self.long_read(move |engine| engine.sealed_turns(after, limit)));
        }
        match self.short_sealed_turns(after, limit).transpose() {
            Some(page) => Answer::Now(page),
            None => Answer::later(self.long_read(move |engine| engine.sealed_turns(after, 1))),
        }
    }

    fn begin_export(&self) -> Answer<Result<ExportHold, Fault>> {
        Answer::later(self.begin_export())
    }

    fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> Answer<Result<ErasedSumsPage, Fault>> {
        self.later(move |engine| engine.erased_sums(after, limit))
    }

    fn take_erased_sums(&self, sums: Vec<ErasedSums>) -> Answer<Result<u64, CommitError>> {
        Answer::later(self.take_erased_sums(sums))
    }

    /// Never runs on the caller's thread, because it reads all conversations of the memtable. For some questions it
    /// reads all conversations of the store.
    fn conversations(&self, question: ConversationQuestion) -> Answer<Result<Vec<ListedConversation>, Fault>> {
        if question.finds_by_index() && question.limit <= SHORT_LIST {
            return Answer::later(self.list_elsewhere(move |engine| engine.conversations(&question)));
        }
        if question.finds_by_index() {
            return self.later(move |engine| engine.conversations(&question));
        }
        Answer::later(self.read_all_elsewhere(move |engine| engine.conversations(&question)))
    }

    /// Never runs on the caller's thread, because it may count many turns of the memtable and read many rows.
    fn report(&self, question: ReportQuestion) -> Answer<Result<Report, ReportError>> {
        Answer::later(self.read_all_elsewhere(move |engine| engine.report(&question)))
    }

    fn revision(&self, id: ConversationId) -> Answer<Result<Revision, Fault>> {
        Answer::Now(self.revision(&id))
    }

    fn stale_turns(
        &self,
        before: StaleBefore,
        after: Option<StaleTurn>,
        limit: usize,
    ) -> Answer<Result<Vec<StaleTurn>, Fault>> {
        self.later(move |engine| engine.stale_turns(before, after.as_ref(), limit))
    }

    fn check_write(&self) -> Answer<Result<(), CommitError>> {
        Answer::later(self.check_write())
    }

    fn tick(&self, elapsed: Duration) -> Answer<Result<RunningTime, CommitError>> {
        Answer::later(self.tick(elapsed))
    }

    fn running_time(&self) -> RunningTime {
        self.running_time()
    }

    fn back_up(&self) -> Answer<Result<Backup, BackupError>> {
        Answer::later(self.back_up_elsewhere())
    }

    fn sizes(&self) -> StoreSizes {
        self.sizes()
    }

    fn repricing(&self) -> Option<RepricingProgress> {
        self.repricing()
    }

    fn damage(&self) -> DamageReport {
        self.damage()
    }

    fn scrub(&self) -> Answer<Result<DamageReport, Fault>> {
        Answer::later(self.scrub_elsewhere())
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health()
    }

    fn close(&self) -> Answer<()> {
        Answer::later(self.close())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::StoreSettings;
    use crate::store::{Location, Version};
    use crate::turn::{Done, EpochMillis, OpenTurn, Progress, StepId, StepTimes};

    fn is_now<T>(answer: &Answer<T>) -> bool {
        matches!(answer, Answer::Now(_))
    }

    #[tokio::test]
    async fn short_reads_run_on_the_callers_thread_and_long_reads_on_another() {
        let engine = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
        let engine: &dyn Engine = &engine;
        let id = || ConversationId::new("c").unwrap();
        let turn_id = |nth: usize| TurnId::new(format!("t{nth}")).unwrap();
        let most = usize::try_from(INLINE_TURNS).unwrap();
        let seal = |nth| OpenTurn::new(turn_id(nth)).seal(&Done::because("stop"), EpochMillis::new(1));
        let (staged, sealed) = (Vec::new(), (0..=most).map(seal).collect());
        let commit =
            Commit { conversation_id: id(), expected_version: Version(0), staged, sealed, imported_from: None };
        engine.commit(commit.into()).get().await.unwrap();

        for (after, limit, now, turns) in [
            (0, most, true, most),
            (0, most + 1, false, most + 1),
            (1, usize::MAX, true, most),
            (0, usize::MAX, false, most + 1),
        ] {
            let answer = engine.turns(TurnRange::after(id(), after, limit));
            assert_eq!(is_now(&answer), now, "after {after}, at most {limit}");
            assert_eq!(answer.get().await.unwrap().len(), turns);
        }
        for (count, now) in [(0, true), (INLINE_TURN_IDS, true), (INLINE_TURN_IDS + 1, false)] {
            let answer = engine.open(id(), (0..count).map(turn_id).collect());
            assert_eq!(is_now(&answer), now, "{count} turns");
            assert_eq!(answer.get().await.unwrap().sealed_turns.len(), count);
        }
        assert!(is_now(&engine.revision(id())));
        engine.close().get().await;
    }

    #[tokio::test]
    async fn a_long_turn_is_never_decoded_on_the_callers_thread() {
        let redb = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
        let engine: &dyn Engine = &redb;
        let id = || ConversationId::new("c").unwrap();
        let seal = |nth: u64| {
            let mut turn = OpenTurn::new(TurnId::new(format!("t{nth}")).unwrap());
            // The second of three turns is long.
            for step in 0..if nth == 2 { 4096 } else { 1 } {
                let step_id = StepId::new(format!("step-{step}")).unwrap();
                turn.fold(&Progress::StepComplete {
                    step_id,
                    times: StepTimes::default(),
                    model: None,
                    provider: None,
                });
            }
            turn.seal(&Done::because("stop"), EpochMillis::new(1))
        };
        let (staged, sealed) = (Vec::new(), (1..=3).map(seal).collect());
        let commit =
            Commit { conversation_id: id(), expected_version: Version(0), staged, sealed, imported_from: None };
        engine.commit(commit.into()).get().await.unwrap();
        let latest = |before| TurnRange { before: Some(before), ..TurnRange::latest(id(), 9) };
        for (range, now, ordinals) in [
            (TurnRange::after(id(), 0, 9), true, vec![1]),
            (TurnRange::after(id(), 1, 9), false, vec![2]),
            (TurnRange::after(id(), 2, 9), true, vec![3]),
            (latest(4), true, vec![3]),
            (latest(3), false, vec![2]),
            (latest(2), true, vec![1]),
        ] {
            let answer = engine.turns(range.clone());
            assert_eq!(is_now(&answer), now, "{range:?}");
            let turns = answer.get().await.unwrap();
            assert_eq!(turns.iter().map(|turn| turn.ordinal.get()).collect::<Vec<_>>(), ordinals, "{range:?}");
        }
        // While others read long turns, a long turn has to wait, and a short one has not.
        let permits = redb.long_reads().acquire_many(2).await.unwrap();
        let mut long = Box::pin(engine.turns(TurnRange::after(id(), 1, 9)).get());
        for _ in 0..9 {
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                turns = &mut long => panic!("{turns:?}"),
                () = std::future::ready(()) => {}
            }
        }
        assert!(is_now(&engine.turns(TurnRange::after(id(), 2, 9))));
        drop(permits);
        assert_eq!(long.await.unwrap().len(), 1);
        // So it is with a page of the order.
        let mut after = None;
        for now in [true, false, true] {
            let answer = engine.sealed_turns(after, 9);
            assert_eq!(is_now(&answer), now, "after {after:?}");
            let page = answer.get().await.unwrap();
            assert_eq!(page.turns.len(), 1, "after {after:?}");
            after = Some(page.next);
        }
        assert!(engine.sealed_turns(after, 9).get().await.unwrap().turns.is_empty());
        engine.close().get().await;
    }
}

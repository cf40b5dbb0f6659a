use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::Probe;
use crate::actors::{
    BuildReport, EraseConversation, FindRevision, ListConversations, ListOpenTurns, ListSealed, ListStaleTurns,
    ListTurns, OpenConversation, StoreRecipients,
};
use crate::report::{
    Breakdown, BreakdownRow, ConversationSums, Cost, NoPrices, Quarter, Rollup, RollupLabel, SharedPriceBook,
    report_time,
};
use crate::store::rule::{Conflict, ConversationHead, decide};
use crate::store::{
    Commit, CommitError, CommitSeries, Committed, CommittedSeries, ConversationQuestion, ConversationState, ErasedSums,
    ErasedSumsId, ErasedSumsPage, ExportHold, Life, Lineage, ListSealedError, ListedConversation, OpenTurns, Position,
    PositionedTurn, RangeEnd, Report, ReportError, ReportQuestion, Revision, SealedPage, StagedTurn, StaleTurn,
    TurnRange,
};
use crate::turn::{ConversationId, EpochMillis, Ordinal, SealedTurn, StoredTurn, TurnId, Usage};

/// A simple store that keeps every promise of a store, but only in memory. Clones share one store.
///
/// Its functions are synchronous: when one of them returns, its work is done. So a test's own probe can fail before the
/// work, by answering with an error and not calling the function, or after the work, by calling the function and then
/// answering with an error. The store's probes use these functions to answer.
///
/// ```
/// use std::sync::Arc;
/// use actix::Actor;
/// use turn_metrics::actors::Directory;
/// use turn_metrics::settings::TurnSettings;
/// use turn_metrics::testing::{MemoryStore, TestClock, TurnScript};
///
/// # actix::System::new().block_on(async {
/// let store = MemoryStore::default();
/// let clock = Arc::new(TestClock::at(1000));
/// let directory = Directory::new(store.recipients(), clock, TurnSettings::default()).start();
/// directory.send(TurnScript::new("c", "t").usage(0, 900, 120).done("stop").observe()).await??;
/// assert_eq!(store.all_turns("c")[0].metrics.usage.input_tokens.get(), 900);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct MemoryStore {
    lineage: Lineage,
    book: SharedPriceBook,
    state: Arc<Mutex<State>>,
}

/// A new store that holds nothing.
impl Default for MemoryStore {
    fn default() -> Self {
        Self { lineage: Lineage(Uuid::new_v4()), book: Arc::new(NoPrices), state: Arc::default() }
    }
}

/// All conversations.
#[derive(Debug, Default)]
struct State {
    conversations: BTreeMap<ConversationId, StoredConversation>,
    /// For each position from 1 on, the conversation and the ordinal of its turn. `None` if the turn was erased.
    order: Vec<Option<(ConversationId, Ordinal)>>,
    /// The erased turns, which still count in reports.
    erased: Vec<StoredTurn>,
    /// The labels of erased sums that were listed. The number of a label is its place.
    labels: Vec<RollupLabel>,
    /// The sums of erased turns that were taken in from other stores.
    taken: HashMap<ErasedSumsId, ErasedSums>,
    /// Shared with each export that is being sent.
    exports: Arc<()>,
}

impl State {
    fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitError> {
        let Self { conversations, order, .. } = self;
        let kept = conversations.entry(commit.conversation_id.clone()).or_insert_with(StoredConversation::begin);
        let sealed: Vec<_> = commit.turn_ids().map(|id| kept.ordinal_of(id)).collect();
        let decision = decide(&kept.head, &sealed, commit).map_err(Conflict::into_error)?;
        for change in decision.staged(commit) {
            let before = kept.open.remove(&change.turn_id);
            kept.open.insert(change.turn_id.clone(), StagedTurn::after(before, change));
        }
        for (turn, ordinal, sealed_at) in decision.sealed(commit) {
            kept.open.remove(&turn.metrics.turn_id);
            order.push(Some((commit.conversation_id.clone(), ordinal)));
            kept.sealed.push(SealedTurn { sealed_at, ..turn.clone() }.at(ordinal));
        }
        kept.head = decision.head;
        Ok(decision.into_committed())
    }

    /// Returns the turns that count in reports and are not stored any more.
    fn gone(&self) -> impl Iterator<Item = &StoredTurn> {
        self.conversations.values().flat_map(|kept| &kept.dropped).chain(&self.erased)
    }

    /// Returns the number of a label.
    fn number_of(&mut self, label: &RollupLabel) -> u64 {
        let known = self.labels.iter().position(|known| known == label);
        let place = known.unwrap_or_else(|| {
            self.labels.push(label.clone());
            self.labels.len() - 1
        });
        place as u64
    }
}

/// The stored state of one conversation.
#[derive(Debug)]
struct StoredConversation {
    life: Life,
    head: ConversationHead,
    open: HashMap<TurnId, StagedTurn>,
    /// The turns that were dropped because of their age. They still count in lists and reports.
    dropped: Vec<StoredTurn>,
    sealed: Vec<StoredTurn>,
}

impl StoredConversation {
    fn begin() -> Self {
        let (open, dropped, sealed) = (HashMap::new(), Vec::new(), Vec::new());
        Self { life: Life::draw(), head: ConversationHead::default(), open, dropped, sealed }
    }

    fn ordinal_of(&self, id: &TurnId) -> Option<Ordinal> {
        self.sealed.iter().find(|turn| turn.metrics.turn_id == *id).map(|turn| turn.ordinal)
    }
}

impl MemoryStore {
    /// Returns the same store, with the prices of this book.
    #[must_use]
    pub fn priced_by(self, book: SharedPriceBook) -> Self {
        Self { book, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state of a conversation, and which of these turns are sealed.
    pub fn conversation_state(&self, id: &ConversationId, turn_ids: &[TurnId]) -> ConversationState {
        self.lock().conversations.get(id).map_or_else(ConversationState::default, |kept| ConversationState {
            version: kept.head.version,
            last_sealed_at: kept.head.last_sealed_at,
            open_turns: kept.open.values().cloned().collect(),
            sealed_turns: turn_ids.iter().filter_map(|id| Some((id.clone(), kept.ordinal_of(id)?))).collect(),
        })
    }

    /// Makes one atomic change of a conversation.
    pub fn commit(&self, commit: &Commit) -> Result<Committed, CommitError> {
        self.lock().commit(commit)
    }

    /// Makes changes one after the other, until one is refused.
    pub fn commit_series(&self, series: &CommitSeries) -> CommittedSeries {
        let (mut all, mut committed) = (self.lock(), Vec::new());
        for commit in &series.commits {
            match all.commit(commit) {
                Ok(one) => committed.push(one),
                Err(error) => return CommittedSeries { committed, ended: Some(error) },
            }
        }
        CommittedSeries { committed, ended: None }
    }

    /// Erases a conversation. Returns whether there was anything to erase.
    pub fn erase(&self, id: &ConversationId) -> bool {
        let mut all = self.lock();
        let State { conversations, order, erased, .. } = &mut *all;
        let Some(kept) = conversations.remove(id).filter(|kept| kept.head.version.0 > 0) else { return false };
        erased.extend(kept.dropped.into_iter().chain(kept.sealed));
        for place in order {
            place.take_if(|(of, _)| of == id);
        }
        true
    }

    /// Drops the turns that were sealed before a moment, in order from the first one of each conversation. Returns how
    /// many were dropped.
    pub fn drop_turns(&self, before: EpochMillis) -> u64 {
        let mut dropped = 0;
        for kept in self.lock().conversations.values_mut() {
            let stays = kept.sealed.iter().position(|turn| turn.sealed_at >= before).unwrap_or(kept.sealed.len());
            kept.dropped.extend(kept.sealed.drain(..stays));
            dropped += stays as u64;
        }
        dropped
    }

    /// Begins an export. [`is_exporting`](Self::is_exporting) says whether one is being sent.
    pub fn begin_export(&self) -> ExportHold {
        ExportHold::new(Arc::clone(&self.lock().exports))
    }

    /// Returns whether an export is being sent. No turns must be dropped meanwhile.
    pub fn is_exporting(&self) -> bool {
        Arc::strong_count(&self.lock().exports) > 1
    }

    /// Returns a page of the sums of erased and dropped turns.
    pub fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> ErasedSumsPage {
        let mut all = self.lock();
        let mut rows: BTreeMap<(Quarter, RollupLabel), BreakdownRow> = BTreeMap::new();
        for turn in all.gone() {
            let quarter = Quarter::of(report_time(turn));
            for (label, rollup) in Rollup::of_turn(turn) {
                rows.entry((quarter, label)).or_default().rollup.add(&rollup);
            }
            for (label, cost) in Cost::of_turn(turn, &*self.book) {
                rows.entry((quarter, label)).or_default().cost.add(&cost);
            }
        }
        for taken in all.taken.values() {
            rows.entry((taken.id.quarter, taken.label.clone())).or_default().add(&taken.sums);
        }
        let sums = rows.into_iter().map(|((quarter, label), sums)| {
            let id = ErasedSumsId { lineage: self.lineage, quarter, label: all.number_of(&label) };
            ErasedSums { id, label, sums }
        });
        let mut sums: Vec<_> = sums.collect();
        let place = |id: &ErasedSumsId| (id.quarter, id.label);
        sums.sort_by_key(|sums| place(&sums.id));
        sums.retain(|sums| after.is_none_or(|after| place(&sums.id) > place(&after)));
        let is_all = sums.len() <= limit;
        sums.truncate(limit);
        let next = sums.last().map(|sums| sums.id).or(after).filter(|_| !is_all);
        ErasedSumsPage { sums, next, left_out: 0 }
    }

    /// Takes in sums of erased turns that another store has listed. Returns how many of them changed something.
    pub fn take_erased_sums(&self, sums: &[ErasedSums]) -> u64 {
        let mut all = self.lock();
        let others = sums.iter().filter(|sums| sums.id.lineage != self.lineage);
        others.map(|sums| u64::from(all.taken.insert(sums.id, sums.clone()).as_ref() != Some(sums))).sum()
    }

    /// Returns the open turns of a conversation.
    pub fn open_turns(&self, id: &ConversationId) -> OpenTurns {
        let all = self.lock();
        let Some(kept) = all.conversations.get(id) else { return OpenTurns::default() };
        let mut turns: Vec<_> = kept.open.values().cloned().collect();
        turns.sort_by(|one, other| one.turn.id.cmp(&other.turn.id));
        OpenTurns { sealed_turns: kept.head.sealed_turns, turns }
    }

    /// Sealed turns, in order.
    pub fn turns(&self, range: &TurnRange) -> Vec<StoredTurn> {
        let all = self.lock();
        let sealed = all.conversations.get(&range.conversation_id).map_or(&[][..], |kept| &kept.sealed);
        let is_before = |turn: &&StoredTurn| range.before.is_none_or(|before| turn.ordinal.get() < before);
        let sealed = sealed.iter().filter(|turn| turn.ordinal.get() > range.after).filter(is_before);
        let left_out = match range.end {
            RangeEnd::Oldest => 0,
            RangeEnd::Latest => sealed.clone().count().saturating_sub(range.limit),
        };
        sealed.skip(left_out).take(range.limit).cloned().collect()
    }

    /// Returns sealed turns of all conversations, in the order in which they were sealed.
    pub fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Result<SealedPage, ListSealedError> {
        let all = self.lock();
        let at = |number| Position { lineage: self.lineage, number };
        let (latest, after) = (at(all.order.len() as u64), after.unwrap_or(at(0)));
        if after.lineage != self.lineage || after.number > latest.number {
            return Err(ListSealedError::OtherLineage(after));
        }
        let order = (1..).map(at).zip(&all.order).filter(|(position, _)| position.number > after.number);
        let mut next = after;
        let turns = order.take(limit.min(SealedPage::MAX_POSITIONS)).filter_map(|(position, place)| {
            next = position;
            let (id, ordinal) = place.as_ref()?;
            let sealed = &all.conversations.get(id)?.sealed;
            let turn = sealed.iter().find(|turn| turn.ordinal == *ordinal)?.clone();
            Some(PositionedTurn { position, conversation_id: id.clone(), turn })
        });
        let turns: Vec<_> = turns.collect();
        Ok(SealedPage { turns, next, latest, left_out: 0 })
    }

    /// Returns conversations that have a sealed turn.
    pub fn conversations(&self, question: &ConversationQuestion) -> Vec<ListedConversation> {
        let all = self.lock();
        let listed = all.conversations.iter().filter_map(|(id, kept)| {
            let latest = kept.sealed.last()?;
            let first = kept.dropped.first().or(kept.sealed.first())?;
            let mut listed = ListedConversation {
                conversation_id: id.clone(),
                sealed_turns: (kept.dropped.len() + kept.sealed.len()) as u64,
                open_turns: kept.open.len(),
                total_usage: Usage::default(),
                first_at: report_time(first),
                last_at: report_time(latest),
                model: latest.model.clone(),
                project: latest.project.clone(),
                context_size: latest.metrics.context_size,
                sums: ConversationSums::default(),
            };
            for turn in kept.dropped.iter().chain(&kept.sealed) {
                listed.total_usage = listed.total_usage.saturating_add(turn.metrics.usage);
                listed.sums.add(&ConversationSums::of_turn(turn, &*self.book));
            }
            Some(listed)
        });
        let listed = listed.filter(|listed| question.chooses(listed));
        let mut listed: Vec<_> = listed.map(|listed| (question.order.place(&listed), listed)).collect();
        listed.retain(|(place, _)| question.after.as_ref().is_none_or(|after| place > after));
        listed.sort_by(|(one, _), (other, _)| one.cmp(other));
        listed.into_iter().take(question.limit).map(|(_, listed)| listed).collect()
    }

    /// Returns sums over the turns of some periods. It adds all turns up for each report.
    pub fn report(&self, question: &ReportQuestion) -> Result<Report, ReportError> {
        let mut breakdown = Breakdown::new(question.grouping, question.selection.clone());
        let all = self.lock();
        let stored = all.conversations.values().flat_map(|kept| kept.dropped.iter().chain(&kept.sealed));
        for turn in stored.chain(&all.erased) {
            let quarter = Quarter::of(report_time(turn));
            for period in question.periods.iter().filter(|period| period.contains(quarter)) {
                for (label, rollup) in Rollup::of_turn(turn) {
                    breakdown.add(*period, &label, &rollup);
                }
                for (label, cost) in Cost::of_turn(turn, &*self.book) {
                    breakdown.add_cost(*period, &label, &cost);
                }
            }
        }
        for taken in all.taken.values() {
            for period in question.periods.iter().filter(|period| period.contains(taken.id.quarter)) {
                breakdown.add(*period, &taken.label, &taken.sums.rollup);
                breakdown.add_cost(*period, &taken.label, &taken.sums.cost);
            }
        }
        if Report::is_too_large(&breakdown) {
            Err(ReportError::TooManyRows)
        } else {
            Ok(Report { breakdown, is_repricing: false })
        }
    }

    /// Returns every sealed turn of the conversation with this id, in order.
    pub fn all_turns(&self, conversation_id: &str) -> Vec<StoredTurn> {
        self.lock().conversations.get(conversation_id).map_or_else(Vec::new, |kept| kept.sealed.clone())
    }

    /// Returns the present revision of a conversation's sealed turns.
    pub fn revision(&self, id: &ConversationId) -> Revision {
        let all = self.lock();
        let Some(kept) = all.conversations.get(id) else { return Revision::new(self.lineage, Life::default(), 0) };
        let dropped_turns = kept.head.sealed_turns - kept.sealed.len() as u64;
        Revision { dropped_turns, ..Revision::new(self.lineage, kept.life, kept.head.sealed_turns) }
    }

    /// Returns stale turns.
    pub fn stale_turns(&self, list: &ListStaleTurns) -> Vec<StaleTurn> {
        let all = self.lock();
        let open = all.conversations.iter().flat_map(|(id, kept)| kept.open.values().map(move |staged| (id, staged)));
        let stale = open.filter(|(_, staged)| list.before.is_stale(staged.last_event_at, &staged.turn.head));
        let mut found: Vec<_> = stale.map(|(id, staged)| (id.clone(), staged.turn.id.clone())).collect();
        found.sort();
        let after = list.after.as_ref().map(|turn| (&turn.conversation_id, &turn.turn_id));
        let found = found.into_iter().filter(|(id, turn_id)| after.is_none_or(|after| (id, turn_id) > after));
        let found = found.map(|(conversation_id, turn_id)| StaleTurn { conversation_id, turn_id });
        found.take(list.limit).collect()
    }

    /// Returns a probe that loads conversations from this store.
    pub fn opens(&self) -> Probe<OpenConversation> {
        let store = self.clone();
        Probe::start(move |open: OpenConversation| {
            ready(Ok(store.conversation_state(&open.conversation_id, &open.turn_ids)))
        })
    }

    /// Returns a probe that commits to this store.
    pub fn commits(&self) -> Probe<Arc<Commit>> {
        let store = self.clone();
        Probe::start(move |commit: Arc<Commit>| ready(store.commit(&commit)))
    }

    /// Returns a probe that makes the commits of series to this store.
    pub fn series(&self) -> Probe<Arc<CommitSeries>> {
        let store = self.clone();
        Probe::start(move |series: Arc<CommitSeries>| ready(store.commit_series(&series)))
    }

    /// Returns a probe that erases conversations of this store.
    pub fn erasures(&self) -> Probe<EraseConversation> {
        let store = self.clone();
        Probe::start(move |erase: EraseConversation| ready(Ok(store.erase(&erase.conversation_id))))
    }

    /// Returns a probe that reads sealed turns of this store.
    pub fn lists(&self) -> Probe<ListTurns> {
        let store = self.clone();
        Probe::start(move |ListTurns(range)| ready(Ok(store.turns(&range))))
    }

    /// A probe that reads open turns of this store.
    pub fn open_lists(&self) -> Probe<ListOpenTurns> {
        let store = self.clone();
        Probe::start(move |list: ListOpenTurns| ready(Ok(store.open_turns(&list.conversation_id))))
    }

    /// A probe that finds revisions in this store.
    pub fn revisions(&self) -> Probe<FindRevision> {
        let store = self.clone();
        Probe::start(move |find: FindRevision| ready(Ok(store.revision(&find.conversation_id))))
    }

    /// Returns a probe that reads the sealed turns of all conversations of this store, in order.
    pub fn sealed_lists(&self) -> Probe<ListSealed> {
        let store = self.clone();
        Probe::start(move |list: ListSealed| ready(store.sealed_turns(list.after, list.limit)))
    }

    /// Returns a probe that lists the conversations of this store.
    pub fn conversation_lists(&self) -> Probe<ListConversations> {
        let store = self.clone();
        Probe::start(move |ListConversations(question): ListConversations| ready(Ok(store.conversations(&question))))
    }

    /// Returns a probe that sums over the turns of this store.
    pub fn reports(&self) -> Probe<BuildReport> {
        let store = self.clone();
        Probe::start(move |BuildReport(question): BuildReport| ready(store.report(&question)))
    }

    /// Returns a probe that looks for stale turns in this store.
    pub fn stale_lists(&self) -> Probe<ListStaleTurns> {
        let store = self.clone();
        Probe::start(move |list| ready(Ok(store.stale_turns(&list))))
    }

    /// Returns the recipients that a conversation or a directory needs. This store answers their messages.
    pub fn recipients(&self) -> StoreRecipients {
        StoreRecipients {
            open: self.opens().recipient(),
            commit: self.commits().recipient(),
            erase: self.erasures().recipient(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;
    use crate::store::conformance::{StoreUnderTest, conformance, test_prices};
    use crate::store::{
        Answer, Backup, BackupError, DamageReport, DropError, DropTurns, DroppedTurns, Engine, Fault, Health,
        RepricingProgress, StaleBefore, StoreSizes,
    };
    use crate::turn::RunningTime;

    /// The store as an engine. It can be closed, and it counts the running time.
    struct MemoryEngine {
        store: MemoryStore,
        running: Mutex<RunningTime>,
        health: watch::Sender<Health>,
    }

    impl MemoryEngine {
        /// Runs the function and returns its result at once, or a fault if the store is closed.
        fn answer<T, E>(&self, closed: fn(Fault) -> E, work: impl FnOnce() -> Result<T, E>) -> Answer<Result<T, E>> {
            let is_open = *self.health.borrow() == Health::Running;
            Answer::Now(if is_open { work() } else { Err(closed(Fault::closed())) })
        }

        fn read<T>(&self, read: impl FnOnce(&MemoryStore) -> T) -> Answer<Result<T, Fault>> {
            self.answer(|fault| fault, || Ok(read(&self.store)))
        }
    }

    impl Engine for MemoryEngine {
        fn commit(&self, commit: Arc<Commit>) -> Answer<Result<Committed, CommitError>> {
            self.answer(CommitError::Unavailable, || self.store.commit(&commit))
        }

        fn commit_series(&self, series: Arc<CommitSeries>) -> Answer<CommittedSeries> {
            let committed = self.answer(CommitError::Unavailable, || Ok(self.store.commit_series(&series)));
            let Answer::Now(committed) = committed else { unreachable!("this store answers at once") };
            Answer::Now(committed.unwrap_or_else(CommittedSeries::from))
        }

        fn erase(&self, id: ConversationId) -> Answer<Result<bool, CommitError>> {
            self.answer(CommitError::Unavailable, || Ok(self.store.erase(&id)))
        }

        fn drop_turns(&self, question: DropTurns) -> Answer<Result<DroppedTurns, DropError>> {
            let dropped = |turns| DroppedTurns { turns, is_done: true };
            self.answer(DropError::Unavailable, || {
                if self.store.is_exporting() {
                    return Err(DropError::Exporting);
                }
                Ok(dropped(self.store.drop_turns(question.before())))
            })
        }

        fn begin_export(&self) -> Answer<Result<ExportHold, Fault>> {
            self.read(MemoryStore::begin_export)
        }

        fn erased_sums(&self, after: Option<ErasedSumsId>, limit: usize) -> Answer<Result<ErasedSumsPage, Fault>> {
            self.read(|store| store.erased_sums(after, limit))
        }

        fn take_erased_sums(&self, sums: Vec<ErasedSums>) -> Answer<Result<u64, CommitError>> {
            self.answer(CommitError::Unavailable, || Ok(self.store.take_erased_sums(&sums)))
        }

        fn open(&self, id: ConversationId, turn_ids: Vec<TurnId>) -> Answer<Result<ConversationState, Fault>> {
            self.read(|store| store.conversation_state(&id, &turn_ids))
        }

        fn open_turns(&self, id: ConversationId) -> Answer<Result<OpenTurns, Fault>> {
            self.read(|store| store.open_turns(&id))
        }

        fn turns(&self, range: TurnRange) -> Answer<Result<Vec<StoredTurn>, Fault>> {
            self.read(|store| store.turns(&range))
        }

        fn sealed_turns(&self, after: Option<Position>, limit: usize) -> Answer<Result<SealedPage, ListSealedError>> {
            self.answer(ListSealedError::Read, || self.store.sealed_turns(after, limit))
        }

        fn conversations(&self, question: ConversationQuestion) -> Answer<Result<Vec<ListedConversation>, Fault>> {
            self.read(|store| store.conversations(&question))
        }

        fn report(&self, question: ReportQuestion) -> Answer<Result<Report, ReportError>> {
            self.answer(ReportError::Read, || self.store.report(&question))
        }

        fn revision(&self, id: ConversationId) -> Answer<Result<Revision, Fault>> {
            self.read(|store| store.revision(&id))
        }

        fn stale_turns(
            &self,
            before: StaleBefore,
            after: Option<StaleTurn>,
            limit: usize,
        ) -> Answer<Result<Vec<StaleTurn>, Fault>> {
            self.read(|store| store.stale_turns(&ListStaleTurns { before, after, limit }))
        }

        fn check_write(&self) -> Answer<Result<(), CommitError>> {
            self.answer(CommitError::Unavailable, || Ok(()))
        }

        fn tick(&self, elapsed: Duration) -> Answer<Result<RunningTime, CommitError>> {
            self.answer(CommitError::Unavailable, || {
                let mut running = self.running.lock().unwrap();
                *running = running.saturating_add(elapsed);
                Ok(*running)
            })
        }

        fn running_time(&self) -> RunningTime {
            *self.running.lock().unwrap()
        }

        fn back_up(&self) -> Answer<Result<Backup, BackupError>> {
            Answer::Now(Err(BackupError::InMemory))
        }

        fn sizes(&self) -> StoreSizes {
            StoreSizes::default()
        }

        fn repricing(&self) -> Option<RepricingProgress> {
            None
        }

        fn damage(&self) -> DamageReport {
            DamageReport::default()
        }

        fn scrub(&self) -> Answer<Result<DamageReport, Fault>> {
            self.read(|_| DamageReport::default())
        }

        fn health(&self) -> watch::Receiver<Health> {
            self.health.subscribe()
        }

        fn close(&self) -> Answer<()> {
            self.health.send_replace(Health::Closed);
            *self.running.lock().unwrap() = RunningTime::default();
            Answer::Now(())
        }
    }

    async fn open() -> (StoreUnderTest, ()) {
        let (running, health) = (Mutex::default(), watch::Sender::new(Health::Running));
        (
            StoreUnderTest::new(MemoryEngine {
                store: MemoryStore::default().priced_by(test_prices()),
                running,
                health,
            }),
            (),
        )
    }

    conformance!(open);
}

//! The only client of a store under attack.
//!
//! - `checks`: the comparisons of the store with what the client knows.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use uuid::Uuid;

use super::disk::Disk;
use super::workload::Operation;
use crate::report::{Breakdown, BreakdownRow, Contribution, Period, Quarter, Selection};
use crate::settings::{RedbSettings, StoreSettings};
use crate::simulate::random::Random;
use crate::store::conformance::TestPrices;
use crate::store::oracle::{Oracle, change, question_of_1970};
use crate::store::redb::writer::Writer;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{
    Commit, CommitError, CommitSeries, Committed, CommittedSeries, DropError, DropTurns, ErasedSums, ErasedSumsId,
    Life, Lineage, OpenError, RedbEngine, ReportError, ReportQuestion, StagedChange, StagedTurn,
};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, StoredTurn, TurnId, Usage};

/// A promise that a control breaks on purpose. The check must notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A commit counts as acknowledged before it is durable.
    EarlyAcknowledgement,
    /// A turn that is sent again gets a new id, so the store takes it for a new turn.
    NoDedupe,
    /// Open turns are acknowledged and not staged.
    ForgetsOpenTurns,
    /// Only the heads of open turns are staged, without their steps.
    ForgetsSteps,
    /// Turns of one commit are appended in another order.
    Reorders,
    /// The listed order of all turns is sorted by conversation, as if the store did not keep the order.
    DerivesPositions,
}

/// A change that was sent to the store.
#[derive(Debug, Clone)]
enum Sent {
    Commit(Commit),
    /// The erasure of a conversation.
    Erase(ConversationId),
    /// The dropping of turns that were sealed before a moment, at the prices of that time.
    Drop(EpochMillis, TestPrices),
}

impl Sent {
    /// Returns the conversation that it changes. `None` for all of them.
    fn conversation_id(&self) -> Option<&ConversationId> {
        match self {
            Self::Commit(commit) => Some(&commit.conversation_id),
            Self::Erase(id) => Some(id),
            Self::Drop(..) => None,
        }
    }

    /// Makes the change to the model of a conversation. It takes several transactions to drop many turns, so some may be
    /// dropped and others not: drops turns until so many ordinals of the model are missing. Returns the turns that it
    /// erases.
    fn apply(&self, model: &mut Oracle, missing: u64) -> Vec<StoredTurn> {
        match self {
            Self::Commit(commit) => {
                let _ = model.apply(commit);
                Vec::new()
            }
            Self::Erase(_) => model.erase().1,
            Self::Drop(before, prices) => {
                let at_most =
                    usize::try_from(missing).unwrap().saturating_sub(usize::try_from(model.missing()).unwrap());
                model.drop_before(*before, at_most, prices);
                Vec::new()
            }
        }
    }
}

/// The order of all turns by position, and the latest position.
#[derive(Debug, Clone, Default)]
struct Positions {
    turns: BTreeMap<u64, (ConversationId, Ordinal)>,
    latest: u64,
}

/// The text that says how a promise was broken.
pub(super) type Broken = String;

/// The only client of a store: it remembers which commits were acknowledged and which are in doubt.
///
/// The client runs the store's writer on its own thread, so that the same seed always has the same result.
pub(super) struct Client {
    disk: Disk,
    running: Option<(RedbEngine, Writer)>,
    /// The acknowledged state of each conversation.
    pub(super) models: BTreeMap<ConversationId, Oracle>,
    /// The turns that were erased. They still count in reports.
    erased: Vec<StoredTurn>,
    /// The sums of erased turns of another store that were taken in: by their place, the number of their turns.
    taken: BTreeMap<u64, u64>,
    /// The sums in doubt: it is unknown whether they were taken in. In the order sent.
    taking: Vec<Vec<(u64, u64)>>,
    /// The commits and erasures in doubt: they were sent and their outcome is unknown. In the order sent.
    doubt: Vec<Sent>,
    /// How often each conversation was erased.
    erasures: BTreeMap<ConversationId, u32>,
    /// The life of each conversation when it was last read, and how often it had been erased then.
    lives: BTreeMap<ConversationId, (u32, Life)>,
    /// The lineage of the store, once it has shown a turn.
    lineage: Option<Lineage>,
    /// The order of all turns by position, as the store last listed it, and the latest position then.
    order: Positions,
    /// How often the store was started. The prices differ between some of the starts.
    starts: u32,
    sabotage: Sabotage,
    /// The size of the database's cache. Pages in the cache are not read from the disk.
    pub(super) cache_bytes: usize,
}

/// How many attempts to open the store are made after a failure that happens once. The first attempt may meet that
/// failure.
pub(super) const OPENINGS: usize = 3;

/// The most steps that dropping turns may take.
const MAX_STEPS: u32 = 10_000;

/// The writer's pauses before it opens the files again are so long that it never does by itself: a test says when it
/// opens them.
const NEVER: Backoff = Backoff { first: Duration::from_hours(1), longest: Duration::from_hours(1) };

impl Client {
    pub(super) fn new(disk: Disk, sabotage: Sabotage) -> Self {
        Self {
            disk,
            running: None,
            models: BTreeMap::new(),
            erased: Vec::new(),
            taken: BTreeMap::new(),
            taking: Vec::new(),
            doubt: Vec::new(),
            erasures: BTreeMap::new(),
            lives: BTreeMap::new(),
            lineage: None,
            order: Positions::default(),
            starts: 0,
            sabotage,
            cache_bytes: 1 << 20,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), OpenError> {
        let settings = StoreSettings {
            // The limit is so small that a burst of commits takes several transactions.
            batch_commits: 4,
            // The journal is so small that some commits wait for the checkpoint.
            redb: RedbSettings { cache_bytes: self.cache_bytes, journal_bytes: 16 * 1024, ..RedbSettings::default() },
            ..StoreSettings::default()
        };
        self.starts += 1;
        let prices = Arc::new(self.prices());
        self.running = Some(RedbEngine::prepare_pricing(self.disk.location(), &settings, NEVER, prices)?);
        Ok(())
    }

    fn prices(&self) -> TestPrices {
        TestPrices { dear: (self.starts / 3 % 2 + 1).into() }
    }

    /// Drops the running store without closing it, as a crash does.
    pub(super) fn lose(&mut self) {
        self.running = None;
    }

    /// Writes until the disk crashes, unless it has crashed already. After that crash, starts the store again and compares
    /// it with what it acknowledged. The seed decides which unsynced changes are there.
    pub(super) fn crash_and_check(&mut self, seed: u64) -> Result<(), Broken> {
        while !self.disk.has_crashed() {
            self.perform(Operation::CheckWrite)?;
        }
        self.lose();
        self.disk.come_back(&mut Random::new(seed));
        self.start().map_err(|error| format!("the store does not open after a crash: {error}"))?;
        self.check()
    }

    fn engine(&self) -> &RedbEngine {
        &self.running.as_ref().unwrap().0
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.running.as_mut().unwrap().1
    }

    /// Opens a failed database again, or starts a store that did not start before, as happens after a pause. Returns
    /// why it failed.
    pub(super) fn open_again(&mut self) -> Option<String> {
        match &mut self.running {
            Some((_, writer)) => writer.open_again(),
            None => {
                if let Err(error) = self.start() {
                    return Some(error.to_string());
                }
            }
        }
        match self.check_write() {
            Err(CommitError::Unavailable(fault)) => Some(fault.in_full()),
            other => other.err().map(|error| error.to_string()),
        }
    }

    /// Opens the store again if a failure closed it. Once the failure is over, opening must be enough.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        if self.running.is_some() && self.check_write().is_ok() {
            return Ok(());
        }
        let mut said = Vec::new();
        for _ in 0..OPENINGS {
            match self.open_again() {
                None => return Ok(()),
                Some(cause) => said.push(cause),
            }
        }
        Err(format!("the store does not come back: {said:?}"))
    }

    pub(super) fn check_write(&mut self) -> Result<(), CommitError> {
        let asked = self.engine().check_write();
        self.work_until(asked)
    }

    fn work_until<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return answer;
            }
            assert!(
                matches!(self.writer().run_once(), ControlFlow::Continue(())),
                "the writer ended with a job unanswered"
            );
        }
    }

    /// Does the operation. A commit that is not answered with success is in doubt from then on.
    pub(super) fn perform(&mut self, operation: Operation) -> Result<(), Broken> {
        match operation {
            Operation::Commits(commits) => self.commit(commits),
            Operation::Series(commits) => self.commit_series(commits),
            Operation::Erase(id) => self.erase(id),
            Operation::Drop(before) => self.drop_turns(before),
            Operation::TakeSums(sums) => self.take_sums(sums),
            Operation::CheckWrite => match self.check_write() {
                Ok(()) | Err(CommitError::Unavailable(_)) => Ok(()),
                Err(other) => Err(format!("a durable write was answered with {other}")),
            },
            Operation::Checkpoint(flushes) => {
                for _ in 0..flushes {
                    // If a flush fails, the next commit reports it.
                    let checkpoint = Arc::clone(self.writer().checkpoint());
                    if !checkpoint.flush_in_background() {
                        break;
                    }
                    checkpoint.reprice_in_background();
                    checkpoint.erase_in_background();
                }
                Ok(())
            }
            Operation::Scrub => match self.engine().scrub() {
                Ok(report) if report.findings > 0 => Err(format!("a scrub of a sound store found damage: {report:?}")),
                Ok(_) => Ok(()),
                Err(_) if self.disk.has_crashed() || self.disk.struck() > 0 => Ok(()),
                Err(fault) => Err(format!("a scrub fails though no disk does: {}", fault.in_full())),
            },
            Operation::Restart | Operation::Close => {
                if let Some((engine, writer)) = self.running.take() {
                    if matches!(operation, Operation::Close) {
                        engine.tell_to_close();
                    }
                    drop(engine);
                    writer.run();
                }
                match self.start() {
                    // The caller of the restart gets the error, and the store does not run then.
                    Err(_) if self.disk.has_crashed() || self.disk.struck() > 0 => Ok(()),
                    Err(error) => Err(format!("a restart failed: {error}")),
                    Ok(()) => Ok(()),
                }
            }
        }
    }

    fn erase(&mut self, id: ConversationId) -> Result<(), Broken> {
        let asked = self.engine().erase(id.clone());
        match self.work_until(asked) {
            Ok(erased) => {
                let (expected, turns) = self.models.entry(id.clone()).or_default().erase();
                self.erased.extend(turns);
                *self.erasures.entry(id).or_default() += u32::from(expected);
                if erased == expected { Ok(()) } else { Err(format!("an erasure is answered with {erased}")) }
            }
            Err(CommitError::Unavailable(_)) => {
                self.doubt.push(Sent::Erase(id));
                Ok(())
            }
            Err(error) => Err(format!("an erasure is answered with {error}")),
        }
    }

    fn drop_turns(&mut self, before: EpochMillis) -> Result<(), Broken> {
        let question = DropTurns { keep: Duration::ZERO, now: before };
        let checkpoint = Arc::clone(self.writer().checkpoint());
        let running = self.engine().running_time();
        let prices = self.prices();
        let (mut dropped, mut sweeps) = (0, 0);
        // A sweep that was interrupted goes on from there, so only the second sweep is certainly a whole one.
        for _ in 0..MAX_STEPS {
            // Nothing is dropped while costs are by other prices.
            while checkpoint.reprice_in_background() {}
            match checkpoint.drop_some(&question, running) {
                Ok(step) => {
                    dropped += usize::try_from(step.turns).unwrap();
                    sweeps += u32::from(step.is_done);
                }
                Err(DropError::Unavailable(_)) => {
                    self.doubt.push(Sent::Drop(before, prices));
                    return Ok(());
                }
                // The step has moved the turns that a repricing waits for.
                Err(DropError::Repricing) => {}
                Err(error) => return Err(format!("the dropping of turns is answered with {error}")),
            }
            if sweeps == 2 {
                let models = self.models.values_mut();
                let expected: usize = models.map(|model| model.drop_before(before, usize::MAX, &prices)).sum();
                // The rows of erased turns may still be there, and are dropped like others.
                let at_most = expected + self.erased.len();
                return if (expected..=at_most).contains(&dropped) || self.sabotage != Sabotage::None {
                    Ok(())
                } else {
                    Err(format!("{dropped} turns were dropped instead of {expected}"))
                };
            }
        }
        Err("dropping turns does not end".into())
    }

    fn take_sums(&mut self, sums: Vec<(u64, u64)>) -> Result<(), Broken> {
        let of_another_store: Vec<_> = sums.iter().map(|(place, turns)| sums_at(*place, *turns)).collect();
        let checkpoint = Arc::clone(self.writer().checkpoint());
        let Ok(changed) = checkpoint.take_erased_sums(&of_another_store) else {
            self.taking.push(sums);
            return Ok(());
        };
        let expected = sums.iter().filter(|(place, turns)| self.taken.insert(*place, *turns) != Some(*turns)).count();
        if changed == expected as u64 || !self.taking.is_empty() {
            Ok(())
        } else {
            Err(format!("{changed} sums changed something instead of {expected}"))
        }
    }

    /// Checks that the store has all sums that it has acknowledged, and each of the messages with sums in doubt whole or not
    /// at all. Those that the store shows count as acknowledged from then on.
    fn check_sums(&mut self) -> Result<(), Broken> {
        // Each of the sums has a quarter of its own, so that other sums cannot add up to the same report.
        let quarters = (0..20).map(|start| Period::new(Quarter::new(start), Quarter::new(start + 1)).unwrap());
        let question = ReportQuestion {
            periods: quarters.collect(),
            selection: Selection { provider: Some(OF_ANOTHER_STORE.into()), ..Selection::default() },
            ..question_of_1970()
        };
        let found = match self.engine().report(&question) {
            Ok(report) => report.breakdown,
            Err(ReportError::Read(_)) if !self.engine().is_open() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        for shown in 0..1 << self.taking.len() {
            let mut possible = self.taken.clone();
            let in_doubt = self.taking.iter().enumerate().filter(|(nth, _)| shown >> nth & 1 == 1);
            in_doubt.for_each(|(_, sums)| possible.extend(sums.iter().copied()));
            let mut expected = Breakdown::new(question.grouping, question.selection.clone());
            add_sums(&mut expected, &possible, &question);
            if expected == found {
                self.taken = possible;
                self.taking.clear();
                return Ok(());
            }
        }
        Err(format!("sums that were taken in are {found:?}, with {:?} and {:?} in doubt", self.taken, self.taking))
    }

    fn commit(&mut self, commits: Vec<Commit>) -> Result<(), Broken> {
        let asked: Vec<_> = commits.iter().map(|commit| self.engine().commit(self.sabotaged(commit))).collect();
        for (commit, asked) in commits.into_iter().zip(asked) {
            let answer = self.work_until(asked);
            self.took(commit, answer)?;
        }
        Ok(())
    }

    /// Makes a series of commits.
    fn commit_series(&mut self, commits: Vec<Commit>) -> Result<(), Broken> {
        let series = CommitSeries { commits: commits.iter().map(|commit| self.sabotaged(commit)).collect() };
        let asked = self.engine().commit_series(Arc::new(series));
        let CommittedSeries { committed, ended } = self.work_until(asked);
        if ended.is_none() && committed.len() < commits.len() {
            return Err(format!("a series of {} ended after {} for no reason", commits.len(), committed.len()));
        }
        let mut answers: Vec<_> = committed.into_iter().map(Ok).collect();
        match ended {
            // All others may be durable or not.
            Some(error @ CommitError::Unavailable(_)) => answers.resize(commits.len(), Err(error)),
            // The others change nothing.
            ended => answers.extend(ended.map(Err)),
        }
        for (commit, answer) in commits.into_iter().zip(answers) {
            self.took(commit, answer)?;
        }
        Ok(())
    }

    /// Compares the answer to a commit with what it must be.
    fn took(&mut self, commit: Commit, answer: Result<Committed, CommitError>) -> Result<(), Broken> {
        let model = self.models.entry(commit.conversation_id.clone()).or_default();
        match answer {
            _ if self.sabotage == Sabotage::EarlyAcknowledgement => drop(model.apply(&commit)),
            Err(CommitError::Unavailable(fault)) if fault.in_full().is_empty() => {
                return Err("the error has no cause".into());
            }
            Err(CommitError::Unavailable(_)) => self.doubt.push(Sent::Commit(commit)),
            // A control pretends that the store did the whole commit.
            _ if self.sabotage != Sabotage::None => drop(model.apply(&commit)),
            answer => is_as_expected(&answer, &model.apply(&commit))?,
        }
        Ok(())
    }

    fn sabotaged(&self, commit: &Commit) -> Commit {
        let mut commit = commit.clone();
        match self.sabotage {
            Sabotage::None | Sabotage::EarlyAcknowledgement | Sabotage::DerivesPositions => {}
            Sabotage::ForgetsOpenTurns => commit.staged.clear(),
            Sabotage::ForgetsSteps => commit.staged.iter_mut().for_each(|change| change.steps.clear()),
            Sabotage::Reorders => commit.sealed.reverse(),
            Sabotage::NoDedupe => {
                let known = self.models.get(&commit.conversation_id);
                for sealed in &mut commit.sealed {
                    let id = &sealed.metrics.turn_id;
                    if known.is_some_and(|known| known.ordinal_of(id).is_some()) {
                        sealed.metrics.turn_id = TurnId::new(format!("{id}~")).unwrap();
                    }
                }
            }
        }
        commit
    }

    fn ids(&self) -> BTreeSet<ConversationId> {
        self.models.keys().chain(self.doubt.iter().filter_map(Sent::conversation_id)).cloned().collect()
    }

    /// Compares what the store answers with what it acknowledged. Commits in doubt that the store shows count as
    /// acknowledged from then on.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        for id in &self.ids() {
            self.check_conversation(id).map_err(|broken| format!("conversation {id}: {broken}"))?;
        }
        self.check_sums()?;
        self.check_order()
    }

    /// Like [`Client::look`]. Afterwards no commit is in doubt: a commit that the store does not show now must never
    /// appear.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        self.look()?;
        self.doubt.clear();
        Ok(())
    }

    /// Compares the store with what it acknowledged, sends the commits in doubt again, and compares once more.
    pub(super) fn check(&mut self) -> Result<(), Broken> {
        let (ids, taking) = (self.ids(), self.taking.clone());
        self.look()?;
        // Sums may be sent any number of times.
        for sums in taking {
            self.take_sums(sums)?;
        }
        for sent in std::mem::take(&mut self.doubt) {
            let mut commit = match sent {
                Sent::Commit(commit) => commit,
                Sent::Erase(id) => {
                    self.erase(id)?;
                    continue;
                }
                Sent::Drop(before, _) => {
                    self.drop_turns(before)?;
                    continue;
                }
            };
            let model = self.models.entry(commit.conversation_id.clone()).or_default();
            commit.expected_version = model.version;
            for staged in &mut commit.staged {
                *staged = made_again(staged, model.open.get(&staged.turn_id));
            }
            self.commit(vec![commit])?;
        }
        if !self.doubt.is_empty() || !self.taking.is_empty() {
            // The store failed again meanwhile. A later check sends these commits again.
            return Ok(());
        }
        for id in &ids {
            self.check_conversation(id).map_err(|broken| format!("conversation {id}, sent again: {broken}"))?;
            self.check_index(id)?;
        }
        self.check_order()?;
        self.check_report()?;
        self.check_activity()?;
        self.check_stale_turns()
    }
}

/// The provider of the sums that were taken in. No turn of the store has it.
const OF_ANOTHER_STORE: &str = "of another store";

/// Returns sums of this number of turns, as another store would list them. Those of each place have a quarter and a label of
/// their own.
fn sums_at(place: u64, turns: u64) -> ErasedSums {
    let mut turn = OpenTurn::new(TurnId::new("erased").unwrap());
    let usage = Usage { input_tokens: 900.into(), ..Usage::default() };
    turn.fold(&Progress::Usage { step_id: None, report: usage.into(), is_final: false });
    let done = Done { duration: Some(7.into()), model: Some("m".into()), ..Done::because("stop") };
    let done = Done { provider: Some(OF_ANOTHER_STORE.into()), ..done };
    let sealed = turn.seal(&done, EpochMillis::new(place * 1_000_000)).at(Ordinal::after(0));
    let Contribution { quarter, parts, .. } = Contribution::of_turn(&sealed, &TestPrices { dear: 1 });
    let [(label, part)] = &parts[..] else { panic!("the turn has one part") };
    let mut sums = BreakdownRow::default();
    (0..turns).for_each(|_| sums.add(part));
    let id = ErasedSumsId { lineage: Lineage(Uuid::from_u128(7)), quarter, label: place % 2 };
    ErasedSums { id, label: label.clone(), sums }
}

fn add_sums(breakdown: &mut Breakdown, taken: &BTreeMap<u64, u64>, question: &ReportQuestion) {
    for (place, turns) in taken {
        let ErasedSums { id, label, sums } = sums_at(*place, *turns);
        for period in question.periods.iter().filter(|period| period.contains(id.quarter)) {
            breakdown.add(*period, &label, &sums.rollup);
            breakdown.add_cost(*period, &label, &sums.cost);
        }
    }
}

/// Returns the change that the events of `made` make to the turn `before`, or to no turn.
fn made_again(made: &StagedChange, before: Option<&StagedTurn>) -> StagedChange {
    let mut turn = before.map_or_else(|| OpenTurn::new(made.turn_id.clone()), |before| before.turn.clone());
    turn.head = made.head.clone();
    for (_, step) in &made.steps {
        let place = turn.steps.place(&step.id).unwrap_or_else(|| turn.steps.count());
        turn.steps.put(place, step.clone());
    }
    change(before, StagedTurn { turn, last_event_at: made.last_event_at })
}

fn is_as_expected(
    answer: &Result<Committed, CommitError>,
    expected: &Result<Committed, CommitError>,
) -> Result<(), Broken> {
    if answer == expected { Ok(()) } else { Err(format!("an answer is {answer:?} instead of {expected:?}")) }
}

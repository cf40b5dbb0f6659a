//! Compares the engine on redb with the oracle, for random sequences of commits and restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::settings::StoreSettings;
use crate::store::conformance::test_prices;
use crate::store::oracle::{Oracle, breakdown_of, change, question_of_1970};
use crate::store::{
    Commit, CommitError, Committed, ConversationOrder, ConversationQuestion, ConversationState, DropTurns, Location,
    RedbEngine, StagedChange, StagedTurn, TurnRange, Version,
};
use crate::turn::{
    ConversationId, Done, EpochMillis, OpenTurn, Ordinal, Progress, RunningTime, StepId, StepTimes, StoredTurn, TurnId,
};

#[derive(Debug, Clone)]
enum Transition {
    /// Commits that are in flight at the same time, each to the conversation with this number. The expected version is
    /// right, or wrong by `version_off_by`.
    Commits(Vec<(u8, Change)>),
    /// Conversations are erased at the same time, after commits to them that are in flight.
    Erase(Vec<(u8, Change)>, Vec<u8>),
    /// Turns that were sealed before a moment are dropped.
    Drop(u64),
    /// The store is closed and opened again.
    Reopen,
}

#[derive(Debug, Clone)]
struct Change {
    version_off_by: u64,
    /// The staged turns: each with the running time and the step of its latest event.
    staged: Vec<(u8, u64, u8)>,
    sealed: Vec<u8>,
    /// If the sealed turns are imported, the ordinal of the first of them where they come from.
    imported_from: Option<Ordinal>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    conversations: BTreeMap<u8, Oracle>,
    /// The order of all turns: each with its conversation and its place in `all`.
    order: Vec<u8>,
    /// Each turn of the order. `None` if the turn was erased or dropped.
    all: Vec<Option<StoredTurn>>,
    /// The turns that were erased.
    erased: Vec<StoredTurn>,
    /// How many turns the latest transition dropped.
    dropped: usize,
    /// The answers to the latest erasures.
    erasures: Vec<bool>,
    /// The answers to the latest transition.
    answers: Vec<Result<Committed, CommitError>>,
    /// The commits of the latest transition.
    commits: Vec<Commit>,
}

fn conversation_id(conversation: u8) -> ConversationId {
    ConversationId::new(format!("c{conversation}")).unwrap()
}

fn staged(turn: u8, at: u64) -> StagedTurn {
    StagedTurn { turn: OpenTurn::new(TurnId::new(format!("t{turn}")).unwrap()), last_event_at: RunningTime::new(at) }
}

fn commit_of(conversation: u8, oracle: &Oracle, change: &Change) -> Commit {
    let version = oracle.version;
    // Imported turns were sealed the earlier the later they are imported.
    let sealed_at = if change.imported_from.is_some() { 12_u64.saturating_sub(version.0) } else { version.0 };
    let seal = |turn: &u8| staged(*turn, 0).turn.seal(&Done::because("stop"), EpochMillis::new(sealed_at));
    let mut open = oracle.open.clone();
    Commit {
        conversation_id: conversation_id(conversation),
        expected_version: Version(version.0 + change.version_off_by),
        staged: change.staged.iter().map(|staged| stage(&mut open, *staged)).collect(),
        sealed: change.sealed.iter().map(seal).collect(),
        imported_from: change.imported_from,
    }
}

/// Folds an event of a step into an open turn, and returns the change.
fn stage(open: &mut BTreeMap<TurnId, StagedTurn>, (turn, at, step): (u8, u64, u8)) -> StagedChange {
    let mut after = staged(turn, at);
    let before = open.get(&after.turn.id);
    if let Some(before) = before {
        after.turn = before.turn.clone();
    }
    let step_id = StepId::new(format!("step-{step}")).unwrap();
    let times = StepTimes { decode: Some(u32::try_from(at).unwrap().into()), ..StepTimes::default() };
    after.turn.fold(&Progress::StepComplete { step_id, times, model: None, provider: None });
    let change = change(before, after.clone());
    open.insert(after.turn.id.clone(), after);
    change
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Transition> {
        let turn = || prop_oneof![3 => 0..5_u8, 1 => any::<u8>()];
        let off = prop_oneof![5 => Just(0), 1 => 1..3_u64];
        let imported_from = prop_oneof![3 => Just(None), 1 => (1..4_u64).prop_map(Ordinal::new)];
        let change = (off, vec((turn(), 0..9_u64, 0..5_u8), 0..3), vec(turn(), 0..3), imported_from).prop_map(
            |(version_off_by, staged, sealed, imported_from)| Change { version_off_by, staged, sealed, imported_from },
        );
        prop_oneof![
            9 => vec((0..3_u8, change.clone()), 1..5).prop_map(Transition::Commits),
            2 => (vec((0..3_u8, change), 0..3), vec(0..3_u8, 1..3))
                .prop_map(|(changes, erased)| Transition::Erase(changes, erased)),
            2 => (0..14_u64).prop_map(Transition::Drop),
            1 => Just(Transition::Reopen),
        ]
        .boxed()
    }

    fn apply(mut model: Self, transition: &Transition) -> Self {
        model.answers.clear();
        model.commits.clear();
        model.erasures.clear();
        if let Transition::Commits(changes) | Transition::Erase(changes, _) = transition {
            for (conversation, change) in changes {
                let oracle = model.conversations.entry(*conversation).or_default();
                let commit = commit_of(*conversation, oracle, change);
                let before = oracle.sealed.len();
                model.answers.push(oracle.apply(&commit));
                for turn in &oracle.sealed[before..] {
                    model.order.push(*conversation);
                    model.all.push(Some(turn.clone()));
                }
                model.commits.push(commit);
            }
        }
        if let Transition::Erase(_, erased) = transition {
            for conversation in erased {
                let (is_there, turns) = model.conversations.entry(*conversation).or_default().erase();
                model.erasures.push(is_there);
                model.erased.extend(turns);
                let of_it = model.order.iter().zip(&mut model.all).filter(|(of, _)| *of == conversation);
                of_it.for_each(|(_, turn)| *turn = None);
            }
        }
        if let Transition::Drop(before) = transition {
            let before = EpochMillis::new(*before);
            let drop = |oracle: &mut Oracle| oracle.drop_before(before, usize::MAX, &*test_prices());
            model.dropped = model.conversations.values_mut().map(drop).sum();
            for (conversation, turn) in model.order.iter().zip(&mut model.all) {
                let missing = model.conversations[conversation].missing();
                turn.take_if(|turn| turn.ordinal.get() <= missing);
            }
        }
        model
    }
}

/// A running store, and its directory if it is not in memory.
struct Opened {
    runtime: tokio::runtime::Runtime,
    engine: RedbEngine,
    directory: Option<tempfile::TempDir>,
}

impl Opened {
    fn start(directory: Option<tempfile::TempDir>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let path = directory.as_ref().map(|directory| directory.path().to_owned());
        Self { runtime, engine: open(path), directory }
    }

    fn apply(mut self, model: &Model, transition: &Transition) -> Self {
        match transition {
            Transition::Commits(_) | Transition::Erase(..) => {
                let waiting: Vec<_> = model.commits.iter().map(|commit| self.engine.commit(commit.clone())).collect();
                let erased = if let Transition::Erase(_, erased) = transition { &erased[..] } else { &[] };
                let erasing: Vec<_> = erased.iter().map(|of| self.engine.erase(conversation_id(*of))).collect();
                let answers: Vec<_> = waiting.into_iter().map(|answer| self.runtime.block_on(answer)).collect();
                assert_eq!(answers, model.answers);
                let erasures: Vec<_> = erasing.into_iter().map(|answer| self.runtime.block_on(answer)).collect();
                assert_eq!(erasures, model.erasures.iter().copied().map(Ok).collect::<Vec<_>>());
            }
            Transition::Drop(before) => {
                let question = DropTurns { keep: Duration::ZERO, now: EpochMillis::new(*before) };
                let mut dropped = 0;
                loop {
                    let step = self.runtime.block_on(self.engine.drop_turns(question)).unwrap();
                    dropped += usize::try_from(step.turns).unwrap();
                    if step.is_done {
                        break;
                    }
                }
                // The rows of erased turns may still be there, and are dropped like others.
                let at_most = model.dropped + model.erased.len();
                assert!((model.dropped..=at_most).contains(&dropped), "{dropped} of {}", model.dropped);
            }
            Transition::Reopen => {
                // A store in memory would be gone when it is closed, so it is not closed.
                if let Some(directory) = &self.directory {
                    let path = directory.path().to_owned();
                    self.runtime.block_on(async { self.engine.close().await });
                    self.engine = open(Some(path));
                }
            }
        }
        self
    }

    fn check(&self, model: &Model) {
        let mut old: Vec<(ConversationId, TurnId)> = Vec::new();
        for (conversation, oracle) in &model.conversations {
            let id = conversation_id(*conversation);
            let mut state = self.engine.conversation_state(&id, &[]).unwrap();
            state.open_turns.sort_by(|a, b| a.turn.id.cmp(&b.turn.id));
            let open_turns: Vec<_> = oracle.open.values().cloned().collect();
            assert_eq!(
                state,
                ConversationState {
                    version: oracle.version,
                    last_sealed_at: oracle.last_sealed_at(),
                    open_turns,
                    sealed_turns: vec![]
                }
            );
            let range = TurnRange::after(id.clone(), 1, 3);
            let turns: Vec<_> = oracle.sealed.iter().filter(|turn| turn.ordinal.get() > 1).take(3).cloned().collect();
            assert_eq!(self.engine.turns(&range).unwrap(), turns);
            let revision = self.engine.revision(&id).unwrap();
            let counted = (oracle.last_ordinal(), oracle.missing());
            assert_eq!((revision.sealed_turns, revision.dropped_turns), counted);
            let old_here = oracle.open.values().filter(|staged| staged.last_event_at < RunningTime::new(5));
            old.extend(old_here.map(|staged| (id.clone(), staged.turn.id.clone())));
        }
        let prices = test_prices();
        let listing =
            |(conversation, oracle): (&u8, &Oracle)| oracle.listing(&conversation_id(*conversation), &*prices);
        let mut expected: Vec<_> = model.conversations.iter().filter_map(listing).collect();
        for order in [ConversationOrder::Recent, ConversationOrder::Turns] {
            expected.sort_by_key(|listed| order.place(listed));
            let all = ConversationQuestion::first(order, 99);
            assert_eq!(self.engine.conversations(&all).unwrap(), expected);
            if let Some(first) = expected.first() {
                let next = ConversationQuestion { limit: 1, ..all.after(first) };
                assert_eq!(self.engine.conversations(&next).unwrap(), expected[1..expected.len().min(2)]);
            }
        }
        let question = question_of_1970();
        let turns = model.conversations.values().flat_map(Oracle::all).chain(&model.erased);
        assert_eq!(self.engine.report(&question).unwrap().breakdown, breakdown_of(turns, &question, &*test_prices()));
        // A page that begins in the middle may come from the tables, from the memtable or from both.
        for after in [0, model.order.len() / 2] {
            let page = self.engine.sealed_turns(None, after).unwrap();
            assert_eq!(page.next.number, after as u64, "erased and dropped turns keep their positions");
            let page = self.engine.sealed_turns(Some(page.next), 1000).unwrap();
            let found: Vec<_> = page
                .turns
                .into_iter()
                .map(|found| (found.position.number, found.conversation_id, found.turn))
                .collect();
            let expected: Vec<_> = (1..)
                .zip(model.order.iter().zip(&model.all))
                .skip(after)
                .filter_map(|(position, (conversation, turn))| {
                    Some((position, conversation_id(*conversation), turn.clone()?))
                })
                .collect();
            assert_eq!(found, expected);
            assert_eq!((page.next, page.latest.number), (page.latest, model.order.len() as u64));
        }
        let found = self.engine.stale_turns(RunningTime::new(5).into(), None, usize::MAX).unwrap();
        let mut found: Vec<_> = found.into_iter().map(|stale| (stale.conversation_id, stale.turn_id)).collect();
        found.sort();
        old.sort();
        assert_eq!(found, old);
    }
}

fn open(path: Option<PathBuf>) -> RedbEngine {
    // The journal is so small that the checkpoint is always at work.
    let settings = StoreSettings::with_journal_bytes(4096);
    let location = path.map_or(Location::Memory, Location::Directory);
    RedbEngine::open_pricing(location, &settings, test_prices()).unwrap()
}

struct InMemory;
struct InADirectory;

impl StateMachineTest for InMemory {
    type SystemUnderTest = Opened;
    type Reference = Model;

    fn init_test(_: &Model) -> Opened {
        Opened::start(None)
    }

    fn apply(opened: Opened, model: &Model, transition: Transition) -> Opened {
        opened.apply(model, &transition)
    }

    fn check_invariants(opened: &Opened, model: &Model) {
        opened.check(model);
    }
}

impl StateMachineTest for InADirectory {
    type SystemUnderTest = Opened;
    type Reference = Model;

    fn init_test(_: &Model) -> Opened {
        Opened::start(Some(tempfile::tempdir().unwrap()))
    }

    fn apply(opened: Opened, model: &Model, transition: Transition) -> Opened {
        opened.apply(model, &transition)
    }

    fn check_invariants(opened: &Opened, model: &Model) {
        opened.check(model);
    }
}

fn cases(default: u32) -> Config {
    let cases = std::env::var("TURN_METRICS_TEST_CASES").map_or(default, |cases| cases.parse().unwrap());
    Config { cases, failure_persistence: None, ..Config::default() }
}

prop_state_machine! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_store_in_memory_does_what_the_model_does(sequential 1..30 => InMemory);
}

prop_state_machine! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_store_in_a_directory_does_what_the_model_does_however_often_it_is_reopened(sequential 1..30 => InADirectory);
}

#[test]
fn control_a_store_that_lost_what_it_acknowledged_is_caught() {
    let changed = |staged: &[(u8, u64, u8)], sealed: &[u8]| Change {
        version_off_by: 0,
        staged: staged.into(),
        sealed: sealed.into(),
        imported_from: None,
    };
    let sent = |change| Transition::Commits(vec![(0, change)]);
    for change in [changed(&[(1, 9, 0)], &[]), changed(&[], &[1, 2])] {
        let transition = sent(change);
        let model = <Model as ReferenceStateMachine>::apply(Model::default(), &transition);
        Opened::start(None).apply(&model, &transition).check(&model);
        let forgetful = Opened::start(None);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| forgetful.check(&model)));
        assert!(checked.is_err(), "the check does not notice the loss of {transition:?}");
    }
}

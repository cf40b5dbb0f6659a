//! Directory, conversations and store on one thread, compared with a simple model of the contract.
//!
//! - `model`: the model.

mod model;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use self::model::{Event, InjectedFault, Model, Request, Transition, events_of, sealed_by_rival, staged_by_rival};
use super::*;
use crate::clock::RunningClock;
use crate::settings::{StoreSettings, TurnSettings};
use crate::store::{self, Commit, CommitError, Committed, Location, RedbEngine, TurnRange};
use crate::testing::{Probe, TestClock};
use crate::turn::{ConversationId, EpochMillis, RunningTime, TurnId};

/// How long a conversation of this test may be idle before it is retired. The transitions wait for shorter and for
/// longer times.
const IDLE_AFTER: Duration = Duration::from_secs(4);

fn id(conversation: u8) -> ConversationId {
    ConversationId::new(format!("c{conversation}")).unwrap()
}

/// The actors of one test case, in an actix system of their own whose time is paused.
struct Actors {
    runner: actix::SystemRunner,
    engine: RedbEngine,
    store: Addr<Store>,
    recipients: StoreRecipients,
    directory: Addr<Directory>,
    clock: TestClock,
    running: RunningClock,
    /// The fault that the next commit meets, if any.
    fault: Rc<RefCell<Option<InjectedFault>>>,
}

/// Passes a commit on to the store, and injects the fault.
async fn commit(
    store: Addr<Store>,
    engine: RedbEngine,
    fault: Option<InjectedFault>,
    (now, running): (EpochMillis, RunningTime),
    commit: Arc<Commit>,
) -> Result<Committed, CommitError> {
    let lost = || CommitError::Unavailable(store::Fault::closed());
    match &fault {
        Some(InjectedFault::CommitLost) => return Err(lost()),
        Some(InjectedFault::Refused) => return Err(CommitError::Overloaded),
        Some(InjectedFault::Rival { turn, seals }) => {
            let known = engine.conversation_state(&commit.conversation_id, &[]).unwrap();
            let open = known.open_turns.iter().find(|staged| staged.turn.id == *turn);
            let staged = staged_by_rival(turn, open.map(|staged| &staged.turn), running);
            let sealed = seals.then(|| sealed_by_rival(&staged.turn, now));
            let theirs = Commit {
                conversation_id: commit.conversation_id.clone(),
                expected_version: known.version,
                staged: if *seals { Vec::new() } else { vec![staged.into()] },
                sealed: sealed.into_iter().collect(),
                imported_from: None,
            };
            engine.commit(theirs).await.unwrap();
        }
        Some(InjectedFault::AnswerLost) | None => {}
    }
    let committed = store.send(commit).await.unwrap();
    if fault == Some(InjectedFault::AnswerLost) { Err(lost()) } else { committed }
}

fn start_directory(recipients: &StoreRecipients, clock: &TestClock, running: &RunningClock) -> Addr<Directory> {
    let settings = TurnSettings { idle_after: IDLE_AFTER, ..TurnSettings::default() };
    Directory::new(recipients.clone(), Arc::new(clock.clone()), settings).counting(running.clone()).start()
}

impl Actors {
    fn start() -> Self {
        let runner = actix::System::new();
        let engine = RedbEngine::open(Location::Memory, &StoreSettings::default()).unwrap();
        let (clock, running) = (TestClock::at(0), RunningClock::default());
        let fault = Rc::new(RefCell::new(None::<InjectedFault>));
        let (store, recipients, directory) = runner.block_on(async {
            tokio::time::pause();
            let store = Store::new(Arc::new(engine.clone())).start();
            let (to, engine, fault) = (store.clone(), engine.clone(), Rc::clone(&fault));
            let (clock_of_rival, running_of_rival) = (clock.clone(), running.clone());
            let commits = Probe::<Arc<Commit>>::start(move |asked| {
                let now = (crate::clock::Clock::now(&clock_of_rival), running_of_rival.now());
                commit(to.clone(), engine.clone(), fault.take(), now, asked)
            });
            let recipients = StoreRecipients {
                open: store.clone().recipient(),
                commit: commits.recipient(),
                erase: store.clone().recipient(),
            };
            let directory = start_directory(&recipients, &clock, &running);
            (store, recipients, directory)
        });
        Self { runner, engine, store, recipients, directory, clock, running, fault }
    }

    fn observe(&self, requests: &[Request]) -> Vec<Result<Receipt, ()>> {
        self.runner.block_on(async {
            // Send all requests before the first is answered.
            let sent: Vec<_> = requests
                .iter()
                .map(|Request { conversation, events }| {
                    let observe = Observe { conversation_id: id(*conversation), events: events_of(events) };
                    tokio::task::spawn_local(self.directory.send(observe))
                })
                .collect();
            let mut answers = Vec::new();
            for sent in sent {
                answers.push(sent.await.unwrap().unwrap().map_err(drop));
            }
            answers
        })
    }
}

struct Test;

impl StateMachineTest for Test {
    type SystemUnderTest = Actors;
    type Reference = Model;

    fn init_test(_: &Model) -> Actors {
        Actors::start()
    }

    fn apply(mut actors: Actors, model: &Model, transition: Transition) -> Actors {
        match transition {
            Transition::Observe { requests, fault } => {
                *actors.fault.borrow_mut() = fault;
                assert_eq!(actors.observe(&requests), model.answers);
                assert_eq!(actors.fault.take(), None, "there was no commit to meet the fault");
            }
            Transition::Abandon { conversation, turns, age } => {
                let abandon = Abandon {
                    conversation_id: id(conversation),
                    turn_ids: turns.iter().map(|turn| model::turn_id(*turn)).collect(),
                    before: model::before(model.running, age),
                };
                let answer = actors.runner.block_on(actors.directory.send(abandon)).unwrap();
                assert_eq!([answer.map_err(drop)], *model.answers);
            }
            Transition::Idle { seconds } => {
                actors.runner.block_on(async { tokio::time::sleep(Duration::from_secs(seconds)).await });
            }
            Transition::Tick { millis } => {
                actors.clock.advance(Duration::from_millis(millis));
                actors.running.advance_to(RunningTime::new(model.running));
            }
            Transition::SetClock { to } => actors.clock.set(to),
            Transition::Erase { conversation } => {
                let erase = Erase { conversation_id: id(conversation) };
                let answer = actors.runner.block_on(actors.directory.send(erase)).unwrap();
                assert_eq!(answer, Ok(model.erased));
            }
            Transition::Restart => {
                actors.directory = actors.runner.block_on(async {
                    actors.directory.send(Drain).await.unwrap();
                    start_directory(&actors.recipients, &actors.clock, &actors.running)
                });
            }
            Transition::Read { conversation, after, limit } => {
                let range = TurnRange::after(id(conversation), after, limit);
                let read = actors.runner.block_on(actors.store.send(ListTurns(range))).unwrap().unwrap();
                let all = model.stored(conversation);
                let expected = all.into_iter().filter(|turn| turn.ordinal.get() > after).take(limit);
                assert_eq!(read, expected.collect::<Vec<_>>());
            }
        }
        actors
    }

    fn check_invariants(actors: &Actors, model: &Model) {
        for conversation in model.conversations.keys() {
            let conversation_id = id(*conversation);
            let mut open = actors.engine.conversation_state(&conversation_id, &[]).unwrap().open_turns;
            open.sort_by(|a, b| a.turn.id.cmp(&b.turn.id));
            assert_eq!(open, model.open(*conversation));
            let range = TurnRange::after(conversation_id, 0, usize::MAX);
            assert_eq!(actors.engine.turns(&range).unwrap(), model.stored(*conversation));
        }
        let counts = actors.runner.block_on(actors.directory.send(CountWork)).unwrap();
        assert_eq!((counts.in_flight, counts.died), (0, 0));
    }
}

fn cases() -> u32 {
    std::env::var("TURN_METRICS_TEST_CASES").map_or(64, |cases| cases.parse().unwrap())
}

prop_state_machine! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_actors_do_what_the_model_does_whatever_comes_in_between(sequential 1..40 => Test);
}

#[test]
#[should_panic(expected = "assertion `left == right` failed")]
fn control_a_commit_that_is_lost_though_it_was_acknowledged_is_seen() {
    let actors = Actors::start();
    let request = Request { conversation: 0, events: vec![Event { turn: 0, what: model::What::Done }] };
    let transition = Transition::Observe { requests: vec![request], fault: None };
    let model = Model::apply(Model::default(), &transition);
    // The answers came from one store, and this check reads another, empty one.
    let actors = Test::apply(actors, &model, transition);
    Test::check_invariants(&Actors { engine: Actors::start().engine, ..actors }, &model);
}

#[test]
fn turn_ids_of_the_model_are_those_of_its_events() {
    let events = events_of(&[Event { turn: 3, what: model::What::Done }]);
    assert_eq!(events[0].turn_id, TurnId::new("t3").unwrap());
}

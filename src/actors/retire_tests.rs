//! Conversations are retired while events arrive: no event is lost, and no conversation ever has two actors at work.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};

use super::*;
use crate::clock::Clock;
use crate::settings::TurnSettings;
use crate::store::{Commit, CommitError, Committed, ConversationState, StagedTurn, TurnOutcome, Version};
use crate::testing::{Probe, TestClock};
use crate::turn::{ConversationId, Progress, StepId, TurnEvent, TurnEventKind, TurnId, Usage};

const CONVERSATION: &str = "c";

/// A store of open turns. It counts the conflicts that two actors of one conversation would cause.
#[derive(Default)]
struct Kept {
    version: Cell<u64>,
    open: RefCell<HashMap<TurnId, StagedTurn>>,
    conflicts: Cell<usize>,
    /// The largest number of actors that the conversation has had at one time.
    most_actors: Cell<usize>,
}

impl Kept {
    fn commit(&self, commit: &Commit) -> Result<Committed, CommitError> {
        let (expected, actual) = (commit.expected_version, Version(self.version.get()));
        if expected != actual {
            self.conflicts.update(|count| count + 1);
            return Err(CommitError::Conflict { expected, actual });
        }
        self.version.update(|version| version + 1);
        let mut open = self.open.borrow_mut();
        for change in &commit.staged {
            let before = open.remove(&change.turn_id);
            open.insert(change.turn_id.clone(), StagedTurn::after(before, change));
        }
        let outcomes = commit.staged.iter().map(|change| (change.turn_id.clone(), TurnOutcome::Staged)).collect();
        Ok(Committed { version: Version(self.version.get()), outcomes })
    }
}

struct Setup {
    kept: Rc<Kept>,
    opens: Probe<OpenConversation>,
    directories: Vec<Addr<Directory>>,
}

/// Starts this many directories over one slow store. The directories retire conversations as early as they can.
fn setup(directories: usize) -> Setup {
    tokio::time::pause();
    let kept = Rc::new(Kept::default());
    let clock: Arc<dyn Clock> = Arc::new(TestClock::at(1));
    // Every actor of the conversation holds the clock, and so does every directory.
    let count_actors = {
        let (clock, kept) = (Arc::downgrade(&clock), Rc::clone(&kept));
        move || kept.most_actors.update(|most| most.max(clock.strong_count() - directories))
    };
    let opens = {
        let (kept, count_actors) = (Rc::clone(&kept), count_actors.clone());
        Probe::<OpenConversation>::start(move |_| {
            let kept = Rc::clone(&kept);
            count_actors();
            async move {
                tokio::task::yield_now().await;
                let open_turns = kept.open.borrow().values().cloned().collect();
                Ok(ConversationState {
                    version: Version(kept.version.get()),
                    open_turns,
                    ..ConversationState::default()
                })
            }
        })
    };
    let commits = {
        let kept = Rc::clone(&kept);
        Probe::<Arc<Commit>>::start(move |commit| {
            let kept = Rc::clone(&kept);
            count_actors();
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                kept.commit(&commit)
            }
        })
    };
    let settings = TurnSettings { idle_after: Duration::from_millis(1), max_steps: 100_000, ..TurnSettings::default() };
    let store = StoreRecipients {
        open: opens.recipient(),
        commit: commits.recipient(),
        erase: crate::testing::MemoryStore::default().erasures().recipient(),
    };
    let start = |_| Directory::new(store.clone(), Arc::clone(&clock), settings.clone()).start();
    let directories = (0..directories).map(start).collect();
    Setup { kept, opens, directories }
}

/// Returns an event with a step that no other event has.
fn step(sender: usize, n: usize) -> Observe {
    let step_id = Some(StepId::new(format!("{sender}-{n}")).unwrap());
    let kind = TurnEventKind::Progress(Progress::Usage { step_id, report: Usage::default().into(), is_final: false });
    let events = vec![TurnEvent { turn_id: TurnId::new("t").unwrap(), kind }];
    Observe { conversation_id: ConversationId::new(CONVERSATION).unwrap(), events }
}

const SENDERS: usize = 3;

/// Several senders send events of one turn at the same time, spread over the directories.
async fn race(setup: &Setup, events: usize) {
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let directory = setup.directories[sender % setup.directories.len()].clone();
            tokio::task::spawn_local(async move {
                for n in 0..events {
                    directory.send(step(sender, n)).await.unwrap().unwrap();
                    // The pauses are zero, as long as the age of retirement, or longer. They differ from sender to
                    // sender.
                    let pause = (n * (sender + 3)) % 13;
                    tokio::time::sleep(Duration::from_millis(pause as u64)).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
}

#[actix_rt::test]
async fn control_two_actors_of_one_conversation_are_caught() {
    let setup = setup(2);
    race(&setup, 20).await;
    assert!(setup.kept.most_actors.get() > 1 && setup.kept.conflicts.get() > 0);
}

#[actix_rt::test]
async fn no_event_is_lost_and_no_conversation_has_two_actors_however_often_it_is_retired() {
    const EVENTS: usize = 250;
    let setup = setup(1);
    race(&setup, EVENTS).await;
    let open = setup.kept.open.borrow();
    assert_eq!(open[&TurnId::new("t").unwrap()].turn.steps.len(), SENDERS * EVENTS);
    assert_eq!(setup.kept.conflicts.get(), 0, "two actors were at work");
    assert_eq!(setup.kept.most_actors.get(), 1, "two actors were there");
    let started = setup.opens.seen().len();
    assert!(started > 20, "it was retired just {started} times: there was no race");
}

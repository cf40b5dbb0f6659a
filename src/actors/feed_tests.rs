//! Feeds beside commits, and what a failing or closing store does to them.

use std::cell::Cell;
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::runtime::Runtime;
use crate::store::{Fault, FaultKind, Lineage, ListSealedError, Position, PositionedTurn, SealedPage};
use crate::testing::{MemoryStore, Probe, TurnScript};

async fn seal(runtime: &Runtime, conversation: &str, turn: &str) {
    let observe = TurnScript::new(conversation, turn).done("stop").observe();
    runtime.handles().intake.observe.send(observe).await.unwrap().unwrap();
}

async fn latest(runtime: &Runtime) -> Position {
    let list = ListSealed { after: None, limit: 0 };
    runtime.handles().reads.list_sealed.send(list).await.unwrap().unwrap().latest
}

/// Returns the next turn. If a feed left one out, the test would wait for ever.
async fn next(feed: &mut Feed) -> PositionedTurn {
    let next = tokio::time::timeout(Duration::from_secs(30), feed.next()).await.expect("no turn comes");
    next.unwrap().expect("the system has shut down")
}

fn number(turn: &PositionedTurn) -> u64 {
    turn.position.number
}

/// What happens to a feed. Meanwhile, turns are sealed by other tasks of the same system.
#[derive(Debug, Clone)]
enum Step {
    /// Turns are sealed in several conversations at once.
    Seal(u8),
    /// Another feed begins, at a turn that has been seen or at the beginning.
    Begin { from_start: bool },
    /// A feed takes turns, as far as it gets without waiting for long.
    Take { feed: usize, turns: u8 },
    /// A feed ends, and another one continues after the last turn that it took.
    Resume { feed: usize },
    /// A feed stops waiting in the middle of its read.
    Cancel { feed: usize },
    /// The tasks that seal turns get on.
    Pause(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..40_u8).prop_map(Step::Seal),
        1 => any::<bool>().prop_map(|from_start| Step::Begin { from_start }),
        4 => (any::<usize>(), 1..100_u8).prop_map(|(feed, turns)| Step::Take { feed, turns }),
        2 => any::<usize>().prop_map(|feed| Step::Resume { feed }),
        2 => any::<usize>().prop_map(|feed| Step::Cancel { feed }),
        2 => (1..20_u8).prop_map(Step::Pause),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A feed and the positions that were taken from it.
struct Follower {
    feed: Feed,
    begun_after: u64,
    taken: Vec<u64>,
    last: Position,
}

impl Follower {
    async fn begin(runtime: &Runtime, from_start: bool) -> Self {
        let start = if from_start { FeedStart::First } else { FeedStart::Now };
        let feed = runtime.feed(start).await.unwrap();
        let begun = latest(runtime).await;
        let begun_after = if from_start { 0 } else { begun.number };
        Self { feed, begun_after, taken: Vec::new(), last: Position { number: begun_after, ..begun } }
    }

    fn took(&mut self, turn: &PositionedTurn) {
        self.taken.push(number(turn));
        self.last = turn.position;
    }
}

async fn follow(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime = Rc::new(Runtime::builder().start().await.unwrap());
    let mut feeds = vec![Follower::begin(&runtime, true).await];
    let (mut sealed, mut sealing) = (0_u32, Vec::new());
    for step in steps {
        let count = feeds.len();
        match step {
            Step::Seal(turns) => {
                for _ in 0..turns {
                    sealed += 1;
                    let (runtime, conversation, turn) =
                        (Rc::clone(&runtime), format!("c{}", sealed % 7), format!("t{sealed}"));
                    sealing.push(actix_rt::spawn(async move { seal(&runtime, &conversation, &turn).await }));
                }
            }
            // A feed that begins now begins somewhere between the turns that are being sealed, so its beginning is
            // known only if none are.
            Step::Begin { from_start } => {
                if !from_start {
                    for task in sealing.drain(..) {
                        task.await.unwrap();
                    }
                }
                feeds.push(Follower::begin(&runtime, from_start).await);
            }
            Step::Take { feed, turns } => {
                let follower = &mut feeds[feed % count];
                for _ in 0..turns {
                    if number_left(&runtime, follower).await == 0 {
                        break;
                    }
                    let turn = next(&mut follower.feed).await;
                    follower.took(&turn);
                }
            }
            Step::Resume { feed } => {
                let follower = &mut feeds[feed % count];
                follower.feed = runtime.feed(FeedStart::After(follower.last)).await.unwrap();
            }
            Step::Cancel { feed } => {
                let follower = &mut feeds[feed % count];
                if let Ok(turn) = tokio::time::timeout(Duration::ZERO, follower.feed.next()).await {
                    follower.took(&turn.unwrap().unwrap());
                }
            }
            Step::Pause(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    for task in sealing {
        task.await.unwrap();
    }
    for follower in &mut feeds {
        while number_left(&runtime, follower).await > 0 {
            let turn = next(&mut follower.feed).await;
            follower.took(&turn);
        }
        let all: Vec<_> = (follower.begun_after + 1..=u64::from(sealed)).collect();
        prop_assert_eq!(&follower.taken, &all);
    }
    if let Ok(runtime) = Rc::try_unwrap(runtime) {
        runtime.shutdown().await;
    }
    for follower in &mut feeds {
        prop_assert_eq!(follower.feed.next().await.unwrap(), None);
    }
    Ok(())
}

/// Returns how many turns are sealed that the feed has not returned yet.
async fn number_left(runtime: &Runtime, follower: &Follower) -> u64 {
    latest(runtime).await.number - follower.last.number
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whenever_feeds_begin_fall_behind_and_resume_each_turn_comes_once_and_in_order(steps in steps()) {
        actix::System::new().block_on(follow(steps))?;
    }
}

#[actix_rt::test]
async fn a_feed_that_begins_now_has_only_what_is_sealed_later() {
    let runtime = Runtime::builder().start().await.unwrap();
    seal(&runtime, "c", "earlier").await;
    let mut feed = runtime.feed(FeedStart::Now).await.unwrap();
    seal(&runtime, "d", "later").await;
    let turn = next(&mut feed).await;
    assert_eq!((number(&turn), turn.conversation_id.as_str(), turn.turn.metrics.turn_id.as_str()), (2, "d", "later"));
    runtime.shutdown().await;
    assert_eq!(feed.next().await.unwrap(), None);
}

#[actix_rt::test]
async fn a_position_that_the_store_has_not_given_is_refused() {
    let runtime = Runtime::builder().start().await.unwrap();
    seal(&runtime, "c", "t").await;
    let latest = latest(&runtime).await;
    let others = [Position { number: 2, ..latest }, Position { lineage: Lineage(uuid::Uuid::nil()), ..latest }];
    for other in others {
        let refused = runtime.feed(FeedStart::After(other)).await.unwrap_err();
        assert_eq!(refused, ListSealedError::OtherLineage(other));
    }
    runtime.shutdown().await;
}

#[actix_rt::test]
async fn a_feed_goes_on_in_another_process_where_it_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Runtime::builder().data_dir(directory.path()).start();
    let runtime = start().await.unwrap();
    for turn in ["one", "two", "three"] {
        seal(&runtime, "c", turn).await;
    }
    let mut feed = runtime.feed(FeedStart::First).await.unwrap();
    let first = next(&mut feed).await;
    runtime.shutdown().await;

    let runtime = start().await.unwrap();
    seal(&runtime, "d", "four").await;
    let mut feed = runtime.feed(FeedStart::After(first.position)).await.unwrap();
    for expected in ["two", "three", "four"] {
        assert_eq!(next(&mut feed).await.turn.metrics.turn_id.as_str(), expected);
    }
    runtime.shutdown().await;
}

/// Sends each turn that it receives on, and waits each time until it may go on.
struct SlowActor {
    received: mpsc::UnboundedSender<u64>,
    go_on: Rc<tokio::sync::Semaphore>,
}

impl Actor for SlowActor {
    type Context = Context<Self>;
}

impl Handler<PositionedTurn> for SlowActor {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, turn: PositionedTurn, _: &mut Self::Context) -> Self::Result {
        let go_on = Rc::clone(&self.go_on);
        self.received.send(number(&turn)).unwrap();
        Box::pin(async move { go_on.acquire().await.unwrap().forget() })
    }
}

#[actix_rt::test]
async fn a_slow_actor_delays_no_commit_and_misses_nothing() {
    // A subscription of this system would miss all but the last four facts.
    let runtime = Runtime::builder().facts_kept(4).start().await.unwrap();
    let (send, mut received) = mpsc::unbounded_channel();
    let go_on = Rc::new(tokio::sync::Semaphore::new(0));
    let actor = SlowActor { received: send, go_on: Rc::clone(&go_on) }.start();
    let feed = runtime.feed(FeedStart::First).await.unwrap();
    let forwarding = actix_rt::spawn(feed.forward(actor.recipient()));
    for turn in 0..400 {
        seal(&runtime, "c", &format!("t{turn}")).await;
    }
    assert_eq!(received.recv().await, Some(1));
    assert!(received.try_recv().is_err(), "the actor was sent a turn before it had handled the last one");
    go_on.add_permits(1000);
    for expected in 2..=400 {
        assert_eq!(received.recv().await, Some(expected));
    }
    runtime.shutdown().await;
    forwarding.await.unwrap();
}

#[actix_rt::test]
async fn a_failed_read_loses_nothing_and_a_turn_without_a_fact_is_found() {
    tokio::time::pause();
    let store = MemoryStore::default();
    let fails = Rc::new(Cell::new(false));
    let (reading, failing) = (store.clone(), Rc::clone(&fails));
    let list = Probe::<ListSealed>::start(move |list| {
        let failed = || Fault::new(FaultKind::Disk, "the disk failed").into();
        ready(if failing.get() { Err(failed()) } else { reading.sealed_turns(list.after, list.limit) })
    });
    let commits = store.commits();
    let commit = |turn: &str| {
        let open = crate::turn::OpenTurn::new(crate::turn::TurnId::new(turn).unwrap());
        let sealed = open.seal(&crate::turn::Done::because("stop"), crate::turn::EpochMillis::new(1));
        let conversation_id = crate::turn::ConversationId::new("c").unwrap();
        let expected_version = store.conversation_state(&conversation_id, &[]).version;
        std::sync::Arc::new(crate::store::Commit {
            conversation_id,
            expected_version,
            staged: vec![],
            sealed: vec![sealed],
            imported_from: None,
        })
    };
    let facts = Facts::new(1);
    let mut feed = Feed::begin(list.recipient(), &facts, FeedStart::First).await.unwrap();
    // Nobody publishes a fact for these commits.
    commits.recipient().send(commit("one")).await.unwrap().unwrap();
    assert_eq!(number(&next(&mut feed).await), 1);
    let waiting = tokio::time::timeout(Duration::from_millis(500), feed.next()).await;
    assert!(waiting.is_err());
    commits.recipient().send(commit("two")).await.unwrap().unwrap();
    fails.set(true);
    assert_eq!(feed.next().await.unwrap_err().kind(), FaultKind::Disk);
    fails.set(false);
    assert_eq!(number(&next(&mut feed).await), 2);

    // An actor receives nothing while reads fail, and then goes on.
    let actor = Probe::<PositionedTurn>::start(|_| ready(()));
    fails.set(true);
    commits.recipient().send(commit("three")).await.unwrap().unwrap();
    let forwarding = actix_rt::spawn(feed.forward(actor.recipient()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(actor.seen().is_empty());
    fails.set(false);
    let received = tokio::time::timeout(Duration::from_mins(1), actor.wait_for(1)).await.expect("it has given up");
    assert_eq!(received.iter().map(number).collect::<Vec<_>>(), [3]);
    forwarding.abort();
}

#[actix_rt::test]
async fn positions_without_a_turn_are_passed_over() {
    let at = |number| Position { lineage: Lineage(uuid::Uuid::nil()), number };
    let list = Probe::<ListSealed>::start(move |list| {
        let after = list.after.map_or(0, |after| after.number);
        // Of the positions 1 to 9 only the last one has a turn, and each page has three positions.
        let next = if list.limit == 0 { after } else { (after + 3).min(9) };
        let turn = PositionedTurn {
            position: at(9),
            conversation_id: crate::turn::ConversationId::new("c").unwrap(),
            turn: crate::testing::stored_turn("t", 1),
        };
        let turns = if after < 9 && next == 9 { vec![turn] } else { Vec::new() };
        ready(Ok(SealedPage { turns, next: at(next), latest: at(9), left_out: 0 }))
    });
    let mut feed = Feed::begin(list.recipient(), &Facts::new(1), FeedStart::First).await.unwrap();
    assert_eq!(number(&next(&mut feed).await), 9);
}

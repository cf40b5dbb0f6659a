//! Live feeds beside commits and erasures.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::*;
use crate::runtime::Runtime;
use crate::store::{Fault, FaultKind, OpenTurns, Position, StagedTurn};
use crate::testing::{MemoryStore, Probe, TurnScript};
use crate::turn::{ConversationId, OpenTurn, RunningTime, TurnId, TurnLabels};

/// More conversations than are remembered as erased.
const MANY: usize = 300;

struct World {
    runtime: Runtime,
}

impl World {
    async fn start() -> Self {
        Self { runtime: Runtime::builder().start().await.unwrap() }
    }

    async fn observe(&self, script: TurnScript) {
        self.runtime.handles().intake.observe.send(script.observe()).await.unwrap().unwrap();
    }

    async fn seal(&self, conversation: &str, turn: &str) {
        self.observe(TurnScript::new(conversation, turn).done("stop")).await;
    }

    async fn erase(&self, conversation: &str) -> bool {
        let erase = Erase { conversation_id: ConversationId::new(conversation).unwrap() };
        self.runtime.handles().intake.erase.send(erase).await.unwrap().unwrap()
    }

    async fn begin(&self, start: FeedStart) -> LiveFeed {
        self.runtime.live_feed(start).await.unwrap()
    }
}

/// Returns the next event, shortened. If a feed left one out, the test would wait for ever.
async fn next(feed: &mut LiveFeed) -> String {
    let next = tokio::time::timeout(Duration::from_secs(30), feed.next()).await.expect("no event comes");
    shortened(&next.unwrap().expect("the system has shut down"))
}

fn shortened(event: &FeedEvent) -> String {
    match event {
        FeedEvent::Sealed(sealed) => {
            format!("{} {} sealed as {}", sealed.conversation_id, sealed.turn.metrics.turn_id, sealed.position.number)
        }
        FeedEvent::Open { conversation_id, turn } => format!("{conversation_id} {} open", turn.turn.id),
        FeedEvent::Erased(conversation_id) => format!("{conversation_id} erased"),
        FeedEvent::ErasuresMissed => "erasures missed".to_owned(),
    }
}

#[actix_rt::test]
async fn a_turn_that_was_read_before_its_conversation_was_erased_does_not_come_after_that() {
    let world = World::start().await;
    for (conversation, turn) in [("c", "one"), ("d", "one"), ("c", "two"), ("d", "two")] {
        world.seal(conversation, turn).await;
    }
    let mut feed = world.begin(FeedStart::First).await;
    assert_eq!(next(&mut feed).await, "c one sealed as 1");
    assert!(world.erase("c").await);
    world.seal("c", "one").await;
    assert_eq!(next(&mut feed).await, "c erased");
    assert_eq!(next(&mut feed).await, "d one sealed as 2");
    assert_eq!(next(&mut feed).await, "d two sealed as 4");
    assert_eq!(next(&mut feed).await, "c one sealed as 5", "a turn of the new life");
    world.runtime.shutdown().await;
    assert_eq!(feed.next().await.unwrap(), None);
}

/// Returns a live feed whose store has no sealed turn, and one open turn, `t`, for which `answer` is called. Every second
/// read takes long.
async fn begin_beside(
    facts: &Facts,
    mut answer: impl FnMut(OpenTurn) -> Result<OpenTurn, Fault> + Unpin + 'static,
) -> LiveFeed {
    let mut is_slow = false;
    let list_open = Probe::<ListOpenTurns>::start(move |_| {
        is_slow = !is_slow;
        let pause = Duration::from_millis(if is_slow { 600 } else { 0 });
        let staged = |turn| vec![StagedTurn { turn, last_event_at: RunningTime::default() }];
        let turn = answer(OpenTurn::new(TurnId::new("t").unwrap()));
        let answer = turn.map(|turn| OpenTurns { sealed_turns: 0, turns: staged(turn) });
        async move {
            sleep(pause).await;
            answer
        }
    });
    let list = MemoryStore::default().sealed_lists().recipient();
    LiveFeed::begin(list, list_open.recipient(), facts, FeedStart::Now).await.unwrap()
}

fn note_open(facts: &Facts, conversation: &str) {
    let (id, turn_id) = (ConversationId::new(conversation).unwrap(), TurnId::new("t").unwrap());
    facts.note_open(&id, || std::iter::once(&turn_id));
}

#[actix_rt::test]
async fn an_open_turn_that_changes_often_comes_once_a_second_as_it_is_then() {
    tokio::time::pause();
    let facts = Facts::new(1);
    let changes = Rc::new(Cell::new(0));
    let present = Rc::clone(&changes);
    let with_changes = move |mut turn: OpenTurn| {
        turn.head.labels = TurnLabels::of_model(&format!("{}", present.get()));
        Ok(turn)
    };
    let mut feed = begin_beside(&facts, with_changes).await;
    let begun = Instant::now();
    let mut shown = Vec::new();
    let changing = facts.clone();
    let change = actix_rt::spawn(async move {
        loop {
            changes.set(changes.get() + 1);
            note_open(&changing, "c");
            sleep(Duration::from_millis(100)).await;
        }
    });
    while begun.elapsed() < Duration::from_secs(10) {
        let Some(FeedEvent::Open { turn, .. }) = feed.next().await.unwrap() else { panic!("no open turn") };
        let model = turn.turn.head.labels.model.unwrap();
        shown.push((begun.elapsed(), model.as_str().parse::<u32>().unwrap()));
    }
    change.abort();
    assert!((7..=11).contains(&shown.len()), "{shown:?}");
    for pair in shown.windows(2) {
        assert!(pair[1].0 >= pair[0].0 + Duration::from_millis(990), "{shown:?}");
        assert!(pair[1].1 > pair[0].1 + 5, "each state comes: {shown:?}");
    }
}

#[actix_rt::test]
async fn a_reader_that_misses_erasures_is_told_and_misses_no_turn() {
    let world = World::start().await;
    let mut feed = world.begin(FeedStart::Now).await;
    for nth in 0..MANY {
        world.seal(&format!("c{nth}"), "t").await;
        assert!(world.erase(&format!("c{nth}")).await);
    }
    world.seal("kept", "t").await;
    assert_eq!(next(&mut feed).await, "erasures missed");
    let mut rest = Vec::new();
    while rest.last().is_none_or(|event: &String| !event.starts_with("kept")) {
        rest.push(next(&mut feed).await);
    }
    assert_eq!(rest.pop().unwrap(), format!("kept t sealed as {}", MANY + 1));
    assert!(rest.len() < MANY && rest.iter().all(|event| event.ends_with("erased")), "{rest:?}");
    world.runtime.shutdown().await;
}

#[actix_rt::test]
async fn an_actor_gets_nothing_while_open_turns_cannot_be_read_and_then_goes_on() {
    tokio::time::pause();
    let facts = Facts::new(1);
    let fails = Rc::new(Cell::new(true));
    let failing = Rc::clone(&fails);
    let failed = || Fault::new(FaultKind::Disk, "the disk failed");
    let feed = begin_beside(&facts, move |turn| if failing.get() { Err(failed()) } else { Ok(turn) }).await;
    note_open(&facts, "c");
    let actor = Probe::<FeedEvent>::start(|_| ready(()));
    let forwarding = actix_rt::spawn(feed.forward(actor.recipient()));
    sleep(Duration::from_secs(5)).await;
    assert!(actor.seen().is_empty());
    fails.set(false);
    let received = tokio::time::timeout(Duration::from_mins(1), actor.wait_for(1)).await.expect("it has given up");
    assert_eq!(received.iter().map(shortened).collect::<Vec<_>>(), ["c t open"]);
    forwarding.abort();
}

/// What happens beside a live feed.
#[derive(Debug, Clone)]
enum Step {
    Open {
        conversation: u8,
    },
    Seal {
        conversation: u8,
    },
    Erase {
        conversation: u8,
    },
    /// The reader takes events, as many as come at once.
    Take {
        events: u8,
    },
    /// The reader stops waiting in the middle of a read.
    Cancel {
        polls: u8,
    },
    /// The reader continues with another feed after the last turn that it has taken.
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let conversation = || 0..3_u8;
    let step = prop_oneof![
        2 => conversation().prop_map(|conversation| Step::Open { conversation }),
        5 => conversation().prop_map(|conversation| Step::Seal { conversation }),
        1 => conversation().prop_map(|conversation| Step::Erase { conversation }),
        3 => (1..6_u8).prop_map(|events| Step::Take { events }),
        2 => (1..6_u8).prop_map(|polls| Step::Cancel { polls }),
        1 => Just(Step::Resume),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What a reader knows. A conversation's lives are counted by their erasures.
#[derive(Default)]
struct Reader {
    erased: HashMap<String, usize>,
    taken: Vec<u64>,
    last: Option<Position>,
}

impl Reader {
    /// `lives` has the life in which each turn was sealed.
    fn take(&mut self, event: &FeedEvent, lives: &HashMap<u64, (String, usize)>) -> Result<(), TestCaseError> {
        match event {
            FeedEvent::Sealed(turn) => {
                let number = turn.position.number;
                prop_assert!(self.taken.last().is_none_or(|last| *last < number), "not in order");
                let (conversation, life) = &lives[&number];
                prop_assert_eq!(conversation, turn.conversation_id.as_str());
                prop_assert!(self.erased.get(conversation).is_none_or(|erased| life >= erased), "it was erased");
                self.taken.push(number);
                self.last = Some(turn.position);
            }
            FeedEvent::Erased(conversation_id) => {
                *self.erased.entry(conversation_id.to_string()).or_default() += 1;
            }
            FeedEvent::Open { .. } => {}
            FeedEvent::ErasuresMissed => prop_assert!(false, "so few erasures cannot be missed"),
        }
        Ok(())
    }
}

async fn follow(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let world = World::start().await;
    let mut feed = world.begin(FeedStart::First).await;
    let mut reader = Reader::default();
    let mut erasures = HashMap::<String, usize>::new();
    let mut lives = HashMap::new();
    let (mut opened, mut sealed) = (0, 0_u64);
    for step in steps {
        match step {
            Step::Open { conversation } => {
                opened += 1;
                world.observe(TurnScript::new(&format!("c{conversation}"), &format!("open {opened}")).start()).await;
            }
            Step::Seal { conversation } => {
                sealed += 1;
                let conversation = format!("c{conversation}");
                let life = erasures.get(&conversation).copied().unwrap_or_default();
                lives.insert(sealed, (conversation.clone(), life));
                world.seal(&conversation, &format!("t{sealed}")).await;
            }
            Step::Erase { conversation } => {
                let conversation = format!("c{conversation}");
                if world.erase(&conversation).await {
                    *erasures.entry(conversation).or_default() += 1;
                }
            }
            Step::Take { events } => {
                for _ in 0..events {
                    let Some(event) = at_once(&mut feed, 200).await else { break };
                    reader.take(&event, &lives)?;
                }
            }
            Step::Cancel { polls } => {
                if let Some(event) = at_once(&mut feed, polls).await {
                    reader.take(&event, &lives)?;
                }
            }
            Step::Resume => {
                let start = reader.last.map_or(FeedStart::First, FeedStart::After);
                feed = world.begin(start).await;
                // It has read everything again.
                reader.erased.clone_from(&erasures);
            }
        }
    }
    world.seal("last", "t").await;
    lives.insert(sealed + 1, ("last".to_owned(), 0));
    while reader.last.is_none_or(|last| last.number <= sealed) {
        let event = tokio::time::timeout(Duration::from_secs(30), feed.next()).await.expect("no event comes");
        reader.take(&event.unwrap().unwrap(), &lives)?;
    }
    let list = ListSealed { after: None, limit: 1000 };
    let stored = world.runtime.handles().reads.list_sealed.send(list).await.unwrap().unwrap();
    let taken: HashSet<_> = reader.taken.iter().copied().collect();
    for turn in stored.turns {
        prop_assert!(taken.contains(&turn.position.number), "a stored turn did not come");
    }
    prop_assert_eq!(&reader.erased, &erasures);
    world.runtime.shutdown().await;
    Ok(())
}

/// Returns the event that comes while other tasks run this often, and stops waiting then.
async fn at_once(feed: &mut LiveFeed, polls: u8) -> Option<FeedEvent> {
    let pause = async {
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        event = feed.next() => event.unwrap(),
        () = pause => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whenever_a_reader_falls_behind_stops_waiting_or_resumes_it_gets_each_stored_turn_once_and_no_erased_one(
        steps in steps(),
    ) {
        actix::System::new().block_on(follow(steps))?;
    }
}

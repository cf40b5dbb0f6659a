//! Tests of a conversation's actor through its messages alone. Probes stand in for the store.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use super::parts::PART_TURNS;
use super::*;
use crate::actors::{Fact, TurnReceipt};
use crate::store::{FaultKind, StagedTurn, StaleBefore};
use crate::testing::{MemoryStore, Probe, TestClock};
use crate::turn::{Done, EpochMillis, OpenTurn, Ordinal, RunningTime, TurnEvent, parse_line};

fn fault() -> Fault {
    Fault::new(FaultKind::Disk, "the disk failed")
}

struct Setup {
    kept: MemoryStore,
    clock: TestClock,
    running: RunningClock,
    opens: Probe<OpenConversation>,
    commits: Probe<Arc<Commit>>,
    actor: Addr<Conversation>,
}

/// Starts a conversation. The function `commit` answers its commits, and may use the kept store for that.
fn setup_with<F>(
    settings: &TurnSettings,
    mut commit: impl FnMut(MemoryStore, Arc<Commit>) -> F + Unpin + 'static,
) -> Setup
where
    F: Future<Output = Result<Committed, CommitError>> + 'static,
{
    let kept = MemoryStore::default();
    let clock = TestClock::at(1000);
    let opens = kept.opens();
    let commits = {
        let kept = kept.clone();
        Probe::start(move |message| commit(kept.clone(), message))
    };
    let store =
        StoreRecipients { open: opens.recipient(), commit: commits.recipient(), erase: kept.erasures().recipient() };
    let id = ConversationId::new("c").unwrap();
    let running = RunningClock::at(RunningTime::new(500));
    let actor = Conversation::new(id, store, Arc::new(clock.clone()), settings).counting(running.clone()).start();
    Setup { kept, clock, running, opens, commits, actor }
}

fn setup() -> Setup {
    setup_with(&TurnSettings::default(), |kept, commit| async move { kept.commit(&commit) })
}

fn event(json: &str) -> TurnEvent {
    let line = json.replacen('{', r#"{"conversationId":"c","#, 1);
    parse_line(line.as_bytes()).unwrap().unwrap().event
}

fn observe(events: Vec<TurnEvent>) -> Observe {
    Observe { conversation_id: ConversationId::new("c").unwrap(), events }
}

fn start(turn: &str) -> TurnEvent {
    event(&format!(r#"{{"type":"turn-start","turnId":"{turn}"}}"#))
}

fn usage(turn: &str, step: u32, tokens: u32) -> TurnEvent {
    event(&format!(
        r#"{{"type":"usage","turnId":"{turn}","stepId":"{turn}#{step}","usage":{{"inputTokens":{tokens},"outputTokens":1}}}}"#
    ))
}

fn error(turn: &str) -> TurnEvent {
    event(&format!(r#"{{"type":"error","turnId":"{turn}","message":"overloaded"}}"#))
}

fn done(turn: &str) -> TurnEvent {
    event(&format!(r#"{{"type":"done","turnId":"{turn}","reason":"stop"}}"#))
}

fn told(turn: &str, ordinal: u64, duplicate: bool) -> TurnReceipt {
    TurnReceipt { turn_id: TurnId::new(turn).unwrap(), ordinal: Ordinal::new(ordinal).unwrap(), duplicate }
}

impl Setup {
    fn open_turns(&self) -> Vec<StagedTurn> {
        self.kept.conversation_state(&ConversationId::new("c").unwrap(), &[]).open_turns
    }

    async fn send(&self, events: Vec<TurnEvent>) -> Result<Receipt, ObserveError> {
        self.actor.send(observe(events)).await.unwrap()
    }

    async fn receipt(&self, events: Vec<TurnEvent>) -> Vec<TurnReceipt> {
        self.send(events).await.unwrap().sealed
    }
}

#[actix_rt::test]
async fn events_are_acknowledged_when_they_are_staged_and_a_done_seals() {
    let setup = setup();
    assert_eq!(setup.receipt(vec![start("t"), usage("t", 0, 5)]).await, []);
    let staged = setup.open_turns();
    assert_eq!(staged.len(), 1);
    assert_eq!(staged[0].last_event_at, RunningTime::new(500));
    assert_eq!(staged[0].turn.steps.len(), 1);

    assert_eq!(setup.receipt(vec![done("t")]).await, [told("t", 1, false)]);
    let commit = setup.commits.seen().pop().unwrap();
    assert_eq!(commit.sealed[0].metrics.usage.input_tokens, 5.into(), "what was staged is in the sealed turn");
    assert_eq!(setup.open_turns(), []);
    assert_eq!(setup.opens.seen().len(), 1, "one load serves for all");
}

#[actix_rt::test]
async fn a_conversation_starts_from_what_was_staged() {
    let setup = setup();
    setup.send(vec![usage("t", 0, 5)]).await.unwrap();
    let store = StoreRecipients {
        open: setup.opens.recipient(),
        commit: setup.commits.recipient(),
        erase: setup.kept.erasures().recipient(),
    };
    let id = ConversationId::new("c").unwrap();
    let again = Conversation::new(id, store, Arc::new(setup.clock.clone()), &TurnSettings::default()).start();
    again.send(observe(vec![done("t")])).await.unwrap().unwrap();
    assert_eq!(setup.commits.seen()[1].sealed[0].metrics.steps.len(), 1);
}

#[actix_rt::test]
async fn each_event_of_a_turn_of_4096_steps_stages_one_step() {
    const STEPS: u32 = 4096;
    let settings = TurnSettings { max_steps: 5000, ..TurnSettings::default() };
    let setup = setup_with(&settings, |kept, commit| async move { kept.commit(&commit) });
    setup.send((0..STEPS).map(|step| usage("t", step, 1)).collect()).await.unwrap();
    for step in [7, 4000, STEPS] {
        setup.send(vec![usage("t", step, 5)]).await.unwrap();
        let commit = setup.commits.seen().pop().unwrap();
        assert_eq!(commit.staged[0].steps.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [step]);
    }
    setup.send(vec![error("t"), start("t")]).await.unwrap();
    assert_eq!(setup.commits.seen().pop().unwrap().staged[0].steps, [], "these are of no step");
    assert_eq!(setup.open_turns()[0].turn.steps.count(), STEPS + 1);
    setup.send(vec![done("t")]).await.unwrap();
    let commit = setup.commits.seen().pop().unwrap();
    let sealed = &commit.sealed[0].metrics;
    assert_eq!((sealed.steps.len(), sealed.usage.input_tokens), (4097, (STEPS - 2 + 3 * 5).into()));
}

#[actix_rt::test]
async fn requests_of_one_commit_go_on_from_each_other_and_a_refused_one_leaves_nothing() {
    let settings = TurnSettings { max_steps: 3, ..TurnSettings::default() };
    let gate = Rc::new(tokio::sync::Semaphore::new(1));
    let held = Rc::clone(&gate);
    let setup = setup_with(&settings, move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            kept.commit(&commit)
        }
    });
    setup.send(vec![usage("t", 0, 1)]).await.unwrap();
    let first = tokio::task::spawn_local(setup.actor.send(observe(vec![start("other")])));
    setup.commits.wait_for(2).await;
    let requests = [
        vec![usage("t", 0, 2), usage("t", 1, 2)],
        vec![usage("t", 1, 3), usage("t", 2, 3), usage("t", 3, 3)],
        vec![usage("t", 1, 4), start("new"), done("new")],
        vec![usage("new", 0, 9), usage("t", 2, 5)],
    ];
    let sent = requests.map(|events| tokio::task::spawn_local(setup.actor.send(observe(events))));
    tokio::task::yield_now().await;
    gate.add_permits(2);
    first.await.unwrap().unwrap().unwrap();
    let [one, two, three, four] = sent;
    one.await.unwrap().unwrap().unwrap();
    assert!(matches!(two.await.unwrap().unwrap(), Err(ObserveError::TooManySteps { .. })));
    assert_eq!(three.await.unwrap().unwrap().unwrap().sealed, [told("new", 1, false)]);
    let late = four.await.unwrap().unwrap().unwrap();
    assert_eq!((late.sealed, late.late), (vec![told("new", 1, true)], 1));
    assert_eq!(setup.commits.seen().len(), 3, "all of them are one commit");
    let open = setup.open_turns();
    let steps = &open.iter().find(|staged| staged.turn.id.as_str() == "t").unwrap().turn.steps;
    let tokens: Vec<_> = steps.iter().map(|step| step.reports.joined().unwrap().usage().input_tokens.get()).collect();
    assert_eq!(tokens, [2, 4, 5]);
}

#[actix_rt::test]
async fn turns_of_a_batch_get_their_order_from_their_dones() {
    let setup = setup();
    let events = vec![start("a"), start("b"), start("z"), done("b"), done("a")];
    assert_eq!(setup.receipt(events).await, [told("a", 2, false), told("b", 1, false)]);
    let commit = &setup.commits.seen()[0];
    assert_eq!((commit.staged.len(), commit.sealed.len()), (1, 2));
}

#[actix_rt::test]
async fn late_events_change_nothing_and_are_told_as_duplicates() {
    let setup = setup();
    let in_the_same_batch = setup.receipt(vec![usage("t", 0, 5), done("t"), usage("t", 0, 99), done("t")]).await;
    assert_eq!(in_the_same_batch, [told("t", 1, false), told("t", 1, true)]);
    assert_eq!(setup.commits.seen()[0].sealed[0].metrics.usage.input_tokens, 5.into());
    assert_eq!(setup.receipt(vec![usage("t", 0, 99)]).await, [told("t", 1, true)]);
    assert_eq!(setup.receipt(vec![usage("t", 0, 5), done("t")]).await, [told("t", 1, true)]);
    assert_eq!(setup.open_turns(), []);
}

#[actix_rt::test]
async fn late_events_are_counted_whether_or_not_the_actor_knew_of_the_end() {
    let setup = setup();
    let late = async |events| setup.send(events).await.unwrap().late;
    assert_eq!(late(vec![start("t"), usage("t", 0, 5), done("t")]).await, 0);
    assert_eq!(late(vec![start("t"), usage("t", 0, 5), done("t"), start("other")]).await, 3, "the whole turn again");
    assert_eq!(late(vec![start("u"), done("u"), usage("u", 0, 5), done("u"), usage("t", 0, 1)]).await, 3);
}

#[actix_rt::test]
async fn nothing_is_answered_before_the_store_has_and_what_waits_meanwhile_is_one_commit() {
    let gate = Rc::new(tokio::sync::Semaphore::new(0));
    let held = Rc::clone(&gate);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            kept.commit(&commit)
        }
    });
    let first = tokio::task::spawn_local(setup.actor.send(observe(vec![start("a")])));
    setup.commits.wait_for(1).await;
    let others: Vec<_> =
        ["b", "c", "d"].map(|turn| tokio::task::spawn_local(setup.actor.send(observe(vec![done(turn)])))).into();
    tokio::task::yield_now().await;
    assert!(!first.is_finished(), "acknowledged before it was durable");

    gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap().unwrap(), Receipt::default());
    for (ordinal, (turn, other)) in (1..).zip(["b", "c", "d"].into_iter().zip(others)) {
        assert_eq!(other.await.unwrap().unwrap().unwrap().sealed, [told(turn, ordinal, false)]);
    }
    assert_eq!(setup.commits.seen().len(), 2);
}

#[actix_rt::test]
async fn many_waiting_messages_become_several_commits() {
    const TURNS: usize = 50;
    let gate = Rc::new(tokio::sync::Semaphore::new(0));
    let held = Rc::clone(&gate);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            kept.commit(&commit)
        }
    });
    let send = |nth: usize| {
        let events = (0..TURNS).map(|turn| done(&format!("{nth}-{turn}"))).collect();
        tokio::task::spawn_local(setup.actor.send(observe(events)))
    };
    let first = send(0);
    setup.commits.wait_for(1).await;
    let others: Vec<_> = (1..20).map(send).collect();
    tokio::task::yield_now().await;
    gate.add_permits(100);
    for (nth, answer) in [first].into_iter().chain(others).enumerate() {
        let receipt = answer.await.unwrap().unwrap().unwrap();
        let ordinals = receipt.sealed.iter().map(|turn| usize::try_from(turn.ordinal.get()).unwrap());
        assert!(ordinals.eq(nth * TURNS + 1..=(nth + 1) * TURNS), "the order of the messages is kept");
    }
    let commits: Vec<_> = setup.commits.seen().iter().map(|commit| commit.sealed.len()).collect();
    assert!(commits.iter().all(|turns| *turns < Draft::FULL_TURNS + TURNS), "{commits:?}");
    assert!(commits.len() < 12, "more than one message fits into a commit: {commits:?}");
}

fn dones(count: usize) -> Vec<TurnEvent> {
    (0..count).map(|nth| done(&format!("turn-{nth}"))).collect()
}

/// Returns the number of turns in each commit so far.
fn sizes(setup: &Setup) -> Vec<usize> {
    setup.commits.seen().iter().map(|commit| commit.sealed.len() + commit.staged.len()).collect()
}

#[actix_rt::test]
async fn a_message_of_many_turns_becomes_a_commit_for_each_part_and_is_answered_as_one() {
    let setup = setup();
    let receipt = setup.send(dones(1000)).await.unwrap();
    let ordinals = receipt.sealed.iter().map(|turn| (turn.turn_id.to_string(), turn.ordinal.get(), turn.duplicate));
    assert!(ordinals.eq((0..1000).map(|nth| (format!("turn-{nth}"), nth + 1, false))));
    assert_eq!(sizes(&setup), [[PART_TURNS; 7].to_vec(), vec![1000 - 7 * PART_TURNS]].concat());

    let again = setup.send(dones(1000)).await.unwrap();
    assert_eq!((again.sealed.len(), again.late), (1000, 1000));
    assert!(again.sealed.iter().all(|turn| turn.duplicate));
}

#[actix_rt::test]
async fn a_message_of_many_turns_over_a_limit_is_refused_whole_wherever_it_exceeds_it() {
    let settings = TurnSettings { max_steps: 2, max_open_turns: 9, ..TurnSettings::default() };
    let setup = setup_with(&settings, |kept, commit| async move { kept.commit(&commit) });
    let starts = |count: usize| (0..count).map(|nth| start(&format!("open-{nth}"))).collect::<Vec<_>>();
    let too_many_turns = [dones(300), starts(10)].concat();
    let refusal = setup.send(too_many_turns).await.unwrap_err();
    assert!(matches!(refusal, ObserveError::TooManyOpenTurns { limit: 9, .. }), "{refusal}");
    let too_many_steps = [dones(300), (0..3).map(|step| usage("t", step, 1)).collect()].concat();
    let refusal = setup.send(too_many_steps).await.unwrap_err();
    assert!(matches!(refusal, ObserveError::TooManySteps { limit: 2, .. }), "{refusal}");
    assert_eq!(sizes(&setup), [0; 0], "nothing of either was taken in");
    let within = [dones(300), starts(9), vec![usage("open-0", 0, 1), usage("open-0", 1, 1)]].concat();
    assert_eq!(setup.receipt(within).await.len(), 300);
    assert_eq!(setup.open_turns().len(), 9);
}

#[actix_rt::test]
async fn a_late_event_in_a_later_part_is_reported_even_if_it_opens_no_turn() {
    let setup = setup();
    setup.send(vec![done("early"), done("other")]).await.unwrap();
    let events = [dones(300), vec![error("early"), error("unknown"), start("other")]].concat();
    let receipt = setup.send(events).await.unwrap();
    assert_eq!((receipt.sealed.len(), receipt.late), (302, 2));
    assert_eq!(receipt.sealed[300..], [told("early", 1, true), told("other", 2, true)]);
    assert_eq!(setup.open_turns(), []);
}

#[actix_rt::test]
async fn a_late_event_is_told_of_a_turn_that_an_earlier_part_has_sealed() {
    let setup = setup();
    let receipt = setup.send([dones(300), vec![error("turn-0"), done("turn-1")]].concat()).await.unwrap();
    assert_eq!((receipt.sealed.len(), receipt.late), (302, 2));
    assert_eq!(receipt.sealed[300..], [told("turn-0", 1, true), told("turn-1", 2, true)]);
}

#[actix_rt::test]
async fn an_erasure_waits_for_the_commit_in_progress_and_comes_before_the_work_that_waits() {
    let gate = Rc::new(tokio::sync::Semaphore::new(1));
    let held = Rc::clone(&gate);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            kept.commit(&commit)
        }
    });
    let erase = || Erase { conversation_id: ConversationId::new("c").unwrap() };
    assert_eq!(setup.receipt(vec![usage("t", 0, 5), done("u")]).await, [told("u", 1, false)]);
    let first = tokio::task::spawn_local(setup.actor.send(observe(vec![done("v")])));
    setup.commits.wait_for(2).await;
    let waiting = tokio::task::spawn_local(setup.actor.send(observe(vec![done("u")])));
    let erasing = [0, 1].map(|_| tokio::task::spawn_local(setup.actor.send(erase())));
    tokio::task::yield_now().await;
    assert!(erasing.iter().all(|erasing| !erasing.is_finished()), "an earlier commit is not durable yet");
    gate.add_permits(9);
    assert_eq!(first.await.unwrap().unwrap().unwrap().sealed, [told("v", 2, false)]);
    let mut answers = Vec::new();
    for erasing in erasing {
        answers.push(erasing.await.unwrap().unwrap());
    }
    assert_eq!(answers, [Ok(true), Ok(false)], "two erasures at once are one");
    // The turn was sealed in the life before. It is a new turn in this one.
    assert_eq!(waiting.await.unwrap().unwrap().unwrap().sealed, [told("u", 1, false)]);
    // So is the rest of the turn that was open.
    assert_eq!(setup.receipt(vec![usage("t", 1, 7), done("t")]).await, [told("t", 2, false)]);
    let turns = setup.kept.all_turns("c");
    assert_eq!(turns[1].metrics.steps.iter().map(|step| step.step_id.as_str()).collect::<Vec<_>>(), ["t#1"]);
    assert_eq!(setup.open_turns(), []);
}

#[actix_rt::test]
async fn a_late_event_is_reported_even_if_a_conflict_made_the_conversation_load_again() {
    let count = Rc::new(Cell::new(0));
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        count.update(|count| count + 1);
        if count.get() == 3 {
            let theirs = Commit { staged: vec![], sealed: vec![sealed_elsewhere()], ..(*commit).clone() };
            kept.commit(&theirs).unwrap();
        }
        async move { kept.commit(&commit) }
    });
    let receipt = setup.send([dones(300), vec![error("turn-0")]].concat()).await.unwrap();
    assert_eq!((receipt.sealed.len(), receipt.late), (301, 1));
    assert_eq!(receipt.sealed[300], told("turn-0", 1, true));
}

#[actix_rt::test]
async fn after_a_conflict_a_message_of_many_turns_goes_on_with_the_part_it_was_at() {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        counted.update(|count| count + 1);
        if counted.get() == 2 {
            let theirs = Commit { staged: vec![], sealed: vec![sealed_elsewhere()], ..(*commit).clone() };
            kept.commit(&theirs).unwrap();
        }
        async move { kept.commit(&commit) }
    });
    let receipt = setup.send(dones(300)).await.unwrap();
    assert!(receipt.sealed.iter().all(|turn| !turn.duplicate));
    assert_eq!((receipt.sealed.len(), receipt.late), (300, 0));
    let last = 300 - 2 * PART_TURNS;
    assert_eq!(sizes(&setup), [PART_TURNS, PART_TURNS, PART_TURNS, last], "the second one was made again");
}

#[actix_rt::test]
async fn only_the_message_that_makes_a_commit_too_large_is_refused() {
    const LIMIT: usize = 2000;
    let gate = Rc::new(tokio::sync::Semaphore::new(0));
    let held = Rc::clone(&gate);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            let bytes = commit.bytes();
            if bytes > LIMIT { Err(CommitError::TooLarge { bytes, limit: LIMIT }) } else { kept.commit(&commit) }
        }
    });
    let send = |events| tokio::task::spawn_local(setup.actor.send(observe(events)));
    let first = send(vec![start("a")]);
    setup.commits.wait_for(1).await;
    let large = (0..9).map(|step| usage("large", step, 1)).collect();
    let [before, large, after] = [vec![usage("a", 0, 1)], large, vec![done("a")]].map(send);
    tokio::task::yield_now().await;
    gate.add_permits(100);
    for small in [first, before] {
        assert_eq!(small.await.unwrap().unwrap(), Ok(Receipt::default()));
    }
    let conversation_id = ConversationId::new("c").unwrap();
    let refusal = large.await.unwrap().unwrap().unwrap_err();
    assert_eq!(refusal, ObserveError::CommitTooLarge { conversation_id, limit: LIMIT });
    assert!(refusal.to_string().contains("`store.max_commit_bytes`") && refusal.is_over_limit());
    assert_eq!(after.await.unwrap().unwrap().unwrap().sealed, [told("a", 1, false)]);
    assert_eq!(setup.open_turns(), [], "nothing of the large one is there");

    // The commits one by one are over: the waiting messages become one commit again.
    let before = setup.commits.seen().len();
    let many = ["x", "y", "z"].map(|turn| send(vec![done(turn)]));
    for one in many {
        one.await.unwrap().unwrap().unwrap();
    }
    assert!(setup.commits.seen().len() - before < 3);
}

/// Conversations that share the memory for their open turns.
struct Sharing {
    kept: MemoryStore,
    opens: Probe<OpenConversation>,
    /// The largest number of bytes that were held during a commit.
    most: Rc<Cell<usize>>,
    actors: Vec<Addr<Conversation>>,
}

fn sharing(count: usize, settings: &TurnSettings) -> Sharing {
    let kept = MemoryStore::default();
    let opens = kept.opens();
    let memory = Memory::new(settings.max_active_bytes);
    let most = Rc::new(Cell::new(0));
    let commits = {
        let (kept, memory, most) = (kept.clone(), memory.clone(), Rc::clone(&most));
        Probe::<Arc<Commit>>::start(move |commit| {
            let (kept, memory, most) = (kept.clone(), memory.clone(), Rc::clone(&most));
            async move {
                tokio::task::yield_now().await;
                most.set(most.get().max(memory.held().0));
                kept.commit(&commit)
            }
        })
    };
    let store =
        StoreRecipients { open: opens.recipient(), commit: commits.recipient(), erase: kept.erasures().recipient() };
    let start = |nth: usize| {
        let id = ConversationId::new(format!("c{nth}")).unwrap();
        let clock = Arc::new(TestClock::at(1000));
        Conversation::new(id, store.clone(), clock, settings).sharing(memory.clone()).start()
    };
    Sharing { opens, most, actors: (0..count).map(start).collect(), kept }
}

impl Sharing {
    /// Sends each conversation a message for each step, all at once, and then seals its turn. Returns the number of
    /// steps of each sealed turn.
    async fn run(&self, steps: u32) -> Vec<usize> {
        let send = |(nth, step): (usize, u32)| {
            let conversation_id = ConversationId::new(format!("c{nth}")).unwrap();
            let events = vec![if step < steps { usage("t", step, 1) } else { done("t") }];
            tokio::task::spawn_local(self.actors[nth].send(Observe { conversation_id, events }))
        };
        let conversations = 0..self.actors.len();
        let all = |step| conversations.clone().map(move |nth| (nth, step));
        let answers: Vec<_> = (0..steps).flat_map(all).map(send).collect();
        for answer in answers {
            answer.await.unwrap().unwrap().unwrap();
        }
        let answers: Vec<_> = all(steps).map(send).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().unwrap().unwrap().sealed, [told("t", 1, false)]);
        }
        conversations.map(|nth| self.kept.all_turns(&format!("c{nth}"))[0].metrics.steps.len()).collect()
    }
}

#[actix_rt::test]
async fn conversations_that_do_not_fit_into_memory_together_take_turns_and_lose_nothing() {
    // A turn of 6 steps has 3,604 bytes, so the memory has room for one and a half.
    let settings = TurnSettings { max_open_bytes: 4000, max_active_bytes: 5000, ..TurnSettings::default() };
    let sharing = sharing(12, &settings);
    assert_eq!(sharing.run(6).await, [6; 12]);
    assert!(sharing.most.get() <= 5000, "{} bytes", sharing.most.get());
    assert!(sharing.opens.seen().len() > 12, "some were forgotten and loaded again");
}

#[actix_rt::test]
async fn control_without_that_limit_more_is_held_and_each_is_loaded_once() {
    let sharing = sharing(12, &TurnSettings::default());
    assert_eq!(sharing.run(6).await, [6; 12]);
    assert!(sharing.most.get() > 5000, "{} bytes", sharing.most.get());
    assert_eq!(sharing.opens.seen().len(), 12);
}

#[actix_rt::test]
async fn a_conversation_larger_than_a_limit_that_was_lowered_can_still_end_its_turns() {
    let wide = sharing(1, &TurnSettings::default());
    let id = ConversationId::new("c0").unwrap();
    let send = async |actor: &Addr<Conversation>, events| {
        actor.send(Observe { conversation_id: ConversationId::new("c0").unwrap(), events }).await.unwrap()
    };
    send(&wide.actors[0], (0..9).map(|step| usage("t", step, 1)).collect()).await.unwrap();
    let settings =
        TurnSettings { max_turn_bytes: 1024, max_open_bytes: 1024, max_active_bytes: 1024, ..TurnSettings::default() };
    let commits = {
        let kept = wide.kept.clone();
        Probe::<Arc<Commit>>::start(move |commit| {
            let kept = kept.clone();
            async move { kept.commit(&commit) }
        })
    };
    let store = StoreRecipients {
        open: wide.opens.recipient(),
        commit: commits.recipient(),
        erase: wide.kept.erasures().recipient(),
    };
    let narrow = Conversation::new(id, store, Arc::new(TestClock::at(1000)), &settings).start();
    let refusal = send(&narrow, vec![usage("t", 9, 1)]).await;
    assert!(matches!(refusal, Err(ObserveError::TurnTooLarge { limit: 1024, .. })), "{refusal:?}");
    send(&narrow, vec![usage("t", 8, 7)]).await.unwrap();
    assert_eq!(send(&narrow, vec![done("t")]).await.unwrap().sealed, [told("t", 1, false)]);
}

#[actix_rt::test]
async fn a_conflict_is_resolved_by_opening_again_and_folding_again() {
    let conflicts = Rc::new(Cell::new(1));
    let left = Rc::clone(&conflicts);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        if left.replace(0) > 0 {
            // Another process stages a step of the same turn first.
            let mut staged =
                StagedTurn { turn: OpenTurn::new(TurnId::new("t").unwrap()), last_event_at: RunningTime::new(1) };
            if let crate::turn::TurnEventKind::Progress(progress) = usage("t", 7, 70).kind {
                staged.turn.fold(&progress);
            }
            let conversation_id = commit.conversation_id.clone();
            let theirs = Commit {
                conversation_id,
                expected_version: Version(0),
                staged: vec![staged.into()],
                sealed: vec![],
                imported_from: None,
            };
            kept.commit(&theirs).unwrap();
        }
        async move { kept.commit(&commit) }
    });
    assert_eq!(setup.receipt(vec![usage("t", 0, 5), done("t")]).await, [told("t", 1, false)]);
    let commits = setup.commits.seen();
    assert_eq!(commits.iter().map(|commit| commit.expected_version.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(setup.opens.seen().len(), 2);
    assert_eq!(commits[1].sealed[0].metrics.steps.len(), 2, "what the other process staged is in the turn");
}

#[actix_rt::test]
async fn endless_conflicts_end_in_an_error() {
    let setup = setup_with(&TurnSettings::default(), |_, commit| async move {
        Err(CommitError::Conflict { expected: commit.expected_version, actual: Version(99) })
    });
    assert_eq!(setup.send(vec![start("t")]).await, Err(ObserveError::Contended));
    assert_eq!(setup.commits.seen().len(), 9);
}

#[actix_rt::test]
async fn after_an_unknown_outcome_the_state_is_loaded_again() {
    let fail = Rc::new(Cell::new(true));
    let failing = Rc::clone(&fail);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        // The commit became durable, but its acknowledgement is lost.
        let committed = kept.commit(&commit);
        let lost = failing.get();
        async move { if lost { Err(CommitError::Unavailable(fault())) } else { committed } }
    });
    let events = vec![usage("t", 0, 5), done("t")];
    let unknown = setup.send(events.clone()).await;
    assert_eq!(unknown, Err(ObserveError::StoreUnavailable(fault())));
    fail.set(false);
    assert_eq!(setup.receipt(events).await, [told("t", 1, true)], "sent again it is found sealed");
    assert_eq!(setup.opens.seen().len(), 2);
}

#[actix_rt::test]
async fn overload_leaves_the_state_as_it_was() {
    let refuse = Rc::new(Cell::new(true));
    let refusing = Rc::clone(&refuse);
    let setup = setup_with(&TurnSettings::default(), move |kept, commit| {
        let refused = refusing.replace(false);
        async move { if refused { Err(CommitError::Overloaded) } else { kept.commit(&commit) } }
    });
    assert_eq!(setup.send(vec![usage("t", 0, 5)]).await, Err(ObserveError::Overloaded));
    setup.send(vec![usage("t", 1, 5)]).await.unwrap();
    assert_eq!(setup.commits.seen()[1].staged[0].step_count, 1, "the refused event is not in there");
    assert_eq!(setup.opens.seen().len(), 1);
}

#[actix_rt::test]
async fn limits_refuse_the_whole_message_and_nothing_else() {
    let settings = TurnSettings { max_open_turns: 2, max_steps: 2, ..TurnSettings::default() };
    let setup = setup_with(&settings, |kept, commit| async move { kept.commit(&commit) });
    let steps = setup.send(vec![usage("t", 0, 1), usage("t", 1, 1), usage("t", 2, 1)]).await;
    assert_eq!(steps, Err(ObserveError::TooManySteps { turn_id: TurnId::new("t").unwrap(), limit: 2 }));
    let turns = setup.send(vec![start("a"), start("b"), start("c")]).await;
    let conversation_id = ConversationId::new("c").unwrap();
    assert_eq!(turns, Err(ObserveError::TooManyOpenTurns { conversation_id, limit: 2 }));
    assert_eq!(setup.commits.seen(), [], "nothing of either was taken in");

    setup.send(vec![start("a"), start("b"), usage("a", 0, 1), usage("a", 1, 1), usage("a", 0, 9)]).await.unwrap();
    assert!(setup.send(vec![start("c")]).await.is_err());
    let many_that_end = ["c", "d", "e"].into_iter().flat_map(|turn| [start(turn), done(turn)]).collect();
    assert_eq!(setup.receipt(many_that_end).await.len(), 3, "sealed turns are not open");
    assert_eq!(setup.receipt(vec![done("a"), start("f")]).await.len(), 1, "one goes, one comes");
}

#[actix_rt::test]
async fn events_of_sealed_turns_are_late_and_not_new_turns_even_at_the_limit() {
    let settings = TurnSettings { max_open_turns: 2, ..TurnSettings::default() };
    let setup = setup_with(&settings, |kept, commit| async move { kept.commit(&commit) });
    setup.send(vec![done("a"), done("b"), start("c"), start("d")]).await.unwrap();
    assert_eq!(setup.receipt(vec![start("a")]).await, [told("a", 1, true)]);
    assert_eq!(
        setup.receipt(vec![start("b"), usage("c", 0, 1), start("a")]).await,
        [told("b", 2, true), told("a", 1, true)]
    );
    assert!(matches!(setup.send(vec![start("a"), start("e")]).await, Err(ObserveError::TooManyOpenTurns { .. })));
    assert_eq!(setup.open_turns().len(), 2);
    assert_eq!(setup.receipt(vec![done("c"), start("e")]).await, [told("c", 3, false)], "and the limit is as it was");
}

#[actix_rt::test]
async fn a_late_event_at_the_limit_is_answered_in_the_next_round_whoever_else_keeps_sending() {
    let settings = TurnSettings { max_open_turns: 1, ..TurnSettings::default() };
    let gate = Rc::new(tokio::sync::Semaphore::new(2));
    let held = Rc::clone(&gate);
    let setup = setup_with(&settings, move |kept, commit| {
        let held = Rc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            kept.commit(&commit)
        }
    });
    setup.send(vec![done("a")]).await.unwrap();
    setup.send(vec![start("b")]).await.unwrap();
    let first = tokio::task::spawn_local(setup.actor.send(observe(vec![usage("b", 0, 1)])));
    setup.commits.wait_for(3).await;
    // Both messages wait for the third commit. The commit after it must not have only the other senders' messages.
    let late = tokio::task::spawn_local(setup.actor.send(observe(vec![start("a")])));
    let other = tokio::task::spawn_local(setup.actor.send(observe(vec![usage("b", 1, 1)])));
    gate.add_permits(1);
    first.await.unwrap().unwrap().unwrap();
    setup.commits.wait_for(4).await;
    assert_eq!(setup.opens.seen().len(), 2, "it was put off while others were served");
    gate.add_permits(1);
    other.await.unwrap().unwrap().unwrap();
    assert_eq!(late.await.unwrap().unwrap().unwrap().sealed, [told("a", 1, true)]);
}

#[actix_rt::test]
async fn late_events_at_the_limit_that_come_while_others_are_looked_up_are_each_answered() {
    let settings = TurnSettings { max_open_turns: 1, ..TurnSettings::default() };
    let setup = setup_with(&settings, |kept, commit| async move { kept.commit(&commit) });
    setup.send(vec![done("a"), done("b"), done("c"), start("open")]).await.unwrap();
    let first = tokio::task::spawn_local(setup.actor.send(observe(vec![start("a")])));
    setup.opens.wait_for(2).await;
    // These messages come after the look-up for the first one was sent, so they need another look-up.
    let second = tokio::task::spawn_local(setup.actor.send(observe(vec![start("b")])));
    let third = tokio::task::spawn_local(setup.actor.send(observe(vec![start("c"), usage("open", 0, 1)])));
    assert_eq!(first.await.unwrap().unwrap().unwrap().sealed, [told("a", 1, true)]);
    assert_eq!(second.await.unwrap().unwrap().unwrap().sealed, [told("b", 2, true)]);
    assert_eq!(third.await.unwrap().unwrap().unwrap().sealed, [told("c", 3, true)]);
}

#[actix_rt::test]
async fn a_late_event_passes_no_limit_of_steps_and_none_after_a_conflict() {
    let settings = TurnSettings { max_open_turns: 1, max_steps: 1, ..TurnSettings::default() };
    let conflicts = Rc::new(Cell::new(0));
    let left = Rc::clone(&conflicts);
    let setup = setup_with(&settings, move |kept, commit| {
        if left.get() > 0 {
            left.update(|left| left - 1);
            let theirs = Commit { staged: vec![], sealed: vec![sealed_elsewhere()], ..(*commit).clone() };
            kept.commit(&theirs).unwrap();
        }
        async move { kept.commit(&commit) }
    });
    setup.send(vec![done("a")]).await.unwrap();
    assert_eq!(setup.receipt(vec![usage("a", 0, 1), usage("a", 1, 1), done("a")]).await, [told("a", 1, true)]);

    setup.send(vec![start("b")]).await.unwrap();
    conflicts.set(1);
    assert_eq!(setup.receipt(vec![start("a"), usage("b", 0, 1)]).await, [told("a", 1, true)]);
}

/// Returns a turn that another process seals.
fn sealed_elsewhere() -> SealedTurn {
    OpenTurn::new(TurnId::new("elsewhere").unwrap()).seal(&Done::because("stop"), EpochMillis::new(1))
}

#[actix_rt::test]
async fn only_turns_without_an_event_since_are_abandoned() {
    let setup = setup();
    setup.send(vec![usage("old", 0, 5), start("new")]).await.unwrap();
    // A jump of the clock must not make a turn older.
    setup.clock.advance(Duration::from_hours(48));
    setup.running.advance_to(RunningTime::new(510));
    setup.send(vec![usage("new", 0, 5)]).await.unwrap();
    let turn_ids = ["old", "new", "unknown", "old"].map(|id| TurnId::new(id).unwrap()).into();
    let abandon =
        Abandon { conversation_id: ConversationId::new("c").unwrap(), turn_ids, before: RunningTime::new(501).into() };
    let receipt = setup.actor.send(abandon.clone()).await.unwrap().unwrap();
    assert_eq!(receipt.sealed, [told("old", 1, false)]);
    let sealed = &setup.commits.seen()[2].sealed[0];
    assert_eq!((sealed.reason.as_str(), sealed.metrics.usage.input_tokens), ("abandoned", 5.into()));
    assert_eq!(setup.actor.send(abandon).await.unwrap().unwrap(), Receipt::default(), "once is enough");
    assert_eq!(setup.receipt(vec![done("old")]).await, [told("old", 1, true)]);
}

#[actix_rt::test]
async fn a_failed_turn_is_sealed_with_the_reason_error_unless_it_goes_on() {
    let setup = setup();
    setup.send(vec![usage("ended", 0, 5), error("ended"), usage("went-on", 0, 5), error("went-on")]).await.unwrap();
    setup.send(vec![usage("went-on", 0, 6), usage("open", 0, 7)]).await.unwrap();
    let turn_ids = ["ended", "went-on", "open"].map(|id| TurnId::new(id).unwrap()).into();
    let before = StaleBefore { open: RunningTime::new(500), failed: RunningTime::new(501) };
    let abandon = Abandon { conversation_id: ConversationId::new("c").unwrap(), turn_ids, before };
    let receipt = setup.actor.send(abandon).await.unwrap().unwrap();
    assert_eq!(receipt.sealed, [told("ended", 1, false)]);
    let commit = setup.commits.seen().pop().unwrap();
    let sealed = commit.sealed.last().unwrap();
    assert_eq!((sealed.reason.as_str(), sealed.metrics.usage.input_tokens), ("error", 5.into()));
    assert_eq!(setup.receipt(vec![done("went-on")]).await, [told("went-on", 2, false)]);
}

#[actix_rt::test]
async fn an_error_opens_no_turn_and_is_late_for_a_sealed_one() {
    let setup = setup();
    assert_eq!(setup.send(vec![error("t")]).await.unwrap(), Receipt::default());
    assert_eq!((setup.open_turns().len(), setup.commits.seen().len()), (0, 0));
    setup.send(vec![start("t"), done("t")]).await.unwrap();
    // The actor has forgotten which turns are sealed.
    let late = Receipt { sealed: vec![told("t", 1, true)], late: 1, ..Receipt::default() };
    assert_eq!(setup.send(vec![error("t")]).await.unwrap(), late);
    assert_eq!(setup.receipt(vec![error("u"), start("u"), error("t")]).await, [told("t", 1, true)]);
    assert!(!setup.open_turns()[0].turn.head.has_failed, "an error before the start is of no turn");
}

#[actix_rt::test]
async fn a_clock_that_jumps_back_does_not_make_the_moment_of_sealing_fall() {
    let setup = setup();
    let mut facts = Vec::new();
    for (turn, clock) in [("a", 5000), ("b", 1000), ("c", 5001)] {
        setup.clock.set(clock);
        setup.receipt(vec![done(turn)]).await;
        facts.push(setup.commits.seen().pop().unwrap().sealed[0].sealed_at.get());
    }
    assert_eq!(facts, [5000, 5000, 5001]);
}

#[actix_rt::test]
async fn a_receipt_warns_of_what_is_probably_a_mistake() {
    let setup = setup();
    let warnings = async |events| {
        let warnings = setup.send(events).await.unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let long = "x".repeat(257);
    let start = event(&format!(r#"{{"type":"turn-start","turnId":"t","model":"{long}","project":"{long}"}}"#));
    let told = warnings(vec![start.clone(), usage("t", 0, 5)]).await;
    assert!(
        matches!(&*told, [model, project] if model.contains("`model`") && project.contains("`project`")),
        "{told:?}"
    );
    let ended = r#"{"type":"done","turnId":"t","reason":"stop","usage":{"inputTokens":7},"endedAt":5}"#;
    let told = warnings(vec![event(ended)]).await;
    assert!(matches!(&*told, [end, sum] if end.contains("endedAt") && sum.contains("differs")), "{told:?}");
    assert_eq!(warnings(vec![start, event(ended)]).await, [""; 0], "what is late is not looked at");
}

#[actix_rt::test]
async fn a_store_that_cannot_be_read_refuses_and_is_asked_again() {
    let fail = Rc::new(Cell::new(true));
    let failing = Rc::clone(&fail);
    let opens = Probe::<OpenConversation>::start(move |_| {
        let result = if failing.get() { Err(fault()) } else { Ok(ConversationState::default()) };
        std::future::ready(result)
    });
    let kept = MemoryStore::default();
    let erasures = kept.erasures();
    let commits = Probe::<Arc<Commit>>::start(move |commit| std::future::ready(kept.commit(&commit)));
    let store = StoreRecipients { open: opens.recipient(), commit: commits.recipient(), erase: erasures.recipient() };
    let id = ConversationId::new("c").unwrap();
    let actor = Conversation::new(id, store, Arc::new(TestClock::at(1)), &TurnSettings::default()).start();
    let refused = actor.send(observe(vec![done("t")])).await.unwrap();
    assert_eq!(refused, Err(ObserveError::StoreUnavailable(fault())));
    fail.set(false);
    actor.send(observe(vec![done("t")])).await.unwrap().unwrap();
}

#[actix_rt::test]
async fn a_fact_is_told_when_it_is_durable_and_not_before() {
    let kept = MemoryStore::default();
    let gate = Rc::new(tokio::sync::Semaphore::new(0));
    let commits = {
        let (kept, gate) = (kept.clone(), Rc::clone(&gate));
        Probe::<Arc<Commit>>::start(move |commit| {
            let (kept, gate) = (kept.clone(), Rc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                kept.commit(&commit)
            }
        })
    };
    let facts = Facts::new(8);
    let mut subscription = facts.subscribe();
    let store = StoreRecipients {
        open: kept.opens().recipient(),
        commit: commits.recipient(),
        erase: kept.erasures().recipient(),
    };
    let id = ConversationId::new("c").unwrap();
    let actor = Conversation::new(id, store, Arc::new(TestClock::at(1)), &TurnSettings::default()).telling(facts);
    let waiting = tokio::task::spawn_local(actor.start().send(observe(vec![start("t"), done("t")])));
    commits.wait_for(1).await;
    tokio::select! {
        biased;
        fact = subscription.next() => panic!("told before it was durable: {fact:?}"),
        () = tokio::task::yield_now() => {}
    }
    gate.add_permits(1);
    waiting.await.unwrap().unwrap().unwrap();
    let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("not told") };
    assert_eq!(std::slice::from_ref(&sealed.turn), kept.all_turns("c"));
}

//! A conversation that fills the memtable alone is moved in many flushes. The test crashes the disk in each of them.

use super::client::{Client, Sabotage};
use super::disk::Disk;
use super::workload::Operation;
use crate::store::oracle::{Oracle, change};
use crate::store::{Commit, StagedTurn};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Progress, RunningTime, StepId, StepTimes, TurnId};

/// The number of commits that the memtable takes in before a commit waits for a flush.
const COMMITS: u64 = 10;

/// Returns the next commit. It seals the turn that the commit before staged, seals a new turn, stages another new turn,
/// and stages a further step of a turn that stays open.
fn commit(nth: u64, model: &Oracle) -> Commit {
    let turn = |name: &str, nth: u64| OpenTurn::new(TurnId::new(format!("{name}{nth}")).unwrap());
    let seal = |turn: OpenTurn| turn.seal(&Done::because("stop"), EpochMillis::new(nth + 1));
    let staged = |turn| StagedTurn { turn, last_event_at: RunningTime::new(nth + 1) };
    let long = turn("long", 0);
    let mut grown = model.open.get(&long.id).map_or_else(|| long.clone(), |before| before.turn.clone());
    let step_id = StepId::new(format!("step-{nth}")).unwrap();
    grown.fold(&Progress::StepComplete { step_id, times: StepTimes::default(), model: None, provider: None });
    let staged_before = nth.checked_sub(1).map(|before| turn("staged", before));
    Commit {
        conversation_id: ConversationId::new("c").unwrap(),
        expected_version: model.version,
        staged: vec![staged(turn("staged", nth)).into(), change(model.open.get(&long.id), staged(grown))],
        sealed: staged_before.into_iter().chain([turn("whole", nth)]).map(seal).collect(),
        imported_from: None,
    }
}

/// Runs the first `flushes` flushes that move the conversation, and then the next one. The disk crashes at the change
/// number `crash_after` after the first flushes. Returns whether the next flush met the crash.
fn attack(flushes: u64, crash_after: u64) -> bool {
    let disk = Disk::default();
    let mut client = Client::new(disk.clone(), Sabotage::None);
    client.start().unwrap();
    let mut model = Oracle::default();
    for nth in 0..COMMITS {
        let commit = commit(nth, &model);
        model.apply(&commit).unwrap();
        client.perform(Operation::Commits(vec![commit])).unwrap();
    }
    for _ in 0..flushes {
        client.perform(Operation::Checkpoint(1)).unwrap();
        client.check().unwrap();
    }
    disk.plan_crash(crash_after);
    client.perform(Operation::Checkpoint(1)).unwrap();
    let in_the_flush = disk.has_crashed();
    client.crash_and_check(flushes * 1000 + crash_after).unwrap();
    // Closing moves the remaining pieces into the tables, where earlier pieces of the conversation may be already.
    client.perform(Operation::Close).unwrap();
    client.check().unwrap();
    in_the_flush
}

#[test]
fn a_conversation_that_fills_a_memtable_survives_a_crash_in_each_of_the_flushes_that_move_it() {
    let crashes = |flushes| (0..1000).take_while(|n| attack(flushes, *n)).count();
    let flushes = (0..1000).take_while(|flushes| crashes(*flushes) > 0).count();
    assert!(flushes as u64 > COMMITS / 2, "everything was moved in only {flushes} flushes");
}

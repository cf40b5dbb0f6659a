//! A conversation of many turns is erased, and its rows are removed in many transactions. The test crashes the disk in
//! each of them.

use super::client::{Client, Sabotage};
use super::disk::Disk;
use super::from_environment;
use super::workload::{Operation, sealing};
use crate::store::Commit;
use crate::turn::{ConversationId, EpochMillis};

/// The test crashes at every so many changes of the disk. `TURN_METRICS_TEST_ERASE_STRIDE=1` crashes at each.
const STRIDE: u64 = 9;

/// Returns a commit that seals this many turns and stages another one.
fn commit(name: &str, version: u64, turns: u64) -> Commit {
    let sealed = (0..turns).map(|nth| (format!("t{version}-{nth}"), EpochMillis::new(nth * 70_000)));
    sealing(name, version, "m", sealed)
}

/// Erases a conversation and removes its rows. The disk crashes at the change number `crash_after` after that began.
/// Returns whether it crashed before all was done.
fn attack(crash_after: u64) -> bool {
    let disk = Disk::default();
    let mut client = Client::new(disk.clone(), Sabotage::None);
    client.start().unwrap();
    for (name, version, turns) in [("gone", 0, 400), ("stays", 0, 5), ("gone", 1, 400), ("gone", 2, 300)] {
        client.perform(Operation::Commits(vec![commit(name, version, turns)])).unwrap();
    }
    client.perform(Operation::Close).unwrap();
    // Some of its turns are only in the memtable.
    client.perform(Operation::Commits(vec![commit("gone", 3, 3)])).unwrap();
    disk.plan_crash(crash_after);
    client.perform(Operation::Erase(ConversationId::new("gone").unwrap())).unwrap();
    client.perform(Operation::Commits(vec![commit("gone", 0, 2)])).unwrap();
    for _ in 0..20 {
        client.perform(Operation::Checkpoint(1)).unwrap();
    }
    let is_in_between = disk.has_crashed();
    client.crash_and_check(crash_after).unwrap();
    client.perform(Operation::Close).unwrap();
    client.perform(Operation::Checkpoint(20)).unwrap();
    client.check().unwrap();
    is_in_between
}

#[test]
fn an_erasure_survives_a_crash_at_any_moment_with_all_sums() {
    let stride = from_environment("TURN_METRICS_TEST_ERASE_STRIDE").unwrap_or(STRIDE);
    let crashes = (0..).step_by(usize::try_from(stride).unwrap()).take_while(|after| attack(*after)).count();
    assert!(crashes as u64 * stride > 60, "all was done after {crashes} crashes");
}

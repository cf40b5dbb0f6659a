//! Many turns of several conversations are dropped in many transactions. The test crashes the disk in each of them.

use super::client::{Client, Sabotage};
use super::disk::Disk;
use super::from_environment;
use super::workload::{Operation, sealing};
use crate::store::Commit;
use crate::turn::EpochMillis;

/// The test crashes at every so many changes of the disk. `TURN_METRICS_TEST_DROP_STRIDE=1` crashes at each.
const STRIDE: u64 = 7;

/// The turns of a commit are sealed at moments that are so far apart.
const MINUTE: u64 = 60_000;

/// Returns a commit that seals turns from the minute `first` on, one a minute, and stages another one.
fn commit(name: &str, version: u64, first: u64, turns: u64) -> Commit {
    let minutes = first..first + turns;
    sealing(name, version, "dear", minutes.map(|minute| (format!("t{minute}"), EpochMillis::new(minute * MINUTE))))
}

/// Drops turns of several conversations. The disk crashes at the change number `crash_after` after that began. Returns
/// whether it crashed before all was done.
fn attack(crash_after: u64) -> bool {
    let disk = Disk::default();
    let mut client = Client::new(disk.clone(), Sabotage::None);
    client.start().unwrap();
    for (name, version, first, turns) in
        [("long", 0, 0, 400), ("drained", 0, 0, 30), ("young", 0, 500, 5), ("long", 1, 400, 300)]
    {
        client.perform(Operation::Commits(vec![commit(name, version, first, turns)])).unwrap();
    }
    client.perform(Operation::Close).unwrap();
    // The turns of one conversation are only in the memtable, and some of another one.
    client.perform(Operation::Commits(vec![commit("new", 0, 0, 3), commit("long", 2, 700, 3)])).unwrap();
    disk.plan_crash(crash_after);
    for minute in [10, 650] {
        client.perform(Operation::Drop(EpochMillis::new(minute * MINUTE))).unwrap();
        client.perform(Operation::Commits(vec![commit("drained", if minute == 10 { 1 } else { 2 }, 30, 2)])).unwrap();
    }
    client.perform(Operation::Checkpoint(5)).unwrap();
    let is_in_between = disk.has_crashed();
    client.crash_and_check(crash_after).unwrap();
    client.perform(Operation::Close).unwrap();
    client.check().unwrap();
    client.perform(Operation::Drop(EpochMillis::new(701 * MINUTE))).unwrap();
    client.check().unwrap();
    is_in_between
}

#[test]
fn dropped_turns_stay_dropped_after_a_crash_at_any_moment_and_all_sums_hold() {
    let stride = from_environment("TURN_METRICS_TEST_DROP_STRIDE").unwrap_or(STRIDE);
    let crashes = (0..).step_by(usize::try_from(stride).unwrap()).take_while(|after| attack(*after)).count();
    assert!(crashes as u64 * stride > 60, "all was done after {crashes} crashes");
}

//! Sums of erased turns of another store are taken in, while the store has erased turns of its own. The test crashes the disk
//! at each change.

use super::client::{Client, Sabotage};
use super::disk::Disk;
use super::workload::{Operation, sealing};
use crate::turn::{ConversationId, EpochMillis};

/// Takes sums in. The disk crashes at the change number `crash_after` after that began. Returns whether it crashed before
/// all was done.
fn attack(crash_after: u64) -> bool {
    let disk = Disk::default();
    let mut client = Client::new(disk.clone(), Sabotage::None);
    client.start().unwrap();
    let turns = (0..9).map(|minute| (format!("t{minute}"), EpochMillis::new(minute * 60_000)));
    client.perform(Operation::Commits(vec![sealing("c", 0, "m", turns)])).unwrap();
    client.perform(Operation::Erase(ConversationId::new("c").unwrap())).unwrap();
    disk.plan_crash(crash_after);
    for sums in [vec![(0, 3), (1, 1)], vec![(1, 2), (2, 7), (0, 3)], vec![(0, 5)]] {
        client.perform(Operation::TakeSums(sums)).unwrap();
        client.perform(Operation::Checkpoint(2)).unwrap();
    }
    let is_in_between = disk.has_crashed();
    client.crash_and_check(crash_after).unwrap();
    client.perform(Operation::Close).unwrap();
    client.check().unwrap();
    is_in_between
}

#[test]
fn sums_are_taken_in_whole_or_not_at_all_whenever_the_disk_crashes() {
    let crashes = (0..10_000).take_while(|after| attack(*after)).count();
    assert!(crashes > 30, "all was done after {crashes} crashes");
}

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::client::{Broken, Client, Sabotage};
use super::disk::{Disk, Failing, InjectedFault, Kind};
use super::from_environment;
use super::workload::Workload;
use crate::simulate::random::Random;

/// The number of crashes in a run of the test. `TURN_METRICS_TEST_CRASHES` sets another number.
const CRASHES: u64 = 2400;
/// The number of crashes before the test takes a new disk: small disks are quick, and only a new disk shows errors in
/// the creation of files.
const CRASHES_OF_A_DISK: u64 = 12;

/// Lets one disk crash again and again while a client works with the store on it.
fn attack(seed: u64, crashes: u64, sabotage: Sabotage, prepare: impl Fn(&Disk)) -> Result<(), Broken> {
    let disk = Disk::default();
    let mut random = Random::new(seed ^ 0x5bd1_e995);
    let mut workload = Workload::new(seed);
    let mut client = Client::new(disk.clone(), sabotage);
    // A new database is written to a temporary file and renamed when it is complete, so its creation is not attacked.
    client.start().map_err(|error| error.to_string())?;
    prepare(&disk);
    disk.plan_crash(random.below(120) as u64);
    for _ in 0..crashes {
        if random.once_in(2) {
            let after = random.below(30) as u64;
            disk.plan_fault(InjectedFault { kind: Kind::Sync, after, error: Failing::Eio, for_good: false });
        }
        while !disk.has_crashed() {
            let struck = disk.struck();
            client.perform(workload.next(&client.models))?;
            if disk.struck() > struck && !disk.has_crashed() {
                go_on(&disk, &mut client, &mut random)?;
            }
        }
        disk.heal();
        recover(&disk, &mut client, &mut random)?;
        client.check()?;
        disk.plan_crash(random.below(120) as u64);
    }
    Ok(())
}

/// Opens the store again after a failed sync, sometimes with a crash in the middle of opening. What the store then
/// shows of the commits in doubt must never change.
fn go_on(disk: &Disk, client: &mut Client, random: &mut Random) -> Result<(), Broken> {
    disk.heal();
    match client.heal() {
        Err(_) if disk.has_crashed() => return Ok(()),
        healed => healed?,
    }
    disk.plan_no_crash();
    // Sending the commits in doubt again would make them durable, and hide that the store showed them before they were.
    // So they are not sent again in half of the cases.
    if random.once_in(2) {
        client.settle()?;
    } else {
        client.check()?;
    }
    disk.plan_crash(random.below(60) as u64);
    Ok(())
}

/// Opens the store after a crash, sometimes with a further crash in the middle of opening.
fn recover(disk: &Disk, client: &mut Client, random: &mut Random) -> Result<(), Broken> {
    loop {
        client.lose();
        disk.come_back(random);
        if random.once_in(4) {
            disk.plan_crash(random.below(12) as u64);
        }
        match client.start() {
            Ok(()) if !disk.has_crashed() => {
                disk.plan_no_crash();
                return Ok(());
            }
            Err(error) if !disk.has_crashed() => return Err(format!("the store does not open: {error}")),
            _ => {}
        }
    }
}

/// Returns the first seed of a run. A failure prints its seed, so that it can be repeated.
fn first_seed() -> u64 {
    let seed = from_environment("TURN_METRICS_TEST_SEED");
    seed.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 16)
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_moved_by_a_crash() {
    let disks = from_environment("TURN_METRICS_TEST_CRASHES").unwrap_or(CRASHES).div_ceil(CRASHES_OF_A_DISK);
    let first = first_seed();
    let next = AtomicU64::new(0);
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < disks).map(|n| first + n) {
            let survived = attack(seed, CRASHES_OF_A_DISK, Sabotage::None, |_| {});
            assert_eq!(survived, Ok(()), "to repeat it: TURN_METRICS_TEST_SEED={seed} TURN_METRICS_TEST_CRASHES=1");
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// Asserts that the check notices this broken promise on at least one of twenty disks.
fn assert_caught(sabotage: Sabotage, prepare: impl Fn(&Disk), seen_as: &str) {
    let caught: Vec<_> =
        (1..=20).filter_map(|seed| attack(seed, CRASHES_OF_A_DISK, sabotage, &prepare).err()).collect();
    assert!(caught.iter().any(|broken| broken.contains(seen_as)), "not caught as {seen_as:?}: {caught:?}");
}

#[test]
fn control_a_disk_that_does_not_sync_is_caught() {
    assert_caught(Sabotage::None, Disk::lie, "lost");
}

#[test]
fn control_acknowledging_early_is_caught() {
    assert_caught(Sabotage::EarlyAcknowledgement, |_| {}, "lost");
}

#[test]
fn control_a_store_without_dedupe_is_caught() {
    assert_caught(Sabotage::NoDedupe, |_| {}, "twice");
}

#[test]
fn control_open_turns_that_are_not_staged_are_caught() {
    assert_caught(Sabotage::ForgetsOpenTurns, |_| {}, "no state that it can be in");
}

#[test]
fn control_steps_that_are_not_staged_are_caught() {
    assert_caught(Sabotage::ForgetsSteps, |_| {}, "no state that it can be in");
}

#[test]
fn control_positions_that_are_derived_after_the_fact_are_caught() {
    assert_caught(Sabotage::DerivesPositions, |_| {}, "positions have moved");
}

#[test]
fn control_turns_in_another_order_are_caught() {
    assert_caught(Sabotage::Reorders, |_| {}, "lost or changed");
}

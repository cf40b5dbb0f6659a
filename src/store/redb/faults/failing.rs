use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::client::{Broken, Client, OPENINGS, Sabotage};
use super::disk::{Disk, Failing, InjectedFault, Kind, SECRET};
use super::from_environment;
use super::workload::{Operation, Workload};
use crate::settings::StoreSettings;
use crate::simulate::random::Random;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{CommitError, FaultKind, RedbEngine, StoreFile, TurnRange};
use crate::turn::ConversationId;

/// The number of operations of the store in a run. `TURN_METRICS_TEST_OPERATIONS` sets another number.
const OPERATIONS: u64 = 12;
/// The number of operations of the store in a run in which a change of a file's length fails. The number is larger,
/// because files seldom grow.
const OPERATIONS_UNTIL_IT_GREW: u64 = 80;

/// Uses the store while its disk fails as planned. Returns whether the failure occurred at all.
fn attack(seed: u64, fault: InjectedFault, sabotage: Sabotage) -> Result<bool, Broken> {
    let disk = Disk::default();
    let mut workload = Workload::new(seed);
    let mut client = Client::new(disk.clone(), sabotage);
    if fault.kind == Kind::Read {
        client.cache_bytes = 0;
    }
    client.start().map_err(|error| error.to_string())?;
    disk.plan_fault(fault);
    let operations = if fault.kind == Kind::SetLen { OPERATIONS_UNTIL_IT_GREW } else { OPERATIONS };
    for _ in 0..from_environment("TURN_METRICS_TEST_OPERATIONS").unwrap_or(operations) {
        let before = disk.struck();
        client.perform(workload.next(&client.models))?;
        if disk.struck() > before {
            if fault.for_good {
                stays_unavailable(&mut client, fault)?;
                disk.heal();
            }
            client.heal()?;
            client.look()?;
            lose_power(&disk, &mut client, before)?;
        }
    }
    disk.heal();
    client.heal()?;
    client.check()?;
    Ok(disk.struck() > 0)
}

/// Checks that the commits in doubt that a read has shown are still there after a flush of the checkpoint and a power
/// cut.
fn lose_power(disk: &Disk, client: &mut Client, seed: u64) -> Result<(), Broken> {
    client.perform(Operation::Checkpoint(2))?;
    disk.plan_crash(0);
    client.perform(Operation::CheckWrite)?;
    client.lose();
    disk.come_back(&mut Random::new(seed));
    client.start().map_err(|error| format!("the store does not open after a power cut: {error}"))?;
    client.check()
}

/// Checks that each attempt is answered with an unavailable store and the reason.
fn stays_unavailable(client: &mut Client, fault: InjectedFault) -> Result<(), Broken> {
    // Only a failing sync makes every attempt fail: reads may be answered from the cache, and a full disk still takes
    // writes that fit.
    if fault.kind != Kind::Sync {
        return Ok(());
    }
    for _ in 0..OPENINGS {
        match client.open_again() {
            Some(cause) if cause.contains(fault.error.text()) => {}
            other => return Err(format!("the disk fails for good and the store says {other:?}")),
        }
    }
    Ok(())
}

/// Fails the n-th operation of a kind for every n, until a run has no n-th one.
fn every_operation(kind: Kind, error: Failing, for_good: bool) {
    each_operation(1, kind, error, for_good);
}

/// Like [`every_operation`], but only for every seventh n, since neighbours find the same errors.
/// `TURN_METRICS_TEST_EVERY=1` tries every n.
fn some_operations(kind: Kind, error: Failing, for_good: bool) {
    each_operation(from_environment("TURN_METRICS_TEST_EVERY").unwrap_or(7), kind, error, for_good);
}

fn each_operation(every: u64, kind: Kind, error: Failing, for_good: bool) {
    let mut runs = 0;
    for after in (0..).step_by(usize::try_from(every).unwrap_or(1)) {
        // Neighbouring runs have different seeds, so that a failure meets the same code in more than one state.
        let seed = after % 3;
        match attack(seed, InjectedFault { kind, after, error, for_good }, Sabotage::None) {
            Ok(true) => runs += 1,
            Ok(false) => break,
            Err(broken) => panic!("{kind:?} {after} fails with {error:?}, for good: {for_good}: {broken}"),
        }
    }
    assert!(runs > 1, "{kind:?} failed {runs} times: the attack does not reach the store");
}

#[test]
fn control_acknowledging_in_spite_of_a_failing_disk_is_caught() {
    let fault = |after| InjectedFault { kind: Kind::Write, after, error: Failing::Eio, for_good: false };
    let caught: Vec<_> =
        (0..20).filter_map(|n| attack(n % 3, fault(n), Sabotage::EarlyAcknowledgement).err()).collect();
    assert!(caught.iter().any(|broken| broken.contains("lost")), "not caught: {caught:?}");
}

#[test]
fn a_write_that_fails_loses_nothing_acknowledged() {
    every_operation(Kind::Write, Failing::Eio, false);
    some_operations(Kind::Write, Failing::Enospc, true);
    some_operations(Kind::Write, Failing::Enospc, false);
}

#[test]
fn a_sync_that_fails_loses_nothing_acknowledged() {
    every_operation(Kind::Sync, Failing::Eio, false);
    every_operation(Kind::Sync, Failing::Enospc, true);
}

#[test]
fn a_change_of_length_that_fails_loses_nothing_acknowledged() {
    for for_good in [false, true] {
        every_operation(Kind::SetLen, Failing::Eio, for_good);
        every_operation(Kind::SetLen, Failing::Enospc, for_good);
    }
}

#[test]
fn a_read_that_fails_loses_nothing_acknowledged() {
    some_operations(Kind::Read, Failing::Eio, false);
    some_operations(Kind::Read, Failing::Eio, true);
}

#[test]
fn a_panic_below_the_store_loses_nothing_acknowledged() {
    // Reads do not panic here: within a table, the database answers a panic with a second one, which ends the process.
    for kind in [Kind::Write, Kind::Sync, Kind::SetLen] {
        let attack = if kind == Kind::SetLen { every_operation } else { some_operations };
        attack(kind, Failing::Panic, false);
    }
}

/// How long a test waits. It is no promise of speed: it ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(30);

fn all() -> TurnRange {
    TurnRange::after(ConversationId::new("c").unwrap(), 0, 9)
}

fn failing(kind: Kind) -> InjectedFault {
    InjectedFault { kind, after: 0, error: Failing::Eio, for_good: true }
}

#[test]
fn a_read_that_fails_has_the_store_opened_again_without_a_write() {
    let disk = Disk::default();
    let never = Backoff { first: Duration::MAX / 4, longest: Duration::MAX / 4 };
    let settings = StoreSettings { queue_commits: 1, ..StoreSettings::without_cache() };
    let (engine, mut writer) = RedbEngine::prepare(disk.location(), &settings, never).unwrap();
    disk.plan_fault(failing(Kind::Read));
    let refused = engine.turns(&all()).unwrap_err();
    assert!(refused.to_string().contains("Input/output error"), "{refused}");
    disk.heal();
    assert_eq!(
        engine.turns(&all()).unwrap_err().kind(),
        FaultKind::Disk,
        "the database must still report the disk's error"
    );
    assert!(engine.is_open());
    // The failed read itself has queued a job for the writer.
    let asked = pin!(engine.check_write()).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(asked, Poll::Ready(Err(CommitError::Overloaded)), "the writer's queue, which takes one job, is empty");
    assert!(matches!(writer.run_once(), ControlFlow::Continue(())));
    assert!(engine.turns(&all()).is_err() && !engine.is_open());
    writer.open_again();
    assert_eq!(engine.turns(&all()), Ok(Vec::new()));
}

#[test]
fn the_words_of_a_disk_error_reach_only_the_log() {
    for (kind, error) in [
        (Kind::Write, Failing::Worded),
        (Kind::Sync, Failing::Worded),
        (Kind::Write, Failing::Panic),
        (Kind::Sync, Failing::Panic),
    ] {
        let disk = Disk::default();
        let mut client = Client::new(disk.clone(), Sabotage::None);
        client.start().unwrap();
        disk.plan_fault(InjectedFault { kind, after: 0, error, for_good: true });
        // When the store fails, while it is closed, and after it could not be opened again.
        for opens_again in [false, false, true] {
            if opens_again {
                client.open_again();
            }
            let refused = client.check_write().unwrap_err();
            let (told, logged) = (refused.to_string(), refused.in_full());
            assert!(!told.contains(SECRET), "{kind:?} {error:?}: {told}");
            assert!(logged.contains(error.text()) && logged.contains(SECRET), "{kind:?} {error:?}: {logged}");
        }
        let read = client.sealed(&all().conversation_id).unwrap_err();
        assert!(!read.to_string().contains(SECRET) && read.in_full().contains(SECRET), "{read:?}");
    }
}

#[test]
fn a_write_check_writes_to_both_files() {
    let disk = Disk::default();
    let mut client = Client::new(disk.clone(), Sabotage::None);
    client.start().unwrap();
    let files = [StoreFile::Main, StoreFile::Journal];
    let before = files.map(|file| disk.bytes(file));
    client.check_write().unwrap();
    for (file, before) in files.into_iter().zip(before) {
        assert!(disk.bytes(file) != before, "nothing was written to {file:?}");
    }
}

#[tokio::test]
async fn the_store_comes_back_by_itself_when_the_disk_does() {
    let disk = Disk::default();
    let soon = Duration::from_millis(1);
    let backoff = Backoff { first: soon, longest: soon };
    let (engine, writer) = RedbEngine::prepare(disk.location(), &StoreSettings::default(), backoff).unwrap();
    let writer = std::thread::spawn(move || writer.run());
    engine.check_write().await.unwrap();
    disk.plan_fault(failing(Kind::Sync));
    let work = async {
        let mut causes = Vec::new();
        // The loop waits for five failures, so that some of them happen while the store is opened again.
        while disk.struck() < 5 {
            match engine.check_write().await {
                Err(CommitError::Unavailable(fault)) => causes.push(fault.to_string()),
                other => panic!("{other:?}"),
            }
        }
        assert!(causes.iter().all(|cause| cause.contains("Input/output error")), "{:?}", causes.last());
        disk.heal();
        while engine.check_write().await.is_err() {}
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the store does not come back");
    engine.close().await;
    writer.join().unwrap();
}

//! The process is killed again and again under load. Everything that it has acknowledged must still be true afterwards.

mod checker;
mod checker_tests;
mod client;
mod gone;
mod importing;
mod run;
mod script;

use std::collections::BTreeSet;

use self::checker::Kind;
use self::client::Manners;
use self::run::{End, Plan, Report, run};

/// A number from the environment, to run longer or to repeat a failed run.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn honest(seed: u64, kills: usize) -> Plan {
    Plan { seed, kills, manners: Manners::Honest, ends_by: End::Kill, loses_writes: false }
}

fn seed() -> u64 {
    setting("TURN_METRICS_TEST_SEED", fastrand::u64(..))
}

#[test]
fn everything_acknowledged_survives_every_kill() {
    let seed = seed();
    let kills = usize::try_from(setting("TURN_METRICS_TEST_KILLS", 40)).unwrap();
    assert_nothing_is_violated(honest(seed, kills));
}

#[test]
fn everything_acknowledged_survives_every_stop_and_no_client_delays_a_stop() {
    let seed = seed();
    let stops = usize::try_from(setting("TURN_METRICS_TEST_STOPS", 6)).unwrap();
    assert_nothing_is_violated(Plan { ends_by: End::Signals, ..honest(seed, stops) });
}

#[test]
fn everything_acknowledged_survives_every_kill_in_a_scrub() {
    let kills = usize::try_from(setting("TURN_METRICS_TEST_SCRUB_KILLS", 8)).unwrap();
    let in_phase = assert_nothing_is_violated(Plan { ends_by: End::InScrub, ..honest(seed(), kills) });
    assert!(in_phase * 2 > kills, "only {in_phase} of {kills} servers were killed in a scrub");
}

#[test]
fn everything_acknowledged_survives_every_kill_in_a_stop() {
    let kills = usize::try_from(setting("TURN_METRICS_TEST_STOP_KILLS", 8)).unwrap();
    let in_phase = assert_nothing_is_violated(Plan { ends_by: End::InStop, ..honest(seed(), kills) });
    assert!(in_phase > 0, "none of {kills} servers was killed in a stop");
}

/// Returns how many servers were killed within the phase that the plan names.
fn assert_nothing_is_violated(plan: Plan) -> usize {
    let Plan { seed, kills, ends_by, .. } = plan;
    // Print the seed at once, because the run may not reach its end.
    println!("TURN_METRICS_TEST_SEED={seed}");
    let Report { violations, flaws, notes, sealed_turns, unerased, counted: (counted, expected), killed_in_phase } =
        run(plan);
    println!(
        "{kills} times {ends_by:?}, {killed_in_phase} in that phase: {notes} notes of acknowledgements, \
         {sealed_turns} sealed turns"
    );
    assert!(violations.is_empty(), "TURN_METRICS_TEST_SEED={seed}: {violations:#?}");
    assert_eq!(flaws, [], "TURN_METRICS_TEST_SEED={seed}");
    assert_eq!(unerased, [""; 0], "TURN_METRICS_TEST_SEED={seed}");
    assert_eq!(counted, expected, "TURN_METRICS_TEST_SEED={seed}: reports lack turns, or count erased ones twice");
    assert!(sealed_turns > kills, "TURN_METRICS_TEST_SEED={seed}: there was no load");
    killed_in_phase
}

/// Returns the kinds of violations that a run finds.
fn caught(plan: Plan) -> BTreeSet<Kind> {
    let report = run(plan);
    assert!(report.notes > 0, "TURN_METRICS_TEST_SEED={}: there was no load", plan.seed);
    report.violations.iter().map(|violation| violation.kind).collect()
}

/// The seed of the controls. With this seed they must be caught; with another seed they may go unnoticed.
const CONTROL: u64 = 1;

#[test]
fn control_events_that_are_acknowledged_early_are_missed() {
    let caught = caught(Plan { manners: Manners::NotesEarly, ..honest(CONTROL, 8) });
    assert!(caught.contains(&Kind::Forgotten) && caught.contains(&Kind::Untold), "{caught:?}");
}

#[test]
fn control_writes_that_are_lost_between_two_kills_are_missed() {
    let caught = caught(Plan { loses_writes: true, ..honest(CONTROL, 4) });
    assert!(caught.contains(&Kind::Lost) || caught.contains(&Kind::Moved), "{caught:?}");
}

#[test]
fn control_writes_that_are_lost_between_two_kills_in_a_scrub_or_in_a_stop_are_missed() {
    for ends_by in [End::InScrub, End::InStop] {
        let caught = caught(Plan { loses_writes: true, ends_by, ..honest(CONTROL, 4) });
        assert!(caught.contains(&Kind::Lost) || caught.contains(&Kind::Moved), "{ends_by:?}: {caught:?}");
    }
}

#[test]
fn control_turns_that_are_stored_again_when_sent_again_are_found_twice() {
    let caught = caught(Plan { manners: Manners::WithoutDedupe, ..honest(CONTROL, 2) });
    assert!(caught.contains(&Kind::Duplicate) && caught.contains(&Kind::Contradiction), "{caught:?}");
}

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::turn::{EpochMillis, OpenTurn, Progress, SealedTurn, TurnEventKind, parse_line};

fn settings() -> SimulationSettings {
    SimulationSettings { conversations: 6, turns: 12, ..SimulationSettings::default() }
}

/// Folds the lines of a simulation, and returns the sealed turns of each conversation.
fn fold(settings: &SimulationSettings) -> BTreeMap<String, Vec<SealedTurn>> {
    let mut open = BTreeMap::new();
    let mut sealed: BTreeMap<String, Vec<SealedTurn>> = BTreeMap::new();
    for SimulatedLine { conversation_id, line } in Simulation::new(settings) {
        let Some(event) = parse_line(line.as_bytes()).unwrap() else { continue };
        assert_eq!(event.conversation_id.as_str(), conversation_id);
        let id = event.event.turn_id;
        let turn: &mut OpenTurn = open.entry(id.clone()).or_insert_with(|| OpenTurn::new(id.clone()));
        match event.event.kind {
            TurnEventKind::Progress(progress) => turn.fold(&progress),
            TurnEventKind::Done(done) => {
                let turn = open.remove(&id).unwrap().seal(&done, EpochMillis::default());
                sealed.entry(conversation_id).or_default().push(turn);
            }
        }
    }
    assert_eq!(open.len(), 0, "a turn has no end");
    sealed
}

#[test]
fn the_same_settings_give_the_same_lines_and_another_seed_gives_others() {
    let lines = |seed| Simulation::new(&SimulationSettings { seed, ..settings() }).collect::<Vec<_>>();
    assert_eq!(lines(7), lines(7));
    assert_ne!(lines(7), lines(8));
}

#[test]
fn every_turn_folds_with_its_steps_named_in_order() {
    let turns = fold(&settings());
    assert_eq!(turns.len(), 6);
    for (conversation, turns) in &turns {
        assert_eq!(turns.len(), 12, "{conversation}");
        for turn in turns {
            for (index, step) in turn.metrics.steps.iter().enumerate() {
                assert_eq!(step.step_id.as_str(), format!("{}#{index}", turn.metrics.turn_id));
            }
            assert!((1..=6).contains(&turn.metrics.steps.len()));
        }
    }
}

#[test]
fn the_usage_of_a_turn_is_the_sum_of_its_steps_however_they_were_reported() {
    for turn in fold(&settings()).values().flatten() {
        let sum = turn.metrics.steps.iter().map(|step| step.usage).reduce(crate::turn::Usage::saturating_add);
        assert_eq!(Some(turn.metrics.usage), sum, "{}", turn.metrics.turn_id);
    }
}

#[test]
fn the_cache_grows_with_the_prompt() {
    for turn in fold(&settings()).values().flatten() {
        for pair in turn.metrics.steps.windows(2) {
            assert_eq!(pair[1].usage.cache_read_tokens, Some(pair[0].usage.input_tokens));
            assert!(pair[1].usage.input_tokens > pair[0].usage.input_tokens);
        }
    }
}

#[test]
fn a_simulation_has_every_kind_of_event_and_turn() {
    let reasons: BTreeSet<_> =
        fold(&settings()).values().flatten().map(|turn| turn.reason.as_str().to_owned()).collect();
    assert_eq!(reasons, ["aborted", "max-steps", "stop"].map(str::to_owned).into());

    let types: BTreeSet<String> = Simulation::new(&settings())
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.line).unwrap()["type"].as_str().unwrap().into())
        .collect();
    let expected = [
        "done",
        "error",
        "reasoning-delta",
        "status",
        "step-complete",
        "text-delta",
        "tool-call",
        "tool-result",
        "turn-sealed",
        "turn-start",
        "usage",
        "user-message",
    ];
    assert_eq!(types, expected.map(str::to_owned).into());
}

#[test]
fn a_first_step_that_only_calls_a_tool_has_no_first_token_and_some_steps_report_usage_twice() {
    let turns = fold(&settings());
    let mut steps = turns.values().flatten().flat_map(|turn| &turn.metrics.steps);
    assert!(steps.any(|step| step.times.ttft.is_none() && step.times.gen_total.is_some()));

    let mut reports = BTreeMap::new();
    for line in Simulation::new(&settings()) {
        if let Some(event) = parse_line(line.line.as_bytes()).unwrap()
            && let TurnEventKind::Progress(Progress::Usage { step_id: Some(id), .. }) = event.event.kind
        {
            *reports.entry(id).or_insert(0) += 1;
        }
    }
    assert!(reports.values().any(|count| *count == 1));
    assert!(reports.values().any(|count| *count == 2));
}

#[test]
fn conversations_are_interleaved() {
    let first: Vec<_> = Simulation::new(&settings()).take(100).map(|line| line.conversation_id).collect();
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 3);
}

#[test]
fn settings_of_zero_and_prefixes_of_invalid_ids_are_harmless() {
    let none = SimulationSettings { conversations: 0, ..settings() };
    assert_eq!(Simulation::new(&none).count(), 0);
    let few = SimulationSettings { max_steps: 0, max_deltas: 0, ..settings() };
    assert_eq!(fold(&few).len(), 6);
    let odd = SimulationSettings { prefix: "x".repeat(300), ..settings() };
    assert!(Simulation::new(&odd).all(|line| parse_line(line.line.as_bytes()).unwrap().is_none()));
}

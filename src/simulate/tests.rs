use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::*;
use crate::turn::{EpochMillis, OpenTurn, Progress, SealedTurn, TurnEventKind, parse_line};

fn settings() -> SimulationSettings {
    SimulationSettings { conversations: 6, turns: 12, ..SimulationSettings::default() }
}

/// Folds the lines of a simulation, and returns the sealed turns of each conversation.
fn fold(settings: &SimulationSettings) -> BTreeMap<String, Vec<SealedTurn>> {
    fold_lines(Simulation::new(settings), EpochMillis::default())
}

/// Folds lines that are all received at one moment.
fn fold_lines(lines: impl Iterator<Item = SimulatedLine>, now: EpochMillis) -> BTreeMap<String, Vec<SealedTurn>> {
    let mut open = BTreeMap::new();
    let mut sealed: BTreeMap<String, Vec<SealedTurn>> = BTreeMap::new();
    for SimulatedLine { conversation_id, line } in lines {
        let Some(event) = parse_line(line.as_bytes()).unwrap() else { continue };
        assert_eq!(event.conversation_id.as_str(), conversation_id);
        let id = event.event.turn_id;
        let turn: &mut OpenTurn = open.entry(id.clone()).or_insert_with(|| OpenTurn::new(id.clone()));
        match event.event.kind {
            TurnEventKind::Progress(progress) => turn.fold(&progress),
            TurnEventKind::Done(done) => {
                let turn = open.remove(&id).unwrap().seal(&done, now);
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
    assert_eq!(reasons, ["aborted", "error", "max-steps", "stop"].map(str::to_owned).into());

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

/// 2026-11-26T13:03:22Z, a Thursday.
const NOW: u64 = 1_795_698_202_000;
const DAY: u64 = 86_400_000;

fn history(seed: u64, now: u64) -> History {
    History::new(seed, 30, EpochMillis::new(now))
}

/// Returns the moments at which the turns of a history ended, in the order of its lines.
fn ends(history: History) -> Vec<u64> {
    let ends = history.filter_map(|line| match parse_line(line.line.as_bytes()).unwrap().unwrap().event.kind {
        TurnEventKind::Done(done) => Some(done.ended_at.unwrap().plausible(EpochMillis::new(NOW)).unwrap().get()),
        TurnEventKind::Progress(_) => None,
    });
    ends.collect()
}

fn count(ends: &[u64], within: Range<u64>) -> usize {
    ends.iter().filter(|end| within.contains(end)).count()
}

#[test]
fn a_history_ends_at_its_moment_and_has_every_day_before_it() {
    let ends = ends(history(1, NOW));
    assert!((1500..=6000).contains(&ends.len()), "{}", ends.len());
    assert!(ends.iter().all(|end| (NOW - 31 * DAY..=NOW).contains(end)));
    let today = NOW - NOW % DAY;
    let days: Vec<_> = (1..=30).map(|before| count(&ends, today - before * DAY..today - (before - 1) * DAY)).collect();
    assert!(days.iter().all(|turns| *turns > 0), "{days:?}");
    // Three and four days before a Thursday are Monday and Sunday.
    let is_weekend = |before: usize| matches!(before % 7, 4 | 5);
    let (weekend, working): (Vec<_>, Vec<_>) = days.iter().zip(1..).partition(|(_, before)| is_weekend(*before));
    let most = weekend.into_iter().map(|(turns, _)| *turns).max().unwrap();
    let mean = working.iter().map(|(turns, _)| **turns).sum::<usize>() / working.len();
    assert!(most < mean, "{days:?}");
    assert!(count(&ends, NOW - DAY / 24..NOW) > 0, "the last hour");
    // Turns are sent about in the order of time: by their beginnings.
    assert!(ends.windows(2).all(|pair| pair[0] < pair[1] + 5 * 60_000));
    assert!(ends.windows(2).any(|pair| pair[0] < pair[1]));
}

#[test]
fn a_history_depends_on_its_seed_and_its_moment_alone() {
    let of = |seed, now| History::new(seed, 9, EpochMillis::new(now));
    assert!(of(1, NOW).eq(of(1, NOW)));
    assert!(!of(1, NOW).eq(of(2, NOW)));
    // A week later, the same days of the week have the same load.
    let shifted: Vec<_> = ends(of(1, NOW - 7 * DAY)).into_iter().map(|end| end + 7 * DAY).collect();
    assert_eq!(shifted, ends(of(1, NOW)));
    assert_eq!(History::new(1, 0, EpochMillis::new(NOW)).count(), 0);
    for odd in [0, u64::MAX] {
        assert!(History::new(1, 2, EpochMillis::new(odd)).count() < 10_000);
    }
}

#[test]
fn a_history_folds_to_turns_with_every_label_and_reason() {
    let turns = fold_lines(history(1, NOW), EpochMillis::new(NOW));
    let of = |label: fn(&SealedTurn) -> Option<&crate::turn::Label>| -> BTreeSet<String> {
        turns.values().flatten().map(|turn| label(turn).unwrap().as_str().to_owned()).collect()
    };
    assert_eq!(of(|turn| turn.model.as_ref()).len(), 6);
    assert_eq!(of(|turn| turn.provider.as_ref()), ["anthropic", "google", "openai"].map(str::to_owned).into());
    assert_eq!(of(|turn| turn.project.as_ref()).len(), 4);
    assert_eq!(of(|turn| Some(&turn.reason)), ["aborted", "error", "max-steps", "stop"].map(str::to_owned).into());
    assert!(turns.values().flatten().all(|turn| turn.metrics.usage.cache_read_tokens.is_some()));
    assert!(turns.values().all(|turns| turns.windows(2).all(|pair| pair[0].ended_at < pair[1].ended_at)));
}

#[test]
fn a_history_has_only_events_that_count() {
    assert!(history(1, NOW).take(2000).all(|line| parse_line(line.line.as_bytes()).unwrap().is_some()));
}

#[cfg(feature = "prices")]
#[test]
fn every_model_has_a_price() {
    use crate::report::price::{PriceData, PriceTable, Prices};
    use crate::report::{PriceBook, PricedStep};

    let prices = Prices::new(PriceTable::default(), PriceData::bundled());
    let turns = fold_lines(history(1, NOW), EpochMillis::new(NOW));
    let models = turns.values().flatten().map(|turn| (turn.model.clone().unwrap(), turn.provider.clone().unwrap()));
    let models: BTreeSet<_> = models.collect();
    for ((model, provider), at) in models.iter().flat_map(|model| [(model, NOW), (model, NOW - 31 * DAY)]) {
        let step = PricedStep {
            model: model.as_str(),
            provider: Some(provider.as_str()),
            at: EpochMillis::new(at),
            prompt_tokens: 1000,
            output_tokens: 1000,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
        };
        assert!(prices.price(&step).is_some(), "{step:?}");
    }
}

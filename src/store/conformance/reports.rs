//! Cases about reports. Each report is compared with the sum of the stored turns, added up one by one.

use super::*;
use crate::report::{Breakdown, Figures, Grouping, Period, PeriodUnit, Quarter, Selection, Zone};
use crate::simulate::random::Random;
use crate::store::oracle::breakdown_of;
use crate::turn::{Label, Millis, StepDetails, StepMetrics, StepTimes, TurnMetrics};

const ALL: Grouping = Grouping { model: true, provider: true, project: true, reason: true };

/// Turns of all kinds, spread over some days. The same seed makes the same turns.
pub(super) fn turns(seed: u64, count: usize) -> Vec<SealedTurn> {
    let mut random = Random::new(seed);
    (0..count).map(|nth| any_turn(&mut random, &format!("t{seed}-{nth}"))).collect()
}

/// Like [`turns`], with ordinals.
pub(in crate::store) fn stored(seed: u64, count: usize) -> Vec<StoredTurn> {
    (1..).zip(turns(seed, count)).map(|(ordinal, turn)| turn.at(at(ordinal))).collect()
}

fn any_turn(random: &mut Random, name: &str) -> SealedTurn {
    let label = |random: &mut Random, texts: &[&str]| -> Option<Label> {
        (!random.once_in(4)).then(|| texts[random.below(texts.len())].into())
    };
    let count = |random: &mut Random| (!random.once_in(3)).then(|| random.within(0..=90_000).into());
    let millis = |random: &mut Random| -> Option<Millis> {
        let time = f64::from(random.within(0..=90_000)) / 8.0;
        // Some clocks are wrong and measure 10^12 ms.
        (!random.once_in(4)).then(|| Millis::new(if random.once_in(30) { 1e12 } else { time }).unwrap())
    };
    let usage = |random: &mut Random| Usage {
        input_tokens: random.within(0..=200_000).into(),
        output_tokens: random.within(0..=4000).into(),
        cache_read_tokens: count(random),
        cache_write_tokens: count(random),
    };
    let step_id = |nth: usize| StepId::new(format!("{name}#{nth}")).unwrap();
    let steps: Vec<_> = (0..random.below(4))
        .map(|nth| StepMetrics {
            step_id: step_id(nth),
            usage: if random.once_in(4) { Usage::default() } else { usage(random) },
            times: StepTimes { ttft: millis(random), decode: millis(random), gen_total: millis(random) },
        })
        .collect();
    let details = (0..steps.len()).filter(|_| random.once_in(2)).collect::<Vec<_>>();
    let details = details.into_iter().map(|nth| StepDetails {
        step_id: step_id(nth),
        model: label(random, &["m", "dear", "unknown"]),
        provider: label(random, &["p", "q"]),
        cache_write_1h_tokens: None,
    });
    let step_details = details.filter(|details| details.model.is_some() || details.provider.is_some()).collect();
    let sum = steps.iter().fold(Usage::default(), |sum, step| sum.saturating_add(step.usage));
    let moment = 1_780_000_000_000 + 600_000 * random.below(900) as u64;
    let ended_at = (!random.once_in(3)).then(|| EpochMillis::new(moment));
    SealedTurn {
        sealed_at: EpochMillis::new(moment + 1_000_000),
        ended_at,
        reason: label(random, &["stop", "error", "aborted", "odd"]).unwrap_or_else(|| "max-steps".into()),
        model: label(random, &["m", "dear", "unknown"]),
        provider: label(random, &["p", "q"]),
        project: label(random, &["x", "y"]),
        cache_write_1h_tokens: None,
        step_details,
        metrics: TurnMetrics {
            turn_id: turn_id(name),
            usage: if random.once_in(3) { usage(random) } else { sum },
            steps,
            duration: millis(random),
            context_size: None,
        },
    }
}

/// Seals turns in a conversation.
async fn seal(store: &StoreUnderTest, name: &str, sealed: Vec<SealedTurn>) {
    let version = state(store, name).await.version.0;
    let commit = Commit { sealed, ..commit(name, version, &[], &[]) };
    // On a busy machine, a commit may wait so long that it is refused.
    while let Err(error) = store.commit(commit.clone()).await {
        assert_eq!(error, CommitError::Overloaded);
    }
}

/// Returns the report that a store must answer with.
async fn expected(store: &StoreUnderTest, names: &[&str], question: &ReportQuestion) -> Breakdown {
    let mut turns = Vec::new();
    for name in names {
        turns.extend(all(store, name).await);
    }
    breakdown_of(&turns, question, &*test_prices())
}

fn whole() -> Period {
    Period::around(1_780_000_000_000, 1_780_700_000_000).unwrap()
}

fn question(unit: PeriodUnit, zone: &Zone, grouping: Grouping) -> ReportQuestion {
    let periods = zone.periods(unit, whole()).collect();
    ReportQuestion { periods, grouping, selection: Selection::default() }
}

/// Checks reports by each unit of time, in zones whose offsets are whole hours, fractions of an hour, or change in
/// summer.
async fn check_all(store: &StoreUnderTest, names: &[&str]) {
    for zone in ["UTC", "Asia/Kathmandu", "America/New_York"].map(|name| Zone::named(name).unwrap()) {
        for unit in [PeriodUnit::Quarter, PeriodUnit::Hour, PeriodUnit::Day, PeriodUnit::All] {
            let question = question(unit, &zone, ALL);
            let report = store.report(question.clone()).await.unwrap();
            let expected = expected(store, names, &question).await;
            assert!(report.breakdown == expected, "by {unit:?} in {}", zone.name());
        }
    }
}

pub(crate) async fn a_report_is_the_sum_of_all_turns_of_its_periods(store: &StoreUnderTest) {
    check_all(store, &[]).await;
    for seed in 0..4 {
        let name = ["a", "b", "c", "a"][usize::try_from(seed).unwrap()];
        seal(store, name, turns(seed, 40)).await;
        check_all(store, &["a", "b", "c"]).await;
    }
    // These turns are more than a single flush of the store on redb moves.
    for seed in 4..12 {
        seal(store, "d", turns(seed, 200)).await;
    }
    check_all(store, &["a", "b", "c", "d"]).await;
    let question = question(PeriodUnit::All, &Zone::UTC, Grouping::default());
    let report = store.report(question).await.unwrap();
    let (_, _, row) = report.breakdown.rows().next().unwrap();
    assert_eq!(Figures::of(&row.rollup).turns, 40 * 4 + 200 * 8);
    assert!(!report.is_repricing);
}

pub(crate) async fn a_turn_is_in_the_next_report_once(store: &StoreUnderTest) {
    let question = question(PeriodUnit::All, &Zone::UTC, Grouping::default());
    for (nth, turn) in (1..).zip(turns(7, 30)) {
        for _ in 0..2 {
            // The second time, the turn is a duplicate.
            seal(store, "c", vec![turn.clone()]).await;
            let report = store.report(question.clone()).await.unwrap();
            let turns = report.breakdown.rows().map(|(_, _, row)| Figures::of(&row.rollup).turns);
            assert_eq!(turns.sum::<i128>(), nth);
        }
    }
}

pub(crate) async fn a_report_counts_the_selected_labels(store: &StoreUnderTest) {
    seal(store, "a", turns(1, 60)).await;
    seal(store, "b", turns(2, 60)).await;
    let [model, provider, project] = [Some(Label::from("dear")), Some("q".into()), Some("x".into())];
    let by_day = question(PeriodUnit::Day, &Zone::UTC, Grouping { model: true, ..Grouping::default() });
    let none = Selection::default();
    for selection in [
        Selection { model: model.clone(), ..none.clone() },
        Selection { provider, ..none.clone() },
        Selection { model, project, ..none.clone() },
        Selection { model: Some("never asked".into()), ..none },
    ] {
        let question = ReportQuestion { selection, ..by_day.clone() };
        let expected = expected(store, &["a", "b"], &question).await;
        assert!(store.report(question.clone()).await.unwrap().breakdown == expected, "{:?}", question.selection);
    }
}

pub(crate) async fn a_report_with_too_many_rows_is_refused(store: &StoreUnderTest) {
    let from = Quarter::of(EpochMillis::new(1_780_000_000_000)).get();
    let turn = |nth: i64| SealedTurn {
        ended_at: Some(EpochMillis::new((from + nth).unsigned_abs() * Quarter::MILLIS.unsigned_abs())),
        ..sealed(&format!("t{nth}"), 7)
    };
    let most = i64::try_from(Report::MAX_ROWS).unwrap();
    let question = |quarters: i64| ReportQuestion {
        periods: (from..from + quarters)
            .map(|start| Period::new(Quarter::new(start), Quarter::new(start + 1)).unwrap())
            .collect(),
        grouping: Grouping::default(),
        selection: Selection::default(),
    };
    seal(store, "a", (0..=most).map(turn).collect()).await;
    assert_eq!(store.report(question(most)).await.unwrap().breakdown.rows().len(), Report::MAX_ROWS);
    assert_eq!(store.report(question(most + 1)).await, Err(ReportError::TooManyRows));
}

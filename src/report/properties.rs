//! Property tests of reports over generated turns, and tests with turns counted by hand.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::turn::{
    EpochMillis, Label, Millis, Ordinal, SealedTurn, StepDetails, StepId, StepMetrics, StepTimes, StoredTurn,
    TokenCount, TurnId, TurnMetrics, Usage,
};

fn usage(input: u32, output: u32, cache_read: Option<u32>, cache_write: Option<u32>) -> Usage {
    Usage {
        input_tokens: input.into(),
        output_tokens: output.into(),
        cache_read_tokens: cache_read.map(TokenCount::from),
        cache_write_tokens: cache_write.map(TokenCount::from),
    }
}

fn millis(millis: f64) -> Millis {
    Millis::new(millis).unwrap()
}

fn step(number: usize, usage: Usage, times: StepTimes) -> StepMetrics {
    StepMetrics { step_id: StepId::new(format!("t#{number}")).unwrap(), usage, times }
}

fn details(number: usize, model: Option<&str>, provider: Option<&str>, cache_write_1h: Option<u32>) -> StepDetails {
    StepDetails {
        step_id: StepId::new(format!("t#{number}")).unwrap(),
        model: model.map(Label::from),
        provider: provider.map(Label::from),
        cache_write_1h_tokens: cache_write_1h.map(TokenCount::from),
    }
}

fn turn(usage: Usage, steps: Vec<StepMetrics>) -> StoredTurn {
    let turn = SealedTurn {
        sealed_at: EpochMillis::new(1_780_000_000_000),
        ended_at: None,
        reason: "stop".into(),
        model: Some("m".into()),
        provider: Some("p".into()),
        project: Some("j".into()),
        cache_write_1h_tokens: None,
        step_details: Vec::new(),
        metrics: TurnMetrics { turn_id: TurnId::new("t").unwrap(), usage, steps, duration: None, context_size: None },
    };
    turn.at(Ordinal::new(1).unwrap())
}

/// A price book with a price in dollars for each token of a model, by the model's name. Other models have no price.
#[derive(Debug)]
struct DollarsPerToken(&'static [(&'static str, i128)]);

impl PriceBook for DollarsPerToken {
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
        let (_, dollars) = self.0.iter().find(|(model, _)| *model == step.model)?;
        let tokens = i128::from(step.prompt_tokens) + i128::from(step.output_tokens);
        Some(PicoDollars::new(tokens * dollars * PicoDollars::PER_DOLLAR))
    }

    fn digest(&self) -> u64 {
        1
    }
}

fn by_model<T>(parts: Vec<(RollupLabel, T)>) -> BTreeMap<String, T> {
    parts
        .into_iter()
        .map(|(label, part)| (label.model.map_or_else(String::new, |model| model.to_string()), part))
        .collect()
}

fn figures(turn: &StoredTurn) -> BTreeMap<String, Figures> {
    by_model(Rollup::of_turn(turn)).into_iter().map(|(model, rollup)| (model, Figures::of(&rollup))).collect()
}

fn sums(input: i128, output: i128, cache_read: Option<i128>, cache_write: Option<i128>) -> UsageSums {
    UsageSums {
        input_tokens: input,
        output_tokens: output,
        cache_read_tokens: cache_read,
        cache_write_tokens: cache_write,
    }
}

#[test]
fn a_turn_counts_when_it_ended_else_when_it_was_sealed() {
    let mut turn = turn(Usage::default(), vec![]);
    assert_eq!(report_time(&turn), turn.sealed_at);
    turn.ended_at = Some(EpochMillis::new(1_700_000_000_000));
    assert_eq!(report_time(&turn), EpochMillis::new(1_700_000_000_000));
}

#[test]
fn each_step_counts_for_its_model_and_the_difference_for_the_turns() {
    let steps = vec![
        step(0, usage(100, 10, Some(50), None), StepTimes::default()),
        step(1, usage(200, 20, None, None), StepTimes::default()),
        step(2, Usage::default(), StepTimes::default()),
    ];
    let mut turn = turn(usage(350, 25, Some(50), Some(7)), steps);
    turn.step_details = vec![details(1, Some("other"), Some("q"), None), details(2, None, Some("r"), None)];
    let parts = Rollup::of_turn(&turn);
    let label = |model: &str, provider: &str| RollupLabel {
        model: Some(model.into()),
        provider: Some(provider.into()),
        project: Some("j".into()),
        reason: Some(ReasonClass::Stop),
    };
    let labels: Vec<_> = parts.iter().map(|(label, _)| label.clone()).collect();
    assert_eq!(labels, [label("m", "p"), label("other", "q"), label("m", "r")]);
    let figures: Vec<_> = parts.iter().map(|(_, rollup)| Figures::of(rollup)).collect();
    // The turn's 350 minus 200 of the other model's step, and 25 minus 20.
    assert_eq!(figures[0].usage, sums(150, 5, Some(50), Some(7)));
    assert_eq!((figures[0].turns, figures[0].steps), (1, 1));
    assert_eq!(figures[1].usage, sums(200, 20, None, None));
    assert_eq!((figures[1].turns, figures[1].steps), (0, 1));
    // A step that reported nothing counts as a step too.
    assert_eq!((figures[2].turns, figures[2].steps, figures[2].usage), (0, 1, sums(0, 0, None, None)));

    // The 50 input tokens that no step accounts for have no price. The output of the turn is less than that of its
    // steps.
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("m", 1), ("other", 2)])));
    assert_eq!(costs["m"].usd().unwrap().to_string(), "110.000000000000");
    assert_eq!(costs["m"].unpriced_tokens(), 50);
    assert_eq!(costs["m"].unpriced_models().count(), 0, "the model has a price");
    assert_eq!(costs["other"].usd().unwrap().to_string(), "440.000000000000");
}

#[test]
fn a_difference_may_be_negative_and_then_has_no_unpriced_tokens() {
    let steps = vec![step(0, usage(100, 10, Some(40), None), StepTimes::default())];
    let mut turn = turn(usage(90, 10, None, None), steps);
    turn.step_details = vec![details(0, Some("other"), None, None)];
    let figures = figures(&turn);
    assert_eq!(figures["m"].usage, sums(-10, 0, Some(-40), None));
    assert_eq!(figures["other"].usage, sums(100, 10, Some(40), None));
    let mut total = Rollup::default();
    for (_, part) in Rollup::of_turn(&turn) {
        total.add(&part);
    }
    assert_eq!(Figures::of(&total).usage, sums(90, 10, None, None), "as the turn shows it: no cache counter");
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("other", 1)])));
    assert_eq!(costs.len(), 1, "nothing is unpriced");
    assert_eq!(costs["other"].usd().unwrap().to_string(), "110.000000000000");
    // The turn has less input than its steps and more output. The one difference does not offset the other.
    turn.metrics.usage = usage(90, 17, None, None);
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("other", 1)])));
    assert_eq!((costs["m"].usd(), costs["m"].unpriced_tokens()), (None, 7));
}

#[test]
fn a_turn_without_reporting_steps_is_one_part() {
    let steps = vec![step(0, Usage::default(), StepTimes { ttft: Some(millis(5.0)), ..StepTimes::default() })];
    let turn = turn(usage(100, 10, Some(25), None), steps);
    let all = figures(&turn);
    assert_eq!(all.len(), 1);
    let figures = &all["m"];
    assert_eq!(figures.usage, sums(100, 10, Some(25), None));
    assert_eq!((figures.cache_rate, figures.cache_coverage), (Some(0.25), Some(1.0)));
    assert_eq!(figures.ttft_ms.unwrap().count, 1);
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("m", 1)])));
    assert_eq!((costs["m"].usd().unwrap().to_string(), costs["m"].unpriced_tokens()), ("110.000000000000".into(), 0));
}

#[test]
fn a_model_without_a_price_is_counted_and_never_free() {
    let steps = vec![
        step(0, usage(100, 10, None, None), StepTimes::default()),
        step(1, usage(1, 2, None, None), StepTimes::default()),
    ];
    let mut turn = turn(usage(101, 12, None, None), steps);
    turn.step_details = vec![details(1, Some("known"), None, None)];
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("known", 1)])));
    assert_eq!((costs["m"].usd(), costs["m"].unpriced_tokens()), (None, 110));
    assert!(costs["m"].unpriced_models().eq([&Label::from("m")]));
    assert!(costs["known"].usd().is_some());
    // A turn without a known model has no price either.
    turn.model = None;
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("known", 1)])));
    assert_eq!((costs[""].usd(), costs[""].unpriced_tokens(), costs[""].unpriced_models().count()), (None, 110, 0));
    let none = by_model(Cost::of_turn(&turn, &NoPrices));
    assert!(none.values().all(|cost| cost.usd().is_none()));
}

#[test]
fn the_cache_rate_is_over_the_steps_that_reported_a_cache_counter() {
    let steps = vec![
        step(0, usage(1_000, 10, Some(900), None), StepTimes::default()),
        step(1, usage(1_000, 10, None, Some(600)), StepTimes::default()),
        step(2, usage(2_000, 10, None, None), StepTimes::default()),
    ];
    let all = figures(&turn(usage(4_000, 30, Some(900), Some(600)), steps));
    // 900 of 2,000 tokens were read; these 2,000 are half of all 4,000.
    assert_eq!((all["m"].cache_rate, all["m"].cache_coverage), (Some(0.45), Some(0.5)));
    let none = figures(&turn(usage(10, 1, None, None), vec![]));
    assert_eq!((none["m"].cache_rate, none["m"].cache_coverage), (None, Some(0.0)));
    let empty = figures(&turn(Usage::default(), vec![]));
    assert_eq!((empty["m"].cache_rate, empty["m"].cache_coverage), (None, None));
}

#[test]
fn retention_is_what_was_read_of_what_the_turn_before_left() {
    let before = usage(100, 1, Some(60), Some(20));
    assert_eq!(retention(&before, &usage(100, 1, Some(40), None)), Some(0.5));
    assert_eq!(retention(&before, &usage(100, 1, None, Some(40))), Some(0.0), "a miss");
    assert_eq!(retention(&before, &usage(100, 1, None, None)), None);
    assert_eq!(retention(&usage(100, 1, None, Some(0)), &before), None);
}

#[test]
fn where_the_kernel_leaves_cached_tokens_out_the_prompt_is_the_sum_of_the_three() {
    // One step has more cached tokens than input, so the kernel leaves cached tokens out in the other step too.
    let steps = vec![
        step(0, usage(10, 5, Some(70), Some(20)), StepTimes::default()),
        step(1, usage(60, 5, Some(40), None), StepTimes::default()),
    ];
    let turn = turn(usage(70, 10, Some(110), Some(20)), steps);
    let all = figures(&turn);
    assert_eq!(all["m"].usage, sums(70, 10, Some(110), Some(20)), "tokens are shown as sent");
    // The two prompts have 100 tokens each.
    assert_eq!((all["m"].cache_rate, all["m"].cache_coverage), (Some(0.55), Some(1.0)));
    let costs = by_model(Cost::of_turn(&turn, &DollarsPerToken(&[("m", 1)])));
    assert_eq!(costs["m"].usd().unwrap().to_string(), "210.000000000000");
}

#[test]
fn the_output_speed_is_sums_over_sums_of_the_steps_with_both() {
    let times = |decode| StepTimes {
        decode: Some(millis(decode)),
        gen_total: Some(millis(decode + 0.5)),
        ..StepTimes::default()
    };
    let steps = vec![
        step(0, usage(1, 100, None, None), times(1_000.0)),
        step(1, usage(1, 100, None, None), times(4_000.0)),
        step(2, usage(1, 0, None, None), times(9_000.0)),
        step(3, usage(1, 100, None, None), times(0.0)),
        step(4, usage(1, 100, None, None), StepTimes::default()),
    ];
    let all = figures(&turn(usage(5, 400, None, None), steps));
    assert_eq!(all["m"].output_tokens_per_second, Some(40.0));
    let steps = all["m"].step_output_tokens_per_second.unwrap();
    assert_eq!((steps.count, steps.min, steps.max), (2, 25.0, 100.0));
    assert_eq!(all["m"].generation_ms, Some(14_002.0));
}

#[test]
fn a_time_over_7_days_enters_no_figure_and_is_counted() {
    const WEEK: f64 = 604_800_000.0;
    let times = |ttft| StepTimes { ttft: Some(millis(ttft)), decode: Some(millis(1e300)), gen_total: None };
    let steps =
        vec![step(0, usage(1, 1, None, None), times(WEEK)), step(1, usage(1, 1, None, None), times(WEEK + 0.001))];
    let mut turn = turn(usage(2, 2, None, None), steps);
    turn.metrics.duration = Some(millis(2.0 * WEEK));
    let all = figures(&turn);
    assert_eq!(all["m"].overlong_times, 4);
    assert_eq!(all["m"].ttft_ms.map(|ttft| (ttft.count, ttft.max)), Some((1, WEEK)));
    assert_eq!(
        (all["m"].duration_ms, all["m"].turn_duration_ms, all["m"].output_tokens_per_second),
        (None, None, None)
    );
}

#[test]
fn times_are_whole_nanoseconds_and_percentiles_have_their_count() {
    let mut one = turn(Usage::default(), vec![]);
    one.metrics.duration = Some(millis(0.1));
    let mut total = Rollup::default();
    for _ in 0..10 {
        for (_, part) in Rollup::of_turn(&one) {
            total.add(&part);
        }
    }
    let figures = Figures::of(&total);
    assert_eq!(figures.duration_ms, Some(1.0), "ten times 0.1, as no float sums it");
    assert_eq!(
        serde_json::to_string(&figures.turn_duration_ms).unwrap(),
        r#"{"count":10,"min":0.1,"p50":0.1,"p90":0.1,"p99":0.1,"max":0.1}"#
    );
    assert_eq!(serde_json::to_string(&figures.usage).unwrap(), r#"{"inputTokens":0,"outputTokens":0}"#);
    // Computed as a float, the duration would be 1,000,999.9999999999 nanoseconds.
    one.metrics.duration = Some(millis(1.001));
    let mut rollup = Rollup::default();
    for (_, part) in Rollup::of_turn(&one) {
        rollup.add(&part);
    }
    assert_eq!(rollup.sums.duration_nanos, 1_001_000);
}

#[test]
fn a_price_is_of_the_report_time_and_knows_the_hour_part() {
    #[derive(Debug)]
    struct Seen(std::sync::Mutex<Vec<(u64, u64, Option<String>)>>);
    impl PriceBook for Seen {
        fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
            let seen = (step.at.get(), step.cache_write_1h_tokens, step.provider.map(str::to_owned));
            self.0.lock().unwrap().push(seen);
            None
        }

        fn digest(&self) -> u64 {
            1
        }
    }
    let steps = vec![
        step(0, usage(100, 1, None, Some(50)), StepTimes::default()),
        step(1, usage(100, 1, None, Some(50)), StepTimes::default()),
    ];
    let mut turn = turn(usage(200, 2, None, Some(100)), steps);
    turn.ended_at = Some(EpochMillis::new(1_700_000_000_000));
    turn.step_details = vec![details(0, None, Some("q"), Some(20)), details(1, None, None, Some(60))];
    let seen = Seen(Vec::new().into());
    Cost::of_turn(&turn, &seen);
    // There are at most as many cache writes for an hour as cache writes.
    let expected = [(1_700_000_000_000, 20, Some("q".to_owned())), (1_700_000_000_000, 50, Some("p".to_owned()))];
    assert_eq!(seen.0.into_inner().unwrap(), expected);
    // If no step reported tokens, the price is that of the turn's own usage.
    turn.metrics.steps.clear();
    turn.cache_write_1h_tokens = Some(70.into());
    let seen = Seen(Vec::new().into());
    Cost::of_turn(&turn, &seen);
    assert_eq!(seen.0.into_inner().unwrap(), [(1_700_000_000_000, 70, Some("p".to_owned()))]);
}

fn any_usage() -> impl Strategy<Value = Usage> {
    let count =
        || prop_oneof![Just(0u64), 0..5_000u64, Just(TokenCount::MAX.get())].prop_map(|n| TokenCount::new(n).unwrap());
    (count(), count(), option::of(count()), option::of(count())).prop_map(
        |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)| Usage {
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
        },
    )
}

fn any_millis() -> impl Strategy<Value = Option<Millis>> {
    option::of(prop_oneof![0.0..1e5, 0.0..1e9, Just(0.0)].prop_map(|time| Millis::new(time).unwrap()))
}

fn any_name() -> impl Strategy<Value = Option<Label>> {
    option::of(proptest::sample::select(vec!["a", "b", "c"]).prop_map(Label::from))
}

fn any_turn() -> impl Strategy<Value = StoredTurn> {
    let times = (any_millis(), any_millis(), any_millis()).prop_map(|(ttft, decode, gen_total)| StepTimes {
        ttft,
        decode,
        gen_total,
    });
    let steps = vec((any_usage(), times, any_name(), any_name()), 0..4);
    let names = (any_name(), any_name(), any_name(), proptest::sample::select(vec!["stop", "error", "length"]));
    // The report times spread over about a year.
    (any_usage(), any::<bool>(), steps, names, any_millis(), 1_760_000_000_000u64..1_790_000_000_000).prop_map(
        |(usage, is_sum, steps, (model, provider, project, reason), duration, ended_at)| {
            let mut turn = turn(usage, Vec::new());
            for (number, (usage, times, model, provider)) in steps.into_iter().enumerate() {
                turn.metrics.steps.push(step(number, usage, times));
                let step_id = turn.metrics.steps[number].step_id.clone();
                turn.step_details.push(StepDetails { step_id, model, provider, cache_write_1h_tokens: None });
            }
            if is_sum {
                turn.metrics.usage =
                    turn.metrics.steps.iter().fold(Usage::default(), |sum, step| sum.saturating_add(step.usage));
            }
            turn.metrics.duration = duration;
            turn.ended_at = Some(EpochMillis::new(ended_at));
            turn.reason = reason.into();
            StoredTurn { model, provider, project, ..turn }
        },
    )
}

/// The rows that a store keeps: each part of each turn is in one row of each level.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rows(BTreeMap<(Level, Quarter, RollupLabel), BreakdownRow>);

const BOOK: DollarsPerToken = DollarsPerToken(&[("a", 1), ("b", 3)]);

impl Rows {
    fn of<'a>(turns: impl IntoIterator<Item = &'a StoredTurn>) -> Self {
        let mut rows = Self::default();
        for turn in turns {
            let quarter = Quarter::of(report_time(turn));
            for level in Level::ALL {
                for (label, part) in Rollup::of_turn(turn) {
                    rows.0.entry((level, level.start_of(quarter), label)).or_default().rollup.add(&part);
                }
                for (label, part) in Cost::of_turn(turn, &BOOK) {
                    rows.0.entry((level, level.start_of(quarter), label)).or_default().cost.add(&part);
                }
            }
        }
        rows
    }

    /// Returns the report over `periods`, from the rows that cover each period.
    fn report(&self, periods: impl Iterator<Item = Period>, grouping: Grouping) -> Breakdown {
        let mut report = Breakdown::new(grouping, Selection::default());
        for period in periods {
            for (level, range) in Level::cover(period) {
                for ((at, start, label), row) in &self.0 {
                    if *at == level && range.contains(*start) {
                        report.add(period, label, &row.rollup);
                        report.add_cost(period, label, &row.cost);
                    }
                }
            }
        }
        report
    }
}

fn total(report: &Breakdown) -> BreakdownRow {
    let mut total = BreakdownRow::default();
    for (_, _, row) in report.rows() {
        total.rollup.add(&row.rollup);
        total.cost.add(&row.cost);
    }
    total
}

fn whole() -> Period {
    Period::around(1_759_900_000_000, 1_790_100_000_000).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_turns_does_not_matter(turns in vec(any_turn(), 0..8)) {
        prop_assert_eq!(Rows::of(&turns), Rows::of(turns.iter().rev()));
    }

    #[test]
    fn what_is_added_and_taken_out_leaves_nothing_but_extremes(kept in any_turn(), taken in any_turn()) {
        let (mut rollup, mut cost) = (Rollup::default(), Cost::default());
        for (_, part) in Rollup::of_turn(&kept) {
            rollup.add(&part);
        }
        for (_, part) in Cost::of_turn(&kept, &BOOK) {
            cost.add(&part);
        }
        let before = (rollup.clone(), cost.clone());
        // The turns are subtracted before they are added, in another order.
        for (_, part) in Rollup::of_turn(&taken) {
            rollup.subtract(&part);
        }
        for (_, part) in Cost::of_turn(&taken, &BOOK) {
            cost.subtract(&part);
        }
        for (_, part) in Rollup::of_turn(&taken).iter().rev() {
            rollup.add(part);
        }
        for (_, part) in Cost::of_turn(&taken, &BOOK).iter().rev() {
            cost.add(part);
        }
        prop_assert_eq!(cost, before.1);
        prop_assert_eq!(rollup.sums, before.0.sums);
        for (after, before) in [
            (rollup.ttft, before.0.ttft), (rollup.duration, before.0.duration), (rollup.output_speed, before.0.output_speed),
        ] {
            prop_assert_eq!(after.histogram(), before.histogram());
        }
    }

    #[test]
    fn the_tokens_of_all_parts_are_the_turns(turn in any_turn()) {
        let mut rollup = Rollup::default();
        for (_, part) in Rollup::of_turn(&turn) {
            rollup.add(&part);
        }
        let (shown, usage) = (Figures::of(&rollup), turn.metrics.usage);
        let reported = |count: Option<TokenCount>| count.map(|count| i128::from(count.get()));
        prop_assert_eq!(shown.usage, UsageSums {
            input_tokens: usage.input_tokens.get().into(),
            output_tokens: usage.output_tokens.get().into(),
            cache_read_tokens: reported(usage.cache_read_tokens),
            cache_write_tokens: reported(usage.cache_write_tokens),
        });
        prop_assert_eq!((shown.turns, shown.steps), (1, i128::try_from(turn.metrics.steps.len()).unwrap()));
        let is_share = |share: Option<f64>| share.is_none_or(|share| (0.0..=1.0).contains(&share));
        prop_assert!(is_share(shown.cache_rate) && is_share(shown.cache_coverage), "{:?}", shown);
    }

    #[test]
    fn quarters_sum_to_every_unit_of_every_zone_and_models_to_the_total(
        turns in vec(any_turn(), 0..8),
        zone in proptest::sample::select(vec![
            "UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Adelaide", "Australia/Lord_Howe",
            "America/St_Johns", "Pacific/Apia", "Pacific/Chatham", "America/Sao_Paulo", "Africa/Cairo",
        ]),
        unit in proptest::sample::select(vec![PeriodUnit::Day, PeriodUnit::Week, PeriodUnit::Month, PeriodUnit::All]),
    ) {
        let zone = Zone::named(zone).unwrap();
        let rows = Rows::of(&turns);
        // Sum the rows of quarters directly, without a cover.
        let mut quarters = BreakdownRow::default();
        for ((level, ..), row) in &rows.0 {
            if *level == Level::Quarter {
                quarters.rollup.add(&row.rollup);
                quarters.cost.add(&row.cost);
            }
        }
        let groupings = [
            Grouping::default(),
            Grouping { model: true, ..Grouping::default() },
            Grouping { provider: true, project: true, reason: true, model: false },
        ];
        for grouping in groupings {
            let report = rows.report(zone.periods(unit, whole()), grouping);
            prop_assert_eq!(&total(&report), &quarters);
        }
    }

    #[test]
    fn levels_agree(turns in vec(any_turn(), 0..8)) {
        let rows = Rows::of(&turns);
        let at = |level: Level| {
            let mut sums = Rows::default();
            for ((row_level, start, label), row) in &rows.0 {
                if *row_level == level {
                    let sum = sums.0.entry((Level::LONGEST, Level::LONGEST.start_of(*start), label.clone())).or_default();
                    sum.rollup.add(&row.rollup);
                    sum.cost.add(&row.cost);
                }
            }
            sums
        };
        let longest = at(Level::LONGEST);
        for level in Level::ALL {
            prop_assert_eq!(&at(level), &longest);
        }
    }

    #[test]
    fn a_row_is_the_same_when_read(turn in any_turn()) {
        for (_, rollup) in Rollup::of_turn(&turn) {
            let bytes = postcard::to_stdvec(&rollup).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Rollup>(&bytes).unwrap(), rollup);
        }
        for (_, cost) in Cost::of_turn(&turn, &BOOK) {
            let bytes = postcard::to_stdvec(&cost).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Cost>(&bytes).unwrap(), cost);
        }
    }
}

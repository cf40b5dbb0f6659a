use serde::{Deserialize, Serialize};

use super::histogram::Distribution;
use super::label::RollupLabel;
use super::part::{ByLabel, Parts, StepPart, TokenPart, UsageSums};
use super::plausible::is_plausible_sum;
use crate::turn::{Millis, StoredTurn};

/// The sums and distributions from which a row of a report is computed. They add and subtract exactly, in any order.
///
/// The number of terms is far below 2^64 and each term is below 2^60, so no sum overflows an `i128`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rollup {
    pub(super) sums: Sums,
    /// The times of the steps to their first token, in nanoseconds.
    pub(super) ttft: Distribution,
    /// The output speeds of the steps, in 10^-9 tokens a second.
    pub(super) output_speed: Distribution,
    /// The durations of the turns, in nanoseconds.
    pub(super) duration: Distribution,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) turns: i128,
    pub(super) steps: i128,
    pub(super) input_tokens: i128,
    pub(super) output_tokens: i128,
    pub(super) cache_read_tokens: i128,
    /// How often the counter was reported.
    pub(super) cache_read_reports: i128,
    pub(super) cache_write_tokens: i128,
    pub(super) cache_write_reports: i128,
    /// Tokens of the prompts of steps, and of turns whose steps reported none.
    pub(super) prompt_tokens: i128,
    /// Tokens of those prompts whose usage had a cache counter.
    pub(super) cache_reporting_prompt_tokens: i128,
    /// How many tokens of those prompts were read from the cache.
    pub(super) cache_reporting_read_tokens: i128,
    /// Output tokens of the steps that have a decode time.
    pub(super) timed_output_tokens: i128,
    /// Decode times of the steps that have output.
    pub(super) decode_nanos: i128,
    pub(super) generation_nanos: i128,
    pub(super) generations: i128,
    pub(super) duration_nanos: i128,
    pub(super) durations: i128,
    pub(super) overlong_times: i128,
}

impl Sums {
    /// Returns all numbers in the order of the fields.
    fn numbers(&mut self) -> [&mut i128; 18] {
        let Self {
            turns,
            steps,
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_read_reports,
            cache_write_tokens,
            cache_write_reports,
            prompt_tokens,
            cache_reporting_prompt_tokens,
            cache_reporting_read_tokens,
            timed_output_tokens,
            decode_nanos,
            generation_nanos,
            generations,
            duration_nanos,
            durations,
            overlong_times,
        } = self;
        [
            turns,
            steps,
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_read_reports,
            cache_write_tokens,
            cache_write_reports,
            prompt_tokens,
            cache_reporting_prompt_tokens,
            cache_reporting_read_tokens,
            timed_output_tokens,
            decode_nanos,
            generation_nanos,
            generations,
            duration_nanos,
            durations,
            overlong_times,
        ]
    }

    /// Combines two sets of sums, number by number.
    fn zip(mut self, mut other: Self, each: impl Fn(i128, i128) -> i128) -> Self {
        for (ours, other) in self.numbers().into_iter().zip(other.numbers()) {
            *ours = each(*ours, *other);
        }
        self
    }

    /// Returns the time in whole nanoseconds. For a time over 7 days, returns `None` and counts it as overlong: no turn
    /// takes so long, and one wrong clock must not spoil all figures.
    fn nanos(&mut self, time: Option<Millis>) -> Option<u64> {
        const LONGEST_MILLIS: f64 = 7.0 * 24.0 * 60.0 * 60.0 * 1e3;
        let millis = time?.get();
        if millis > LONGEST_MILLIS {
            self.overlong_times += 1;
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 7 days")]
        Some((millis * 1e6).round() as u64)
    }
}

impl Rollup {
    /// Returns whether a usage with tokens in its prompt had a cache counter.
    pub(super) fn has_cache_counter(&self) -> bool {
        self.sums.cache_reporting_prompt_tokens != 0
    }

    /// Returns the number of counts in the histograms.
    pub(crate) fn counts(&self) -> usize {
        self.ttft.len() + self.output_speed.len() + self.duration.len()
    }

    /// Returns what a turn adds to the sums of reports: one rollup for each label of its parts. A part is a step, or
    /// the turn's usage beyond that of its steps.
    pub fn of_turn(turn: &StoredTurn) -> Vec<(RollupLabel, Self)> {
        Self::of_parts(&Parts::of(turn))
    }

    /// Like [`of_turn`](Self::of_turn), for a turn whose parts are known already.
    pub(super) fn of_parts(parts: &Parts<'_>) -> Vec<(RollupLabel, Self)> {
        let mut rollups = ByLabel::<Self>::new();
        rollups.of(parts.own_label()).count_turn(parts.turn);
        for step in &parts.steps {
            rollups.of(parts.label(step.model, step.provider)).count_step(step);
        }
        for part in &parts.tokens {
            rollups.of(parts.label(part.model, part.provider)).count_tokens(part);
        }
        rollups.of(parts.own_label()).add_usage(&parts.difference);
        rollups.into_vec()
    }

    /// Returns the number of turns.
    pub fn turns(&self) -> i128 {
        self.sums.turns
    }

    /// Returns the number of tokens of prompts and output.
    pub fn tokens(&self) -> i128 {
        self.sums.input_tokens + self.sums.output_tokens
    }

    /// Adds another rollup.
    pub fn add(&mut self, other: &Self) {
        self.sums = self.sums.zip(other.sums, |a, b| a + b);
        self.ttft.add(&other.ttft);
        self.output_speed.add(&other.output_speed);
        self.duration.add(&other.duration);
    }

    /// Subtracts a rollup that was added before. The sums are exact afterwards, but the smallest and the largest values
    /// stay: they cover every turn that was ever counted.
    pub fn subtract(&mut self, other: &Self) {
        self.sums = self.sums.zip(other.sums, |a, b| a - b);
        self.ttft.subtract(&other.ttft);
        self.output_speed.subtract(&other.output_speed);
        self.duration.subtract(&other.duration);
    }

    /// Returns whether a rollup from outside can be added to others.
    pub(super) fn is_plausible(&self) -> bool {
        let mut sums = self.sums;
        sums.turns >= 0
            && sums.steps >= 0
            && sums.numbers().into_iter().all(|sum| is_plausible_sum(*sum))
            && [&self.ttft, &self.output_speed, &self.duration].into_iter().all(Distribution::is_plausible)
    }

    /// Calls `each` with each number that can be added, and with a number for its place. Numbers that are 0 are left
    /// out.
    pub(crate) fn each_number(&self, mut each: impl FnMut(u64, i128)) {
        let mut sums = self.sums;
        let sums = (0..).zip(sums.numbers().map(|number| *number));
        let distributions = (1..).zip([&self.ttft, &self.output_speed, &self.duration]);
        let counts = distributions.flat_map(|(nth, distribution)| {
            distribution.histogram().counts().map(move |(place, count)| ((nth << 32) + u64::from(place), count.into()))
        });
        sums.chain(counts).filter(|(_, number)| *number != 0).for_each(|(place, number)| each(place, number));
    }

    fn count_turn(&mut self, turn: &StoredTurn) {
        self.sums.turns += 1;
        if let Some(nanos) = self.sums.nanos(turn.metrics.duration) {
            self.sums.duration_nanos += i128::from(nanos);
            self.sums.durations += 1;
            self.duration.record(nanos.into());
        }
    }

    fn count_step(&mut self, part: &StepPart<'_>) {
        self.sums.steps += 1;
        let times = part.step.times;
        if let Some(nanos) = self.sums.nanos(times.ttft) {
            self.ttft.record(nanos.into());
        }
        if let Some(nanos) = self.sums.nanos(times.gen_total) {
            self.sums.generation_nanos += i128::from(nanos);
            self.sums.generations += 1;
        }
        let output = part.step.usage.output_tokens.get();
        if let Some(nanos) = self.sums.nanos(times.decode).filter(|nanos| *nanos > 0 && output > 0) {
            self.sums.timed_output_tokens += i128::from(output);
            self.sums.decode_nanos += i128::from(nanos);
            // The factors turn nanoseconds into seconds, and tokens into 10^-9 tokens. The product is below 2^53 *
            // 2^60.
            self.output_speed.record(u128::from(output) * 1_000_000_000_000_000_000 / u128::from(nanos));
        }
    }

    fn count_tokens(&mut self, part: &TokenPart<'_>) {
        let usage = UsageSums::of(&part.usage);
        self.add_usage(&usage);
        let sums = &mut self.sums;
        sums.prompt_tokens += part.prompt_tokens;
        if usage.cache_read_reports + usage.cache_write_reports > 0 {
            sums.cache_reporting_prompt_tokens += part.prompt_tokens;
            sums.cache_reporting_read_tokens += usage.cache_read_tokens;
        }
    }

    fn add_usage(&mut self, usage: &UsageSums) {
        let sums = &mut self.sums;
        sums.input_tokens += usage.input_tokens;
        sums.output_tokens += usage.output_tokens;
        sums.cache_read_tokens += usage.cache_read_tokens;
        sums.cache_read_reports += usage.cache_read_reports;
        sums.cache_write_tokens += usage.cache_write_tokens;
        sums.cache_write_reports += usage.cache_write_reports;
    }
}

use serde::{Deserialize, Serialize, Serializer};

use super::histogram::Distribution;
use super::rollup::Rollup;
use crate::turn::{TokenCount, Usage, serialize_number};

const NANOS_PER_MILLI: f64 = 1e6;
const NANOS_PER_SECOND: f64 = 1e9;

/// The figures of a rollup, as every report shows them. A figure is `None` if no turn reported what it is computed
/// from.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The number of sealed turns.
    pub turns: i128,
    /// The number of steps. A step counts in the row of its own model, which may differ from the turn's model.
    pub steps: i128,
    /// The sums of the tokens.
    pub usage: UsageSums,
    /// The share of the prompt that was read from the cache, over the steps that reported a cache counter.
    pub cache_rate: Option<f64>,
    /// The share of all prompt tokens that belongs to the steps with a cache counter. It says how much `cache_rate`
    /// covers.
    pub cache_coverage: Option<f64>,
    /// Output tokens per second of decode time, over the steps that have both.
    pub output_tokens_per_second: Option<f64>,
    /// The times to the first token of the steps, in milliseconds.
    pub ttft_ms: Option<Percentiles>,
    /// The speeds of single steps, in output tokens per second.
    pub step_output_tokens_per_second: Option<Percentiles>,
    /// The durations of the turns, in milliseconds.
    pub turn_duration_ms: Option<Percentiles>,
    /// The sum of the durations of the turns, in milliseconds.
    pub duration_ms: Option<f64>,
    /// The sum of the generation totals of the steps, in milliseconds.
    pub generation_ms: Option<f64>,
    /// How many times were over 7 days. Such times are left out of all figures.
    pub overlong_times: i128,
}

/// Sums of the four token counters. They have no upper limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSums {
    /// Tokens of the prompts, as the kernels reported them.
    pub input_tokens: i128,
    /// Tokens that the models wrote.
    pub output_tokens: i128,
    /// Tokens read from a cache; `None` if no usage reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<i128>,
    /// Tokens written to a cache; `None` if no usage reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<i128>,
}

/// Percentiles by the nearest rank, each at most 1.1 % off and within `min` and `max`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many values there are.
    pub count: i64,
    /// The smallest value that was ever counted, even if it was subtracted since.
    #[serde(serialize_with = "number")]
    pub min: f64,
    /// The median.
    #[serde(serialize_with = "number")]
    pub p50: f64,
    /// At most one value in ten is larger.
    #[serde(serialize_with = "number")]
    pub p90: f64,
    /// At most one value in a hundred is larger.
    #[serde(serialize_with = "number")]
    pub p99: f64,
    /// The largest value that was ever counted, even if it was subtracted since.
    #[serde(serialize_with = "number")]
    pub max: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serialize_number(*number, serializer)
}

/// Returns a sum as a float.
#[expect(clippy::cast_precision_loss, reason = "shown, and summed no further")]
fn float(sum: i128) -> f64 {
    sum as f64
}

fn ratio(part: i128, whole: i128) -> Option<f64> {
    (whole > 0).then(|| float(part) / float(whole))
}

/// Returns how much of a conversation's cache survived between two turns: of the tokens that the `previous` turn left
/// in the cache, the share that the `latest` turn read. `None` if the previous turn left nothing there, or if the
/// latest turn reported nothing about the cache.
pub fn retention(previous: &Usage, latest: &Usage) -> Option<f64> {
    latest.cache_read_tokens.or(latest.cache_write_tokens)?;
    let tokens = |counter: Option<TokenCount>| i128::from(counter.unwrap_or_default().get());
    let left = tokens(previous.cache_read_tokens) + tokens(previous.cache_write_tokens);
    ratio(tokens(latest.cache_read_tokens), left)
}

impl Percentiles {
    /// Returns the percentiles of a distribution, in units of `unit`.
    fn of(distribution: &Distribution, unit: f64) -> Option<Self> {
        let (min, max) = distribution.extremes()?;
        let percentile = |percent| Some(distribution.percentile(percent)? / unit);
        #[expect(clippy::cast_precision_loss, reason = "shown, and summed no further")]
        Some(Self {
            count: distribution.histogram().count(),
            min: min as f64 / unit,
            p50: percentile(50)?,
            p90: percentile(90)?,
            p99: percentile(99)?,
            max: max as f64 / unit,
        })
    }
}

impl Figures {
    /// Returns the figures of a rollup.
    pub fn of(rollup: &Rollup) -> Self {
        let sums = &rollup.sums;
        let reported = |tokens, reports| (reports != 0 || tokens != 0).then_some(tokens);
        let millis = |nanos: i128, count: i128| (count != 0).then(|| float(nanos) / NANOS_PER_MILLI);
        Self {
            turns: sums.turns,
            steps: sums.steps,
            usage: UsageSums {
                input_tokens: sums.input_tokens,
                output_tokens: sums.output_tokens,
                cache_read_tokens: reported(sums.cache_read_tokens, sums.cache_read_reports),
                cache_write_tokens: reported(sums.cache_write_tokens, sums.cache_write_reports),
            },
            cache_rate: ratio(sums.cache_reporting_read_tokens, sums.cache_reporting_prompt_tokens),
            cache_coverage: ratio(sums.cache_reporting_prompt_tokens, sums.prompt_tokens),
            output_tokens_per_second: ratio(sums.timed_output_tokens, sums.decode_nanos)
                .map(|tokens_per_nano| tokens_per_nano * NANOS_PER_SECOND),
            ttft_ms: Percentiles::of(&rollup.ttft, NANOS_PER_MILLI),
            step_output_tokens_per_second: Percentiles::of(&rollup.output_speed, 1e9),
            turn_duration_ms: Percentiles::of(&rollup.duration, NANOS_PER_MILLI),
            duration_ms: millis(sums.duration_nanos, sums.durations),
            generation_ms: millis(sums.generation_nanos, sums.generations),
            overlong_times: sums.overlong_times,
        }
    }
}

//! Dispatch's report on throughput, equal to the byte: for each model, tokens by generation time.
//!
//! Dispatch sums floats in the order of the turns' report times. Exact sums would differ from that in the last digits,
//! so this code takes the turns themselves and sums them in the same order.

use std::cmp::Ordering;

use feruca::{Collator, Locale, Tailoring};
use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use super::part::report_time;
use super::zone::{CalendarPeriod, Zone};
use crate::turn::{Label, StoredTurn, serialize_number};

/// The day, week or month that a report on throughput covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThroughputQuery {
    unit: Unit,
    date: String,
    period: CalendarPeriod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Day,
    Week,
    Month,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    fn date_format(self) -> &'static str {
        match self {
            Self::Day | Self::Week => "YYYY-MM-DD",
            Self::Month => "YYYY-MM",
        }
    }
}

/// The reason why a report on throughput cannot be made. The texts are the ones that Dispatch sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidThroughputQuery {
    /// The period is missing, or is not one of the three.
    #[error("query param 'period' must be one of: day, week, month")]
    Period,
    /// The date is missing or empty.
    #[error("query param 'date' is required")]
    NoDate,
    /// The text is not a date, or the zone has no such day.
    #[error("invalid {period} date \"{date}\" (expected {expected})")]
    Date {
        /// The period that was asked for.
        period: &'static str,
        /// The date that was sent.
        date: String,
        /// The form in which a date is written.
        expected: &'static str,
    },
}

impl ThroughputQuery {
    /// Reads the parameters of a request. A parameter is `None` if it is missing.
    pub fn parse(period: Option<&str>, date: Option<&str>, zone: &Zone) -> Result<Self, InvalidThroughputQuery> {
        let unit = match period {
            Some("day") => Unit::Day,
            Some("week") => Unit::Week,
            Some("month") => Unit::Month,
            _ => return Err(InvalidThroughputQuery::Period),
        };
        let date = date.filter(|date| !date.is_empty()).ok_or(InvalidThroughputQuery::NoDate)?;
        let period = match unit {
            Unit::Day => zone.day(date),
            Unit::Week => zone.week(date),
            Unit::Month => zone.month(date),
        };
        let period = period.ok_or_else(|| InvalidThroughputQuery::Date {
            period: unit.as_str(),
            date: date.to_owned(),
            expected: unit.date_format(),
        })?;
        Ok(Self { unit, date: date.to_owned(), period })
    }

    /// Returns the time that the report covers, in milliseconds since 1970.
    pub fn period(&self) -> CalendarPeriod {
        self.period
    }
}

/// A report on throughput to which turns are still added.
#[derive(Debug, Clone)]
pub struct Throughput {
    query: ThroughputQuery,
    /// The sums for each model, in the order in which the models were first seen.
    models: IndexMap<Label, ModelSums>,
}

#[derive(Debug, Clone, Default)]
struct ModelSums {
    output_tokens: f64,
    /// For each turn, its report time and its generation time, both in milliseconds.
    samples: Vec<(u64, f64)>,
}

impl ModelSums {
    fn generation_millis(&self) -> f64 {
        let mut samples = self.samples.clone();
        // The sort is stable, so turns of the same moment stay in the order in which they were added.
        samples.sort_by_key(|(at, _)| *at);
        samples.iter().fold(0.0, |sum, (_, millis)| sum + millis)
    }
}

impl Throughput {
    /// Returns a report without turns.
    pub fn new(query: ThroughputQuery) -> Self {
        Self { query, models: IndexMap::new() }
    }

    /// Counts a turn if it lies in the period, has a model and has a generation time. Keeps 16 bytes for it.
    pub fn add(&mut self, turn: &StoredTurn) {
        let CalendarPeriod { start, end } = self.query.period;
        let at = report_time(turn).get();
        let is_within = i64::try_from(at).is_ok_and(|at| start <= at && at < end);
        let Some(model) = turn.model.as_ref().filter(|model| is_within && !model.as_str().is_empty()) else { return };
        let times = turn.metrics.steps.iter().filter_map(|step| step.times.gen_total);
        let generation_millis = times.fold(0.0, |sum, time| sum + time.get());
        if generation_millis <= 0.0 {
            return;
        }
        let sums = self.models.entry(model.clone()).or_default();
        #[expect(clippy::cast_precision_loss, reason = "a count is below 2^53")]
        let output_tokens = turn.metrics.usage.output_tokens.get() as f64;
        sums.output_tokens += output_tokens;
        sums.samples.push((at, generation_millis));
    }

    /// Returns the number of models that were added so far.
    pub(crate) fn models(&self) -> usize {
        self.models.len()
    }

    /// Returns the finished report, the fastest model first.
    pub fn report(&self) -> ThroughputReport {
        let mut models: Vec<_> = self.models.iter().map(|(model, sums)| ModelThroughput::of(model, sums)).collect();
        let mut collator = Collator::new(Tailoring::Cldr(Locale::Root), false, false);
        models.sort_by(|a, b| {
            let by_speed = b.tokens_per_second.partial_cmp(&a.tokens_per_second).unwrap_or(Ordering::Equal);
            by_speed.then_with(|| collator.collate(a.model.as_str(), b.model.as_str()))
        });
        ThroughputReport {
            period: self.query.unit,
            date: self.query.date.clone(),
            start: self.query.period.start,
            end: self.query.period.end,
            models,
        }
    }
}

/// A report on throughput. As JSON it equals Dispatch's to the byte.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThroughputReport {
    period: Unit,
    date: String,
    start: i64,
    end: i64,
    models: Vec<ModelThroughput>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelThroughput {
    model: Label,
    #[serde(serialize_with = "number")]
    tokens_per_second: f64,
    #[serde(serialize_with = "number")]
    total_output_tokens: f64,
    #[serde(serialize_with = "number")]
    total_gen_ms: f64,
    turns: usize,
}

impl ModelThroughput {
    fn of(model: &Label, sums: &ModelSums) -> Self {
        let total_gen_ms = sums.generation_millis();
        // The time is above 0, but the division may underflow to 0.
        let seconds = total_gen_ms / 1000.0;
        let exact = if seconds > 0.0 { sums.output_tokens / seconds } else { 0.0 };
        // Neither operand is negative, so a half is rounded up, as in ECMAScript.
        let rounded = (exact * 100.0).round() / 100.0;
        Self {
            model: model.clone(),
            tokens_per_second: rounded,
            total_output_tokens: sums.output_tokens,
            total_gen_ms,
            turns: sums.samples.len(),
        }
    }
}

/// Writes a number as ECMAScript does. That writes `null` for a number that is not finite.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { serialize_number(*number, serializer) } else { serializer.serialize_none() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::turn::{
        EpochMillis, Millis, Ordinal, SealedTurn, StepId, StepMetrics, StepTimes, TurnId, TurnMetrics, Usage,
    };

    #[derive(Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Vector {
        Resolve {
            tz: String,
            period: String,
            date: String,
            start: Option<i64>,
            end: Option<i64>,
            error: Option<String>,
        },
        Route {
            tz: String,
            turns: Vec<VectorTurn>,
            answers: Vec<Answer>,
        },
    }

    #[derive(Deserialize)]
    struct VectorTurn {
        ts: u64,
        model: Option<String>,
        events: Vec<Value>,
    }

    #[derive(Deserialize)]
    struct Answer {
        query: String,
        status: u16,
        body: String,
    }

    fn vectors() -> Vec<Vector> {
        let file = include_str!("../../tests/vectors/throughput.ndjson");
        file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn turn(ts: u64, model: Option<&str>, output_tokens: u32, generation: &[Option<f64>]) -> StoredTurn {
        let steps = generation.iter().enumerate().map(|(number, time)| StepMetrics {
            step_id: StepId::new(format!("t#{number}")).unwrap(),
            usage: Usage::default(),
            times: StepTimes { gen_total: time.map(|time| Millis::new(time).unwrap()), ..StepTimes::default() },
        });
        let turn = SealedTurn {
            sealed_at: EpochMillis::new(ts + 1),
            ended_at: Some(EpochMillis::new(ts)),
            reason: "stop".into(),
            model: model.map(Label::from),
            provider: None,
            project: None,
            cache_write_1h_tokens: None,
            step_details: Vec::new(),
            metrics: TurnMetrics {
                turn_id: TurnId::new("t").unwrap(),
                usage: Usage { output_tokens: output_tokens.into(), ..Usage::default() },
                steps: steps.collect(),
                duration: None,
                context_size: None,
            },
        };
        turn.at(Ordinal::new(1).unwrap())
    }

    impl VectorTurn {
        fn stored(&self) -> StoredTurn {
            let of_type = |kind: &'static str| self.events.iter().filter(move |event| event["type"] == kind);
            let times: Vec<_> = of_type("step-complete").map(|event| event["genTotalMs"].as_f64()).collect();
            let output = of_type("done").find_map(|event| event["usage"]["outputTokens"].as_u64()).unwrap_or(0);
            turn(self.ts, self.model.as_deref(), output.try_into().unwrap(), &times)
        }
    }

    #[test]
    fn periods_are_those_of_the_reference() {
        let mut counted = 0;
        for vector in vectors() {
            let Vector::Resolve { tz, period, date, start, end, error } = vector else { continue };
            let zone = Zone::named(&tz).unwrap();
            // An empty date is refused as missing. The reference calls it invalid.
            let query = ThroughputQuery::parse(Some(&period), Some(&date), &zone);
            let found =
                query.map(|query| (query.period().start, query.period().end)).map_err(|error| error.to_string());
            let expected = match error {
                Some(_) if date.is_empty() => Err(InvalidThroughputQuery::NoDate.to_string()),
                Some(error) => Err(error),
                None => Ok((start.unwrap(), end.unwrap())),
            };
            assert_eq!(found, expected, "{period} {date} in {tz}");
            counted += 1;
        }
        assert_eq!(counted, 190);
    }

    #[test]
    fn answers_are_those_of_the_reference_to_the_byte() {
        let mut counted = 0;
        for vector in vectors() {
            let Vector::Route { tz, turns, answers } = vector else { continue };
            let zone = Zone::named(&tz).unwrap();
            for Answer { query, status, body } in answers {
                let parameters: Vec<_> = query.split('&').filter_map(|parameter| parameter.split_once('=')).collect();
                let first = |name| parameters.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
                let (found_status, found) = match ThroughputQuery::parse(first("period"), first("date"), &zone) {
                    Ok(query) => {
                        let mut throughput = Throughput::new(query);
                        for turn in &turns {
                            throughput.add(&turn.stored());
                        }
                        (200, serde_json::to_string(&throughput.report()).unwrap())
                    }
                    Err(error) => (400, serde_json::json!({ "error": error.to_string() }).to_string()),
                };
                assert_eq!((found_status, found), (status, body), "{query} in {tz}");
                counted += 1;
            }
        }
        assert_eq!(counted, 54);
    }

    fn report(turns: &[StoredTurn]) -> Value {
        let query = ThroughputQuery::parse(Some("day"), Some("2026-06-10"), &Zone::UTC).unwrap();
        let mut throughput = Throughput::new(query);
        for turn in turns {
            throughput.add(turn);
        }
        serde_json::to_value(throughput.report()).unwrap()["models"].take()
    }

    const NOON: u64 = 1_781_092_800_000;

    #[test]
    fn a_turn_without_a_model_or_a_time_is_no_sample() {
        let turns = [
            turn(NOON, None, 10, &[Some(1.0)]),
            turn(NOON, Some(""), 10, &[Some(1.0)]),
            turn(NOON, Some("m"), 10, &[]),
            turn(NOON, Some("m"), 10, &[None, Some(0.0)]),
            turn(NOON - 43_200_001, Some("m"), 10, &[Some(1.0)]),
            turn(NOON + 43_200_000, Some("m"), 10, &[Some(1.0)]),
            turn(NOON - 43_200_000, Some("m"), 10, &[Some(1.0), None, Some(3.0)]),
        ];
        let expected = serde_json::json!([
            { "model": "m", "tokensPerSecond": 2500, "totalOutputTokens": 10, "totalGenMs": 4, "turns": 1 }
        ]);
        assert_eq!(report(&turns), expected);
    }

    #[test]
    fn times_are_summed_in_the_order_of_the_report_times() {
        let times = [0.1, 0.2, 0.3];
        let turn = |at: u64| turn(NOON + at, Some("m"), 1, &[Some(times[usize::try_from(at).unwrap()])]);
        let sum = |turns: &[StoredTurn]| report(turns)[0]["totalGenMs"].as_f64().unwrap();
        // In the order of the report times, the floats 0.1, 0.2 and 0.3 sum to 0.6000000000000001. In the reverse order
        // the sum would be 0.6.
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            assert_eq!(sum(&order.map(turn)).to_string(), "0.6000000000000001", "{order:?}");
        }
    }

    #[test]
    fn equally_fast_models_are_in_the_order_of_the_root_locale() {
        let models = ["B", "b", "A", "a", "1", "/", "-", "_", "é", "e", "z", "aB", "ab", "a b", "日"];
        let turns = models.map(|model| turn(NOON, Some(model), 10, &[Some(1.0)]));
        let report = report(&turns);
        let order: Vec<_> = report.as_array().unwrap().iter().map(|row| row["model"].as_str().unwrap()).collect();
        assert_eq!(order, ["_", "-", "/", "1", "a", "A", "a b", "ab", "aB", "b", "B", "e", "é", "z", "日"]);
    }
}

//! A plain sum over turns as a client sends them. The oracle shares no code with the service. It has its own rules for
//! the counts of a turn, for costs and for the beginning of a day.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

/// Token counters as they are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: i128,
    pub(crate) output: i128,
    pub(crate) cache_read: Option<i128>,
    pub(crate) cache_write: Option<i128>,
}

impl Usage {
    fn json(&self) -> Value {
        let mut json = json!({ "inputTokens": number(self.input), "outputTokens": number(self.output) });
        for (name, count) in [("cacheReadTokens", self.cache_read), ("cacheWriteTokens", self.cache_write)] {
            if let Some(count) = count {
                json[name] = number(count);
            }
        }
        json
    }

    fn cached(&self) -> i128 {
        self.cache_read.unwrap_or(0) + self.cache_write.unwrap_or(0)
    }

    fn counters(&self) -> [i128; 4] {
        [self.input, self.output, self.cache_read.unwrap_or(0), self.cache_write.unwrap_or(0)]
    }
}

fn number(count: i128) -> Value {
    u64::try_from(count).unwrap().into()
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The names of the step, if they differ from the names of the turn.
    pub(crate) model: Option<&'static str>,
    pub(crate) provider: Option<&'static str>,
    /// The usage; `None` for a step that reported nothing.
    pub(crate) usage: Option<Usage>,
    /// The part of the cache writes that is for an hour.
    pub(crate) cache_write_1h: Option<i128>,
}

#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) conversation: String,
    pub(crate) id: String,
    pub(crate) model: Option<&'static str>,
    pub(crate) provider: Option<&'static str>,
    pub(crate) project: Option<&'static str>,
    pub(crate) reason: &'static str,
    pub(crate) ended_at: u64,
    pub(crate) steps: Vec<Step>,
    /// The usage of the turn's `done`.
    pub(crate) done: Option<Usage>,
}

impl Turn {
    /// Writes the events of the turn, as a kernel sends them.
    pub(crate) fn write_events(&self, lines: &mut String) {
        let mut line = |mut event: Value| {
            event["conversationId"] = self.conversation.as_str().into();
            event["turnId"] = self.id.as_str().into();
            lines.push_str(&event.to_string());
            lines.push('\n');
        };
        let with_texts = |mut event: Value, texts: &[(&str, Option<&str>)]| {
            for (name, value) in texts {
                if let Some(value) = value {
                    event[*name] = (*value).into();
                }
            }
            event
        };
        let names = [("model", self.model), ("provider", self.provider), ("project", self.project)];
        line(with_texts(json!({ "type": "turn-start" }), &names));
        for (nth, step) in self.steps.iter().enumerate() {
            let step_id = format!("{}#{nth}", self.id);
            if let Some(usage) = &step.usage {
                let mut usage = usage.json();
                if let Some(count) = step.cache_write_1h {
                    usage["cacheWrite1hTokens"] = number(count);
                }
                line(json!({ "type": "usage", "stepId": step_id, "usage": usage }));
            }
            let times = json!({ "type": "step-complete", "stepId": step_id, "decodeMs": 250.5, "genTotalMs": 500 });
            line(with_texts(times, &[("model", step.model), ("provider", step.provider)]));
        }
        let mut done = json!({ "type": "done", "reason": self.reason, "endedAt": self.ended_at, "durationMs": 900 });
        if let Some(usage) = &self.done {
            done["usage"] = usage.json();
        }
        line(done);
    }

    /// Returns the tokens that the turn shows: the tokens of its `done`, or else of the steps that reported tokens.
    fn usage(&self) -> Usage {
        let sum = |one: Option<i128>, other: Option<i128>| match (one, other) {
            (None, None) => None,
            _ => Some(one.unwrap_or(0) + other.unwrap_or(0)),
        };
        let of_steps = self.steps.iter().filter_map(|step| step.usage).fold(Usage::default(), |all, step| Usage {
            input: all.input + step.input,
            output: all.output + step.output,
            cache_read: sum(all.cache_read, step.cache_read),
            cache_write: sum(all.cache_write, step.cache_write),
        });
        self.done.unwrap_or(of_steps)
    }

    /// Returns the parts of the turn.
    pub(crate) fn parts(&self, table: &Table) -> Vec<Part> {
        let part = |model: Option<&'static str>, provider: Option<&'static str>| Part {
            at: self.ended_at,
            names: [model, provider, self.project, Some(class(self.reason))],
            sums: Sums::default(),
        };
        let mut own = part(self.model, self.provider);
        own.sums.turns = 1;
        let mut parts = Vec::new();
        let leaves_cached_out = |usage: &Usage| usage.cached() > usage.input;
        let reported: Vec<_> = self.steps.iter().filter_map(|step| step.usage).collect();
        if reported.is_empty() {
            let usage = self.usage();
            own.sums.count(&usage, 1);
            own.price(table, &usage, leaves_cached_out(&usage), 0);
        } else {
            let leaves_cached_out = reported.iter().any(leaves_cached_out);
            let mut beyond = self.usage().counters();
            for step in &self.steps {
                let mut of_step = part(step.model.or(self.model), step.provider.or(self.provider));
                of_step.sums.steps = 1;
                if let Some(usage) = &step.usage {
                    of_step.sums.count(usage, 1);
                    of_step.price(table, usage, leaves_cached_out, step.cache_write_1h.unwrap_or(0));
                    beyond.iter_mut().zip(usage.counters()).for_each(|(beyond, count)| *beyond -= count);
                }
                parts.push(of_step);
            }
            own.sums.tokens.iter_mut().zip(beyond).for_each(|(sum, beyond)| *sum += beyond);
            own.sums.unpriced_tokens += beyond[0].max(0) + beyond[1].max(0);
        }
        if reported.is_empty() {
            for step in &self.steps {
                let mut of_step = part(step.model.or(self.model), step.provider.or(self.provider));
                of_step.sums.steps = 1;
                parts.push(of_step);
            }
        }
        parts.push(own);
        parts
    }
}

/// Returns the name of a reason in reports.
fn class(reason: &'static str) -> &'static str {
    if ["stop", "aborted", "error", "max-steps"].contains(&reason) { reason } else { "other" }
}

/// The data that a report has of one step, or of one turn itself.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) at: u64,
    /// Model, provider, project and reason.
    pub(crate) names: [Option<&'static str>; 4],
    pub(crate) sums: Sums,
}

impl Part {
    fn price(&mut self, table: &Table, usage: &Usage, leaves_cached_out: bool, for_an_hour: i128) {
        let prompt = usage.input + if leaves_cached_out { usage.cached() } else { 0 };
        if prompt + usage.output == 0 {
            return;
        }
        if usage.cache_read.is_some() || usage.cache_write.is_some() {
            self.sums.cache_counted_prompt += prompt;
        }
        let [model, provider, ..] = self.names;
        let Some(rates) = model.and_then(|model| table.rates(model, provider, self.at, prompt)) else {
            self.sums.unpriced_tokens += prompt + usage.output;
            self.sums.unpriced_models.extend(model);
            return;
        };
        let (read, write) = (usage.cache_read.unwrap_or(0), usage.cache_write.unwrap_or(0));
        let for_an_hour = for_an_hour.min(write);
        let counts = [prompt - read - write, usage.output, read, write - for_an_hour, for_an_hour];
        let millionths: i128 = counts.iter().zip(rates).map(|(count, rate)| count * rate).sum();
        // Each price is rounded once, half up.
        let rounded = |millionths: i128| (2 * millionths + 1_000_000).div_euclid(2_000_000);
        self.sums.pico_dollars += rounded(millionths);
        self.sums.cache_saved += rounded(prompt * rates[0] + usage.output * rates[1]) - rounded(millionths);
        self.sums.priced += 1;
    }
}

/// The sums over parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) turns: i128,
    steps: i128,
    tokens: [i128; 4],
    pico_dollars: i128,
    cache_saved: i128,
    /// The tokens of prompts with a cache counter.
    cache_counted_prompt: i128,
    priced: i128,
    unpriced_tokens: i128,
    unpriced_models: BTreeSet<&'static str>,
}

impl Sums {
    fn count(&mut self, usage: &Usage, sign: i128) {
        self.tokens.iter_mut().zip(usage.counters()).for_each(|(sum, count)| *sum += sign * count);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.turns += other.turns;
        self.steps += other.steps;
        self.tokens.iter_mut().zip(other.tokens).for_each(|(sum, count)| *sum += count);
        self.pico_dollars += other.pico_dollars;
        self.cache_saved += other.cache_saved;
        self.cache_counted_prompt += other.cache_counted_prompt;
        self.priced += other.priced;
        self.unpriced_tokens += other.unpriced_tokens;
        self.unpriced_models.extend(&other.unpriced_models);
    }

    /// Returns the sums over parts.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Self {
        let mut sums = Self::default();
        parts.into_iter().for_each(|part| sums.add(&part.sums));
        sums
    }

    /// Returns the rank by tokens of prompts and output.
    pub(crate) fn rank_by_tokens(&self) -> i128 {
        self.tokens[0] + self.tokens[1]
    }

    /// Returns the cost, if any part of the cost is known.
    pub(crate) fn usd(&self) -> Option<i128> {
        (self.priced > 0 || self.unpriced_tokens == 0).then_some(self.pico_dollars)
    }

    /// Returns the same sums, as an answer shows them.
    pub(crate) fn shown(&self) -> Shown {
        Shown {
            turns: self.turns,
            steps: Some(self.steps),
            tokens: self.tokens,
            usd: self.usd(),
            cache_saved: (self.priced > 0 && self.cache_counted_prompt > 0).then_some(self.cache_saved),
            unpriced_tokens: self.unpriced_tokens,
            unpriced_models: self.unpriced_models.iter().map(|model| (*model).to_owned()).collect(),
        }
    }
}

/// The sums of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    turns: i128,
    /// The number of steps; `None` if the answer has no such number.
    steps: Option<i128>,
    tokens: [i128; 4],
    /// Pico-dollars.
    usd: Option<i128>,
    /// Pico-dollars; `None` if the answer has no such amount.
    cache_saved: Option<i128>,
    unpriced_tokens: i128,
    unpriced_models: Vec<String>,
}

fn pico_dollars(usd: &str) -> i128 {
    usd.replace('.', "").parse().unwrap()
}

impl Shown {
    /// Returns the same sums without the amount that caches saved, for an answer that has no such amount.
    pub(crate) fn without_saved(self) -> Self {
        Self { cache_saved: None, ..self }
    }

    /// Returns the same sums without the number of steps and the amount that caches saved, for an answer that has neither.
    pub(crate) fn without_steps(self) -> Self {
        Self { steps: None, ..self.without_saved() }
    }

    /// Returns the same sums without the cost, for an answer whose costs are by several prices.
    pub(crate) fn without_cost(self) -> Self {
        Self { usd: None, cache_saved: None, unpriced_tokens: 0, unpriced_models: Vec::new(), ..self }
    }

    /// Reads the sums of a row, an entry or a summary.
    pub(crate) fn of(answer: &Value) -> Self {
        let number = |value: &Value| value.as_i64().map(i128::from);
        let (usage, cost) = (&answer["usage"], &answer["cost"]);
        let names = ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"];
        let models = cost["unpricedModels"].as_array().unwrap().iter();
        Self {
            turns: number(&answer["turns"]).unwrap(),
            steps: number(&answer["steps"]),
            tokens: names.map(|name| number(&usage[name]).unwrap_or(0)),
            usd: cost["usd"].as_str().map(pico_dollars),
            cache_saved: answer["cacheSavedUsd"].as_str().map(pico_dollars),
            unpriced_tokens: number(&cost["unpricedTokens"]).unwrap(),
            unpriced_models: models.map(|model| model.as_str().unwrap().to_owned()).collect(),
        }
    }
}

/// Pico-dollars per million tokens: input, output, cache read, cache write, cache write for an hour.
type Rates = [i128; 5];

/// An operator's prices.
#[derive(Debug, Clone)]
pub(crate) struct Table(pub(crate) Vec<Entry>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) model: &'static str,
    pub(crate) provider: Option<&'static str>,
    /// RFC 3339.
    pub(crate) from: Option<&'static str>,
    pub(crate) rates: Rates,
    /// The rates of steps whose prompt has more tokens than this limit.
    pub(crate) tier: Option<(i128, Rates)>,
}

fn millis(moment: &str) -> u64 {
    moment.parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap()
}

impl Table {
    /// Finds the entry in force. An entry for the provider precedes an entry for any provider. Of several entries, the
    /// latest one that has begun is in force.
    fn rates(&self, model: &str, provider: Option<&str>, at: u64, prompt: i128) -> Option<Rates> {
        let fits = |entry: &&Entry| {
            entry.model == model
                && (entry.provider.is_none() || entry.provider == provider)
                && entry.from.is_none_or(|from| millis(from) <= at)
        };
        let best = self.0.iter().filter(fits).max_by_key(|entry| (entry.provider.is_some(), entry.from.map(millis)))?;
        Some(best.tier.filter(|(above, _)| prompt > *above).map_or(best.rates, |(_, rates)| rates))
    }

    /// Returns the file of the table.
    pub(crate) fn toml(&self) -> String {
        let names = ["input", "output", "cache_read", "cache_write", "cache_write_1h"];
        let rates = |rates: &Rates| {
            let line = |(name, rate): (&str, &i128)| {
                format!("{name} = {}.{:012}\n", rate / 1_000_000_000_000, rate % 1_000_000_000_000)
            };
            names.into_iter().zip(rates).map(line).collect::<String>()
        };
        let entry = |entry: &Entry| {
            let text = |name: &str, text: Option<&str>| text.map_or(String::new(), |text| format!("{name} = {text}\n"));
            let provider = entry.provider.map(|provider| format!("\"{provider}\""));
            let tier = entry.tier.map(|(above, of)| format!("[[price.tier]]\nabove = {above}\n{}", rates(&of)));
            format!(
                "[[price]]\nmodel = \"{}\"\n{}{}{}{}",
                entry.model,
                text("provider", provider.as_deref()),
                text("from", entry.from),
                rates(&entry.rates),
                tier.unwrap_or_default(),
            )
        };
        self.0.iter().map(entry).collect()
    }
}

/// The calendar of a zone, with the range of days that a report covers.
pub(crate) struct Calendar {
    zone: TimeZone,
    from: i64,
}

impl Calendar {
    pub(crate) fn new(zone: &str, from: &str) -> Self {
        let zone = TimeZone::get(zone).or_else(|_| jiff::tz::TimeZoneDatabase::bundled().get(zone)).unwrap();
        let from = from.parse::<jiff::civil::Date>().unwrap().to_zoned_datetime(zone.clone()).unwrap();
        Self { from: from.timestamp().as_millisecond(), zone }
    }

    /// Returns the beginning of the bucket of a moment.
    pub(crate) fn start(&self, bucket: &str, at: u64) -> i64 {
        let at = i64::try_from(at).unwrap();
        let local = Timestamp::from_millisecond(at).unwrap().to_zoned_datetime(self.zone.clone());
        let day = local.date();
        let of = |start: DateTime| start.to_zoned_datetime(self.zone.clone()).unwrap().timestamp().as_millisecond();
        let midnight = |day: jiff::civil::Date| of(day.to_datetime(jiff::civil::Time::midnight()));
        let start = match bucket {
            "15m" => at / 900_000 * 900_000,
            "hour" => of(day.at(local.hour(), 0, 0, 0)),
            "day" => midnight(day),
            "week" => midnight(day - i64::from(day.weekday().to_monday_zero_offset()).days()),
            "month" => midnight(day.first_of_month()),
            "all" => self.from,
            _ => panic!("no bucket is named {bucket}"),
        };
        start.max(self.from)
    }
}

/// Rows of a report, by the start of their bucket and by the names that they are grouped by.
pub(crate) type Rows = BTreeMap<(i64, [Option<String>; 4]), Shown>;

/// The names of a row, in the order of [`Part::names`].
pub(crate) const NAMES: [&str; 4] = ["model", "provider", "project", "reason"];

/// Returns the report on some parts.
pub(crate) fn report(parts: &[Part], calendar: &Calendar, bucket: &str, by: &[&str]) -> Rows {
    let (mut rows, mut starts) = (BTreeMap::<_, Sums>::new(), HashMap::new());
    for part in parts {
        // In these years every bucket begins with a quarter of an hour.
        let start = *starts.entry(part.at / 900_000).or_insert_with(|| calendar.start(bucket, part.at));
        let mut names = part.names;
        names.iter_mut().zip(NAMES).filter(|(_, name)| !by.contains(name)).for_each(|(value, _)| *value = None);
        rows.entry((start, names)).or_default().add(&part.sums);
    }
    let owned = |names: [Option<&str>; 4]| names.map(|name| name.map(str::to_owned));
    rows.into_iter().map(|((start, names), sums)| ((start, owned(names)), sums.shown())).collect()
}

/// Returns the rows of an answer.
pub(crate) fn rows(answer: &Value) -> Rows {
    let of = |row: &Value| {
        let names = NAMES.map(|name| row[name].as_str().map(str::to_owned));
        ((row["start"].as_i64().unwrap(), names), Shown::of(row))
    };
    let all = answer["rows"].as_array().unwrap();
    let rows: Rows = all.iter().map(of).collect();
    assert_eq!(rows.len(), all.len(), "two rows are of the same turns");
    rows
}

/// Returns the rows of a report as CSV.
pub(crate) fn rows_of_csv(text: &str) -> Rows {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let of = |record: csv::StringRecord| {
        // An unknown value is empty, and so is a property that the report is not grouped by.
        let value = |name: &str| {
            let at = columns.iter().position(|column| column == name)?;
            record.get(at).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let number = |name: &str| value(name).map(|number| number.parse::<i128>().unwrap());
        let counters = ["inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"];
        let shown = Shown {
            turns: number("turns").unwrap(),
            steps: number("steps"),
            tokens: counters.map(|name| number(name).unwrap_or(0)),
            usd: value("usd").as_deref().map(pico_dollars),
            cache_saved: value("cacheSavedUsd").as_deref().map(pico_dollars),
            unpriced_tokens: number("unpricedTokens").unwrap(),
            unpriced_models: value("unpricedModels").map_or(Vec::new(), |json| serde_json::from_str(&json).unwrap()),
        };
        ((value("start").unwrap().parse().unwrap(), NAMES.map(value)), shown)
    };
    reader.records().map(|record| of(record.unwrap())).collect()
}

//! Compact twins of the domain types. They are compact because the store keeps one for every turn.
//!
//! A number that may be absent is stored as 0 if it is absent, and else as the number plus 1. So no extra byte says
//! whether it is present.

use serde::{Deserialize, Serialize};

use super::at_position::AtPosition;
use super::conversation::ConversationRecord;
use super::damaged::RecordFlaw;
use super::open_turn::StagedHead;
use crate::store::contract::{Life, StagedChange, Version};
use crate::turn::{
    ConversationId, EpochMillis, Label, Millis, OpenHead, OpenStep, Ordinal, RunningTime, SealedTurn, StepDetails,
    StepId, StepMetrics, StepTimes, TokenCount, TurnId, TurnLabels, TurnMetrics, Usage, UsageReport, UsageReports,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ConversationTwin<'a> {
    id: &'a str,
    /// The life has a fixed length: it is random, so a variable length would not save bytes.
    life: [u8; 8],
    version: u64,
    sealed_turns: u64,
    begins_after: u64,
    last_sealed_at: u64,
    last_at: u64,
    first_at: u64,
    total_usage: UsageTwin,
    model: Option<&'a str>,
    project: Option<&'a str>,
    context_size: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) enum AtPositionTwin {
    Sealed { key: u64, ordinal: u64 },
    Erased,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SealedTurnTwin<'a> {
    turn_id: &'a str,
    sealed_at: u64,
    /// 0 if absent. Else 1 plus twice the distance from `sealed_at`, and 1 more if it is later than `sealed_at`.
    ended_at: u64,
    reason: &'a str,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    project: Option<&'a str>,
    cache_write_1h: u64,
    /// `None` if the usage is the sum of the steps.
    usage: Option<UsageTwin>,
    #[serde(borrow)]
    steps: Vec<SealedStepTwin<'a>>,
    #[serde(borrow)]
    details: Vec<StepDetailsTwin<'a>>,
    duration: u64,
    /// 0 if absent, 1 if it is the context size after the last step, else the value plus 2.
    context_size: u64,
    times: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct SealedStepTwin<'a> {
    /// Empty for the usual id: the turn's id, `#` and the step's index from 0.
    id: &'a str,
    usage: UsageTwin,
    times: TimesTwin,
}

#[derive(Serialize, Deserialize)]
struct StepDetailsTwin<'a> {
    /// The step's index, from 0.
    step: usize,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    cache_write_1h: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OpenHeadTwin<'a> {
    turn_id: &'a str,
    step_count: u32,
    last_event_at: u64,
    has_failed: bool,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    project: Option<&'a str>,
    unlabelled: ReportsTwin,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OpenStepTwin<'a> {
    /// Empty for the usual id, as in a sealed step.
    id: &'a str,
    reports: ReportsTwin,
    step_times: TimesTwin,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    times: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct UsageTwin {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

#[derive(Serialize, Deserialize)]
struct ReportsTwin {
    interim: Option<ReportTwin>,
    finals: Option<ReportTwin>,
}

#[derive(Serialize, Deserialize)]
struct ReportTwin {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    cache_write_1h: u64,
}

#[derive(Serialize, Deserialize)]
struct TimesTwin {
    ttft: u64,
    decode: u64,
    gen_total: u64,
}

impl<'a> ConversationTwin<'a> {
    pub(super) fn of(conversation: &'a ConversationRecord) -> Self {
        Self {
            id: conversation.id.as_str(),
            life: conversation.life.0.to_le_bytes(),
            version: conversation.version.0,
            sealed_turns: conversation.sealed_turns,
            begins_after: conversation.begins_after,
            last_sealed_at: conversation.last_sealed_at.get(),
            last_at: conversation.last_at.get(),
            first_at: conversation.first_at.get(),
            total_usage: conversation.total_usage.into(),
            model: text(conversation.model.as_ref()),
            project: text(conversation.project.as_ref()),
            context_size: code(conversation.context_size),
        }
    }

    pub(super) fn read(self) -> Result<ConversationRecord, RecordFlaw> {
        Ok(ConversationRecord {
            id: ConversationId::new(self.id)?,
            life: Life(u64::from_le_bytes(self.life)),
            version: Version(self.version),
            sealed_turns: self.sealed_turns,
            begins_after: self.begins_after,
            last_sealed_at: EpochMillis::new(self.last_sealed_at),
            last_at: EpochMillis::new(self.last_at),
            first_at: EpochMillis::new(self.first_at),
            total_usage: self.total_usage.read()?,
            model: self.model.map(Label::from),
            project: self.project.map(Label::from),
            context_size: decode(self.context_size)?,
        })
    }
}

impl AtPositionTwin {
    pub(super) fn of(at: &AtPosition) -> Self {
        match *at {
            AtPosition::Sealed { key, ordinal } => Self::Sealed { key, ordinal: ordinal.get() },
            AtPosition::Erased => Self::Erased,
        }
    }

    pub(super) fn read(self) -> Result<AtPosition, RecordFlaw> {
        Ok(match self {
            Self::Sealed { key, ordinal } => {
                AtPosition::Sealed { key, ordinal: Ordinal::new(ordinal).ok_or(RecordFlaw::Ordinal)? }
            }
            Self::Erased => AtPosition::Erased,
        })
    }
}

impl<'a> SealedTurnTwin<'a> {
    pub(super) fn of(turn: &'a SealedTurn) -> Self {
        let SealedTurn {
            sealed_at,
            ended_at,
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics,
        } = turn;
        let TurnMetrics { turn_id, usage, steps, duration, context_size } = metrics;
        let mut times = Times::default();
        // `steps` and `step_details` are both in the order of the steps.
        let mut details = step_details.iter().peekable();
        let details = steps.iter().enumerate().filter_map(|(place, step)| {
            let details = details.next_if(|details| details.step_id == step.step_id)?;
            Some(StepDetailsTwin {
                step: place,
                model: text(details.model.as_ref()),
                provider: text(details.provider.as_ref()),
                cache_write_1h: code(details.cache_write_1h_tokens),
            })
        });
        Self {
            turn_id: turn_id.as_str(),
            sealed_at: sealed_at.get(),
            ended_at: ended_at.map_or(0, |ended_at| distance(*sealed_at, ended_at)),
            reason: reason.as_str(),
            model: text(model.as_ref()),
            provider: text(provider.as_ref()),
            project: text(project.as_ref()),
            cache_write_1h: code(*cache_write_1h_tokens),
            usage: (*usage != sum(steps)).then(|| (*usage).into()),
            details: details.collect(),
            steps: steps.iter().enumerate().map(|step| SealedStepTwin::of(turn_id, step, &mut times)).collect(),
            duration: times.code(*duration),
            context_size: match context_size {
                None => 0,
                size if *size == last_context_size(steps) => 1,
                Some(size) => size.get() + 2,
            },
            times: times.0,
        }
    }

    pub(super) fn read(self) -> Result<SealedTurn, RecordFlaw> {
        let times = Times(self.times);
        let steps = self.steps.into_iter().enumerate().map(|(place, step)| step.read(self.turn_id, place, &times));
        let steps = steps.collect::<Result<Vec<_>, RecordFlaw>>()?;
        let details = self.details.into_iter().map(|details| details.read(&steps));
        Ok(SealedTurn {
            sealed_at: EpochMillis::new(self.sealed_at),
            ended_at: at_distance(self.sealed_at, self.ended_at),
            reason: self.reason.into(),
            model: self.model.map(Label::from),
            provider: self.provider.map(Label::from),
            project: self.project.map(Label::from),
            cache_write_1h_tokens: decode(self.cache_write_1h)?,
            step_details: details.collect::<Result<_, _>>()?,
            metrics: TurnMetrics {
                turn_id: TurnId::new(self.turn_id)?,
                usage: self.usage.map_or_else(|| Ok(sum(&steps)), UsageTwin::read)?,
                duration: times.read(self.duration)?,
                context_size: match self.context_size {
                    0 => None,
                    1 => last_context_size(&steps),
                    more => Some(TokenCount::new(more - 2)?),
                },
                steps,
            },
        })
    }
}

impl<'a> SealedStepTwin<'a> {
    fn of(turn_id: &TurnId, (place, step): (usize, &'a StepMetrics), times: &mut Times) -> Self {
        Self {
            id: short_id(turn_id, place, &step.step_id),
            usage: step.usage.into(),
            times: TimesTwin::of(&step.times, times),
        }
    }

    fn read(self, turn_id: &str, place: usize, times: &Times) -> Result<StepMetrics, RecordFlaw> {
        Ok(StepMetrics {
            step_id: whole_id(turn_id, place, self.id)?,
            usage: self.usage.read()?,
            times: self.times.read(times)?,
        })
    }
}

impl StepDetailsTwin<'_> {
    fn read(self, steps: &[StepMetrics]) -> Result<StepDetails, RecordFlaw> {
        Ok(StepDetails {
            step_id: steps.get(self.step).ok_or(RecordFlaw::NoStep)?.step_id.clone(),
            model: self.model.map(Label::from),
            provider: self.provider.map(Label::from),
            cache_write_1h_tokens: decode(self.cache_write_1h)?,
        })
    }
}

impl<'a> OpenHeadTwin<'a> {
    pub(super) fn of(change: &'a StagedChange) -> Self {
        let StagedChange { turn_id, head, step_count, last_event_at, .. } = change;
        let OpenHead { labels: TurnLabels { model, provider, project }, unlabelled, has_failed } = head;
        Self {
            turn_id: turn_id.as_str(),
            step_count: *step_count,
            last_event_at: last_event_at.get(),
            has_failed: *has_failed,
            model: text(model.as_ref()),
            provider: text(provider.as_ref()),
            project: text(project.as_ref()),
            unlabelled: ReportsTwin::of(unlabelled),
        }
    }

    pub(super) fn read(self) -> Result<StagedHead, RecordFlaw> {
        Ok(StagedHead {
            turn_id: TurnId::new(self.turn_id)?,
            step_count: self.step_count,
            last_event_at: RunningTime::new(self.last_event_at),
            head: OpenHead {
                labels: TurnLabels {
                    model: self.model.map(Label::from),
                    provider: self.provider.map(Label::from),
                    project: self.project.map(Label::from),
                },
                unlabelled: self.unlabelled.read()?,
                has_failed: self.has_failed,
            },
        })
    }
}

impl<'a> OpenStepTwin<'a> {
    pub(super) fn of(turn_id: &TurnId, place: u32, step: &'a OpenStep) -> Self {
        let OpenStep { id, reports, times: step_times, model, provider } = step;
        let mut times = Times::default();
        Self {
            id: short_id(turn_id, place as usize, id),
            reports: ReportsTwin::of(reports),
            step_times: TimesTwin::of(step_times, &mut times),
            model: text(model.as_ref()),
            provider: text(provider.as_ref()),
            times: times.0,
        }
    }

    pub(super) fn read(self, turn_id: &TurnId, place: u32) -> Result<OpenStep, RecordFlaw> {
        Ok(OpenStep {
            id: whole_id(turn_id.as_str(), place as usize, self.id)?,
            reports: self.reports.read()?,
            times: self.step_times.read(&Times(self.times))?,
            model: self.model.map(Label::from),
            provider: self.provider.map(Label::from),
        })
    }
}

fn text(label: Option<&Label>) -> Option<&str> {
    label.map(Label::as_str)
}

fn short_id<'a>(turn_id: &TurnId, place: usize, id: &'a StepId) -> &'a str {
    let number = id.as_str().strip_prefix(turn_id.as_str()).and_then(|rest| rest.strip_prefix('#'));
    let is_usual = number.is_some_and(|number| is_number(number, place));
    if is_usual { "" } else { id.as_str() }
}

fn whole_id(turn_id: &str, place: usize, id: &str) -> Result<StepId, RecordFlaw> {
    Ok(if id.is_empty() { StepId::new(format!("{turn_id}#{place}"))? } else { StepId::new(id)? })
}

/// Encodes the moment `to`, which is usually close to `from`, as a distance. A distance of more than half of all moments is
/// shortened; no moment that was checked is so far away.
fn distance(from: EpochMillis, to: EpochMillis) -> u64 {
    const MAX: u64 = u64::MAX / 2 - 1;
    let (from, to) = (from.get(), to.get());
    if to > from { 2 * (to - from).min(MAX) + 2 } else { 2 * (from - to).min(MAX) + 1 }
}

fn at_distance(from: u64, code: u64) -> Option<EpochMillis> {
    let distance = code.checked_sub(1)?;
    let to = if distance % 2 == 1 { from.saturating_add(distance / 2) } else { from.saturating_sub(distance / 2) };
    Some(EpochMillis::new(to))
}

/// Returns whether `text` is the decimal form of the number.
fn is_number(text: &str, mut number: usize) -> bool {
    for (place, digit) in text.bytes().rev().enumerate() {
        if usize::from(digit) != usize::from(b'0') + number % 10 {
            return false;
        }
        number /= 10;
        if number == 0 {
            return place + 1 == text.len();
        }
    }
    false
}

/// Encodes a counter that may be absent.
fn code(count: Option<TokenCount>) -> u64 {
    count.map_or(0, |count| count.get() + 1)
}

fn decode(code: u64) -> Result<Option<TokenCount>, RecordFlaw> {
    Ok(code.checked_sub(1).map(TokenCount::new).transpose()?)
}

impl From<Usage> for UsageTwin {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input_tokens.get(),
            output: usage.output_tokens.get(),
            cache_read: code(usage.cache_read_tokens),
            cache_write: code(usage.cache_write_tokens),
        }
    }
}

impl UsageTwin {
    fn read(self) -> Result<Usage, RecordFlaw> {
        Ok(Usage {
            input_tokens: TokenCount::new(self.input)?,
            output_tokens: TokenCount::new(self.output)?,
            cache_read_tokens: decode(self.cache_read)?,
            cache_write_tokens: decode(self.cache_write)?,
        })
    }
}

impl ReportsTwin {
    fn of(reports: &UsageReports) -> Self {
        Self { interim: reports.interim.map(ReportTwin::of), finals: reports.finals.map(ReportTwin::of) }
    }

    fn read(self) -> Result<UsageReports, RecordFlaw> {
        Ok(UsageReports {
            interim: self.interim.map(ReportTwin::read).transpose()?,
            finals: self.finals.map(ReportTwin::read).transpose()?,
        })
    }
}

impl ReportTwin {
    fn of(report: UsageReport) -> Self {
        Self {
            input: code(report.input_tokens),
            output: code(report.output_tokens),
            cache_read: code(report.cache_read_tokens),
            cache_write: code(report.cache_write_tokens),
            cache_write_1h: code(report.cache_write_1h_tokens),
        }
    }

    fn read(self) -> Result<UsageReport, RecordFlaw> {
        Ok(UsageReport {
            input_tokens: decode(self.input)?,
            output_tokens: decode(self.output)?,
            cache_read_tokens: decode(self.cache_read)?,
            cache_write_tokens: decode(self.cache_write)?,
            cache_write_1h_tokens: decode(self.cache_write_1h)?,
        })
    }
}

impl TimesTwin {
    fn of(step: &StepTimes, times: &mut Times) -> Self {
        Self { ttft: times.code(step.ttft), decode: times.code(step.decode), gen_total: times.code(step.gen_total) }
    }

    fn read(self, times: &Times) -> Result<StepTimes, RecordFlaw> {
        Ok(StepTimes {
            ttft: times.read(self.ttft)?,
            decode: times.read(self.decode)?,
            gen_total: times.read(self.gen_total)?,
        })
    }
}

fn sum(steps: &[StepMetrics]) -> Usage {
    steps.iter().map(|step| step.usage).reduce(Usage::saturating_add).unwrap_or_default()
}

fn last_context_size(steps: &[StepMetrics]) -> Option<TokenCount> {
    steps.last().map(|step| step.usage.context_size())
}

/// Encodes times as whole numbers. An absent time is 0. A time that is a whole number of milliseconds, or of tenths or
/// hundredths of a millisecond, is 1 plus 4 times this number, plus 0, 1 or 2 for the unit. Any other time is listed in
/// this vector, and its code is 1 plus 4 times its place in the vector, plus 3.
#[derive(Default)]
struct Times(Vec<f64>);

/// The factor of each unit. The unit is in the two lowest bits of a code minus 1.
const SCALES: [f64; 3] = [1.0, 10.0, 100.0];

/// Only numbers below this limit, 2^53, have a code.
const LIMIT: f64 = 9_007_199_254_740_992.0;

impl Times {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 2^53")]
    #[expect(clippy::float_cmp, reason = "the very same number has to be read back")]
    fn code(&mut self, time: Option<Millis>) -> u64 {
        let Some(time) = time.map(Millis::get) else { return 0 };
        for (kind, scale) in (0..).zip(SCALES) {
            let number = (time * scale).round();
            if number < LIMIT && number / scale == time {
                return ((number as u64) << 2 | kind) + 1;
            }
        }
        self.0.push(time);
        ((self.0.len() as u64 - 1) << 2 | 3) + 1
    }

    #[expect(clippy::cast_precision_loss, reason = "what was written is below 2^53")]
    fn read(&self, code: u64) -> Result<Option<Millis>, RecordFlaw> {
        let Some(code) = code.checked_sub(1) else { return Ok(None) };
        let number = code >> 2;
        let time = match usize::try_from(code & 3).ok().and_then(|kind| SCALES.get(kind)) {
            Some(scale) => number as f64 / scale,
            None => *usize::try_from(number).ok().and_then(|at| self.0.get(at)).ok_or(RecordFlaw::NoTime)?,
        };
        Ok(Some(Millis::new(time)?))
    }
}

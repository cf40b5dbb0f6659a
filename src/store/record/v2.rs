//! The encoding that is written: compact, as there is one of these for every turn there ever was.
//!
//! An absent number is 0 and a present one is itself and 1 more, so that neither takes a byte to say so.

use serde::{Deserialize, Serialize};

use super::{Conversation, Invalid, read_millis};
use crate::store::{StagedTurn, Version};
use crate::turn::{
    ConversationId, EpochMillis, Label, Millis, OpenStep, OpenTurn, SealedTurn, StepId, StepMetrics, StepTimes,
    TokenCount, TurnId, TurnMetrics, Usage,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ConversationV2<'a> {
    id: &'a str,
    version: u64,
    sealed_turns: u64,
    total_usage: UsageV2,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SealedTurnV2<'a> {
    turn_id: &'a str,
    sealed_at: u64,
    reason: &'a str,
    model: Option<&'a str>,
    /// `None` where it is the sum of the steps'.
    usage: Option<UsageV2>,
    #[serde(borrow)]
    steps: Vec<StepV2<'a>>,
    duration: u64,
    /// 1 where it is that of the last step, 2 more than it otherwise.
    context_size: u64,
    times: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OpenTurnV2<'a> {
    turn_id: &'a str,
    last_event_at: u64,
    model: Option<&'a str>,
    #[serde(borrow)]
    steps: Vec<StepV2<'a>>,
    unlabelled_usage: Option<UsageV2>,
    times: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct StepV2<'a> {
    /// Empty for the id that kernels give: the turn's, `#` and the step's place from 0.
    id: &'a str,
    /// 0 where no usage was reported.
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    ttft: u64,
    decode: u64,
    gen_total: u64,
}

#[derive(Serialize, Deserialize)]
struct UsageV2 {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

impl<'a> ConversationV2<'a> {
    pub(super) fn of(conversation: &'a Conversation) -> Self {
        Self {
            id: conversation.id.as_str(),
            version: conversation.version.0,
            sealed_turns: conversation.sealed_turns,
            total_usage: conversation.total_usage.into(),
        }
    }

    pub(super) fn read(self) -> Result<Conversation, Invalid> {
        Ok(Conversation {
            id: ConversationId::new(self.id)?,
            version: Version(self.version),
            sealed_turns: self.sealed_turns,
            total_usage: self.total_usage.read()?,
        })
    }
}

impl<'a> SealedTurnV2<'a> {
    pub(super) fn of(turn: &'a SealedTurn) -> Self {
        let metrics = &turn.metrics;
        let mut times = Times::default();
        let steps = metrics.steps.iter().enumerate().map(|(place, step)| {
            StepV2::of(metrics.turn_id.as_str(), place, &step.step_id, Some(step.usage), &step.times, &mut times)
        });
        let steps = steps.collect();
        Self {
            turn_id: metrics.turn_id.as_str(),
            sealed_at: turn.sealed_at.get(),
            reason: turn.reason.as_str(),
            model: turn.model.as_ref().map(Label::as_str),
            usage: (metrics.usage != sum(&metrics.steps)).then(|| metrics.usage.into()),
            steps,
            duration: times.code(metrics.duration),
            context_size: match metrics.context_size {
                None => 0,
                size if size == last_context_size(&metrics.steps) => 1,
                Some(size) => size.get() + 2,
            },
            times: times.0,
        }
    }

    pub(super) fn read(self) -> Result<SealedTurn, Invalid> {
        let times = Times(self.times);
        let steps = self.steps.into_iter().enumerate().map(|(place, step)| {
            let step = step.read(self.turn_id, place, &times)?;
            Ok(StepMetrics { step_id: step.id, usage: step.usage.unwrap_or_default(), times: step.times })
        });
        let steps = steps.collect::<Result<Vec<_>, Invalid>>()?;
        Ok(SealedTurn {
            sealed_at: EpochMillis::new(self.sealed_at),
            reason: self.reason.into(),
            model: self.model.map(Label::from),
            metrics: TurnMetrics {
                turn_id: TurnId::new(self.turn_id)?,
                usage: self.usage.map_or_else(|| Ok(sum(&steps)), UsageV2::read)?,
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

impl<'a> OpenTurnV2<'a> {
    pub(super) fn of(staged: &'a StagedTurn) -> Self {
        let turn = &staged.turn;
        let mut times = Times::default();
        let steps =
            turn.steps.iter().enumerate().map(|(place, step)| {
                StepV2::of(turn.id.as_str(), place, &step.id, step.usage, &step.times, &mut times)
            });
        Self {
            turn_id: turn.id.as_str(),
            last_event_at: staged.last_event_at.get(),
            model: turn.model.as_ref().map(Label::as_str),
            steps: steps.collect(),
            unlabelled_usage: turn.unlabelled_usage.map(UsageV2::from),
            times: times.0,
        }
    }

    pub(super) fn read(self) -> Result<StagedTurn, Invalid> {
        let times = Times(self.times);
        let steps = self.steps.into_iter().enumerate();
        Ok(StagedTurn {
            turn: OpenTurn {
                id: TurnId::new(self.turn_id)?,
                model: self.model.map(Label::from),
                steps: steps.map(|(place, step)| step.read(self.turn_id, place, &times)).collect::<Result<_, _>>()?,
                unlabelled_usage: self.unlabelled_usage.map(UsageV2::read).transpose()?,
            },
            last_event_at: EpochMillis::new(self.last_event_at),
        })
    }
}

impl<'a> StepV2<'a> {
    fn of(
        turn_id: &str,
        place: usize,
        id: &'a StepId,
        usage: Option<Usage>,
        step: &StepTimes,
        times: &mut Times,
    ) -> Self {
        let number = id.as_str().strip_prefix(turn_id).and_then(|rest| rest.strip_prefix('#'));
        let is_usual = number.is_some_and(|number| is_number(number, place));
        let tokens = usage.map(UsageV2::from);
        Self {
            id: if is_usual { "" } else { id.as_str() },
            input: tokens.as_ref().map_or(0, |tokens| tokens.input + 1),
            output: tokens.as_ref().map_or(0, |tokens| tokens.output),
            cache_read: tokens.as_ref().map_or(0, |tokens| tokens.cache_read),
            cache_write: tokens.as_ref().map_or(0, |tokens| tokens.cache_write),
            ttft: times.code(step.ttft),
            decode: times.code(step.decode),
            gen_total: times.code(step.gen_total),
        }
    }

    fn read(self, turn_id: &str, place: usize, times: &Times) -> Result<OpenStep, Invalid> {
        let id = if self.id.is_empty() { StepId::new(format!("{turn_id}#{place}"))? } else { StepId::new(self.id)? };
        let Self { output, cache_read, cache_write, .. } = self;
        let usage = self.input.checked_sub(1).map(|input| UsageV2 { input, output, cache_read, cache_write }.read());
        Ok(OpenStep {
            id,
            usage: usage.transpose()?,
            times: StepTimes {
                ttft: times.read(self.ttft)?,
                decode: times.read(self.decode)?,
                gen_total: times.read(self.gen_total)?,
            },
        })
    }
}

/// Whether `text` is the number as it is written.
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

impl From<Usage> for UsageV2 {
    fn from(usage: Usage) -> Self {
        let present = |count: Option<TokenCount>| count.map_or(0, |count| count.get() + 1);
        Self {
            input: usage.input_tokens.get(),
            output: usage.output_tokens.get(),
            cache_read: present(usage.cache_read_tokens),
            cache_write: present(usage.cache_write_tokens),
        }
    }
}

impl UsageV2 {
    fn read(self) -> Result<Usage, Invalid> {
        let present = |count: u64| count.checked_sub(1).map(TokenCount::new).transpose();
        Ok(Usage {
            input_tokens: TokenCount::new(self.input)?,
            output_tokens: TokenCount::new(self.output)?,
            cache_read_tokens: present(self.cache_read)?,
            cache_write_tokens: present(self.cache_write)?,
        })
    }
}

fn sum(steps: &[StepMetrics]) -> Usage {
    steps.iter().map(|step| step.usage).reduce(Usage::saturating_add).unwrap_or_default()
}

fn last_context_size(steps: &[StepMetrics]) -> Option<TokenCount> {
    steps.last().map(|step| step.usage.context_size())
}

/// Times as whole numbers: 0 for none, otherwise 1 more than 4 times a number of milliseconds, of tenths or of
/// hundredths, plus 0, 1 or 2 for which of them; plus 3 for the place of one of these, which are none of that.
#[derive(Default)]
struct Times(Vec<f64>);

/// Of the two lowest bits of a code.
const SCALES: [f64; 3] = [1.0, 10.0, 100.0];

/// Numbers below it, 2^53, have a code.
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
    fn read(&self, code: u64) -> Result<Option<Millis>, Invalid> {
        let Some(code) = code.checked_sub(1) else { return Ok(None) };
        let number = code >> 2;
        let time = match usize::try_from(code & 3).ok().and_then(|kind| SCALES.get(kind)) {
            Some(scale) => number as f64 / scale,
            None => *usize::try_from(number).ok().and_then(|at| self.0.get(at)).ok_or("a time is missing")?,
        };
        read_millis(Some(time))
    }
}

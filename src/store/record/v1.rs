//! The first encoding, of files of format 1. It is read for ever and not written any more.

use serde::Deserialize;

use super::{Conversation, Invalid, read_millis};
use crate::store::{StagedTurn, Version};
use crate::turn::{
    ConversationId, EpochMillis, Label, OpenStep, OpenTurn, SealedTurn, StepId, StepMetrics, StepTimes, TokenCount,
    TurnId, TurnMetrics, Usage,
};

impl ConversationV1<'_> {
    pub(super) fn read(self) -> Result<Conversation, Invalid> {
        Ok(Conversation {
            id: ConversationId::new(self.id)?,
            version: Version(self.version),
            sealed_turns: self.sealed_turns,
            total_usage: self.total_usage.read()?,
        })
    }
}

impl SealedTurnV1<'_> {
    pub(super) fn read(self) -> Result<SealedTurn, Invalid> {
        let steps = self.steps.into_iter().map(|step| {
            let step = step.read()?;
            Ok(StepMetrics { step_id: step.id, usage: step.usage.unwrap_or_default(), times: step.times })
        });
        Ok(SealedTurn {
            sealed_at: EpochMillis::new(self.sealed_at),
            reason: self.reason.into(),
            model: self.model.map(Label::from),
            metrics: TurnMetrics {
                turn_id: TurnId::new(self.turn_id)?,
                usage: self.usage.read()?,
                steps: steps.collect::<Result<_, Invalid>>()?,
                duration: read_millis(self.duration)?,
                context_size: self.context_size.map(TokenCount::new).transpose()?,
            },
        })
    }
}

impl OpenTurnV1<'_> {
    pub(super) fn read(self) -> Result<StagedTurn, Invalid> {
        Ok(StagedTurn {
            turn: OpenTurn {
                id: TurnId::new(self.turn_id)?,
                model: self.model.map(Label::from),
                steps: self.steps.into_iter().map(StepV1::read).collect::<Result<_, _>>()?,
                unlabelled_usage: self.unlabelled_usage.map(UsageV1::read).transpose()?,
            },
            last_event_at: EpochMillis::new(self.last_event_at),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct ConversationV1<'a> {
    id: &'a str,
    version: u64,
    sealed_turns: u64,
    total_usage: UsageV1,
}

#[derive(Deserialize)]
pub(super) struct SealedTurnV1<'a> {
    turn_id: &'a str,
    sealed_at: u64,
    reason: &'a str,
    model: Option<&'a str>,
    usage: UsageV1,
    #[serde(borrow)]
    steps: Vec<StepV1<'a>>,
    duration: Option<f64>,
    context_size: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct OpenTurnV1<'a> {
    turn_id: &'a str,
    last_event_at: u64,
    model: Option<&'a str>,
    #[serde(borrow)]
    steps: Vec<StepV1<'a>>,
    unlabelled_usage: Option<UsageV1>,
}

#[derive(Deserialize)]
struct StepV1<'a> {
    id: &'a str,
    usage: Option<UsageV1>,
    ttft: Option<f64>,
    decode: Option<f64>,
    gen_total: Option<f64>,
}

impl StepV1<'_> {
    fn read(self) -> Result<OpenStep, Invalid> {
        Ok(OpenStep {
            id: StepId::new(self.id)?,
            usage: self.usage.map(UsageV1::read).transpose()?,
            times: StepTimes {
                ttft: read_millis(self.ttft)?,
                decode: read_millis(self.decode)?,
                gen_total: read_millis(self.gen_total)?,
            },
        })
    }
}

#[derive(Deserialize)]
struct UsageV1 {
    input: u64,
    output: u64,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
}

impl UsageV1 {
    fn read(self) -> Result<Usage, Invalid> {
        Ok(Usage {
            input_tokens: TokenCount::new(self.input)?,
            output_tokens: TokenCount::new(self.output)?,
            cache_read_tokens: self.cache_read.map(TokenCount::new).transpose()?,
            cache_write_tokens: self.cache_write.map(TokenCount::new).transpose()?,
        })
    }
}

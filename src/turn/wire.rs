//! The JSON of kernel events: the fields of each type that counts.

use serde::{Deserialize, Serialize, Serializer};

use super::{
    ConversationId, Done, KernelEvent, KernelMoment, Label, Millis, Progress, StepId, StepTimes, TokenCount, TurnEvent,
    TurnEventKind, TurnId, TurnLabels, UsageReport,
};

/// The types of kernel event that the parser distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventType {
    TurnStart,
    Usage,
    StepComplete,
    Done,
    Error,
    Ignored,
}

impl EventType {
    pub(super) fn named(name: &[u8]) -> Self {
        match name {
            b"turn-start" => Self::TurnStart,
            b"usage" => Self::Usage,
            b"step-complete" => Self::StepComplete,
            b"done" => Self::Done,
            b"error" => Self::Error,
            _ => Self::Ignored,
        }
    }
}

// The lines that count. When serde writes a line, `tag` adds the type. When it reads a line, the type is known already
// and is skipped like an unknown field.

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "turn-start", rename_all = "camelCase")]
pub(super) struct TurnStartLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Label>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "usage", rename_all = "camelCase")]
pub(super) struct UsageLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<StepId>,
    usage: UsageReport,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "step-complete", rename_all = "camelCase")]
pub(super) struct StepCompleteLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    step_id: StepId,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    decode_ms: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    gen_total_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "done", rename_all = "camelCase")]
pub(super) struct DoneLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
    reason: Label,
    #[serde(default, deserialize_with = "Millis::read_reported", skip_serializing_if = "Option::is_none")]
    duration_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_size: Option<TokenCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<KernelMoment>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "error", rename_all = "camelCase")]
struct ErrorLine {
    conversation_id: ConversationId,
    turn_id: TurnId,
}

fn event(conversation_id: ConversationId, turn_id: TurnId, kind: TurnEventKind) -> KernelEvent {
    KernelEvent { conversation_id, event: TurnEvent { turn_id, kind } }
}

impl From<TurnStartLine> for Option<KernelEvent> {
    fn from(line: TurnStartLine) -> Self {
        let TurnStartLine { conversation_id, turn_id, model, provider, project } = line;
        let labels = TurnLabels { model, provider, project };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(Progress::Start(labels))))
    }
}

impl From<UsageLine> for Option<KernelEvent> {
    fn from(line: UsageLine) -> Self {
        let UsageLine { conversation_id, turn_id, step_id, usage: report, is_final } = line;
        let progress = Progress::Usage { step_id, report, is_final: is_final.unwrap_or_default() };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(progress)))
    }
}

impl From<StepCompleteLine> for Option<KernelEvent> {
    fn from(line: StepCompleteLine) -> Self {
        let StepCompleteLine { conversation_id, turn_id, step_id, ttft_ms, decode_ms, gen_total_ms, model, provider } =
            line;
        let times = StepTimes { ttft: ttft_ms, decode: decode_ms, gen_total: gen_total_ms };
        let progress = Progress::StepComplete { step_id, times, model, provider };
        Some(event(conversation_id, turn_id, TurnEventKind::Progress(progress)))
    }
}

impl From<DoneLine> for Option<KernelEvent> {
    fn from(line: DoneLine) -> Self {
        let done = Done {
            reason: line.reason,
            duration: line.duration_ms,
            usage: line.usage,
            context_size: line.context_size,
            model: line.model,
            provider: line.provider,
            ended_at: line.ended_at,
        };
        Some(event(line.conversation_id, line.turn_id, TurnEventKind::Done(done)))
    }
}

impl Serialize for KernelEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let conversation_id = self.conversation_id.clone();
        let turn_id = self.event.turn_id.clone();
        match self.event.kind.clone() {
            TurnEventKind::Progress(Progress::Start(TurnLabels { model, provider, project })) => {
                TurnStartLine { conversation_id, turn_id, model, provider, project }.serialize(serializer)
            }
            TurnEventKind::Progress(Progress::Usage { step_id, report: usage, is_final }) => {
                let is_final = is_final.then_some(true);
                UsageLine { conversation_id, turn_id, step_id, usage, is_final }.serialize(serializer)
            }
            TurnEventKind::Progress(Progress::StepComplete { step_id, times, model, provider }) => {
                let StepTimes { ttft: ttft_ms, decode: decode_ms, gen_total: gen_total_ms } = times;
                StepCompleteLine {
                    conversation_id,
                    turn_id,
                    step_id,
                    ttft_ms,
                    decode_ms,
                    gen_total_ms,
                    model,
                    provider,
                }
                .serialize(serializer)
            }
            TurnEventKind::Progress(Progress::Failed) => ErrorLine { conversation_id, turn_id }.serialize(serializer),
            TurnEventKind::Done(done) => {
                let Done { reason, duration: duration_ms, usage, context_size, model, provider, ended_at } = done;
                DoneLine {
                    conversation_id,
                    turn_id,
                    reason,
                    duration_ms,
                    usage,
                    context_size,
                    model,
                    provider,
                    ended_at,
                }
                .serialize(serializer)
            }
        }
    }
}

//! The spans of a turn, and the fields that are recorded on them.

use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::turn::{ConversationId, Label, Millis, StepId, TokenCount, TurnId, Usage};

/// The names that the spans of a turn carry: all carry the conversation, some the turn or the model.
pub(super) struct Names<'a> {
    pub(super) conversation_id: &'a ConversationId,
    pub(super) turn_id: &'a TurnId,
    pub(super) model: Option<&'a Label>,
}

impl Names<'_> {
    /// Opens the span of the turn, as a child of the current span.
    pub(super) fn turn(&self) -> Span {
        info_span!(
            target: "turn_metrics::recorder",
            "turn",
            conversationId = self.conversation_id.as_str(),
            turnId = self.turn_id.as_str(),
            model = self.model.map(Label::as_str),
            usage.inputTokens = Empty,
            usage.outputTokens = Empty,
            usage.cacheReadTokens = Empty,
            usage.cacheWriteTokens = Empty,
            finishReason = Empty,
            durationMs = Empty,
        )
    }

    pub(super) fn step(&self, turn: &Span, step_id: &StepId) -> Span {
        info_span!(
            target: "turn_metrics::recorder",
            parent: turn,
            "step",
            conversationId = self.conversation_id.as_str(),
            stepId = step_id.as_str(),
            usage.inputTokens = Empty,
            usage.outputTokens = Empty,
            usage.cacheReadTokens = Empty,
            usage.cacheWriteTokens = Empty,
            finishReason = Empty,
            ttftMs = Empty,
            decodeMs = Empty,
            genTotalMs = Empty,
        )
    }

    pub(super) fn provider_request(&self, step: &Span) -> Span {
        info_span!(
            target: "turn_metrics::recorder",
            parent: step,
            "provider.request",
            conversationId = self.conversation_id.as_str(),
            model = self.model.map(Label::as_str),
            usage.inputTokens = Empty,
            usage.outputTokens = Empty,
            usage.cacheReadTokens = Empty,
            usage.cacheWriteTokens = Empty,
            finishReason = Empty,
        )
    }

    pub(super) fn tool_call(&self, step: &Span, name: &str, tool_call_id: &str) -> Span {
        info_span!(
            target: "turn_metrics::recorder",
            parent: step,
            "tool-call",
            conversationId = self.conversation_id.as_str(),
            name,
            toolCallId = tool_call_id,
            isError = Empty,
        )
    }
}

/// The span from the start of a stream to its first token. If the stream has no token, the span ends with the stream
/// and has `firstToken = false`.
pub(super) fn ttft(step: &Span) -> Span {
    info_span!(target: "turn_metrics::recorder", parent: step, "ttft", firstToken = Empty)
}

/// The span from the first token of a stream to its end.
pub(super) fn decode(step: &Span) -> Span {
    info_span!(target: "turn_metrics::recorder", parent: step, "decode")
}

/// Records the counters of the usage. A counter that was not reported is left out.
pub(super) fn record_usage(span: &Span, usage: Option<Usage>) {
    // The number is signed, because some `tracing` layers know no unsigned numbers and would record a text. Every token
    // count fits.
    let number = |count: TokenCount| i64::try_from(count.get()).unwrap_or(i64::MAX);
    let Some(Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens }) = usage else { return };
    span.record("usage.inputTokens", number(input_tokens));
    span.record("usage.outputTokens", number(output_tokens));
    span.record("usage.cacheReadTokens", cache_read_tokens.map(number));
    span.record("usage.cacheWriteTokens", cache_write_tokens.map(number));
}

pub(super) fn record_reason(span: &Span, reason: &str) {
    span.record("finishReason", reason);
}

pub(super) fn record_time(span: &Span, field: &'static str, time: Option<Millis>) {
    span.record(field, time.map(Millis::get));
}

//! The spans of a turn, and what is recorded on them.

use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::turn::{ConversationId, Label, Millis, StepId, TokenCount, TurnId, Usage};

/// The names that stand on every span of a turn.
pub(super) struct Names<'a> {
    pub(super) conversation_id: &'a ConversationId,
    pub(super) turn_id: &'a TurnId,
    pub(super) model: Option<&'a Label>,
}

impl Names<'_> {
    /// Opens the span of the turn, within the one that is entered at this moment.
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

/// Open from the start of a stream to its first token. Without one it ends with the stream and says so.
pub(super) fn ttft(step: &Span) -> Span {
    info_span!(target: "turn_metrics::recorder", parent: step, "ttft", firstToken = Empty)
}

/// Open from the first token of a stream to its end.
pub(super) fn decode(step: &Span) -> Span {
    info_span!(target: "turn_metrics::recorder", parent: step, "decode")
}

/// A counter that nobody reported is left out.
pub(super) fn record_usage(span: &Span, usage: Option<Usage>) {
    // Signed, which every count fits: layers that know no unsigned numbers would make a text of it.
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

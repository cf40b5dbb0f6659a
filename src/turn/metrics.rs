use serde::{Deserialize, Serialize};

use super::{EpochMillis, Label, Millis, Ordinal, StepId, StepTimes, TokenCount, TurnId, Usage};

/// The metrics of one step, as a front-end shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepMetrics {
    /// The step.
    pub step_id: StepId,
    /// Its tokens; zeros if none were reported.
    pub usage: Usage,
    /// Its times, in milliseconds.
    #[serde(flatten)]
    pub times: StepTimes,
}

/// The metrics of one sealed turn, as a front-end shows them.
///
/// Written as JSON its keys stand in this order and nothing else is there, so that equal metrics are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnMetrics {
    /// The turn.
    pub turn_id: TurnId,
    /// Its tokens.
    pub usage: Usage,
    /// Its steps, in the order in which they were first seen.
    pub steps: Vec<StepMetrics>,
    /// How long it took, in milliseconds.
    #[serde(rename = "durationMs", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
    /// How much of the model's context window is taken after it, in tokens; `None` if unknown, never 0 for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_size: Option<TokenCount>,
}

/// A turn that is over: its metrics, and what is known of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTurn {
    /// When it was sealed here.
    pub sealed_at: EpochMillis,
    /// Why it ended.
    pub reason: Label,
    /// The model asked, if the kernel told.
    pub model: Option<Label>,
    /// Its metrics.
    pub metrics: TurnMetrics,
}

impl SealedTurn {
    /// The turn as it stands in its conversation, at `ordinal`.
    pub fn at(self, ordinal: Ordinal) -> StoredTurn {
        let Self { sealed_at, reason, model, metrics } = self;
        StoredTurn { ordinal, sealed_at, reason, model, metrics }
    }
}

/// A sealed turn with its place in its conversation: what storage knows stands beside the metrics, not in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredTurn {
    /// Its place in the conversation.
    pub ordinal: Ordinal,
    /// When it was sealed here, in milliseconds since 1970.
    pub sealed_at: EpochMillis,
    /// Why it ended.
    pub reason: Label,
    /// The model asked, if the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Label>,
    /// Its metrics.
    pub metrics: TurnMetrics,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_the_contracts_order_and_absent_ones_are_left_out() {
        let metrics = TurnMetrics {
            turn_id: TurnId::new("t").unwrap(),
            usage: Usage { cache_write_tokens: Some(0.into()), ..Usage::default() },
            steps: vec![StepMetrics {
                step_id: StepId::new("t#0").unwrap(),
                usage: Usage::default(),
                times: StepTimes { ttft: Some(1.into()), decode: None, gen_total: Some(Millis::new(2.5).unwrap()) },
            }],
            duration: None,
            context_size: Some(7.into()),
        };
        let stored = SealedTurn { sealed_at: EpochMillis::new(9), reason: "stop".into(), model: None, metrics }
            .at(Ordinal::new(3).unwrap());
        assert_eq!(
            serde_json::to_string(&stored).unwrap(),
            r#"{"ordinal":3,"sealedAt":9,"reason":"stop","metrics":{"turnId":"t","usage":{"inputTokens":0,"outputTokens":0,"cacheWriteTokens":0},"steps":[{"stepId":"t#0","usage":{"inputTokens":0,"outputTokens":0},"ttftMs":1,"genTotalMs":2.5}],"contextSize":7}}"#
        );
    }
}

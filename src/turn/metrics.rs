use serde::{Deserialize, Serialize};

use super::open::label_bytes;
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
/// In JSON the keys have the order of these fields, and there are no other keys, so that equal metrics are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnMetrics {
    /// The turn.
    pub turn_id: TurnId,
    /// Its tokens.
    pub usage: Usage,
    /// Its steps, in the order in which they were first seen.
    pub steps: Vec<StepMetrics>,
    /// How long the turn took, in milliseconds.
    #[serde(rename = "durationMs", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
    /// The number of tokens of the model's context window that are in use after the turn. `None` if it is unknown;
    /// never 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_size: Option<TokenCount>,
}

/// A sealed turn: its metrics, and the other facts about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTurn {
    /// The moment at which the service sealed the turn.
    pub sealed_at: EpochMillis,
    /// The moment at which the turn ended by its kernel's clock, if the kernel sent a plausible moment.
    pub ended_at: Option<EpochMillis>,
    /// Why the turn ended.
    pub reason: Label,
    /// The model asked, if the kernel named it.
    pub model: Option<Label>,
    /// The model's provider, if the kernel named it.
    pub provider: Option<Label>,
    /// The project that the cost of the turn belongs to, if a `turn-start` of the turn named it.
    pub project: Option<Label>,
    /// The part of its cache writes that has a lifetime of an hour, if reported.
    pub cache_write_1h_tokens: Option<TokenCount>,
    /// Details of single steps; a step without details has no entry.
    pub step_details: Vec<StepDetails>,
    /// Its metrics.
    pub metrics: TurnMetrics,
}

/// The facts about a step besides its metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepDetails {
    /// The step.
    pub step_id: StepId,
    /// The model asked in this step, if it is not the turn's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Label>,
    /// The provider of the step's model, if it is not the turn's provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Label>,
    /// The part of its cache writes that has a lifetime of an hour, if reported.
    #[serde(rename = "cacheWrite1hTokens", default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_tokens: Option<TokenCount>,
}

impl SealedTurn {
    /// Returns the number of bytes of all texts of the turn and its steps.
    pub(crate) fn text_bytes(&self) -> usize {
        let Self { reason, model, provider, project, step_details, metrics, .. } = self;
        let details = step_details.iter().flat_map(|details| [&details.model, &details.provider]);
        let labels = [model, provider, project].into_iter().chain(details).map(|label| label_bytes(label.as_ref()));
        let steps = metrics.steps.iter().map(|step| step.step_id.as_str().len());
        metrics.turn_id.as_str().len() + reason.as_str().len() + labels.chain(steps).sum::<usize>()
    }

    /// Returns the turn with its place in its conversation.
    pub fn at(self, ordinal: Ordinal) -> StoredTurn {
        let Self {
            sealed_at,
            ended_at,
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics,
        } = self;
        StoredTurn {
            ordinal,
            sealed_at,
            ended_at,
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics,
        }
    }
}

/// A sealed turn with its place in its conversation. The fields that the store adds are beside the metrics, not in
/// them.
///
/// In JSON its keys have the order of these fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredTurn {
    /// Its place in the conversation.
    pub ordinal: Ordinal,
    /// The moment at which the service sealed the turn, in milliseconds since 1970. It never goes back within a
    /// conversation, except where imported turns keep their moments.
    pub sealed_at: EpochMillis,
    /// The moment at which the turn ended by its kernel's clock, in milliseconds since 1970, if the kernel sent a
    /// plausible moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<EpochMillis>,
    /// Why the turn ended.
    pub reason: Label,
    /// The model asked, if the kernel named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Label>,
    /// The model's provider, if the kernel named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Label>,
    /// The project that the cost of the turn belongs to, if a `turn-start` of the turn named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Label>,
    /// The part of its cache writes that has a lifetime of an hour, if reported.
    #[serde(rename = "cacheWrite1hTokens", default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_tokens: Option<TokenCount>,
    /// Details of single steps; a step without details has no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_details: Vec<StepDetails>,
    /// Its metrics.
    pub metrics: TurnMetrics,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_contract_and_absent_ones_are_left_out() {
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
        let stored = SealedTurn {
            sealed_at: EpochMillis::new(9),
            ended_at: Some(EpochMillis::new(8)),
            reason: "stop".into(),
            model: None,
            provider: Some("p".into()),
            project: Some("j".into()),
            cache_write_1h_tokens: Some(5.into()),
            step_details: vec![StepDetails {
                step_id: StepId::new("t#0").unwrap(),
                model: Some("m".into()),
                provider: None,
                cache_write_1h_tokens: Some(5.into()),
            }],
            metrics,
        };
        let stored = stored.at(Ordinal::new(3).unwrap());
        assert_eq!(
            serde_json::to_string(&stored).unwrap(),
            r#"{"ordinal":3,"sealedAt":9,"endedAt":8,"reason":"stop","provider":"p","project":"j","cacheWrite1hTokens":5,"stepDetails":[{"stepId":"t#0","model":"m","cacheWrite1hTokens":5}],"metrics":{"turnId":"t","usage":{"inputTokens":0,"outputTokens":0,"cacheWriteTokens":0},"steps":[{"stepId":"t#0","usage":{"inputTokens":0,"outputTokens":0},"ttftMs":1,"genTotalMs":2.5}],"contextSize":7}}"#
        );
    }
}

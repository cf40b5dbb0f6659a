use super::{StepId, TurnId};

/// A probable mistake of a kernel in the events of a turn. The events were accepted nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A free text was longer than a [`Label`](super::Label) may be, and was cut.
    #[error("turn `{turn_id}`: `{field}` was cut to its first {max} bytes", max = super::Label::MAX_BYTES)]
    LabelCut {
        /// The turn.
        turn_id: TurnId,
        /// The name of the field in its event.
        field: &'static str,
    },
    /// The `endedAt` of a `done` is implausible, and was ignored.
    #[error(
        "turn `{turn_id}`: the `endedAt` of its `done` was ignored, so the turn counts as ended when it was received: \
         `endedAt` must be in milliseconds (not seconds) since 1970, and at most a day ahead of the service's clock"
    )]
    ImplausibleEnd {
        /// The turn.
        turn_id: TurnId,
    },
    /// Steps with more cached tokens than prompt tokens: the kernel counts the prompt without its cached part.
    #[error(
        "turn `{turn_id}`: {steps} of its steps, first `{step_id}`, report more cached tokens than `inputTokens`, which \
         must count the whole prompt"
    )]
    CachedBeyondInput {
        /// The turn.
        turn_id: TurnId,
        /// The first such step.
        step_id: StepId,
        /// The number of such steps in the turn.
        steps: usize,
    },
    /// The usage in the `done` event differs from the sum of the turn's steps.
    #[error("turn `{turn_id}`: the usage of its `done` differs from the sum of its steps")]
    UsageDiffers {
        /// The turn.
        turn_id: TurnId,
    },
}

impl Warning {
    /// The turn.
    pub fn turn_id(&self) -> &TurnId {
        match self {
            Self::LabelCut { turn_id, .. }
            | Self::ImplausibleEnd { turn_id }
            | Self::CachedBeyondInput { turn_id, .. }
            | Self::UsageDiffers { turn_id } => turn_id,
        }
    }

    /// Describes the mistake without quoting the input, so that it may be logged.
    pub fn summary(&self) -> &'static str {
        match self {
            Self::LabelCut { .. } => "a text was cut",
            Self::ImplausibleEnd { .. } => "an implausible `endedAt` was ignored",
            Self::CachedBeyondInput { .. } => "a step has more cached tokens than `inputTokens`",
            Self::UsageDiffers { .. } => "the usage of `done` differs from the sum of the steps",
        }
    }
}

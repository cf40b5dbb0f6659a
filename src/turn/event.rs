use super::{ConversationId, Label, Millis, StepId, StepTimes, TokenCount, TurnId, Usage};

/// One event of an agent's kernel that counts for metrics, with the conversation it belongs to.
///
/// Read from its JSON by an [`EventReader`](super::EventReader) or [`parse_line`](super::parse_line), and written to it by
/// `serde`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEvent {
    /// The conversation in which it happened.
    pub conversation_id: ConversationId,
    /// What happened in which turn.
    pub event: TurnEvent,
}

/// What happened in one turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEvent {
    /// The turn in which it happened.
    pub turn_id: TurnId,
    /// What happened.
    pub kind: TurnEventKind,
}

/// What happened: either the turn goes on, or it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEventKind {
    /// The turn goes on.
    Progress(Progress),
    /// The turn is over (`done`).
    Done(Done),
}

/// What a turn tells about itself while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The turn begins (`turn-start`).
    Start {
        /// The model asked, if the kernel tells.
        model: Option<Label>,
    },
    /// Tokens were reported (`usage`).
    Usage {
        /// The step whose tokens these are; `None` from a kernel that does not label steps.
        step_id: Option<StepId>,
        /// The tokens.
        usage: Usage,
    },
    /// A step ended (`step-complete`).
    StepComplete {
        /// The step that ended.
        step_id: StepId,
        /// How long it took.
        times: StepTimes,
        /// The model asked, if the kernel tells.
        model: Option<Label>,
    },
}

impl Progress {
    /// The step this is about, if it names one.
    pub fn step_id(&self) -> Option<&StepId> {
        match self {
            Self::Start { .. } => None,
            Self::Usage { step_id, .. } => step_id.as_ref(),
            Self::StepComplete { step_id, .. } => Some(step_id),
        }
    }
}

/// The end of a turn (`done`), whatever its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Why it ended: `stop`, `aborted`, `error`, `max-steps`, ...
    pub reason: Label,
    /// How long the turn took, as the kernel measured it.
    pub duration: Option<Millis>,
    /// The turn's tokens, as the kernel adds them up.
    pub usage: Option<Usage>,
    /// How much of the model's context window is taken, as the kernel knows it.
    pub context_size: Option<TokenCount>,
    /// The model asked, if the kernel tells.
    pub model: Option<Label>,
}

impl Done {
    /// An end for `reason` of which nothing else is known.
    pub fn because(reason: &str) -> Self {
        Self { reason: reason.into(), duration: None, usage: None, context_size: None, model: None }
    }
}

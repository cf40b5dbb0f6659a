use super::{ConversationId, KernelMoment, Label, Millis, StepId, StepTimes, TokenCount, TurnId, UsageReport};

/// One event of an agent's kernel that counts for metrics, with the conversation it belongs to.
///
/// An [`EventReader`](super::EventReader) or [`parse_line`](super::parse_line) reads events from JSON. `serde` writes
/// them as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEvent {
    /// The conversation of the turn.
    pub conversation_id: ConversationId,
    /// The turn and what happened in it.
    pub event: TurnEvent,
}

/// What happened in one turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnEvent {
    /// The turn of the event.
    pub turn_id: TurnId,
    /// What happened.
    pub kind: TurnEventKind,
}

/// What an event says about its turn: either the turn goes on, or it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEventKind {
    /// The turn goes on.
    Progress(Progress),
    /// The turn is over (`done`).
    Done(Done),
}

/// What an event reports of a turn that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The turn begins (`turn-start`).
    Start(TurnLabels),
    /// Tokens were reported (`usage`).
    Usage {
        /// The step whose tokens these are; `None` from a kernel that does not label steps.
        step_id: Option<StepId>,
        /// The tokens.
        report: UsageReport,
        /// Whether the report is final. A final report replaces the reports that are not final.
        is_final: bool,
    },
    /// A step ended (`step-complete`).
    StepComplete {
        /// The step that ended.
        step_id: StepId,
        /// The times of the step.
        times: StepTimes,
        /// The model asked in this step, if the kernel named it.
        model: Option<Label>,
        /// The model's provider, if the kernel named it.
        provider: Option<Label>,
    },
    /// The turn failed (`error`). It goes on if another event follows; otherwise it is sealed some time later.
    Failed,
}

/// The labels of a turn at its start. Each is a free text, and `None` if the kernel did not name it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnLabels {
    /// The model asked.
    pub model: Option<Label>,
    /// The model's provider.
    pub provider: Option<Label>,
    /// The project that the cost belongs to: a product, a team or a user.
    pub project: Option<Label>,
}

impl TurnLabels {
    /// Returns labels with a model alone.
    pub fn of_model(model: &str) -> Self {
        Self { model: Some(model.into()), ..Self::default() }
    }
}

impl Progress {
    /// Returns the step of this event. Folding the event adds the step to the turn if the turn does not have it yet.
    pub fn step_id(&self) -> Option<&StepId> {
        match self {
            Self::Usage { step_id, report, .. } if !report.is_silent() => step_id.as_ref(),
            Self::StepComplete { step_id, .. } => Some(step_id),
            Self::Start(_) | Self::Usage { .. } | Self::Failed => None,
        }
    }

    /// Returns the names of the fields whose texts were cut.
    pub fn cut_labels(&self) -> impl Iterator<Item = &'static str> {
        let (model, provider, project) = match self {
            Self::Start(TurnLabels { model, provider, project }) => {
                (model.as_ref(), provider.as_ref(), project.as_ref())
            }
            Self::StepComplete { model, provider, .. } => (model.as_ref(), provider.as_ref(), None),
            Self::Usage { .. } | Self::Failed => (None, None, None),
        };
        cut([("model", model), ("provider", provider), ("project", project)])
    }
}

/// The end of a turn (`done`), whatever its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Why the turn ended: `stop`, `aborted`, `error`, `max-steps`, ...
    pub reason: Label,
    /// How long the turn took, as the kernel measured it.
    pub duration: Option<Millis>,
    /// The turn's tokens, as the kernel counts them.
    pub usage: Option<UsageReport>,
    /// The number of tokens of the model's context window that are in use, as the kernel reports it.
    pub context_size: Option<TokenCount>,
    /// The model asked, if the kernel named it.
    pub model: Option<Label>,
    /// The model's provider, if the kernel named it.
    pub provider: Option<Label>,
    /// The moment at which the turn ended by the kernel's clock. Sent for turns that are sent later than they happened.
    pub ended_at: Option<KernelMoment>,
}

impl Done {
    /// Returns a `Done` with this reason and nothing else.
    pub fn because(reason: &str) -> Self {
        Self {
            reason: reason.into(),
            duration: None,
            usage: None,
            context_size: None,
            model: None,
            provider: None,
            ended_at: None,
        }
    }

    /// Returns the names of the fields whose texts were cut.
    pub fn cut_labels(&self) -> impl Iterator<Item = &'static str> {
        cut([("reason", Some(&self.reason)), ("model", self.model.as_ref()), ("provider", self.provider.as_ref())])
    }
}

fn cut(labels: [(&'static str, Option<&Label>); 3]) -> impl Iterator<Item = &'static str> {
    labels.into_iter().filter(|(_, label)| label.is_some_and(Label::is_cut)).map(|(name, _)| name)
}

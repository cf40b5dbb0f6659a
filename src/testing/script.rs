use super::id;
use crate::actors::Observe;
use crate::turn::{
    ConversationId, Done, KernelEvent, Progress, SealedTurn, StepId, StepTimes, StoredTurn, TurnEvent, TurnEventKind,
    TurnId, TurnLabels, TurnMetrics, Usage,
};

/// The events of one turn, as a test scripts them.
///
/// ```
/// use turn_metrics::testing::TurnScript;
///
/// let script = TurnScript::new("c", "t").start().usage(0, 900, 120).done("stop");
/// assert_eq!(script.observe().events.len(), 3);
/// assert_eq!(script.lines()[0], r#"{"type":"turn-start","conversationId":"c","turnId":"t"}"#);
/// ```
///
/// # Panics
///
/// Panics if an id is not valid, because then the test is wrong.
#[derive(Debug, Clone)]
pub struct TurnScript {
    conversation_id: ConversationId,
    turn_id: TurnId,
    events: Vec<TurnEvent>,
}

impl TurnScript {
    /// Returns a script of a turn without events.
    pub fn new(conversation_id: &str, turn_id: &str) -> Self {
        Self {
            conversation_id: id(ConversationId::new, conversation_id),
            turn_id: id(TurnId::new, turn_id),
            events: vec![],
        }
    }

    /// Adds the start of the turn.
    #[must_use]
    pub fn start(self) -> Self {
        self.progress(Progress::Start(TurnLabels::default()))
    }

    /// Adds the start of the turn, with this model.
    #[must_use]
    pub fn start_with(self, model: &str) -> Self {
        self.progress(Progress::Start(TurnLabels::of_model(model)))
    }

    /// Adds a usage report of the step with this index, without cached tokens.
    #[must_use]
    pub fn usage(self, step: u32, input_tokens: u32, output_tokens: u32) -> Self {
        let usage =
            Usage { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), ..Usage::default() };
        self.usage_with(step, usage)
    }

    /// Adds a usage report of the step with this index.
    #[must_use]
    pub fn usage_with(self, step: u32, usage: Usage) -> Self {
        let step_id = Some(self.step_id(step));
        self.progress(Progress::Usage { step_id, report: usage.into(), is_final: false })
    }

    /// Adds a usage report without a step.
    #[must_use]
    pub fn unlabelled_usage(self, usage: Usage) -> Self {
        self.progress(Progress::Usage { step_id: None, report: usage.into(), is_final: false })
    }

    /// Adds the end of the step with this index.
    #[must_use]
    pub fn step_complete(self, step: u32, times: StepTimes) -> Self {
        let step_id = self.step_id(step);
        self.progress(Progress::StepComplete { step_id, times, model: None, provider: None })
    }

    /// Adds a failure of the turn. The turn goes on if more events follow.
    #[must_use]
    pub fn fail(self) -> Self {
        self.progress(Progress::Failed)
    }

    /// Adds the end of the turn for this reason.
    #[must_use]
    pub fn done(self, reason: &str) -> Self {
        self.done_with(Done::because(reason))
    }

    /// Adds the end of the turn.
    #[must_use]
    pub fn done_with(self, done: Done) -> Self {
        self.event(TurnEventKind::Done(done))
    }

    fn progress(self, progress: Progress) -> Self {
        self.event(TurnEventKind::Progress(progress))
    }

    fn event(mut self, kind: TurnEventKind) -> Self {
        self.events.push(TurnEvent { turn_id: self.turn_id.clone(), kind });
        self
    }

    fn step_id(&self, step: u32) -> StepId {
        id(StepId::new, &format!("{}#{step}", self.turn_id))
    }

    /// Returns the events without their conversation.
    pub fn events(&self) -> Vec<TurnEvent> {
        self.events.clone()
    }

    /// Returns the events as an [`Observe`] message.
    pub fn observe(&self) -> Observe {
        Observe { conversation_id: self.conversation_id.clone(), events: self.events() }
    }

    /// Returns the events as a kernel sends them.
    pub fn kernel_events(&self) -> Vec<KernelEvent> {
        let conversation_id = &self.conversation_id;
        let events = self.events.iter().cloned();
        events.map(|event| KernelEvent { conversation_id: conversation_id.clone(), event }).collect()
    }

    /// Returns the events as a kernel writes them, each as a line of JSON.
    pub fn lines(&self) -> Vec<String> {
        // Events have only texts and finite numbers, so serializing them cannot fail.
        self.kernel_events().iter().map(|event| serde_json::to_string(event).unwrap_or_default()).collect()
    }
}

/// Returns a sealed turn that has this id and ordinal and nothing else.
///
/// # Panics
///
/// Panics if the id or the ordinal is not valid.
pub fn stored_turn(turn_id: &str, ordinal: u64) -> StoredTurn {
    let metrics = TurnMetrics {
        turn_id: id(TurnId::new, turn_id),
        usage: Usage::default(),
        steps: Vec::new(),
        duration: None,
        context_size: None,
    };
    let sealed = SealedTurn {
        sealed_at: crate::turn::EpochMillis::new(1),
        ended_at: None,
        reason: "stop".into(),
        model: None,
        provider: None,
        project: None,
        cache_write_1h_tokens: None,
        step_details: Vec::new(),
        metrics,
    };
    sealed.at(crate::turn::Ordinal::after(ordinal.saturating_sub(1)))
}

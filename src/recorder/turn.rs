use std::time::Duration;

use tracing::Span;

use super::spans::{self, Names};
use super::step::StepRecorder;
use super::{ABORTED, Recorder};
use crate::turn::{
    ConversationId, Done, KernelEvent, Millis, Progress, StepId, TokenCount, TurnEvent, TurnEventKind, TurnId,
    TurnLabels, UsageReport,
};

/// Records one turn, from its start to its end. Dropping this ends the turn with the reason `aborted`.
///
/// The recorder can be sent to another thread. An open step borrows the recorder of its turn, so the turn can neither
/// end nor start another step before that step ends.
///
/// ```compile_fail,E0505
/// # use turn_metrics::recorder::TurnRecorder;
/// fn end_inside_a_step(mut turn: TurnRecorder) {
///     let step = turn.start_step();
///     turn.end("stop");
///     step.end("stop");
/// }
/// ```
#[derive(Debug)]
pub struct TurnRecorder {
    recorder: Recorder,
    conversation_id: ConversationId,
    turn_id: TurnId,
    labels: TurnLabels,
    span: Span,
    started: Duration,
    /// The number of steps that were started.
    steps: u32,
    /// The tokens of all finished steps. `None` if no step reported tokens.
    usage: Option<UsageReport>,
    /// The context size after the latest step, if that step reported tokens.
    context_size: Option<TokenCount>,
    ended: bool,
}

impl TurnRecorder {
    pub(super) fn start(
        recorder: Recorder,
        conversation_id: ConversationId,
        turn_id: TurnId,
        labels: TurnLabels,
    ) -> Self {
        let model = labels.model.as_ref();
        let span = Names { conversation_id: &conversation_id, turn_id: &turn_id, model }.turn();
        let started = recorder.elapsed();
        let (steps, usage, context_size) = (0, None, None);
        let turn = Self {
            recorder,
            conversation_id,
            turn_id,
            labels,
            span,
            started,
            steps,
            usage,
            context_size,
            ended: false,
        };
        turn.progress(Progress::Start(turn.labels.clone()));
        turn
    }

    /// Starts the next step and its model's stream. Call this just before the request is made.
    pub fn start_step(&mut self) -> StepRecorder<'_> {
        let step_id = self.step_id(self.steps);
        self.steps = self.steps.saturating_add(1);
        StepRecorder::start(self, step_id)
    }

    /// Ends the turn for this reason: `stop`, `error`, `max-steps`, ...
    pub fn end(mut self, reason: &str) {
        self.finish(reason);
    }

    /// The id of the turn.
    pub fn turn_id(&self) -> &TurnId {
        &self.turn_id
    }

    /// Returns the span of the turn, so that the program can open its own spans as children.
    pub fn span(&self) -> &Span {
        &self.span
    }

    #[expect(clippy::expect_used, reason = "cannot fail, as its message proves")]
    fn step_id(&self, index: u32) -> StepId {
        StepId::new(format!("{}#{index}", self.turn_id)).expect(
            "a recorded turn's id is valid and leaves room for `#` and ten digits, which are no control characters",
        )
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names { conversation_id: &self.conversation_id, turn_id: &self.turn_id, model: self.labels.model.as_ref() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.recorder.elapsed()
    }

    pub(super) fn progress(&self, progress: Progress) {
        self.send(TurnEventKind::Progress(progress));
    }

    /// Adds the tokens of a finished step.
    pub(super) fn take_usage(&mut self, step: Option<UsageReport>) {
        let context_size = step.map(|step| step.usage().context_size());
        self.context_size = context_size.filter(|size| *size > TokenCount::ZERO);
        self.usage = match (self.usage, step) {
            (Some(sum), Some(step)) => Some(sum.saturating_add(step)),
            (one, None) | (None, one) => one,
        };
    }

    fn send(&self, kind: TurnEventKind) {
        let event = TurnEvent { turn_id: self.turn_id.clone(), kind };
        self.recorder.send(KernelEvent { conversation_id: self.conversation_id.clone(), event });
    }

    fn finish(&mut self, reason: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let duration = Some(Millis::from(self.elapsed().saturating_sub(self.started)));
        spans::record_usage(&self.span, self.usage.map(UsageReport::usage));
        spans::record_reason(&self.span, reason);
        spans::record_time(&self.span, "durationMs", duration);
        let (usage, context_size, ended_at) = (self.usage, self.context_size, self.recorder.moment());
        self.send(TurnEventKind::Done(Done { duration, usage, context_size, ended_at, ..Done::because(reason) }));
    }
}

impl Drop for TurnRecorder {
    fn drop(&mut self) {
        self.finish(ABORTED);
    }
}

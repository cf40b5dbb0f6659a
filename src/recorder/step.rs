use std::time::Duration;

use tracing::Span;

use super::tool_call::ToolCallRecorder;
use super::turn::TurnRecorder;
use super::{ABORTED, spans};
use crate::turn::{Label, Millis, Progress, StepId, StepTimes, TokenCount, Usage, UsageReport, UsageReports};

/// Records a step while its model's stream is open. Dropping this ends the stream and the step as `aborted`.
///
/// Impossible sequences do not compile, such as a first token after the end of the stream, or a step that ends twice.
///
/// ```compile_fail,E0382
/// # use turn_metrics::recorder::TurnRecorder;
/// fn token_after_the_end(turn: &mut TurnRecorder) {
///     let mut step = turn.start_step();
///     let ended = step.end_stream("stop");
///     step.token();
/// }
/// ```
#[derive(Debug)]
pub struct StepRecorder<'t>(Step<'t>);

/// Records a step after its model's stream has ended: its tools run, the request is repeated, or the step ends.
/// Dropping this ends the step as `aborted`.
#[derive(Debug)]
pub struct StreamedStep<'t>(Step<'t>);

impl<'t> StepRecorder<'t> {
    pub(super) fn start(turn: &'t mut TurnRecorder, id: StepId) -> Self {
        let span = turn.names().step(&turn.span().clone(), &id);
        let stream = Some(Stream::start(turn, &span, None));
        let (reports, times) = (UsageReports::default(), StepTimes::default());
        Self(Step { turn, id, span, stream, reports, times, model: None, provider: None, ended: false })
    }

    /// Records the first token of text or reasoning. Further calls have no effect and cost next to nothing.
    pub fn token(&mut self) {
        let Step { turn, span, stream, .. } = &mut self.0;
        if let Some(stream) = stream
            && stream.first_token.is_none()
        {
            stream.first_token = Some(turn.elapsed());
            stream.ttft.record("firstToken", true);
            stream.ttft = Span::none();
            stream.decode = Some(spans::decode(span));
        }
    }

    /// Records reported tokens. Several reports of a step join: the larger value of each counter counts.
    pub fn usage(&mut self, report: impl Into<UsageReport>) {
        self.0.report(report.into(), false);
    }

    /// Records the final token counts of the step. Final counts replace earlier reports that were not final, even if
    /// the final counts are lower. Several final reports join.
    pub fn final_usage(&mut self, report: impl Into<UsageReport>) {
        self.0.report(report.into(), true);
    }

    /// Sets the model of this step, if it differs from the turn's.
    pub fn set_model(&mut self, model: &str) {
        self.0.model = Some(model.into());
    }

    /// Sets the provider of this step's model, if it differs from the turn's.
    pub fn set_provider(&mut self, provider: &str) {
        self.0.provider = Some(provider.into());
    }

    /// Starts to record a tool call while the stream goes on.
    pub fn start_tool_call(&self, name: &str, tool_call_id: &str) -> ToolCallRecorder {
        self.0.start_tool_call(name, tool_call_id)
    }

    /// Ends the stream. `reason` is the provider's finish reason, or a word for what went wrong.
    pub fn end_stream(mut self, reason: &str) -> StreamedStep<'t> {
        self.0.end_stream(reason);
        StreamedStep(self.0)
    }

    /// Ends the stream and the step, both with this reason.
    pub fn end(self, reason: &str) {
        self.end_stream(reason).end(reason);
    }

    /// The id of the step.
    pub fn step_id(&self) -> &StepId {
        &self.0.id
    }

    /// Returns the span of the step, so that the program can open its own spans as children.
    pub fn span(&self) -> &Span {
        &self.0.span
    }
}

impl<'t> StreamedStep<'t> {
    /// Starts a new stream, because the request is repeated. The times of the step are then the times of this stream.
    /// Call this after the pause before the repetition, which does not belong to the time to first token.
    pub fn retry(mut self) -> StepRecorder<'t> {
        self.0.stream = Some(Stream::start(self.0.turn, &self.0.span, self.0.reports.joined()));
        StepRecorder(self.0)
    }

    /// Starts to record a tool call that the model asked for.
    pub fn start_tool_call(&self, name: &str, tool_call_id: &str) -> ToolCallRecorder {
        self.0.start_tool_call(name, tool_call_id)
    }

    /// Ends the step for this reason, which usually is the reason that its stream ended with.
    pub fn end(mut self, reason: &str) {
        self.0.finish(reason);
    }

    /// The id of the step.
    pub fn step_id(&self) -> &StepId {
        &self.0.id
    }

    /// Returns the span of the step, so that the program can open its own spans as children.
    pub fn span(&self) -> &Span {
        &self.0.span
    }
}

/// The data of a step, while its stream is open and after that.
#[derive(Debug)]
struct Step<'t> {
    turn: &'t mut TurnRecorder,
    id: StepId,
    span: Span,
    /// The stream, while it is open.
    stream: Option<Stream>,
    reports: UsageReports,
    /// The times of the latest stream that ended.
    times: StepTimes,
    model: Option<Label>,
    provider: Option<Label>,
    ended: bool,
}

/// One request to a provider and the stream that answers it.
#[derive(Debug)]
struct Stream {
    started: Duration,
    first_token: Option<Duration>,
    /// The joined reports of the step when this stream began.
    before: Option<UsageReport>,
    /// The reports that came during this stream.
    reports: UsageReports,
    request: Span,
    /// `Span::none()` once the first token has arrived.
    ttft: Span,
    decode: Option<Span>,
}

impl Stream {
    fn start(turn: &TurnRecorder, step: &Span, before: Option<UsageReport>) -> Self {
        Self {
            request: turn.names().provider_request(step),
            ttft: spans::ttft(step),
            started: turn.elapsed(),
            first_token: None,
            before,
            reports: UsageReports::default(),
            decode: None,
        }
    }
}

impl Step<'_> {
    fn start_tool_call(&self, name: &str, tool_call_id: &str) -> ToolCallRecorder {
        ToolCallRecorder::start(self.turn.names().tool_call(&self.span, name, tool_call_id))
    }

    fn report(&mut self, report: UsageReport, is_final: bool) {
        self.reports.take(report, is_final);
        if let Some(stream) = &mut self.stream {
            stream.reports.take(report, is_final);
        }
        self.turn.progress(Progress::Usage { step_id: Some(self.id.clone()), report, is_final });
    }

    fn end_stream(&mut self, reason: &str) {
        let Some(stream) = self.stream.take() else { return };
        let now = self.turn.elapsed();
        let since = |then: Duration| Millis::from(now.saturating_sub(then));
        self.times = StepTimes {
            ttft: stream.first_token.map(|first| Millis::from(first.saturating_sub(stream.started))),
            decode: stream.first_token.map(since),
            gen_total: Some(since(stream.started)),
        };
        if stream.first_token.is_none() {
            stream.ttft.record("firstToken", false);
        }
        let carried = stream.reports.joined();
        let carried = carried.map(|reported| increase(reported, self.reports.joined(), stream.before));
        spans::record_usage(&stream.request, carried);
        spans::record_reason(&stream.request, reason);
    }

    fn finish(&mut self, reason: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.end_stream(reason);
        let StepTimes { ttft, decode, gen_total } = self.times;
        let usage = self.reports.joined();
        spans::record_usage(&self.span, usage.map(UsageReport::usage));
        spans::record_reason(&self.span, reason);
        spans::record_time(&self.span, "ttftMs", ttft);
        spans::record_time(&self.span, "decodeMs", decode);
        spans::record_time(&self.span, "genTotalMs", gen_total);
        self.turn.take_usage(usage);
        let (model, provider) = (self.model.take(), self.provider.take());
        self.turn.progress(Progress::StepComplete { step_id: self.id.clone(), times: self.times, model, provider });
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.finish(ABORTED);
    }
}

/// Returns the tokens that a stream has added to its step, for the counters that the stream reported. The reports of a
/// step join, so a second stream adds only what exceeds the reports of the first. So the tokens of a step's streams sum
/// to the tokens of the step.
fn increase(reported: UsageReport, step: Option<UsageReport>, before: Option<UsageReport>) -> Usage {
    let (step, before) = (step.unwrap_or_default().usage(), before.unwrap_or_default().usage());
    let more = |now: TokenCount, then: TokenCount| {
        TokenCount::new(now.get().saturating_sub(then.get())).unwrap_or(TokenCount::MAX)
    };
    let more_reported = |reported: Option<TokenCount>, now: Option<TokenCount>, then: Option<TokenCount>| {
        reported.map(|_| more(now.unwrap_or_default(), then.unwrap_or_default()))
    };
    Usage {
        input_tokens: more(step.input_tokens, before.input_tokens),
        output_tokens: more(step.output_tokens, before.output_tokens),
        cache_read_tokens: more_reported(reported.cache_read_tokens, step.cache_read_tokens, before.cache_read_tokens),
        cache_write_tokens: more_reported(
            reported.cache_write_tokens,
            step.cache_write_tokens,
            before.cache_write_tokens,
        ),
    }
}

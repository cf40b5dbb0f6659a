use tracing::Span;

/// Records one run of a tool. The recorder borrows nothing, so several tools can run at the same time, each in its own
/// task.
///
/// If the recorder is dropped without a call of `end`, its span does not say whether the tool failed. If a call
/// outlives its step, the step's span stays open until the call ends; the step's events do not change.
#[derive(Debug)]
pub struct ToolCallRecorder {
    span: Span,
}

impl ToolCallRecorder {
    pub(super) fn start(span: Span) -> Self {
        Self { span }
    }

    /// Ends the call. `is_error` says whether the tool failed.
    pub fn end(self, is_error: bool) {
        self.span.record("isError", is_error);
    }

    /// Returns the span of the call, so that the program can open its own spans as children.
    pub fn span(&self) -> &Span {
        &self.span
    }
}

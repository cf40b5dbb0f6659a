use tracing::Span;

/// Records one run of a tool. It borrows nothing, so that tools can run side by side in tasks of their own.
///
/// If it is dropped without an end, its span does not say whether the tool failed. If it outlives its step, the step's
/// span stays open until the call ends; the step's events do not change.
#[derive(Debug)]
pub struct ToolCallRecorder {
    span: Span,
}

impl ToolCallRecorder {
    pub(super) fn start(span: Span) -> Self {
        Self { span }
    }

    /// Ends the call.
    pub fn end(self, is_error: bool) {
        self.span.record("isError", is_error);
    }

    /// The span of the call, as a parent for spans of the program's own.
    pub fn span(&self) -> &Span {
        &self.span
    }
}

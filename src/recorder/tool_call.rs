use tracing::Span;

/// Records one run of a tool. It borrows nothing, so that tools can run side by side, in tasks of their own.
///
/// Dropped without an end, its span says nothing of an error. One that outlives its step keeps the step's span open
/// until it ends; what the step reports is not changed by it.
#[derive(Debug)]
pub struct ToolCallRecorder {
    span: Span,
}

impl ToolCallRecorder {
    pub(super) fn start(span: Span) -> Self {
        Self { span }
    }

    /// The tool has run.
    pub fn end(self, is_error: bool) {
        self.span.record("isError", is_error);
    }

    /// The span of the call, for spans of the program's own to stand in.
    pub fn span(&self) -> &Span {
        &self.span
    }
}

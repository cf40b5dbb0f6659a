use tokio::sync::watch;

/// How the writer's thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterState {
    Running,
    /// It was told to close, and has.
    Closed,
    /// It is gone though nobody told it to: nothing will become durable any more.
    Dead,
}

/// Tells how the thread ended even where it ends by a panic.
pub(super) struct ReportOnExit {
    pub(super) state: watch::Sender<WriterState>,
    pub(super) exit: WriterState,
}

impl Drop for ReportOnExit {
    fn drop(&mut self) {
        self.state.send_replace(self.exit);
    }
}

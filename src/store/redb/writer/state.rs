use tokio::sync::watch;

use crate::store::contract::Health;

/// Tells how the thread ended even where it ends by a panic.
pub(super) struct ReportOnExit {
    pub(super) state: watch::Sender<Health>,
    pub(super) exit: Health,
}

impl Drop for ReportOnExit {
    fn drop(&mut self) {
        self.state.send_replace(self.exit);
    }
}

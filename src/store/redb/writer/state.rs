use tokio::sync::watch;

use crate::store::contract::Health;

/// Reports how the thread ended, even if it panics.
pub(super) struct ReportOnExit {
    pub(super) state: watch::Sender<Health>,
    pub(super) exit: Health,
}

impl Drop for ReportOnExit {
    fn drop(&mut self) {
        self.state.send_replace(self.exit);
    }
}

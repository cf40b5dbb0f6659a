use tokio::sync::watch;

use crate::store::contract::Health;

/// Reports how the writer's thread ended, even if it panicked.
pub(super) struct ReportOnExit {
    pub(super) state: watch::Sender<Health>,
    pub(super) exit: Health,
}

impl Drop for ReportOnExit {
    fn drop(&mut self) {
        self.state.send_replace(self.exit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_thread_is_reported_also_if_it_panics() {
        for (exit, panics, reported) in [(Health::Closed, false, Health::Closed), (Health::Ended, true, Health::Ended)]
        {
            let (state, health) = watch::channel(Health::Running);
            let report = ReportOnExit { state, exit };
            let thread = std::thread::spawn(move || {
                let _report = report;
                assert!(!panics, "this panic is part of a test");
            });
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!(*health.borrow(), reported);
        }
    }
}

//! The wall clock, injected so that tests and embedders can set it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::turn::EpochMillis;

/// Tells what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> EpochMillis;
}

/// A clock that many may hold.
pub type SharedClock = Arc<dyn Clock>;

/// The computer's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the rest of the crate asks instead")]
    fn now(&self) -> EpochMillis {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EpochMillis::new(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }
}

use std::sync::Arc;

use crate::turn::KernelEvent;

/// The destination of a recorder's events. A sink must not hold up the turn that sends an event.
pub trait EventSink: Send + Sync + 'static {
    /// Takes the event or refuses it at once, since the turn loop calls this in the middle of a turn. A sink should
    /// neither wait nor panic. The recorder catches a panic and counts the event as [`EventLost::Gone`].
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost>;
}

impl<S: EventSink + ?Sized> EventSink for Arc<S> {
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost> {
        (**self).offer(event)
    }
}

/// Why an event was not taken. The caller need not act: the recorder counts the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLost {
    /// Too many events are waiting.
    #[error("too many events are waiting")]
    Full,
    /// The receiver of the events is gone.
    #[error("the receiver of the events is gone")]
    Gone,
}

/// How many events a recorder's sink took and lost, over all turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecorderCounts {
    /// Events that the sink took.
    pub taken: u64,
    /// Events lost because too many were waiting.
    pub lost_to_full: u64,
    /// Events lost because their receiver was gone.
    pub lost_to_gone: u64,
}

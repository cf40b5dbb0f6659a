use std::sync::Arc;

use crate::turn::KernelEvent;

/// Takes the events of a turn that must not be held up by them.
pub trait EventSink: Send + Sync + 'static {
    /// Takes the event or gives up on it, at once: this is called in the middle of a turn. It should neither wait nor
    /// panic; a panic is caught and counted as a sink that is gone.
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost>;
}

impl<S: EventSink + ?Sized> EventSink for Arc<S> {
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost> {
        (**self).offer(event)
    }
}

/// Why an event was not taken. Nothing is to be done about it: the recorder counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventLost {
    /// Too many events wait already.
    #[error("too many events are waiting")]
    Full,
    /// Nobody takes events any more.
    #[error("nobody takes events any more")]
    Gone,
}

/// What became of the events of all turns of a recorder, as far as its sink told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecorderCounts {
    /// Events that the sink took.
    pub taken: u64,
    /// Events lost because too many were waiting.
    pub lost_to_full: u64,
    /// Events lost because nobody took them any more.
    pub lost_to_gone: u64,
}

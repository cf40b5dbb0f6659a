use std::sync::{Arc, Mutex, PoisonError};

use crate::recorder::{EventLost, EventSink};
use crate::turn::KernelEvent;

/// A sink that keeps every event, so that a test can look at it. Clones share one log.
///
/// ```
/// use turn_metrics::recorder::Recorder;
/// use turn_metrics::testing::EventLog;
/// use turn_metrics::turn::{ConversationId, TurnId, TurnLabels};
///
/// let log = EventLog::default();
/// let turn = Recorder::new(log.clone()).start_turn(ConversationId::new("c")?, TurnId::new("t")?, TurnLabels::default())?;
/// assert_eq!(log.lines(), [r#"{"type":"turn-start","conversationId":"c","turnId":"t"}"#]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<KernelEvent>>>);

impl EventLog {
    /// The events so far.
    pub fn events(&self) -> Vec<KernelEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events so far as a kernel writes them, one line of JSON each.
    pub fn lines(&self) -> Vec<String> {
        // Events have only texts and finite numbers, so serializing them cannot fail.
        self.events().iter().map(|event| serde_json::to_string(event).unwrap_or_default()).collect()
    }
}

impl EventSink for EventLog {
    fn offer(&self, event: KernelEvent) -> Result<(), EventLost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        Ok(())
    }
}

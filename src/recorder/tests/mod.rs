//! Tests of the recorder.
//!
//! - `turns`: the measured times and the sent events.
//! - `outbox`: how events reach a running system.
//! - `spans`: the spans, and that the counters of turns, steps and requests have the same sums.

mod outbox;
mod spans;
mod turns;

use std::sync::Arc;

use super::*;
use crate::testing::{EventLog, ModelItem, ModelStream, TestClock};
use crate::turn::{ConversationId, TurnId, Usage};

/// A recorder whose events and time are visible to a test.
struct Setup {
    clock: TestClock,
    log: EventLog,
    recorder: Recorder,
}

fn setup() -> Setup {
    let (clock, log) = (TestClock::at(0), EventLog::default());
    let recorder = Recorder::with_stopwatch(log.clone(), Arc::new(clock.clone()));
    Setup { clock, log, recorder }
}

impl Setup {
    fn turn(&self) -> TurnRecorder {
        self.recorder
            .start_turn(ConversationId::new("c").unwrap(), TurnId::new("t").unwrap(), TurnLabels::default())
            .unwrap()
    }

    fn stream(&self) -> ModelStream {
        ModelStream::new(&self.clock)
    }

    /// Returns the events as lines, without the fields that all events have.
    fn told(&self) -> Vec<String> {
        let lines = self.log.lines().into_iter();
        lines.map(|line| line.replace(r#","conversationId":"c","turnId":"t""#, "")).collect()
    }
}

/// Reports each item of a model's stream to the recorder, as a kernel does.
async fn read(step: &mut StepRecorder<'_>, mut stream: ModelStream) {
    while let Some(item) = stream.next().await {
        match item {
            ModelItem::Text(_) | ModelItem::Reasoning(_) => step.token(),
            ModelItem::Usage(usage) => step.usage(usage),
            ModelItem::ToolCall { .. } | ModelItem::Failure(_) => {}
        }
    }
}

fn usage(input_tokens: u32, output_tokens: u32) -> Usage {
    Usage { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), ..Usage::default() }
}

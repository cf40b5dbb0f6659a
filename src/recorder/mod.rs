//! The kernel's side: measures turns as they run, sends their events, and opens their spans.
//!
//! A turn loop reports what happens to a [`TurnRecorder`]. No call can fail, wait or panic: an event that cannot be
//! sent is counted and dropped, and the turn goes on.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use turn_metrics::clock::SystemStopwatch;
//! use turn_metrics::recorder::{Outbox, Recorder};
//! use turn_metrics::runtime::Runtime;
//! use turn_metrics::turn::{ConversationId, TurnId, TurnLabels, Usage};
//!
//! # actix::System::new().block_on(async {
//! let runtime = Runtime::builder().start().await?;
//! let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 10_000);
//! let recorder = Recorder::new(outbox.clone());
//!
//! let mut turn = recorder.start_turn(ConversationId::new("c")?, TurnId::new("t")?, TurnLabels::of_model("some-model"))?;
//! let mut step = turn.start_step();
//! // ... the stream brings text or reasoning ...
//! step.token();
//! step.usage(Usage { input_tokens: 900.into(), output_tokens: 120.into(), ..Usage::default() });
//! let step = step.end_stream("tool-calls");
//! let call = step.start_tool_call("read_file", "call-1");
//! // ... the tool runs ...
//! call.end(false);
//! step.end("tool-calls");
//! turn.end("stop");
//!
//! outbox.flush().await;
//! assert_eq!((recorder.counts().taken, outbox.counts().delivered), (4, 4));
//! runtime.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Times
//!
//! An injected [`Stopwatch`](crate::clock::Stopwatch) measures all times. TTFT is the time from the start of a step's
//! stream to its first token of text or reasoning, and is absent if there is none. The decode time is from the first
//! token to the end of the stream, and the generation total covers both. No time includes the wait before a request is
//! repeated.
//!
//! # Spans
//!
//! `turn` (conversationId, turnId, model) > `step` (stepId) > `provider.request`, `ttft`, `decode`, `tool-call` (name,
//! toolCallId, isError). When they close, `turn`, `step` and `provider.request` spans carry `usage.inputTokens`,
//! `usage.outputTokens`, `usage.cacheReadTokens` and `usage.cacheWriteTokens`, each absent if not reported, and
//! `finishReason`. The sum of a counter is the same over all `turn`, all `step` or all `provider.request` spans, unless
//! the final report of a retried step is lower than the reports of its earlier requests. A step also carries its times,
//! as `ttftMs`, `decodeMs` and `genTotalMs`, and a turn its `durationMs`; `firstToken` on a `ttft` span says whether
//! there was a first token. All spans have the level `INFO` and the target `turn_metrics::recorder`.
//!
//! # Files
//!
//! - `turn`: records a turn.
//! - `step`: records a step and its stream.
//! - `tool_call`: records one run of a tool.
//! - `spans`: the spans of a turn and their fields.
//! - `sink`: where a recorder sends events.
//! - `outbox`: a sink that sends events to a running system.
//! - `ndjson`: a sink that writes events as lines of JSON.
//! - `tests`: the measured times, the sent events, and the spans.

mod ndjson;
mod outbox;
mod sink;
mod spans;
mod step;
#[cfg(test)]
mod tests;
mod tool_call;
mod turn;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use ndjson::{NdjsonSink, NdjsonWriter};
pub use outbox::{Outbox, OutboxCounts};
pub use sink::{EventLost, EventSink, RecorderCounts};
pub use step::{StepRecorder, StreamedStep};
pub use tool_call::ToolCallRecorder;
pub use turn::TurnRecorder;

use crate::clock::{SharedClock, SharedStopwatch, SystemStopwatch};
use crate::turn::{ConversationId, KernelEvent, KernelMoment, TurnId, TurnLabels};

/// The reason of a turn, step or stream whose recorder was dropped.
const ABORTED: &str = "aborted";

/// The maximum length of a recorded turn's id. An id has at most 256 bytes, and the id of a step appends `#` and up to
/// ten digits.
const MAX_TURN_ID_BYTES: usize = 245;

/// The maximum number of events that can wait to be sent or written. A longer queue would be a second store, in memory.
const MAX_WAITING: usize = 1 << 20;

/// Starts the recorders of turns. A clone is the same recorder.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Box<dyn EventSink>,
    stopwatch: SharedStopwatch,
    /// Shows the moments at which turns end. `None` if events carry no such moment.
    clock: Option<SharedClock>,
    taken: AtomicU64,
    full: AtomicU64,
    gone: AtomicU64,
}

/// The turn's id is so long that the ids of its steps would exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a recorded turn has at most {MAX_TURN_ID_BYTES} bytes, this one has {len}")]
pub struct TurnIdTooLong {
    /// The length of the id in bytes.
    pub len: usize,
}

impl Recorder {
    /// Returns a recorder that sends events to `sink`, and measures with the computer's monotonic clock.
    pub fn new(sink: impl EventSink) -> Self {
        Self::with_stopwatch(sink, Arc::new(SystemStopwatch::default()))
    }

    /// Returns a recorder that sends events to `sink`, and measures with `stopwatch`.
    pub fn with_stopwatch(sink: impl EventSink, stopwatch: SharedStopwatch) -> Self {
        Self::with_times(sink, stopwatch, None)
    }

    /// Returns a recorder that measures with `stopwatch`, and sends the moment at which each turn ended by `clock`. Use
    /// it if events are sent later than they happen.
    pub fn with_clock(sink: impl EventSink, stopwatch: SharedStopwatch, clock: SharedClock) -> Self {
        Self::with_times(sink, stopwatch, Some(clock))
    }

    fn with_times(sink: impl EventSink, stopwatch: SharedStopwatch, clock: Option<SharedClock>) -> Self {
        let (taken, full, gone) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { sink: Box::new(sink), stopwatch, clock, taken, full, gone }) }
    }

    /// Starts a turn. `labels` are the model, its provider and the project; unknown ones are `None`.
    pub fn start_turn(
        &self,
        conversation_id: ConversationId,
        turn_id: TurnId,
        labels: TurnLabels,
    ) -> Result<TurnRecorder, TurnIdTooLong> {
        let len = turn_id.as_str().len();
        if len > MAX_TURN_ID_BYTES {
            return Err(TurnIdTooLong { len });
        }
        Ok(TurnRecorder::start(self.clone(), conversation_id, turn_id, labels))
    }

    /// Returns the numbers of events that were sent and lost so far.
    pub fn counts(&self) -> RecorderCounts {
        let Shared { taken, full, gone, .. } = &*self.shared;
        let [taken, lost_to_full, lost_to_gone] = [taken, full, gone].map(|count| count.load(Ordering::Relaxed));
        RecorderCounts { taken, lost_to_full, lost_to_gone }
    }

    fn elapsed(&self) -> Duration {
        self.shared.stopwatch.elapsed()
    }

    /// Returns the current moment, if the recorder has a clock.
    fn moment(&self) -> Option<KernelMoment> {
        self.shared.clock.as_ref().map(|clock| clock.now().into())
    }

    fn send(&self, event: KernelEvent) {
        let Shared { sink, taken, full, gone, .. } = &*self.shared;
        // A sink that panics must not end the turn, least of all while the turn itself unwinds.
        let offered = catch_unwind(AssertUnwindSafe(|| sink.offer(event))).unwrap_or(Err(EventLost::Gone));
        let (counter, lost) = match offered {
            Ok(()) => (taken, None),
            Err(EventLost::Full) => (full, Some(EventLost::Full)),
            Err(EventLost::Gone) => (gone, Some(EventLost::Gone)),
        };
        let so_far = counter.fetch_add(1, Ordering::Relaxed) + 1;
        // Only the losses number 1, 2, 4, 8, ... are logged: if the receiver is gone, every event is lost.
        if let Some(cause) = lost.filter(|_| so_far.is_power_of_two()) {
            tracing::warn!(%cause, so_far, "an event was lost");
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

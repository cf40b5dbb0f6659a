//! What a turn is, and how its events fold into metrics.
//!
//! [`EventReader`] reads kernel events; [`OpenTurn`] folds the events of a turn; [`OpenTurn::seal`] makes the
//! [`SealedTurn`] whose [`TurnMetrics`] a front-end shows.
//!
//! Invariants:
//!
//! - Pure: no actor, clock, file or socket.
//! - Folding the same events again changes nothing.
//! - No type can have a bad value: an id, a token count or a duration is checked once, when it is made.
//!
//! # Files
//!
//! - `line`: parses a line of JSON into the event in it.
//! - `reader`: reads the lines of a body, and tries the fast parser first.
//! - `canonical`: the fast parser for lines that are written exactly as kernels write them.
//! - `wire`: the fields of each type of event in JSON.
//! - `event`: an event that counts for metrics.
//! - `open`: an open turn, its fold, and how it is sealed.
//! - `usage`: usage reports, and how they join.
//! - `metrics`: a sealed turn and its metrics, as a front-end shows them.
//! - `warning`: a probable mistake in a turn's events.
//! - `id`: the ids of conversations, turns and steps.
//! - `label`: a free text such as a model's name, cut at a maximum length.
//! - `count`: a number of tokens.
//! - `millis`: durations and moments, in milliseconds.
//! - `kernel_moment`: a moment by the kernel's clock, which may be implausible.
//! - `running_time`: the time that the service has run. The ages of open turns are measured in it.
//! - `ordinal`: the place of a sealed turn in its conversation.
//! - `ecmascript`: writes numbers as `JSON.stringify` does.
//! - `properties`: property tests of the fold.

mod canonical;
mod count;
mod ecmascript;
mod event;
mod id;
mod kernel_moment;
mod label;
mod line;
mod metrics;
mod millis;
mod open;
mod ordinal;
#[cfg(test)]
pub(crate) mod properties;
mod reader;
mod running_time;
mod usage;
mod warning;
mod wire;

pub use count::{InvalidTokenCount, TokenCount};
pub(crate) use ecmascript::serialize_number;
pub use event::{Done, KernelEvent, Progress, TurnEvent, TurnEventKind, TurnLabels};
pub use id::{ConversationId, InvalidId, StepId, TurnId};
pub use kernel_moment::KernelMoment;
pub use label::Label;
pub use line::bad_event::BadEvent;
pub use line::parse_line;
#[cfg(feature = "server")]
pub(crate) use line::{
    ARRAY, Encoding, EventStream, Framing, LONG_LINE_BYTES, Line, Mention, Shape, TurnObject, is_array, keep_edges,
    mentions, type_name,
};
pub use metrics::{SealedTurn, StepDetails, StepMetrics, StoredTurn, TurnMetrics};
pub use millis::{EpochMillis, InvalidMillis, Millis};
pub use open::{OpenHead, OpenStep, OpenSteps, OpenTurn, StepTimes};
pub use ordinal::Ordinal;
pub use reader::EventReader;
pub use running_time::RunningTime;
pub use usage::{Usage, UsageReport, UsageReports};
pub use warning::Warning;

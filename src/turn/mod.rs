//! What a turn is and how its events fold into metrics: pure values, with no actor, clock, file or socket in sight.
//!
//! [`EventReader`] reads kernel events; [`OpenTurn`] folds the events of a turn; [`OpenTurn::seal`] makes the
//! [`SealedTurn`] whose [`TurnMetrics`] a front-end shows.

mod canonical;
mod count;
mod ecmascript;
mod event;
mod id;
#[cfg(feature = "server")]
mod json;
mod kernel_moment;
mod label;
mod line;
mod metrics;
mod millis;
mod open;
mod ordinal;
#[cfg(test)]
mod properties;
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
pub(crate) use line::{Encoding, EventStream, Framing, Line, Mention, Shape, keep_edges, mentions, type_name};
pub use metrics::{SealedTurn, StepDetails, StepMetrics, StoredTurn, TurnMetrics};
pub use millis::{EpochMillis, InvalidMillis, Millis};
pub use open::{OpenStep, OpenSteps, OpenTurn, StepTimes};
pub use ordinal::Ordinal;
pub use reader::EventReader;
pub use running_time::RunningTime;
pub use usage::{Usage, UsageReport, UsageReports};
pub use warning::Warning;

//! Everything that can be set.
//!
//! Each setting stands once, as a line of a `section!`: its comment, its type, its default and its limits. From that line
//! come the field of the struct, the key in a configuration file, what a value is checked against, and the line in
//! `config/default.toml`. So a new setting is one line here, and `UPDATE_CONFIG=1 cargo test --lib default_file`.
//!
//! - `section`: makes a struct and its part of the table of settings from such lines.
//! - `setting`: a line of that table.
//! - `turns`, `store`, `http`, `log`, `span_log`: the sections of a configuration file.
//! - `program`: all sections together.
//! - `host_name`, `web_origin`: texts that are checked.
//! - `otel`, `simulation`: what a program sets that sends spans, or simulates a kernel. No configuration file has these.

#[cfg(feature = "server")]
mod host_name;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "otel")]
mod otel;
#[cfg(feature = "server")]
mod program;
mod section;
#[cfg(feature = "server")]
pub(crate) mod setting;
mod simulation;
mod span_log;
mod store;
mod turns;
#[cfg(feature = "server")]
mod web_origin;

#[cfg(feature = "server")]
pub use host_name::{HostName, InvalidHostName};
#[cfg(feature = "server")]
pub use http::{HttpSettings, Workers};
#[cfg(feature = "server")]
pub use log::{LogFormat, LogLevel, LogSettings};
#[cfg(feature = "otel")]
pub use otel::{Dialect, OtelSettings};
#[cfg(feature = "server")]
pub(crate) use program::SECTIONS;
#[cfg(feature = "server")]
pub use program::Settings;
#[cfg(feature = "server")]
pub use setting::CONVERSATIONS_AT_ONCE;
pub use simulation::SimulationSettings;
pub use span_log::SpanLogSettings;
pub use store::{RedbSettings, StoreSettings};
pub use turns::{TURNS_AT_ONCE, TurnSettings};
#[cfg(feature = "server")]
pub use web_origin::{InvalidWebOrigin, WebOrigin};

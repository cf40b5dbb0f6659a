//! All settings, with their defaults and limits.
//!
//! Each setting is one line of a `section!`: its comment, its type, its default and its limits. From that line the
//! macro makes four things: the field of the struct, the key in a configuration file, the check of a value, and the
//! entry in `config/default.toml`. `CONTRIBUTING.md` has the steps that a new setting needs.
//!
//! The limits hold for a configuration, which is checked when it is read. The fields of the structs are public and are
//! not checked: a program that fills a struct itself must stay within the limits in the sources, and nothing is promised
//! for other values.
//!
//! # Files
//!
//! - `section`: the macro that makes the struct of a section and its part of the table of all settings.
//! - `setting`: an entry of the table of all settings.
//! - `program`: the struct with all sections of a configuration file.
//! - `http`: the section `[http]`.
//! - `turns`: the section `[turns]`.
//! - `store`: the sections `[store]` and `[store.redb]`.
//! - `prices`: the section `[prices]`.
//! - `reports`: the section `[reports]`.
//! - `retention`: the section `[retention]`.
//! - `log`: the section `[log]`.
//! - `span_log`: the section `[span_log]`.
//! - `otel`: where a program sends its spans; not in a configuration file.
//! - `simulation`: what a simulated kernel does; not in a configuration file.
//! - `host_name`: a checked name of a host.
//! - `web_origin`: a checked origin of a web page.

#[cfg(feature = "server")]
mod host_name;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "otel")]
mod otel;
#[cfg(feature = "server")]
mod prices;
#[cfg(feature = "server")]
mod program;
#[cfg(feature = "server")]
mod reports;
mod retention;
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
pub use prices::PriceSettings;
#[cfg(feature = "server")]
pub(crate) use program::SECTIONS;
#[cfg(feature = "server")]
pub use program::Settings;
#[cfg(feature = "server")]
pub use reports::ReportSettings;
pub use retention::RetentionSettings;
#[cfg(feature = "server")]
pub use setting::CONVERSATIONS_AT_ONCE;
pub use simulation::SimulationSettings;
pub use span_log::SpanLogSettings;
pub use store::{RedbSettings, StoreSettings};
pub use turns::{TURNS_AT_ONCE, TurnSettings};
#[cfg(feature = "server")]
pub use web_origin::{InvalidWebOrigin, WebOrigin};

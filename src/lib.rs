//! Durable, ordered, exactly-once metrics of every turn of an LLM agent.

pub mod actors;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod http;
pub mod runtime;
pub mod settings;
pub mod simulate;
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod turn;

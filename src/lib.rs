//! Durable, ordered, exactly-once metrics of every turn of an LLM agent.

pub mod actors;
pub mod clock;
pub mod runtime;
pub mod settings;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod turn;

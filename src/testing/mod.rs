//! A kit for tests of actors: those of this crate, and those of programs that embed it.
//!
//! - [`Probe`] stands in for an actor: it records messages and answers them as the test says;
//! - [`TestClock`] is a clock and a stopwatch that a test moves;
//! - [`MemoryStore`] is a store without a disk;
//! - [`TurnScript`] scripts the events of a turn, and [`ModelStream`] the stream of a model;
//! - [`EventLog`] keeps the events that a recorder sends;
//! - [`Simulation`] is a simulated kernel: the same settings produce the same events of agents.
//!
//! # Files
//!
//! - `probe`: the stand-in for an actor.
//! - `clock`: the clock that a test moves.
//! - `memory_store`: the store in memory.
//! - `script`: the events of a turn.
//! - `model_stream`: the stream of a model.
//! - `event_log`: the sink that keeps events.
//! - `written`: a writer whose text a test can read.

mod clock;
mod event_log;
mod memory_store;
mod model_stream;
mod probe;
mod script;
#[cfg(test)]
mod written;

use crate::turn::InvalidId;

pub use crate::simulate::{SimulatedLine, Simulation};
pub use clock::TestClock;
pub use event_log::EventLog;
pub use memory_store::MemoryStore;
pub use model_stream::{ModelItem, ModelStream};
pub use probe::Probe;
pub use script::{TurnScript, stored_turn};
#[cfg(test)]
pub(crate) use written::Written;

/// Makes an id from a text in a test.
#[expect(clippy::panic, reason = "the kit is for tests, and a test with an invalid id is wrong")]
fn id<T>(make: impl FnOnce(String) -> Result<T, InvalidId>, text: &str) -> T {
    make(text.to_owned()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

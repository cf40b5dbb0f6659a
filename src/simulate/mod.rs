//! A simulated kernel: the events of agents at work, for demonstrations, benches and tests.
//!
//! The events are a pure function of the settings: no clock and no system randomness is used.
//!
//! ```
//! # use turn_metrics::settings::SimulationSettings;
//! # use turn_metrics::simulate::Simulation;
//! # use turn_metrics::turn::parse_line;
//! for line in Simulation::new(&SimulationSettings { conversations: 2, ..SimulationSettings::default() }) {
//!     parse_line(line.line.as_bytes())?;
//! }
//! # Ok::<(), turn_metrics::turn::BadEvent>(())
//! ```
//!
//! # Files
//!
//! - `agent`: one conversation, turn after turn.
//! - `history`: what agents did on the days before a moment.
//! - `model`: the models that they ask.
//! - `line`: writes the lines of a kernel.
//! - `random`: a generator of random numbers whose sequence never changes.
//! - `tests`: the turns that the lines fold to.

mod agent;
mod history;
mod line;
mod model;
pub(crate) mod random;
#[cfg(test)]
mod tests;

use agent::Agent;
pub use history::History;
use random::Random;

use crate::settings::SimulationSettings;

/// One event as the simulated kernel sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedLine {
    /// The conversation of the event.
    pub conversation_id: String,
    /// The event as one line of JSON, without the line break.
    pub line: String,
}

/// The events of all conversations, interleaved at random. The events of each conversation are in order.
#[derive(Debug, Clone)]
pub struct Simulation {
    random: Random,
    /// The conversations that have more events.
    agents: Vec<Agent>,
}

impl Simulation {
    /// Returns the events of a simulated kernel with these settings.
    pub fn new(settings: &SimulationSettings) -> Self {
        let random = Random::new(settings.seed);
        let agents = (0..settings.conversations).map(|nth| Agent::new(settings, nth)).collect();
        Self { random, agents }
    }
}

impl Iterator for Simulation {
    type Item = SimulatedLine;

    fn next(&mut self) -> Option<SimulatedLine> {
        while !self.agents.is_empty() {
            let at = self.random.below(self.agents.len());
            let agent = &mut self.agents[at];
            if let Some(line) = agent.next_line() {
                return Some(SimulatedLine { conversation_id: agent.conversation_id().to_owned(), line });
            }
            self.agents.swap_remove(at);
        }
        None
    }
}

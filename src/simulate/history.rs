//! What agents did on the days before a moment.

use super::SimulatedLine;
use super::agent::Agent;
use super::random::Random;
use crate::settings::SimulationSettings;
use crate::turn::EpochMillis;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The time that is left between the last turn and the end, far longer than a turn takes.
const LAST_TURN: u64 = 5 * MINUTE;

/// The turns of agents on the days before a moment, as a kernel sends them that sends turns later than they happened: in
/// the order of time, only the events that count, and with the moment at which each turn ended.
///
/// Working days have many conversations, the days of a weekend few, and the hours before the end always have some. Days
/// are those of UTC.
#[derive(Debug, Clone)]
pub struct History {
    agents: Vec<Agent>,
    /// The turns that have not begun: the moment, and which agent's turn it is. The latest comes first.
    turns: Vec<(u64, usize)>,
    /// The agent whose turn it is.
    current: Option<usize>,
}

impl History {
    /// Returns the events of so many days before a moment. Apart from that moment, they depend on the seed alone.
    pub fn new(seed: u64, days: u32, ends_at: EpochMillis) -> Self {
        let mut history = Self { agents: Vec::new(), turns: Vec::new(), current: None };
        let mut random = Random::new(seed);
        let end = ends_at.get().saturating_sub(LAST_TURN);
        let first_day = (end / DAY).saturating_sub(days.into());
        let last_day = if days == 0 { first_day } else { end / DAY + 1 };
        for day in first_day..last_day {
            let count = if is_weekend(day) { random.within(1..=4) } else { random.within(7..=15) };
            for _ in 0..count {
                let of_day = u64::from(random.within(7 * 60..=18 * 60)) * MINUTE;
                history.add_conversation((day * DAY).saturating_add(of_day), seed, &mut random);
            }
        }
        if days > 0 {
            for hours in [1, 2, 3, 5, 8] {
                let before = hours * HOUR - u64::from(random.within(0..=30)) * MINUTE;
                history.add_conversation(end.saturating_sub(before), seed, &mut random);
            }
        }
        history.turns.retain(|(at, _)| *at <= end);
        history.turns.sort_unstable_by(|one, other| other.cmp(one));
        history
    }

    fn add_conversation(&mut self, begins_at: u64, seed: u64, random: &mut Random) {
        let nth = self.agents.len();
        let turns = random.within(3..=18);
        let settings = SimulationSettings {
            seed: seed ^ HISTORY,
            prefix: "past".into(),
            turns: turns as usize,
            max_steps: 8,
            max_deltas: 0,
            ..SimulationSettings::default()
        };
        self.agents.push(Agent::new(&settings, nth));
        let mut at = begins_at;
        for _ in 0..turns {
            self.turns.push((at, nth));
            // Longer than a turn takes.
            at = at.saturating_add(u64::from(random.within(4..=15)) * MINUTE);
        }
    }
}

/// Makes other conversations of a seed than a [`super::Simulation`] has.
const HISTORY: u64 = 0x6869_7374_6f72_7900;

/// Whether a day, counted from 1970-01-01, is a Saturday or Sunday.
fn is_weekend(day: u64) -> bool {
    // The first day was a Thursday.
    (day + 3) % 7 >= 5
}

impl Iterator for History {
    type Item = SimulatedLine;

    fn next(&mut self) -> Option<SimulatedLine> {
        loop {
            if let Some(agent) = self.current.and_then(|current| self.agents.get_mut(current))
                && let Some(line) = agent.rest_of_turn()
            {
                return Some(SimulatedLine { conversation_id: agent.conversation_id().to_owned(), line });
            }
            let (at, nth) = self.turns.pop()?;
            self.current = Some(nth);
            self.agents.get_mut(nth)?.run_past_turn(at);
        }
    }
}

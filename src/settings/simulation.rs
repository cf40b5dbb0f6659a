/// What a simulated kernel does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationSettings {
    /// From what everything random is drawn.
    pub seed: u64,
    /// What the ids of conversations begin with; they go on with `-1`, `-2`, ...
    pub prefix: String,
    /// How many conversations run side by side.
    pub conversations: usize,
    /// Turns of each conversation.
    pub turns: usize,
    /// The most steps of a turn.
    pub max_steps: usize,
    /// The most `text-delta` or `reasoning-delta` lines of a step.
    pub max_deltas: usize,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self { seed: 1, prefix: "sim".into(), conversations: 4, turns: 5, max_steps: 6, max_deltas: 20 }
    }
}

/// The settings of a simulated kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulationSettings {
    /// The seed of all random choices.
    pub seed: u64,
    /// The prefix of the ids of conversations, which continue with `-1`, `-2`, ...
    pub prefix: String,
    /// The number of conversations that run side by side.
    pub conversations: usize,
    /// Turns of each conversation.
    pub turns: usize,
    /// The maximum number of steps of a turn.
    pub max_steps: usize,
    /// The maximum number of `text-delta` or `reasoning-delta` lines of a step.
    pub max_deltas: usize,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self { seed: 1, prefix: "sim".into(), conversations: 4, turns: 5, max_steps: 6, max_deltas: 20 }
    }
}

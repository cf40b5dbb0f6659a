use std::ops::RangeInclusive;

use super::random::Random;

/// A model that conversations ask. Its name is published, so that its price is known; its speed is made up.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) provider: &'static str,
    /// How many of a hundred conversations ask it.
    share: u32,
    /// The time to the first token, in hundredths of a millisecond.
    pub(super) ttft: RangeInclusive<u32>,
    /// The time of one token of output, in hundredths of a millisecond.
    pub(super) token_time: RangeInclusive<u32>,
}

static MODELS: [Model; 6] = [
    Model {
        name: "claude-sonnet-4-5",
        provider: "anthropic",
        share: 34,
        ttft: 60_000..=180_000,
        token_time: 1_200..=2_000,
    },
    Model { name: "gpt-5", provider: "openai", share: 22, ttft: 90_000..=420_000, token_time: 900..=1_800 },
    Model { name: "claude-haiku-4-5", provider: "anthropic", share: 18, ttft: 25_000..=70_000, token_time: 500..=900 },
    Model { name: "gemini-2.5-pro", provider: "google", share: 12, ttft: 120_000..=500_000, token_time: 800..=1_400 },
    Model { name: "gpt-5-mini", provider: "openai", share: 9, ttft: 40_000..=160_000, token_time: 600..=1_100 },
    Model {
        name: "claude-opus-4-5",
        provider: "anthropic",
        share: 5,
        ttft: 110_000..=300_000,
        token_time: 1_700..=2_600,
    },
];

impl Model {
    /// Picks a model, each as often as its share says.
    pub(super) fn pick(random: &mut Random) -> &'static Self {
        let mut place = random.within(0..=99);
        for model in &MODELS {
            if place < model.share {
                return model;
            }
            place -= model.share;
        }
        &MODELS[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_and_each_model_is_picked() {
        assert_eq!(MODELS.iter().map(|model| model.share).sum::<u32>(), 100);
        let mut random = Random::new(1);
        let picked: std::collections::BTreeSet<_> = (0..500).map(|_| Model::pick(&mut random).name).collect();
        assert_eq!(picked.len(), MODELS.len());
    }
}

use serde::{Deserialize, Serialize};

use super::breakdown::BreakdownRow;
use super::cost::{Cost, PriceBook};
use super::label::RollupLabel;
use super::part::{ByLabel, Parts, report_time};
use super::quarter::Quarter;
use super::rollup::Rollup;
use crate::turn::StoredTurn;

/// Everything that one turn adds to sums over many turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// The quarter of an hour in which the turn counts.
    pub(crate) quarter: Quarter,
    /// What the turn adds to reports, by label. Each label occurs once.
    pub(crate) parts: Vec<(RollupLabel, BreakdownRow)>,
    /// What the turn adds to the sums of its conversation.
    pub(crate) conversation: ConversationSums,
}

impl Contribution {
    /// Returns what a turn adds. `book` has the prices.
    pub(crate) fn of_turn(turn: &StoredTurn, book: &dyn PriceBook) -> Self {
        let mut conversation = ConversationSums::default();
        let taken_apart = Parts::of(turn);
        let mut parts = ByLabel::<BreakdownRow>::new();
        for (label, rollup) in Rollup::of_parts(&taken_apart) {
            parts.of(label).rollup = rollup;
        }
        for part in parts.values() {
            conversation.cache_reporting_prompt_tokens += part.rollup.sums.cache_reporting_prompt_tokens;
            conversation.cache_reporting_read_tokens += part.rollup.sums.cache_reporting_read_tokens;
        }
        for (label, cost) in Cost::of_parts(&taken_apart, book) {
            conversation.cost.add(&cost);
            parts.of(label).cost = cost;
        }
        Self { quarter: Quarter::of(report_time(turn)), parts: parts.into_vec(), conversation }
    }
}

/// Sums over all turns of a conversation. Sums add and subtract exactly, in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConversationSums {
    /// The cost of the conversation's turns.
    pub cost: Cost,
    /// The tokens of those prompts whose usage had a cache counter.
    cache_reporting_prompt_tokens: i128,
    /// How many of those tokens were read from the cache.
    cache_reporting_read_tokens: i128,
}

impl ConversationSums {
    /// Returns what a turn adds. `book` has the prices.
    pub fn of_turn(turn: &StoredTurn, book: &dyn PriceBook) -> Self {
        Contribution::of_turn(turn, book).conversation
    }

    /// Adds the sums over other turns.
    pub fn add(&mut self, other: &Self) {
        self.cost.add(&other.cost);
        self.cache_reporting_prompt_tokens += other.cache_reporting_prompt_tokens;
        self.cache_reporting_read_tokens += other.cache_reporting_read_tokens;
    }

    /// Subtracts sums that were added before.
    pub fn subtract(&mut self, other: &Self) {
        self.cost.subtract(&other.cost);
        self.cache_reporting_prompt_tokens -= other.cache_reporting_prompt_tokens;
        self.cache_reporting_read_tokens -= other.cache_reporting_read_tokens;
    }

    /// Returns the numbers that can be added and do not depend on prices.
    pub(crate) fn numbers(&self) -> [i128; 2] {
        [self.cache_reporting_prompt_tokens, self.cache_reporting_read_tokens]
    }

    /// Returns the share of prompt tokens that was read from the cache, over the steps that reported a cache counter.
    /// `None` if no step reported one.
    #[expect(clippy::cast_precision_loss, reason = "shown, and summed no further")]
    pub fn cache_rate(&self) -> Option<f64> {
        (self.cache_reporting_prompt_tokens > 0)
            .then(|| self.cache_reporting_read_tokens as f64 / self.cache_reporting_prompt_tokens as f64)
    }
}

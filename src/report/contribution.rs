use serde::{Deserialize, Serialize};

use super::breakdown::BreakdownRow;
use super::cost::{Cost, PriceBook};
use super::label::RollupLabel;
use super::part::{Parts, report_time};
use super::quarter::Quarter;
use super::rollup::Rollup;
use crate::turn::StoredTurn;

/// Everything that a turn adds to what is told about many turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// When the turn counts.
    pub(crate) quarter: Quarter,
    /// What it adds to reports, by label. Each label stands there once.
    pub(crate) parts: Vec<(RollupLabel, BreakdownRow)>,
    /// What it adds to its conversation.
    pub(crate) conversation: ConversationSums,
}

impl Contribution {
    /// Returns what a turn adds, at the prices of a book.
    pub(crate) fn of_turn(turn: &StoredTurn, book: &dyn PriceBook) -> Self {
        let mut conversation = ConversationSums::default();
        let taken_apart = Parts::of(turn);
        let row = |rollup| BreakdownRow { rollup, cost: Cost::default() };
        let rollups = Rollup::of_parts(&taken_apart).into_iter();
        let mut parts: Vec<_> = rollups.map(|(label, rollup)| (label, row(rollup))).collect();
        for (_, part) in &parts {
            conversation.cache_reporting_prompt_tokens += part.rollup.sums.cache_reporting_prompt_tokens;
            conversation.cache_reporting_read_tokens += part.rollup.sums.cache_reporting_read_tokens;
        }
        for (label, cost) in Cost::of_parts(&taken_apart, book) {
            conversation.cost.add(&cost);
            match parts.iter_mut().find(|(known, _)| *known == label) {
                Some((_, part)) => part.cost = cost,
                None => parts.push((label, BreakdownRow { cost, ..BreakdownRow::default() })),
            }
        }
        Self { quarter: Quarter::of(report_time(turn)), parts, conversation }
    }
}

/// Sums over all turns of a conversation. They add and subtract exactly, in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConversationSums {
    /// What its turns cost.
    pub cost: Cost,
    /// Tokens of the prompts that came with a cache counter.
    cache_reporting_prompt_tokens: i128,
    /// How many of those were read from the cache.
    cache_reporting_read_tokens: i128,
}

impl ConversationSums {
    /// Returns what a turn adds, at the prices of a book.
    pub fn of_turn(turn: &StoredTurn, book: &dyn PriceBook) -> Self {
        Contribution::of_turn(turn, book).conversation
    }

    /// Adds the sums over other turns.
    pub fn add(&mut self, other: &Self) {
        self.cost.add(&other.cost);
        self.cache_reporting_prompt_tokens += other.cache_reporting_prompt_tokens;
        self.cache_reporting_read_tokens += other.cache_reporting_read_tokens;
    }

    /// The numbers that add up and depend on no price.
    pub(crate) fn numbers(&self) -> [i128; 2] {
        [self.cache_reporting_prompt_tokens, self.cache_reporting_read_tokens]
    }

    /// The share of the prompts that was read from the cache, over the steps that reported a cache counter. `None` if none
    /// did.
    #[expect(clippy::cast_precision_loss, reason = "shown, and summed no further")]
    pub fn cache_rate(&self) -> Option<f64> {
        (self.cache_reporting_prompt_tokens > 0)
            .then(|| self.cache_reporting_read_tokens as f64 / self.cache_reporting_prompt_tokens as f64)
    }
}

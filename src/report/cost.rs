use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::label::RollupLabel;
use super::part::{ByLabel, Parts, TokenPart, report_time};
use crate::turn::{EpochMillis, Label, StoredTurn};

/// An amount of money: whole units of 10^-12 US dollars, so that it sums exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PicoDollars(i128);

impl PicoDollars {
    /// The number of pico-dollars in a dollar.
    pub const PER_DOLLAR: i128 = 1_000_000_000_000;

    /// An amount of that many pico-dollars.
    pub fn new(pico_dollars: i128) -> Self {
        Self(pico_dollars)
    }

    /// The number of pico-dollars.
    pub fn get(self) -> i128 {
        self.0
    }
}

/// Writes dollars with 12 places, so nothing is rounded.
impl fmt::Display for PicoDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (
            self.0.unsigned_abs() / Self::PER_DOLLAR.unsigned_abs(),
            self.0.unsigned_abs() % Self::PER_DOLLAR.unsigned_abs(),
        );
        write!(f, "{}{dollars}.{rest:012}", if self.0 < 0 { "-" } else { "" })
    }
}

/// Tokens to be priced: of one step, or of a turn without reporting steps.
///
/// The cached tokens are parts of the prompt, and those for an hour are part of the cache writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedStep<'a> {
    /// The model that was asked.
    pub model: &'a str,
    /// The model's provider, if the kernel named it.
    pub provider: Option<&'a str>,
    /// When the turn counts in reports: the prices in force then are taken.
    pub at: EpochMillis,
    /// Tokens of the whole prompt.
    pub prompt_tokens: u64,
    /// Tokens that the model wrote.
    pub output_tokens: u64,
    /// Tokens of the prompt that were read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens of the prompt that were written to the cache.
    pub cache_write_tokens: u64,
    /// Those of the cache writes that were for an hour.
    pub cache_write_1h_tokens: u64,
}

/// A source of the prices of models.
pub trait PriceBook: fmt::Debug + Send + Sync {
    /// Returns the price of a step, rounded to a whole pico-dollar. `None` if it has no price for the model.
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars>;

    /// A checksum of everything that a price depends on. Where it is another one, costs are derived anew.
    fn digest(&self) -> u64;

    /// Returns the rates by which a step is priced, for people to read. `None` if the book has no price for the model, or
    /// does not price by rates.
    fn rates(&self, step: &PricedStep<'_>) -> Option<QuotedRates> {
        let _ = step;
        None
    }

    /// The name and the date of the prices, for people to read.
    fn edition(&self) -> Option<PriceEdition> {
        None
    }
}

/// The rates of a model in a price book, in dollars a million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotedRates {
    /// The name under which the model was found.
    pub name: String,
    /// Where it was found: the name of a table.
    pub table: String,
    /// For the tokens of a prompt that neither came from a cache nor went to one.
    pub input: PicoDollars,
    /// For tokens that the model writes.
    pub output: PicoDollars,
    /// For tokens of a prompt that are read from the cache.
    pub cache_read: PicoDollars,
    /// For tokens of a prompt that are written to the cache.
    pub cache_write: PicoDollars,
    /// For those that are written for an hour.
    pub cache_write_1h: PicoDollars,
}

/// The name and the date of the prices in a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceEdition {
    /// The name of the table.
    pub table: String,
    /// Its date, `YYYY-MM-DD`.
    pub date: String,
}

/// A price book that several threads share.
pub type SharedPriceBook = Arc<dyn PriceBook>;

/// The book of an installation without prices: the cost of everything is unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrices;

impl PriceBook for NoPrices {
    fn price(&self, _: &PricedStep<'_>) -> Option<PicoDollars> {
        None
    }

    fn digest(&self) -> u64 {
        0
    }
}

/// What turns cost, as far as it is known. Costs add and subtract exactly, in any order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    priced: PicoDollars,
    priced_parts: i128,
    unpriced_tokens: i128,
    /// The number of parts without a price, for each model.
    unpriced_models: BTreeMap<Label, i128>,
}

impl Cost {
    /// Returns what a turn costs, by the labels of its parts. A part without tokens adds nothing.
    pub fn of_turn(turn: &StoredTurn, book: &(impl PriceBook + ?Sized)) -> Vec<(RollupLabel, Self)> {
        Self::of_parts(&Parts::of(turn), book)
    }

    /// Returns what all parts of a turn cost.
    pub fn total_of_turn(turn: &StoredTurn, book: &(impl PriceBook + ?Sized)) -> Self {
        let mut total = Self::default();
        for (_, cost) in Self::of_turn(turn, book) {
            total.add(&cost);
        }
        total
    }

    /// The same as [`Cost::of_turn`] of a turn that is taken apart already.
    pub(super) fn of_parts(parts: &Parts<'_>, book: &(impl PriceBook + ?Sized)) -> Vec<(RollupLabel, Self)> {
        let mut costs = ByLabel::<Self>::new();
        for part in &parts.tokens {
            let tokens = part.prompt_tokens + i128::from(part.usage.output_tokens.get());
            if tokens == 0 {
                continue;
            }
            let cost = costs.of(parts.label(part.model, part.provider));
            if let Some(price) = price(part, report_time(parts.turn), book) {
                cost.priced.0 += price.0;
                cost.priced_parts += 1;
            } else {
                cost.unpriced_tokens += tokens;
                if let Some(model) = part.model {
                    *cost.unpriced_models.entry(model.clone()).or_default() += 1;
                }
            }
        }
        let beyond_steps = parts.difference.unpriced_tokens();
        if beyond_steps > 0 {
            costs.of(parts.own_label()).unpriced_tokens += beyond_steps;
        }
        costs.into_vec()
    }

    /// Adds another cost.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, 1);
    }

    /// Takes out what was added.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    fn combine(&mut self, other: &Self, sign: i128) {
        let Self { priced, priced_parts, unpriced_tokens, unpriced_models } = other;
        self.priced.0 += sign * priced.0;
        self.priced_parts += sign * priced_parts;
        self.unpriced_tokens += sign * unpriced_tokens;
        for (model, parts) in unpriced_models {
            let known = self.unpriced_models.entry(model.clone()).or_default();
            *known += sign * parts;
            if *known == 0 {
                self.unpriced_models.remove(model);
            }
        }
    }

    /// The sum of what has a price. `None` if there are tokens, but none with a price.
    pub fn usd(&self) -> Option<PicoDollars> {
        (self.priced_parts != 0 || self.unpriced_tokens == 0).then_some(self.priced)
    }

    /// How many tokens of prompts and output have no price.
    pub fn unpriced_tokens(&self) -> i128 {
        self.unpriced_tokens
    }

    /// The models without a price, sorted.
    pub fn unpriced_models(&self) -> impl Iterator<Item = &Label> {
        self.unpriced_models.keys()
    }

    /// The numbers that add up.
    pub(crate) fn numbers(&self) -> [i128; 4] {
        [self.priced.0, self.priced_parts, self.unpriced_tokens, self.unpriced_models.values().sum()]
    }

    /// The cost as reports show it.
    pub fn figures(&self) -> CostFigures {
        CostFigures {
            usd: self.usd(),
            unpriced_tokens: self.unpriced_tokens,
            unpriced_models: self.unpriced_models().cloned().collect(),
        }
    }
}

fn price(part: &TokenPart<'_>, at: EpochMillis, book: &(impl PriceBook + ?Sized)) -> Option<PicoDollars> {
    let cache_write_tokens = part.usage.cache_write_tokens.unwrap_or_default().get();
    book.price(&PricedStep {
        model: part.model?.as_str(),
        provider: part.provider.map(Label::as_str),
        at,
        prompt_tokens: u64::try_from(part.prompt_tokens).ok()?,
        output_tokens: part.usage.output_tokens.get(),
        cache_read_tokens: part.usage.cache_read_tokens.unwrap_or_default().get(),
        cache_write_tokens,
        cache_write_1h_tokens: part.cache_write_1h_tokens.min(cache_write_tokens),
    })
}

/// A cost as reports show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostFigures {
    /// Dollars with 12 places, as a text in JSON. `None` if there are tokens, but none with a price.
    #[serde(serialize_with = "as_text")]
    pub usd: Option<PicoDollars>,
    /// How many tokens of prompts and output have no price.
    pub unpriced_tokens: i128,
    /// The models without a price, sorted.
    pub unpriced_models: Vec<Label>,
}

#[expect(clippy::ref_option, reason = "serde asks for it")]
fn as_text<S: Serializer>(usd: &Option<PicoDollars>, serializer: S) -> Result<S::Ok, S::Error> {
    match usd {
        Some(usd) => serializer.collect_str(usd),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_with_12_places() {
        for (pico_dollars, text) in [
            (0, "0.000000000000"),
            (1, "0.000000000001"),
            (-1, "-0.000000000001"),
            (1_500_000_000_000, "1.500000000000"),
            (-123_000_000_000_045, "-123.000000000045"),
            (i128::MIN, "-170141183460469231731687303.715884105728"),
        ] {
            assert_eq!(PicoDollars::new(pico_dollars).to_string(), text);
        }
    }

    #[test]
    fn a_cost_is_null_when_there_are_tokens_and_none_has_a_price() {
        let json = |cost: &Cost| serde_json::to_string(&cost.figures()).unwrap();
        let mut cost = Cost::default();
        assert_eq!(json(&cost), r#"{"usd":"0.000000000000","unpricedTokens":0,"unpricedModels":[]}"#);
        let unknown =
            Cost { unpriced_tokens: 7, unpriced_models: [("b".into(), 1), ("a".into(), 2)].into(), ..Cost::default() };
        cost.add(&unknown);
        assert_eq!(json(&cost), r#"{"usd":null,"unpricedTokens":7,"unpricedModels":["a","b"]}"#);
        let priced = Cost { priced: PicoDollars::new(2), priced_parts: 1, ..Cost::default() };
        cost.add(&priced);
        assert_eq!(json(&cost), r#"{"usd":"0.000000000002","unpricedTokens":7,"unpricedModels":["a","b"]}"#);
        cost.subtract(&unknown);
        assert_eq!(cost, priced);
    }
}

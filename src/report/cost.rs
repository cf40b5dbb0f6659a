use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::label::RollupLabel;
use super::part::{ByLabel, Parts, TokenPart, report_time};
use super::plausible::is_plausible_sum;
use crate::turn::{EpochMillis, Label, StoredTurn};

/// An amount of money in whole units of 10^-12 US dollars, so that sums are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PicoDollars(i128);

impl PicoDollars {
    /// The number of pico-dollars in a dollar.
    pub const PER_DOLLAR: i128 = 1_000_000_000_000;

    /// Returns an amount of this many pico-dollars.
    pub fn new(pico_dollars: i128) -> Self {
        Self(pico_dollars)
    }

    /// Returns the number of pico-dollars.
    pub fn get(self) -> i128 {
        self.0
    }

    /// Reads dollars with 12 places, the form in which dollars are written.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (dollars, places) = text.split_once('.')?;
        let whole = dollars.strip_prefix('-').unwrap_or(dollars);
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (places.len() == 12 && is_digits(whole) && is_digits(places)).then_some(())?;
        format!("{dollars}{places}").parse().ok().map(Self)
    }
}

/// Writes dollars with 12 decimal places, so nothing is rounded.
impl fmt::Display for PicoDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (
            self.0.unsigned_abs() / Self::PER_DOLLAR.unsigned_abs(),
            self.0.unsigned_abs() % Self::PER_DOLLAR.unsigned_abs(),
        );
        write!(f, "{}{dollars}.{rest:012}", if self.0 < 0 { "-" } else { "" })
    }
}

/// The tokens to price: those of one step, or of a turn whose steps reported none.
///
/// The cached tokens are a part of the prompt. The cache writes for an hour are a part of the cache writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedStep<'a> {
    /// The model that was asked.
    pub model: &'a str,
    /// The model's provider, if the kernel named it.
    pub provider: Option<&'a str>,
    /// The report time of the turn. The prices in force at this time apply.
    pub at: EpochMillis,
    /// Tokens of the whole prompt.
    pub prompt_tokens: u64,
    /// Tokens that the model wrote.
    pub output_tokens: u64,
    /// Tokens of the prompt that were read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens of the prompt that were written to the cache.
    pub cache_write_tokens: u64,
    /// Those tokens of the cache writes that were written for an hour.
    pub cache_write_1h_tokens: u64,
}

/// A source of the prices of models.
pub trait PriceBook: fmt::Debug + Send + Sync {
    /// Returns the price of a step, rounded to a whole pico-dollar. `None` if the book has no price for the model.
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars>;

    /// Returns a checksum of everything that a price depends on. When the checksum changes, costs are computed anew.
    fn digest(&self) -> u64;

    /// Returns the rates that apply to a step, for people to read. `None` if the book has no price for the model, or
    /// does not use rates.
    fn rates(&self, step: &PricedStep<'_>) -> Option<QuotedRates> {
        let _ = step;
        None
    }

    /// Returns the name and the date of the prices, for people to read.
    fn edition(&self) -> Option<PriceEdition> {
        None
    }
}

/// The rates of a model in a price book, in dollars a million tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotedRates {
    /// The name under which the book has the model.
    pub name: String,
    /// The name of the table that has the model.
    pub table: String,
    /// The rate for tokens of a prompt that were neither read from a cache nor written to one.
    pub input: PicoDollars,
    /// The rate for tokens that the model writes.
    pub output: PicoDollars,
    /// The rate for tokens of a prompt that are read from the cache.
    pub cache_read: PicoDollars,
    /// The rate for tokens of a prompt that are written to the cache.
    pub cache_write: PicoDollars,
    /// The rate for tokens of a prompt that are written to the cache for an hour.
    pub cache_write_1h: PicoDollars,
}

/// The name and the date of the prices in a book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PriceEdition {
    /// The name of the table.
    pub table: String,
    /// The date of the table, `YYYY-MM-DD`.
    pub date: String,
}

/// A price book that several threads share.
pub type SharedPriceBook = Arc<dyn PriceBook>;

/// The price book of an installation without prices. It knows no price, so every cost is unknown.
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

/// The cost of turns, as far as prices are known. Costs add exactly, in any order. They subtract exactly as long as no more
/// than [`Self::MAX_UNPRICED_MODELS`] models without a price were added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    priced: PicoDollars,
    /// How much more the priced parts would have cost if nothing had been read from a cache or written to one.
    cache_saved: PicoDollars,
    priced_parts: i128,
    unpriced_tokens: i128,
    /// For each model without a price, the number of parts. Only the first models in the order of their names are kept, so
    /// the order in which they were added does not matter.
    unpriced_models: BTreeMap<Label, i128>,
}

impl Cost {
    /// The maximum number of models without a price that a cost names. Clients choose the names of models, and each step
    /// may have another model.
    pub const MAX_UNPRICED_MODELS: usize = 16;

    /// Returns the cost of a turn, by the labels of its parts. A part without tokens adds nothing.
    pub fn of_turn(turn: &StoredTurn, book: &(impl PriceBook + ?Sized)) -> Vec<(RollupLabel, Self)> {
        Self::of_parts(&Parts::of(turn), book)
    }

    /// Returns the cost of all parts of a turn.
    pub fn total_of_turn(turn: &StoredTurn, book: &(impl PriceBook + ?Sized)) -> Self {
        let mut total = Self::default();
        for (_, cost) in Self::of_turn(turn, book) {
            total.add(&cost);
        }
        total
    }

    /// Like [`Cost::of_turn`], for a turn whose parts are known already.
    pub(super) fn of_parts(parts: &Parts<'_>, book: &(impl PriceBook + ?Sized)) -> Vec<(RollupLabel, Self)> {
        let mut costs = ByLabel::<Self>::new();
        for part in &parts.tokens {
            let tokens = part.prompt_tokens + i128::from(part.usage.output_tokens.get());
            if tokens == 0 {
                continue;
            }
            let cost = costs.of(parts.label(part.model, part.provider));
            if let Some(Price { price, cache_saved }) = price(part, report_time(parts.turn), book) {
                cost.priced.0 += price.0;
                cost.cache_saved.0 += cache_saved.0;
                cost.priced_parts += 1;
            } else {
                cost.unpriced_tokens += tokens;
                if let Some(model) = part.model {
                    cost.add_unpriced(model, 1);
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

    /// Subtracts a cost that was added before.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, -1);
    }

    fn combine(&mut self, other: &Self, sign: i128) {
        let Self { priced, cache_saved, priced_parts, unpriced_tokens, unpriced_models } = other;
        self.priced.0 += sign * priced.0;
        self.cache_saved.0 += sign * cache_saved.0;
        self.priced_parts += sign * priced_parts;
        self.unpriced_tokens += sign * unpriced_tokens;
        for (model, parts) in unpriced_models {
            self.add_unpriced(model, sign * parts);
        }
    }

    /// Returns what has to be added to `before` to make it this cost. No model without a price is taken away: if there are
    /// too many of them, a model may be missing here only because others have taken its place.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = Self { unpriced_models: BTreeMap::new(), ..self.clone() };
        since.combine(&Self { unpriced_models: BTreeMap::new(), ..before.clone() }, -1);
        for (model, parts) in &self.unpriced_models {
            let parts = parts - before.unpriced_models.get(model).copied().unwrap_or_default();
            since.add_unpriced(model, parts.max(0));
        }
        since
    }

    /// Returns whether a cost from outside can be added to others.
    pub(super) fn is_plausible(&self) -> bool {
        let Self { priced, cache_saved, priced_parts, unpriced_tokens, unpriced_models } = self;
        [priced.0, cache_saved.0, *priced_parts, *unpriced_tokens].into_iter().all(is_plausible_sum)
            && unpriced_models.len() <= Self::MAX_UNPRICED_MODELS
            && unpriced_models.iter().all(|(model, parts)| !model.is_cut() && *parts > 0 && is_plausible_sum(*parts))
    }

    /// Adds parts of a model that has no price.
    fn add_unpriced(&mut self, model: &Label, parts: i128) {
        let models = &mut self.unpriced_models;
        if let Some(known) = models.get_mut(model) {
            *known += parts;
            if *known == 0 {
                models.remove(model);
            }
            return;
        }
        let is_full = models.len() >= Self::MAX_UNPRICED_MODELS;
        if parts == 0 || is_full && models.last_key_value().is_some_and(|(last, _)| last < model) {
            return;
        }
        models.insert(model.clone(), parts);
        if is_full {
            models.pop_last();
        }
    }

    /// Returns the sum over the tokens with a price. `None` if there are tokens, but none of them has a price.
    pub fn usd(&self) -> Option<PicoDollars> {
        (self.priced_parts != 0 || self.unpriced_tokens == 0).then_some(self.priced)
    }

    /// Returns how much more the tokens with a price would have cost without a cache. Less than 0 if writing to the cache
    /// cost more than reading from it saved. `None` if no tokens have a price.
    pub fn cache_saved(&self) -> Option<PicoDollars> {
        (self.priced_parts != 0).then_some(self.cache_saved)
    }

    /// Returns how many tokens of prompts and output have no price.
    pub fn unpriced_tokens(&self) -> i128 {
        self.unpriced_tokens
    }

    /// Returns the first models without a price, sorted by name.
    pub fn unpriced_models(&self) -> impl Iterator<Item = &Label> {
        self.unpriced_models.keys()
    }

    /// Returns the numbers that can be added.
    pub(crate) fn numbers(&self) -> [i128; 4] {
        [self.priced.0, self.cache_saved.0, self.priced_parts, self.unpriced_tokens]
    }

    /// Returns the cost as reports show it.
    pub fn figures(&self) -> CostFigures {
        CostFigures {
            usd: self.usd(),
            unpriced_tokens: self.unpriced_tokens,
            unpriced_models: self.unpriced_models().cloned().collect(),
        }
    }
}

/// The price of a part of a turn.
struct Price {
    price: PicoDollars,
    /// How much higher the price of the same tokens is if none of them is cached.
    cache_saved: PicoDollars,
}

fn price(part: &TokenPart<'_>, at: EpochMillis, book: &(impl PriceBook + ?Sized)) -> Option<Price> {
    let cache_write_tokens = part.usage.cache_write_tokens.unwrap_or_default().get();
    let step = PricedStep {
        model: part.model?.as_str(),
        provider: part.provider.map(Label::as_str),
        at,
        prompt_tokens: u64::try_from(part.prompt_tokens).ok()?,
        output_tokens: part.usage.output_tokens.get(),
        cache_read_tokens: part.usage.cache_read_tokens.unwrap_or_default().get(),
        cache_write_tokens,
        cache_write_1h_tokens: part.cache_write_1h_tokens.min(cache_write_tokens),
    };
    let price = book.price(&step)?;
    let uncached = PricedStep { cache_read_tokens: 0, cache_write_tokens: 0, cache_write_1h_tokens: 0, ..step };
    let of_uncached = if step == uncached { price } else { book.price(&uncached).unwrap_or(price) };
    Some(Price { price, cache_saved: PicoDollars(of_uncached.0 - price.0) })
}

/// A cost as reports show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CostFigures {
    /// Dollars with 12 places, as a text in JSON. `None` if there are tokens, but none with a price.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub usd: Option<PicoDollars>,
    /// How many tokens of prompts and output have no price.
    pub unpriced_tokens: i128,
    /// The models without a price, sorted. If there are very many, only the first ones.
    pub unpriced_models: Vec<Label>,
}

#[expect(clippy::ref_option, reason = "serde asks for it")]
pub(crate) fn as_text<S: Serializer>(usd: &Option<PicoDollars>, serializer: S) -> Result<S::Ok, S::Error> {
    match usd {
        Some(usd) => serializer.collect_str(usd),
        None => serializer.serialize_none(),
    }
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PicoDollars>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let amount =
        text.map(|text| PicoDollars::read(&text).ok_or_else(|| de::Error::custom("no dollars with 12 places")));
    amount.transpose()
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
            assert_eq!(PicoDollars::read(text), Some(PicoDollars::new(pico_dollars)));
        }
        for text in [
            "",
            "1",
            "1.5",
            ".000000000000",
            "1.0000000000000",
            "+1.000000000000",
            "1.00000000000x",
            "--1.000000000000",
        ] {
            assert_eq!(PicoDollars::read(text), None, "{text}");
        }
    }

    /// Reading a token from the cache costs 1, writing one 6, and any other token 5 pico-dollars.
    #[derive(Debug)]
    struct CachePrices;

    impl PriceBook for CachePrices {
        fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
            let PricedStep { prompt_tokens, output_tokens, cache_read_tokens, cache_write_tokens, .. } = *step;
            let others = prompt_tokens + output_tokens - cache_read_tokens - cache_write_tokens;
            Some(PicoDollars::new((5 * others + cache_read_tokens + 6 * cache_write_tokens).into()))
        }

        fn digest(&self) -> u64 {
            1
        }
    }

    #[test]
    fn a_cache_saves_what_the_same_tokens_would_cost_without_it() {
        let of = |input: u32, read: Option<u32>, written: Option<u32>| {
            let mut turn = crate::testing::stored_turn("t", 1);
            turn.model = Some("m".into());
            turn.metrics.steps.clear();
            turn.metrics.usage = crate::turn::Usage {
                input_tokens: input.into(),
                output_tokens: 3.into(),
                cache_read_tokens: read.map(Into::into),
                cache_write_tokens: written.map(Into::into),
            };
            Cost::total_of_turn(&turn, &CachePrices)
        };
        for (input, read, written, spent, saved) in [
            (100, Some(60), Some(20), 295, 220),
            // The prompt leaves the cached tokens out.
            (20, Some(60), Some(20), 295, 220),
            // Nothing was read, so the writes were for nothing.
            (100, None, Some(20), 535, -20),
            (100, Some(0), None, 515, 0),
            (100, None, None, 515, 0),
        ] {
            let cost = of(input, read, written);
            let expected = (Some(PicoDollars(spent)), Some(PicoDollars(saved)));
            assert_eq!((cost.usd(), cost.cache_saved()), expected, "{input} {read:?} {written:?}");
        }
        let (one, other) = (of(100, Some(60), Some(20)), of(100, None, Some(20)));
        let mut sum = one.clone();
        sum.add(&other);
        assert_eq!(sum.cache_saved(), Some(PicoDollars(200)));
        sum.subtract(&other);
        assert_eq!(sum, one);
        assert_eq!(Cost::default().cache_saved(), None);
    }

    #[test]
    fn a_cost_is_null_when_there_are_tokens_and_none_has_a_price() {
        let json = |cost: &Cost| {
            let json = serde_json::to_string(&cost.figures()).unwrap();
            assert_eq!(serde_json::from_str::<CostFigures>(&json).unwrap(), cost.figures());
            json
        };
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

    #[test]
    fn of_any_number_of_models_without_a_price_the_first_ones_are_named_in_whatever_order_they_come() {
        let of = |number: usize| {
            let unpriced_models = [(format!("{number:03}").as_str().into(), 1)].into();
            Cost { unpriced_tokens: 5, unpriced_models, ..Cost::default() }
        };
        let sum = |numbers: &mut dyn Iterator<Item = usize>| {
            numbers.fold(Cost::default(), |mut sum, number| {
                sum.add(&of(number));
                sum
            })
        };
        let rising = sum(&mut (0..200).chain(0..200));
        assert_eq!(rising.unpriced_models().count(), Cost::MAX_UNPRICED_MODELS);
        assert!(rising.unpriced_models().map(Label::as_str).eq((0..16).map(|number| format!("{number:03}"))));
        assert_eq!(rising.unpriced_tokens(), 2000);
        assert_eq!(sum(&mut (0..200).rev().chain(0..200)), rising);
        // In parts.
        let mut parts = sum(&mut (0..400).filter(|number| number % 3 == 0).map(|number| number % 200));
        parts.add(&sum(&mut (0..400).filter(|number| number % 3 != 0).map(|number| number % 200)));
        assert_eq!(parts, rising);
    }
}

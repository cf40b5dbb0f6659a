use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use genai_prices::{Calculator, PriceCalculation, PriceRequest, Usage, UsageKey};

use super::digest::digest;
use super::names::Attempt;
use super::rate::{Rate, Rates};
use crate::report::cost::{PicoDollars, PricedStep};

/// The published prices of all known models, from the crate `genai-prices`. They include past prices, tiers, and prices
/// that depend on the time of day.
pub struct PriceData {
    calculator: Source,
    name: String,
    date: String,
    digest: u64,
}

enum Source {
    Bundled,
    Loaded(Box<Calculator>),
}

/// The data is not in the format of `genai-prices`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the prices are not in the format of genai-prices: {0}")]
pub struct InvalidPriceData(#[source] genai_prices::Error);

impl PriceData {
    /// The version of the crate `genai-prices`, which contains the data.
    const VERSION: &str = "0.2.1";
    /// The day on which that version was released.
    const RELEASED: &str = "2026-10-30";

    /// Returns the data that is built into the crate. It is decoded when the first price is looked up. That takes tens
    /// of milliseconds and 20 MB.
    pub fn bundled() -> Self {
        Self {
            calculator: Source::Bundled,
            name: format!("genai-prices {}", Self::VERSION),
            date: Self::RELEASED.to_owned(),
            digest: digest(Self::VERSION.as_bytes()),
        }
    }

    /// Decodes the data that is built into the crate, so that no look-up has to.
    pub(crate) fn decode_bundled() {
        let _ = Calculator::bundled();
    }

    /// Reads newer data from a file in the format of `genai-prices`. Reports show `name` and `date` for it.
    pub fn from_json(json: &[u8], name: &str, date: &str) -> Result<Self, InvalidPriceData> {
        let calculator = Calculator::from_json(json).map_err(InvalidPriceData)?;
        Ok(Self {
            calculator: Source::Loaded(Box::new(calculator)),
            name: name.to_owned(),
            date: date.to_owned(),
            digest: digest(json),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn date(&self) -> &str {
        &self.date
    }

    /// Returns a checksum that changes if the data changes.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn calculate(&self, (provider, model): Attempt<'_>, step: &PricedStep<'_>) -> Option<PriceCalculation> {
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let usage = Usage::from([
            (UsageKey::INPUT_TOKENS, step.prompt_tokens as f64),
            (UsageKey::OUTPUT_TOKENS, step.output_tokens as f64),
            (UsageKey::CACHE_READ_TOKENS, step.cache_read_tokens as f64),
            (UsageKey::CACHE_WRITE_TOKENS, step.cache_write_tokens as f64),
            (UsageKey::CACHE_WRITE_1H_TOKENS, step.cache_write_1h_tokens as f64),
        ]);
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(step.at.get()))?;
        let mut request = PriceRequest::new(model, &usage).with_timestamp(at);
        request.provider_id = provider;
        let calculator: &Calculator = match &self.calculator {
            Source::Bundled => Calculator::bundled(),
            Source::Loaded(calculator) => calculator,
        };
        calculator.calculate(&request).ok()
    }

    /// Returns the price of a step, under the first of the names that has one.
    pub(super) fn price(&self, attempts: &[Attempt<'_>], step: &PricedStep<'_>) -> Option<PicoDollars> {
        let found = attempts.iter().find_map(|attempt| self.calculate(*attempt, step))?;
        // The data lists some models without prices for tokens. Their price is unknown, unless the name says that they
        // are free.
        if found.total_price <= 0.0 && !found.model_id.ends_with(":free") {
            return None;
        }
        // The result is exact far below a pico-dollar for any step. The conversion to an integer saturates.
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Some(PicoDollars::new((found.total_price * 1e12).round() as i128))
    }

    /// Returns the rates for a step, and the name under which the data has the model.
    ///
    /// The crate `genai-prices` returns the price of a whole step, but no rates. So each rate is computed from the
    /// prices of two made-up steps that differ only in tokens of one kind.
    pub(super) fn find(&self, attempts: &[Attempt<'_>], step: &PricedStep<'_>) -> Option<(String, Rates)> {
        let prompt_tokens = step.prompt_tokens.max(1);
        let none = without_tokens(step);
        let attempt = attempts.iter().find(|attempt| self.calculate(**attempt, &none).is_some())?;
        let price = |step: PricedStep<'_>| self.calculate(*attempt, &step);
        let found = price(none)?;
        // The price of a request without tokens.
        let request = found.total_price;
        let prompt = PricedStep { prompt_tokens, ..none };
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let a_million = 1e6 / prompt_tokens as f64;
        let rate = |step| Rate::nearest((price(step)?.total_price - request) * a_million);
        let rates = Rates {
            input: rate(prompt)?,
            output: Rate::nearest(
                price(PricedStep { output_tokens: 1_000_000, ..prompt })?.total_price - price(prompt)?.total_price,
            )?,
            cache_read: rate(PricedStep { cache_read_tokens: prompt_tokens, ..prompt })?,
            cache_write: rate(PricedStep { cache_write_tokens: prompt_tokens, ..prompt })?,
            cache_write_1h: rate(PricedStep {
                cache_write_tokens: prompt_tokens,
                cache_write_1h_tokens: prompt_tokens,
                ..prompt
            })?,
        };
        let is_priced = rates.input != Rate::default() || rates.output != Rate::default();
        let name = format!("{}/{}", found.provider_id, found.model_id);
        (is_priced || found.model_id.ends_with(":free")).then_some((name, rates))
    }
}

/// Returns the same step without tokens.
fn without_tokens<'a>(step: &PricedStep<'a>) -> PricedStep<'a> {
    PricedStep {
        prompt_tokens: 0,
        output_tokens: 0,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        cache_write_1h_tokens: 0,
        ..*step
    }
}

impl fmt::Debug for PriceData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceData").field("name", &self.name).field("date", &self.date).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::EpochMillis;

    /// A constant has the date of the data, so a new version of the crate needs a new date.
    #[test]
    fn the_version_that_is_named_is_the_one_that_is_built_in() {
        let locked = include_str!("../../../Cargo.lock");
        assert!(locked.contains(&format!("name = \"genai-prices\"\nversion = \"{}\"\n", PriceData::VERSION)));
    }

    /// Rates are computed from prices, so check them with another step: its price must be what the rates say.
    #[test]
    fn the_rates_of_each_model_make_its_prices() {
        let data = PriceData::bundled();
        let mut counted = 0;
        let models = Calculator::bundled()
            .providers()
            .flat_map(|provider| provider.models().map(move |model| (provider.id(), model.id())));
        for (provider, model) in models {
            let step = PricedStep {
                model,
                provider: Some(provider),
                at: EpochMillis::new(1_794_000_000_000),
                prompt_tokens: 300_007,
                output_tokens: 1_003,
                cache_read_tokens: 100_011,
                cache_write_tokens: 50_021,
                cache_write_1h_tokens: 10_009,
            };
            let attempts = [(Some(provider), model)];
            let (price, rates) = (data.price(&attempts, &step), data.find(&attempts, &step));
            assert_eq!(price.is_some(), rates.is_some(), "{provider}/{model}");
            let Some((price, (_, rates))) = price.zip(rates) else { continue };
            let none = without_tokens(&step);
            let request = data.price(&attempts, &none).unwrap_or_default();
            let difference = price.get() - request.get() - rates.price(&step).get();
            assert!(difference.abs() <= 2, "{provider}/{model} is {difference} pico-dollars off");
            counted += 1;
        }
        assert!(counted > 1_800, "{counted}");
    }

    #[test]
    fn data_in_another_format_is_refused() {
        for bad in ["", "{}", "[{}]", "[1]"] {
            let error = PriceData::from_json(bad.as_bytes(), "file", "2026-01-01").unwrap_err();
            assert!(error.to_string().starts_with("the prices are not in the format of genai-prices: "), "{error}");
        }
    }
}

//! What a step costs: the prices that the crate `genai-prices` knows, under a table of the operator's own.
//!
//! Each step is priced at the prices in force at the turn's report time, and rounded once to a whole pico-dollar: sums of
//! money are sums of whole numbers. A tier goes by the prompt of the step and applies to the whole step.
//!
//! A kernel's name of a model is a free text. It is looked up in an order that is the same for the table and for the data:
//! as sent, as `provider/model`, by its name alone, and without the date at its end. [`Prices::quote`] returns the name under
//! which it was found.
//!
//! Data that lists a model without prices for tokens does not make it free: its price is unknown. The exception is a name
//! that ends with `:free`.
//!
//! - `data`: the published prices.
//! - `table`: the operator's own prices.
//! - `rate`: the price of a token of each kind, and the tier that a step's prompt chooses.
//! - `names`: the names under which a model is looked up.
//! - `digest`: shows whether any price has changed.
//! - `tests`: prices against ones computed by hand.

mod data;
mod digest;
mod names;
mod rate;
mod table;
#[cfg(test)]
mod tests;

pub use data::{InvalidPriceData, PriceData};
pub use rate::{Rate, Rates};
pub use table::{PriceTable, PriceTableError, PriceTableProblem};

use self::names::attempts;
use super::cost::{PicoDollars, PriceBook, PriceEdition, PricedStep, QuotedRates};

/// The prices of an installation: an operator's table, and the data that is asked where the table has no price.
#[derive(Debug)]
pub struct Prices {
    table: PriceTable,
    data: PriceData,
}

/// Where the rates of a model were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceSource {
    /// In the operator's table.
    Table,
    /// In the data of `genai-prices`.
    Data,
}

/// The rates that are used for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The name of the entry: `provider/model`, or without the provider if the entry is for any.
    pub name: String,
    /// Where the entry was found.
    pub source: PriceSource,
    /// The rates that apply to the whole of the step.
    pub rates: Rates,
}

impl Prices {
    /// Prices from a table, which wins, and from data.
    pub fn new(table: PriceTable, data: PriceData) -> Self {
        Self { table, data }
    }

    /// The name of the data that is asked where the table has no price.
    pub fn data_name(&self) -> &str {
        self.data.name()
    }

    /// The date of that data.
    pub fn data_date(&self) -> &str {
        self.data.date()
    }

    /// Returns the rates that are used for a step, and where they come from. `None` if there are none.
    pub fn quote(&self, step: &PricedStep<'_>) -> Option<Quote> {
        let attempts = attempts(step.model, step.provider);
        if let Some(entry) = self.table.find(&attempts, step) {
            let rates = *entry.rates(step.prompt_tokens);
            return Some(Quote { name: entry.name(), source: PriceSource::Table, rates });
        }
        let (name, rates) = self.data.find(&attempts, step)?;
        Some(Quote { name, source: PriceSource::Data, rates })
    }
}

impl PriceBook for Prices {
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
        let attempts = attempts(step.model, step.provider);
        let in_table = self.table.find(&attempts, step).map(|entry| entry.rates(step.prompt_tokens).price(step));
        in_table.or_else(|| self.data.price(&attempts, step))
    }

    /// A checksum of all prices and of the rules here.
    fn digest(&self) -> u64 {
        /// Counted up when the same prices would make another cost.
        const RULES: u64 = 1;
        let of = [RULES, self.table.digest(), self.data.digest()].map(u64::to_le_bytes);
        digest::digest(of.as_flattened())
    }

    fn rates(&self, step: &PricedStep<'_>) -> Option<QuotedRates> {
        let Quote { name, source, rates } = self.quote(step)?;
        let table = match source {
            PriceSource::Table => "prices.file",
            PriceSource::Data => self.data_name(),
        };
        let dollars = |rate: Rate| PicoDollars::new(rate.get().into());
        Some(QuotedRates {
            name,
            table: table.to_owned(),
            input: dollars(rates.input),
            output: dollars(rates.output),
            cache_read: dollars(rates.cache_read),
            cache_write: dollars(rates.cache_write),
            cache_write_1h: dollars(rates.cache_write_1h),
        })
    }

    /// The published prices, which most models have.
    fn edition(&self) -> Option<PriceEdition> {
        Some(PriceEdition { table: self.data_name().to_owned(), date: self.data_date().to_owned() })
    }
}

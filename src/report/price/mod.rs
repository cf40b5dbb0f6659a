//! The price of a step. An operator's own table comes first, and then the prices that the crate `genai-prices` knows.
//!
//! Each step is priced with the prices that were in force at the turn's report time. The price is rounded once, to a
//! whole pico-dollar, so sums of money are sums of whole numbers. A tier depends on the size of the step's prompt, and
//! applies to the whole step.
//!
//! A kernel may name a model by any text. The table and the data are searched for these names, in this order: the name
//! as sent, `provider/model`, the bare model name, and the same names without the date at their end. [`Prices::quote`]
//! returns the name that was found.
//!
//! If the data lists a model without prices for tokens, the model is not free: its price is unknown. The exception is a
//! name that ends with `:free`.
//!
//! - `data`: the published prices.
//! - `table`: the operator's own prices.
//! - `rate`: the price of tokens of each kind, and the tier that applies to a step's prompt.
//! - `names`: the names under which a model is looked up.
//! - `digest`: the checksum that shows whether any price has changed.
//! - `tests`: compares prices with ones computed by hand.

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

/// The prices of an installation: an operator's table, and the published data for models that the table does not price.
#[derive(Debug)]
pub struct Prices {
    table: PriceTable,
    data: PriceData,
}

/// Where the rates of a model were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceSource {
    /// The rates were found in the operator's table.
    Table,
    /// The rates were found in the data of `genai-prices`.
    Data,
}

/// The rates that are used for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The name of the entry: `provider/model`, or the model alone if the entry is for any provider.
    pub name: String,
    /// Where the entry was found.
    pub source: PriceSource,
    /// The rates that apply to the whole step.
    pub rates: Rates,
}

impl Prices {
    /// Combines a table and data. The table has precedence.
    pub fn new(table: PriceTable, data: PriceData) -> Self {
        Self { table, data }
    }

    /// Returns the name of the data, which is used for models without a price in the table.
    pub fn data_name(&self) -> &str {
        self.data.name()
    }

    /// Returns the date of the data.
    pub fn data_date(&self) -> &str {
        self.data.date()
    }

    /// Returns the rates that apply to a step, and their source. `None` if there are none.
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

    /// Returns a checksum of all prices and of the rules in this code.
    fn digest(&self) -> u64 {
        /// Increase this number when a change of the code changes the cost for the same prices.
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

    /// Returns the edition of the published prices, which apply to most models.
    fn edition(&self) -> Option<PriceEdition> {
        Some(PriceEdition { table: self.data_name().to_owned(), date: self.data_date().to_owned() })
    }
}

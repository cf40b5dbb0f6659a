use super::super::CliError;
use super::super::answers::{Amount, Dollars, PriceAnswer};
use super::super::args::Moment;
use super::super::client::{Client, ClientError, Query};
use super::super::output::plain;
use super::super::table::{Cell, Column};
use super::super::{figures, sheet};
use crate::report::QuotedRates;

/// The price of a model, if it has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Quote(Option<Found>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The name under which the price was found.
    pub(super) name: String,
    /// The table in which it was found.
    pub(super) table: String,
    dollars: Dollars,
}

pub(super) const MODEL: Column = Column::text("model");

/// The columns of a quote.
pub(super) const COLUMNS: [Column; 7] = [
    Column::text("found as"),
    Column::text("in table").left_out(1),
    Column::number("input"),
    Column::number("output"),
    Column::number("cache read").left_out(4),
    Column::number("cache write").left_out(3),
    Column::number("1h write").left_out(2),
];

/// The columns of a quote in a sheet.
pub(super) const SHEET: [&str; 7] =
    ["name", "table", "inputUsd", "outputUsd", "cacheReadUsd", "cacheWriteUsd", "cacheWrite1hUsd"];

impl Quote {
    /// Asks the server. Returns its answer too.
    pub(super) fn ask(
        client: &Client,
        model: &str,
        provider: Option<&str>,
        at: Option<&Moment>,
    ) -> Result<(String, Self), CliError> {
        let at = at.map(Moment::as_str);
        let query = Query::default().with("model", Some(model)).with("provider", provider).with("at", at);
        let answer = client.ask("/prices", &query);
        let flags = [("model", "MODEL"), ("provider", "--provider"), ("at", "--at")];
        let (json, PriceAnswer { name, table, usd_per_million_tokens }) =
            answer.map_err(|error: ClientError| error.about_flags(&flags))?;
        let found = name.zip(table).zip(usd_per_million_tokens);
        Ok((json, Self(found.map(|((name, table), dollars)| Found { name, table, dollars }))))
    }

    /// Returns the quote of a price book on this machine.
    pub(super) fn of(rates: Option<QuotedRates>) -> Self {
        Self(rates.map(|rates| {
            let QuotedRates { name, table, input, output, cache_read, cache_write, cache_write_1h } = rates;
            let [input, output, cache_read, cache_write, cache_write_1h] =
                [input, output, cache_read, cache_write, cache_write_1h].map(Amount);
            Found { name, table, dollars: Dollars { input, output, cache_read, cache_write, cache_write_1h } }
        }))
    }

    pub(super) fn found(&self) -> Option<&Found> {
        self.0.as_ref()
    }

    pub(super) fn cells(&self) -> [Cell; 7] {
        let found = self.found();
        let [input, output, read, write, hour] =
            self.amounts().map(|amount| amount.map_or_else(Cell::unknown, |Amount(usd)| figures::rate(usd)));
        let (name, table) = (text(found.map(|found| &*found.name)), text(found.map(|found| &*found.table)));
        [name, table, input, output, read, write, hour]
    }

    pub(super) fn values(&self) -> [String; 7] {
        let found = self.found();
        let [input, output, read, write, hour] =
            self.amounts().map(|amount| sheet::optional(amount.map(|Amount(usd)| usd)));
        let (name, table) = (found.map(|found| &found.name), found.map(|found| &found.table));
        [sheet::optional(name), sheet::optional(table), input, output, read, write, hour]
    }

    /// The rates, in the order of the columns.
    fn amounts(&self) -> [Option<Amount>; 5] {
        let amount = |of: fn(&Dollars) -> Amount| self.found().map(|found| of(&found.dollars));
        [
            amount(|dollars| dollars.input),
            amount(|dollars| dollars.output),
            amount(|dollars| dollars.cache_read),
            amount(|dollars| dollars.cache_write),
            amount(|dollars| dollars.cache_write_1h),
        ]
    }
}

/// Formats a text from outside. A dash stands for a missing text.
pub(super) fn text(text: Option<&str>) -> Cell {
    text.map_or_else(Cell::unknown, |text| Cell::new(plain(text)))
}

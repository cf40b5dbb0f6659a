use std::collections::HashSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::digest::digest;
use super::names::Attempt;
use super::rate::{Rate, Rates};
use crate::report::cost::PricedStep;

/// Prices that an operator wrote down, in dollars a million tokens.
///
/// ```
/// use turn_metrics::report::price::PriceTable;
///
/// let table = PriceTable::from_toml(
///     r#"
///     [[price]]
///     model = "claude-sonnet-4-5*"   # exact, or a prefix with `*`
///     provider = "anthropic"         # any provider if left out
///     from = 2026-01-01              # in UTC, or a moment; for ever if left out
///     input = 3
///     output = 15
///     cache_read = 0.3               # as input if left out, and so are cache writes
///     cache_write = 3.75
///     cache_write_1h = 6             # as other cache writes if left out
///
///     [[price.tier]]                 # for the whole of a step whose prompt is longer
///     above = 200_000
///     input = 6                      # the others stay as they are
///     output = 22.5
///     "#,
/// )?;
/// # assert!(format!("{table:?}").contains("22"));
/// # Ok::<(), turn_metrics::report::price::PriceTableError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceTable {
    entries: Vec<Entry>,
    digest: u64,
}

/// The reason why a table of prices cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PriceTableError {
    /// The line of the table, from 1.
    pub line: usize,
    /// The mistake in that line.
    pub problem: PriceTableProblem,
}

/// A mistake in a table of prices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PriceTableProblem {
    /// The table is not TOML, or a key is missing or unknown.
    #[error("{0}")]
    Syntax(String),
    /// A price is not a plain decimal number.
    #[error("{0}", super::rate::InvalidRate)]
    Rate,
    /// The model's name has a `*` that is not at its end.
    #[error("`model` is the name of a model, or the beginning of names with a `*` at its end")]
    Pattern,
    /// `from` is neither a date nor a moment.
    #[error("`from` is a date such as 2026-01-31, which begins in UTC, or a moment such as 2026-01-31T12:00:00Z")]
    From,
    /// Two prices are for the same model, provider and time.
    #[error("there is another price for this model, provider and time")]
    Twice,
}

/// The prices of one model, or of several with a prefix in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pattern: Pattern,
    provider: Option<String>,
    /// The moment from which the prices apply, in milliseconds since 1970.
    from: Option<i64>,
    base: Rates,
    /// The tiers, from the lowest limit to the highest.
    tiers: Vec<(u64, Rates)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    price: Vec<Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    model: Spanned<String>,
    provider: Option<String>,
    from: Option<Spanned<Value>>,
    input: Spanned<Value>,
    output: Spanned<Value>,
    cache_read: Option<Spanned<Value>>,
    cache_write: Option<Spanned<Value>>,
    cache_write_1h: Option<Spanned<Value>>,
    #[serde(default)]
    tier: Vec<WrittenTier>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTier {
    above: u64,
    input: Option<Spanned<Value>>,
    output: Option<Spanned<Value>>,
    cache_read: Option<Spanned<Value>>,
    cache_write: Option<Spanned<Value>>,
    cache_write_1h: Option<Spanned<Value>>,
}

/// The text of a table. Spans of TOML values point into it.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn error(&self, at: usize, problem: PriceTableProblem) -> PriceTableError {
        let line = self.0.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        PriceTableError { line, problem }
    }

    /// Returns a value as the table writes it, so that a number never becomes a float. For a string, returns the text
    /// within the quotes.
    fn written(&self, value: &Spanned<Value>) -> String {
        match value.get_ref() {
            Value::String(text) => text.clone(),
            _ => self.0.get(value.span()).unwrap_or_default().replace('_', ""),
        }
    }

    fn rate(&self, value: &Spanned<Value>) -> Result<Rate, PriceTableError> {
        Rate::parse(&self.written(value)).map_err(|_| self.error(value.span().start, PriceTableProblem::Rate))
    }

    fn optional_rate(&self, value: Option<&Spanned<Value>>) -> Result<Option<Rate>, PriceTableError> {
        value.map(|value| self.rate(value)).transpose()
    }

    fn from(&self, value: &Spanned<Value>) -> Result<i64, PriceTableError> {
        let text = self.written(value);
        let day = || text.parse::<Date>().ok()?.to_zoned_datetime(TimeZone::UTC).ok();
        let moment = text.parse::<Timestamp>().ok().or_else(|| Some(day()?.timestamp()));
        let moment = moment.ok_or_else(|| self.error(value.span().start, PriceTableProblem::From))?;
        Ok(moment.as_millisecond())
    }
}

/// Rates as written, of which some may be left out.
#[derive(Clone, Copy)]
struct Stated {
    input: Rate,
    output: Rate,
    cache_read: Option<Rate>,
    cache_write: Option<Rate>,
    cache_write_1h: Option<Rate>,
}

impl Stated {
    fn rates(self) -> Rates {
        let cache_write = self.cache_write.unwrap_or(self.input);
        Rates {
            input: self.input,
            output: self.output,
            cache_read: self.cache_read.unwrap_or(self.input),
            cache_write,
            cache_write_1h: self.cache_write_1h.unwrap_or(cache_write),
        }
    }
}

impl Entry {
    fn read(text: &Text<'_>, written: &Written) -> Result<Self, PriceTableError> {
        let model = written.model.get_ref();
        let pattern = match model.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Exact(model.clone()),
        };
        if model.is_empty() || model.strip_suffix('*').unwrap_or(model).contains('*') {
            return Err(text.error(written.model.span().start, PriceTableProblem::Pattern));
        }
        let base = Stated {
            input: text.rate(&written.input)?,
            output: text.rate(&written.output)?,
            cache_read: text.optional_rate(written.cache_read.as_ref())?,
            cache_write: text.optional_rate(written.cache_write.as_ref())?,
            cache_write_1h: text.optional_rate(written.cache_write_1h.as_ref())?,
        };
        let tier = |tier: &WrittenTier| {
            let stated = Stated {
                input: text.optional_rate(tier.input.as_ref())?.unwrap_or(base.input),
                output: text.optional_rate(tier.output.as_ref())?.unwrap_or(base.output),
                cache_read: text.optional_rate(tier.cache_read.as_ref())?.or(base.cache_read),
                cache_write: text.optional_rate(tier.cache_write.as_ref())?.or(base.cache_write),
                cache_write_1h: text.optional_rate(tier.cache_write_1h.as_ref())?.or(base.cache_write_1h),
            };
            Ok((tier.above, stated.rates()))
        };
        let mut tiers = written.tier.iter().map(tier).collect::<Result<Vec<_>, _>>()?;
        tiers.sort_by_key(|(above, _)| *above);
        let from = written.from.as_ref().map(|from| text.from(from)).transpose()?;
        Ok(Self { pattern, provider: written.provider.clone(), from, base: base.rates(), tiers })
    }

    /// Returns how well the entry fits, to compare entries. A longer pattern is better; then an entry that names the
    /// provider; then the entry with the latest `from`.
    fn fit(&self, (provider, name): Attempt<'_>, at: i64, is_exact: bool) -> Option<(usize, bool, Option<i64>)> {
        let length = match &self.pattern {
            Pattern::Exact(model) if is_exact => (model == name).then_some(model.len()),
            Pattern::Prefix(prefix) if !is_exact => name.starts_with(prefix).then_some(prefix.len()),
            _ => None,
        }?;
        let names_provider = match (&self.provider, provider) {
            (Some(wanted), Some(provider)) => wanted.eq_ignore_ascii_case(provider).then_some(true),
            (Some(_), None) => None,
            (None, _) => Some(false),
        }?;
        (self.from <= Some(at)).then_some((length, names_provider, self.from))
    }

    /// Returns the model's name or prefix, after the provider if the entry names one.
    pub(super) fn name(&self) -> String {
        let model = match &self.pattern {
            Pattern::Exact(model) => model.clone(),
            Pattern::Prefix(prefix) => format!("{prefix}*"),
        };
        self.provider.as_ref().map_or(model.clone(), |provider| format!("{provider}/{model}"))
    }

    /// Returns the rates for a step with a prompt of this many tokens.
    pub(super) fn rates(&self, prompt_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rfind(|(above, _)| prompt_tokens > *above);
        tier.map_or(&self.base, |(_, rates)| rates)
    }
}

impl PriceTable {
    /// Reads a table. Prices are read digit by digit, without a float.
    pub fn from_toml(toml: &str) -> Result<Self, PriceTableError> {
        let text = Text(toml);
        let file: File = toml::from_str(toml).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            text.error(at, PriceTableProblem::Syntax(error.message().to_owned()))
        })?;
        let mut known = HashSet::new();
        let mut entries = Vec::with_capacity(file.price.len());
        for written in &file.price {
            let entry = Entry::read(&text, written.get_ref())?;
            let provider = entry.provider.as_deref().map(str::to_ascii_lowercase);
            if !known.insert((entry.pattern.clone(), provider, entry.from)) {
                return Err(text.error(written.get_ref().model.span().start, PriceTableProblem::Twice));
            }
            entries.push(entry);
        }
        Ok(Self { entries, digest: digest(toml.as_bytes()) })
    }

    /// Returns the best entry for a step. An entry with the exact name is better than one with a prefix, even if it
    /// matches a later one of the names in `attempts`.
    pub(super) fn find(&self, attempts: &[Attempt<'_>], step: &PricedStep<'_>) -> Option<&Entry> {
        let at = step.at.get().try_into().unwrap_or(i64::MAX);
        [true, false].into_iter().find_map(|is_exact| {
            attempts.iter().find_map(|attempt| {
                let fits = self.entries.iter().filter_map(|entry| Some((entry.fit(*attempt, at, is_exact)?, entry)));
                fits.max_by_key(|(fit, _)| *fit).map(|(_, entry)| entry)
            })
        })
    }

    /// Returns the names of the entries, as a quote names them.
    #[cfg(feature = "server")]
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(Entry::name)
    }

    /// Returns a checksum that differs if the text of the table differs.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

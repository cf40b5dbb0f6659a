use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::super::answers::{ReportAnswer, ReportRow};
use super::super::args::{Format, FormatArgs, ServerArgs};
use super::super::client::{Client, Query};
use super::super::output::{self, plain, plain_json};
use super::super::sheet::{self, Sheet};
use super::super::table::{Column, Screen, Table};
use super::super::{CliError, figures, price_book};
use super::quote::{self, Quote, text};
use crate::clock::{Clock, SystemClock};
use crate::report::{PricedStep, SharedPriceBook};
use crate::settings::PriceSettings;
use crate::turn::Label;

/// The exit code if a model has no price.
const UNPRICED: u8 = 3;

/// The whole range of time in which turns may have ended.
const ALWAYS: (&str, &str) = ("1970-01-01", "9998-12-31");

/// Shows for each model with turns on a running server which price it has now, and which have none.
///
/// Tokens are the input and output tokens of all turns of the model, as the kernels reported them. Unpriced are the
/// tokens of whole prompts and outputs that had no price when their turn ended, so they are in no cost. For the other
/// columns see `turn-metrics prices --help`.
///
/// With --file or --data, the prices are those of a server with these files as its `prices.file` and `prices.data`.
/// Without --data they are the built-in published prices, and without --file there are none of one's own. The entries
/// of --file that are for no model here are listed too. Nothing on the server is changed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics prices check
  turn-metrics prices check --file prices.toml
  turn-metrics prices check --json | jq -c 'select(.name == null)'

Exit codes: 0 if every model has a price, 3 if one has none; 1 failed, 2 wrong usage.")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,

    /// Try this file of one's own prices, on this machine
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Try this file of published prices in the format of genai-prices, on this machine
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    #[command(flatten)]
    format: FormatArgs,
}

/// A model with its usage and its price.
struct Checked {
    model: Option<Label>,
    provider: Option<Label>,
    tokens: i128,
    unpriced_tokens: i128,
    quote: Quote,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let settings = PriceSettings { file: args.file.clone(), data: args.data.clone() };
    let is_tried = settings.file.is_some() || settings.data.is_some();
    // Read the file before the server is asked, so that a mistake in the file shows at once.
    let book = is_tried.then(|| price_book::book(&settings)).transpose()?;
    let entries = args.file.as_deref().map(price_book::entries).transpose()?.unwrap_or_default();
    let query = Query::default()
        .with("bucket", Some("all"))
        .with("by", Some("model,provider"))
        .with("tz", Some("UTC"))
        .with("from", Some(ALWAYS.0))
        .with("to", Some(ALWAYS.1));
    let (_, ReportAnswer { rows, .. }) = client.ask("/stats", &query)?;
    let mut checked = Vec::new();
    for row in rows {
        checked.extend(check(&client, book.as_ref(), row)?);
    }
    let unused = unused(entries, &checked);
    let format = args.format.format();
    output::print(&match format {
        Format::Json => lines(&checked)?,
        Format::Csv => sheet(&checked)?,
        Format::Table(screen) => render(&checked, screen),
    })?;
    if let Some(note) = args.file.as_deref().and_then(|file| unused_note(file, &unused)) {
        match format {
            Format::Table(_) => output::print(&(note + "\n"))?,
            // Programs read standard output.
            Format::Json | Format::Csv => output::note(&note),
        }
    }
    let are_all_priced = checked.iter().all(|checked| checked.quote.found().is_some());
    Ok(if are_all_priced { ExitCode::SUCCESS } else { UNPRICED.into() })
}

/// Finds the price of a model in the book, or asks the server if there is no book. Returns `None` if no tokens of the
/// model need a price.
fn check(client: &Client, book: Option<&SharedPriceBook>, row: ReportRow) -> Result<Option<Checked>, CliError> {
    let ReportRow { model, provider, usage, cost, .. } = row;
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    if tokens == 0 && cost.unpriced_tokens == 0 {
        return Ok(None);
    }
    let name = model.as_ref().map(Label::as_str).filter(|name| !name.is_empty());
    let provider_name = provider.as_ref().map(Label::as_str);
    let quote = match (name, book) {
        (None, _) => Quote::default(),
        (Some(model), None) => Quote::ask(client, model, provider_name, None)?.1,
        (Some(model), Some(book)) => Quote::of(book.rates(&PricedStep {
            model,
            provider: provider_name,
            at: SystemClock.now(),
            prompt_tokens: 0,
            output_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
        })),
    };
    Ok(Some(Checked { model, provider, tokens, unpriced_tokens: cost.unpriced_tokens, quote }))
}

/// The entries that price no model.
fn unused(mut entries: Vec<String>, checked: &[Checked]) -> Vec<String> {
    let found = checked.iter().filter_map(|checked| checked.quote.found());
    let used: BTreeSet<_> = found.filter(|found| found.table == "prices.file").map(|found| &found.name).collect();
    entries.retain(|entry| !used.contains(entry));
    entries
}

fn unused_note(file: &Path, unused: &[String]) -> Option<String> {
    let names: Vec<_> = unused.iter().map(|name| plain(name)).collect();
    let file = plain(&file.display().to_string());
    (!names.is_empty()).then(|| format!("Of {file}, these entries are for no model here now: {}", names.join(", ")))
}

fn render(checked: &[Checked], screen: Screen) -> String {
    if checked.is_empty() {
        return "no turn has tokens yet\n".to_owned();
    }
    let columns =
        [quote::MODEL, Column::text("provider").left_out(5), Column::number("tokens"), Column::number("unpriced")];
    let mut table = Table::new(columns.into_iter().chain(quote::COLUMNS));
    for Checked { model, provider, tokens, unpriced_tokens, quote } in checked {
        let cells = [
            text(model.as_ref().map(Label::as_str)),
            text(provider.as_ref().map(Label::as_str)),
            figures::count(*tokens),
            figures::count(*unpriced_tokens),
        ];
        table.row(cells.into_iter().chain(quote.cells()));
    }
    let missing = checked.iter().filter(|checked| checked.quote.found().is_none()).count();
    let verdict = match (checked.len(), missing) {
        (count, 0) => format!("All {count} have a price.\n"),
        (count, missing) => format!("{missing} of {count} have no price.\n"),
    };
    table.render(screen) + &verdict
}

/// A model, as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a Label>,
    tokens: i128,
    unpriced_tokens: i128,
    name: Option<&'a str>,
    table: Option<&'a str>,
}

fn lines(checked: &[Checked]) -> Result<String, CliError> {
    let mut lines = String::new();
    for Checked { model, provider, tokens, unpriced_tokens, quote } in checked {
        let found = quote.found();
        let line = Line {
            model: model.as_ref(),
            provider: provider.as_ref(),
            tokens: *tokens,
            unpriced_tokens: *unpriced_tokens,
            name: found.map(|found| &*found.name),
            table: found.map(|found| &*found.table),
        };
        let json = serde_json::to_string(&line).map_err(|error| CliError::system("write JSON")(error.into()))?;
        lines.extend([plain_json(&json).as_str(), "\n"]);
    }
    Ok(lines)
}

fn sheet(checked: &[Checked]) -> Result<String, CliError> {
    let mut sheet = Sheet::new(["model", "provider", "tokens", "unpricedTokens"].into_iter().chain(quote::SHEET))?;
    for Checked { model, provider, tokens, unpriced_tokens, quote } in checked {
        let values = [
            sheet::optional(model.as_ref().map(Label::as_str)),
            sheet::optional(provider.as_ref().map(Label::as_str)),
            tokens.to_string(),
            unpriced_tokens.to_string(),
        ];
        sheet.row(values.into_iter().chain(quote.values()))?;
    }
    sheet.take()
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Look;
    use super::*;
    use crate::report::{PicoDollars, QuotedRates};

    fn checked(model: &str, name: Option<(&str, &str)>) -> Checked {
        let quote = Quote::of(name.map(|(name, table)| QuotedRates {
            name: name.to_owned(),
            table: table.to_owned(),
            input: PicoDollars::new(3_000_000_000_000),
            output: PicoDollars::new(15_000_000_000_000),
            cache_read: PicoDollars::new(300_000_000_000),
            cache_write: PicoDollars::new(3_750_000_000_000),
            cache_write_1h: PicoDollars::new(6_000_000_000_000),
        }));
        Checked { model: Some(model.into()), provider: None, tokens: 5, unpriced_tokens: 2, quote }
    }

    const WIDE: Screen = Screen { look: Look::Plain, width: None };

    #[test]
    fn each_model_has_its_price_or_a_dash() {
        let all = [checked("own-1", Some(("own-*", "prices.file"))), checked("nobody-knows", None)];
        let expected = "
model         provider  tokens  unpriced  found as  in table     input  output  cache read  cache write  1h write
own-1         -              5         2  own-*     prices.file      3      15         0.3         3.75         6
nobody-knows  -              5         2  -         -                -       -           -            -         -
1 of 2 have no price.
";
        assert_eq!(render(&all, WIDE), expected[1..]);
        assert!(render(&all[..1], WIDE).ends_with("All 1 have a price.\n"));
        assert_eq!(
            lines(&all).unwrap(),
            r#"{"model":"own-1","tokens":5,"unpricedTokens":2,"name":"own-*","table":"prices.file"}
{"model":"nobody-knows","tokens":5,"unpricedTokens":2,"name":null,"table":null}
"#
        );
        assert_eq!(
            sheet(&all).unwrap(),
            "model,provider,tokens,unpricedTokens,name,table,inputUsd,outputUsd,cacheReadUsd,cacheWriteUsd,cacheWrite1hUsd
own-1,,5,2,own-*,prices.file,3.000000000000,15.000000000000,0.300000000000,3.750000000000,6.000000000000
nobody-knows,,5,2,,,,,,,
"
        );
    }

    #[test]
    fn an_entry_is_unused_if_no_model_is_priced_by_it() {
        let all = [checked("a", Some(("own-*", "prices.file"))), checked("b", Some(("typo", "genai-prices 0.2.1")))];
        let entries = ["own-*", "typo"].map(str::to_owned).to_vec();
        assert_eq!(unused(entries, &all), ["typo"]);
        let note = unused_note(Path::new("p.toml"), &["a\u{1b}".to_owned(), "b".to_owned()]).unwrap();
        assert_eq!(note, "Of p.toml, these entries are for no model here now: a\\u{1b}, b");
        assert_eq!(unused_note(Path::new("p.toml"), &[]), None);
    }

    #[test]
    fn nothing_that_was_posted_reaches_the_terminal_raw() {
        let evil = "\u{1b}[2J\u{202e}\r\n\u{9b}";
        let text = render(&[checked(evil, Some((evil, evil)))], WIDE);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
}

//! `turn-metrics prices`: the prices of models.
//!
//! - `quote`: a model and its rates.
//! - `check`: the prices of all models that have turns.

mod check;
mod quote;

use std::process::ExitCode;

use self::quote::Quote;
use super::CliError;
use super::args::{Format, FormatArgs, Moment, ServerArgs};
use super::client::Client;
use super::output::{self, plain_json};
use super::sheet::Sheet;
use super::table::Table;

/// Shows the rates of models: what a running server takes for a million of their tokens.
///
/// Found as is the name under which a price was found: the model is looked up as it was sent, as provider/model, by its
/// name alone, and without the date at its end, first in the operator's own table (`prices.file`), then in the published
/// prices. Rates are in dollars a million tokens, for a short prompt: of the input that was not cached, of the output, of
/// tokens read from the cache, written to it, and written for an hour. A dash stands for a model without a price.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  turn-metrics prices gpt-4o claude-sonnet-4-5-20250929
  turn-metrics prices --provider anthropic --at 2026-01-31 claude-sonnet-4-5
  turn-metrics prices check

--json prints the answer of `GET /prices`, one line for each model. A model that is named `check` comes after `--`."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Models, as a kernel names them
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,

    #[command(flatten)]
    server: ServerArgs,

    /// The provider of the models
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,

    /// The prices at this moment [default: now]
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,

    #[command(flatten)]
    format: FormatArgs,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(check::Args),
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    match &args.command {
        Some(Command::Check(args)) => check::run(args),
        None => quote_models(args),
    }
}

fn quote_models(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let format = args.format.format();
    let (mut lines, mut quotes) = (String::new(), Vec::new());
    for model in &args.models {
        let (json, quote) = Quote::ask(&client, model, args.provider.as_deref(), args.at.as_ref())?;
        lines.extend([plain_json(&json).as_str(), "\n"]);
        quotes.push((model, quote));
    }
    let provider = || args.provider.clone().unwrap_or_default();
    output::print(&match format {
        Format::Json => lines,
        Format::Csv => {
            let mut sheet = Sheet::new(["model", "provider"].into_iter().chain(quote::SHEET))?;
            for (model, quote) in &quotes {
                sheet.row([(*model).clone(), provider()].into_iter().chain(quote.values()))?;
            }
            sheet.take()?
        }
        Format::Table(screen) => {
            let mut table = Table::new([quote::MODEL].into_iter().chain(quote::COLUMNS));
            for (model, quote) in &quotes {
                table.row([quote::text(Some(model))].into_iter().chain(quote.cells()));
            }
            table.render(screen)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

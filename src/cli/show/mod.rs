//! `turn-metrics show`: shows the metrics of a conversation that a server has.
//!
//! - `table`: draws the table.

mod table;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::CliError;
use super::args::ServerUrl;
use super::client::{Client, Page};
use super::output::{self, plain, plain_json};
use crate::terminal::is_color_wanted;
use crate::turn::{ConversationId, StoredTurn};

pub(super) use table::{Look, render};

/// The number of turns that are requested at once.
const PAGE_TURNS: usize = 200;

/// Shows the metrics of a conversation's turns as a table, from a running server.
///
/// Each turn has a row, and each of its steps has a row below it. TTFT is the time to the first token. Decode is the
/// time from the first token to the last. Tok/s is the number of output tokens per second of decode time. A dash stands
/// for a value that was not reported. Times are in milliseconds.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics show my-conversation
  turn-metrics show my-conversation --after 1000 --limit 50
  turn-metrics show my-conversation --json | jq .metrics.usage

On a terminal the table fits its width. In a pipe it is plain text with one row a line.")]
pub(super) struct Args {
    /// The id of the conversation
    conversation: ConversationId,

    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:24210")]
    server: ServerUrl,

    /// Show only turns after the one with this ordinal
    #[arg(long, value_name = "ORDINAL", default_value_t = 0)]
    after: u64,

    /// Show at most this many turns
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,

    /// Print each turn as a line of JSON, as the server returns it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.clone());
    let mut shown = Vec::new();
    let mut after = args.after;
    let mut left = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // Request one turn more than is shown, to know whether there are more turns.
    let more = loop {
        let page = client.turns(&args.conversation, after, left.saturating_add(1).min(PAGE_TURNS))?;
        let Page { mut turns, latest_ordinal } = page;
        // The server may return a short page although more turns follow. Only an empty page is the end.
        if turns.is_empty() || latest_ordinal <= after {
            break false;
        }
        after = latest_ordinal;
        let more = turns.len() > left;
        turns.truncate(left);
        left -= turns.len();
        if args.json {
            print_json(&turns)?;
        } else {
            shown.append(&mut turns);
        }
        if more {
            break true;
        }
    };
    let id = plain(args.conversation.as_str());
    if !args.json && shown.is_empty() {
        let beyond = if args.after == 0 { String::new() } else { format!(" after {}", args.after) };
        output::print(&format!("conversation {id} has no sealed turns{beyond}\n"))?;
    } else if !args.json {
        output::print(&render(&shown, Look::of_stdout()))?;
    }
    if more {
        let last = args.after.saturating_add(args.limit);
        output::note(&format!("there are more turns: show them with --after {last}, or raise --limit"));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(turns: &[StoredTurn]) -> Result<(), CliError> {
    for turn in turns {
        let line = serde_json::to_string(turn).map_err(|error| CliError::system("write JSON")(error.into()))?;
        output::print(&(plain_json(&line) + "\n"))?;
    }
    Ok(())
}

impl Look {
    /// Returns the style that suits standard output.
    pub(super) fn of_stdout() -> Self {
        match io::stdout().is_terminal() {
            true if is_color_wanted() => Self::Styled,
            true => Self::Boxed,
            false => Self::Plain,
        }
    }
}

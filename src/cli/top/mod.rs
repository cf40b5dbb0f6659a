//! `turn-metrics top`: what a server does at this moment.
//!
//! The turns and the figures of minutes come from the server's feed, the sums and the costs from its other answers. No
//! cost is computed here.
//!
//! # Files
//!
//! - `sse`: reads server-sent events. Pure.
//! - `news`: what a server tells.
//! - `minutes`: the turns of the last hour by minutes. Pure.
//! - `sums`: the sums of today and of the last hour.
//! - `board`: the state of the view, folded from the news. Pure.
//! - `sources`: the threads that ask the server.
//! - `screen`: takes the terminal and gives it back.
//! - `draw`: draws the board.
//! - `live`: the live view.
//! - `once`: the sums as a table.
//! - `testing`: news and sums for tests.

mod board;
mod draw;
mod live;
mod minutes;
mod news;
mod once;
mod screen;
mod sources;
mod sse;
mod sums;
#[cfg(test)]
mod testing;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use sums::Sums;

use super::CliError;
use super::args::{ServerArgs, WideArgs};
use super::client::Client;
use super::output;
use crate::report::Zone;
use crate::terminal::takes_escapes;

/// Shows live what a running server takes in: turns being worked on, turns just sealed, tokens and cost.
///
/// The upper part has sums of today and of the last hour, up to now, as a whole and by model. They are those of `report`:
/// cached is the share of the prompts that was read from a cache, TTFT the median of the times to the first token of a
/// step and slowest the longest of them, both in milliseconds, tok/s the median of the output tokens per second.
///
/// Below are tokens and cost of this minute, of the last one, and of a mean minute, by the end of the turns. Minutes
/// before this command began are not known. Then come the turns being worked on, since their first change that was
/// seen, and the turns just sealed. Their cost comes from the server a moment later.
///
/// A dash stands for a value that is not known. A `+` behind a cost means that there are turns or tokens whose cost is
/// not known.
///
/// If the connection is lost, the view says so, connects again, and goes on without a gap. q, Esc or Ctrl-C ends it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics top
  turn-metrics top --server http://metrics.example:24210 --tz Europe/Berlin
  turn-metrics top --once --json | jq -r '.today.rows[0].cost.usd'

The view needs a terminal of 80 columns and 24 rows. In a pipe, and on a terminal that takes no escapes (TERM=dumb), the
sums are printed once, as with --once. --json prints one line: `at`, the moment in milliseconds since 1970, and the
answers of `GET /stats` for `today`, `lastHour` and `lastHourByModel`, which have no row if there is no turn.")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,

    /// Print the sums once and end
    #[arg(long)]
    once: bool,

    /// Print JSON on one line: exact, for status bars and other programs
    #[arg(long, requires = "once")]
    json: bool,

    #[command(flatten)]
    wide: WideArgs,

    /// The zone of the times, and whose day is today [default: the server's]
    #[arg(long, value_name = "ZONE", value_parser = Zone::named)]
    tz: Option<Zone>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (client, server) = (Client::new(args.server.server.clone()), args.server.server.to_string());
    let is_live = !args.once && io::stdout().is_terminal() && io::stdin().is_terminal() && takes_escapes();
    if is_live {
        return live::run(&client, &server, args.tz.as_ref());
    }
    let sums = Sums::ask(&client, args.tz.as_ref())?;
    output::print(&if args.json { sums.json + "\n" } else { once::render(&sums, &server, args.wide.screen()) })?;
    Ok(ExitCode::SUCCESS)
}

//! `turn-metrics show`: the turns of a conversation, from a server.
//!
//! - `table`: draws the table.

mod table;

use std::ops::ControlFlow;
use std::process::ExitCode;

use super::CliError;
use super::answers::{ListedTurn, Page, TurnSoFar};
use super::args::{ServerArgs, WideArgs};
use super::client::{Client, TurnQuestion};
use super::output::{self, plain, plain_json, print_part};
use crate::report::Zone;
use crate::turn::ConversationId;

pub(super) use table::render;

/// The number of turns that are requested at once.
const PAGE_TURNS: usize = 200;

/// Shows the latest turns of a conversation of a running server: tokens, times and cost.
///
/// Each turn has a row, and each of its steps has a row below it. Ended is when the turn ended by its kernel's clock,
/// else when it was sealed. Input tokens are counted as the kernel reported them, which should include cached ones.
/// TTFT is the time to the first token, decode the time from the first token to the last, time the whole of it, and
/// tok/s the output tokens per second of decode time; times are in milliseconds. Cost is in dollars, each step priced
/// at the prices in force when the turn ended; a `+` means that tokens without a price are not in it. A dash stands for
/// a value that is not known. Open turns come after the total and do not count in it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics show my-conversation
  turn-metrics show my-conversation --all --wide
  turn-metrics show my-conversation --after 1000 --limit 50
  turn-metrics show my-conversation --all --json | jq .metrics.usage

Tables fit the terminal, and 80 characters in a pipe. --json prints the sealed turns alone.")]
pub(super) struct Args {
    /// The id of the conversation
    conversation: ConversationId,

    #[command(flatten)]
    server: ServerArgs,

    /// Show all turns
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Show the first turns after the one with this ordinal, instead of the latest
    #[arg(long, value_name = "ORDINAL")]
    after: Option<u64>,

    /// Show at most this many turns
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,

    /// The zone of the times [default: the zone of this system]
    #[arg(long, value_name = "ZONE", value_parser = Zone::named)]
    tz: Option<Zone>,

    /// Print each turn with its cost as a line of JSON, as the server returns it
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    wide: WideArgs,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let is_latest = args.after.is_none() && !args.all;
    let shown = if is_latest { latest(&client, args)? } else { from_the_oldest(&client, args)? };
    let Shown { turns, open, more } = shown;
    let id = plain(args.conversation.as_str());
    if args.json {
        // Nothing is printed after the turns, so it does not matter whether the output was closed.
        let _ = print_json(&turns)?;
    } else if turns.is_empty() && open.is_empty() {
        let beyond = args.after.map(|after| format!(" after {after}")).unwrap_or_default();
        output::print(&format!("conversation {id} has no turns{beyond}\n"))?;
    } else {
        let zone = args.tz.clone().unwrap_or_else(crate::clock::system_time_zone);
        output::print(&render(&turns, &open, &zone, args.wide.screen()))?;
    }
    if let Some(more) = more {
        output::note(&more);
    }
    Ok(ExitCode::SUCCESS)
}

/// The turns of a conversation to show.
struct Shown {
    turns: Vec<ListedTurn>,
    open: Vec<TurnSoFar>,
    /// A note about further turns, if there are any.
    more: Option<String>,
}

/// Reads the latest turns, page by page from the end.
fn latest(client: &Client, args: &Args) -> Result<Shown, CliError> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // One more turn than needed shows whether there are earlier turns.
    let wanted = limit.saturating_add(1);
    let (mut pages, mut count, mut open, mut before) = (Vec::new(), 0, Vec::new(), None);
    while count < wanted {
        let question = TurnQuestion {
            before,
            limit: (wanted - count).min(PAGE_TURNS),
            latest: true,
            open: before.is_none() && !args.json,
            ..TurnQuestion::default()
        };
        let page = client.turns(&args.conversation, question)?;
        if before.is_none() {
            open = page.open;
        }
        // A page that is not full need not be the last page, but an empty page is. A page that does not go back would
        // make the loop endless.
        let first = page.turns.first().map(|first| first.turn.ordinal.get());
        let Some(first) = first.filter(|first| before.is_none_or(|before| *first < before)) else { break };
        count += page.turns.len();
        before = Some(first);
        pages.push(page.turns);
    }
    let turns = pages.into_iter().rev().flatten().skip(count.saturating_sub(limit)).collect();
    let more = "there are earlier turns: show them with --all, or raise --limit".to_owned();
    Ok(Shown { turns, open, more: (count > limit).then_some(more) })
}

/// Reads the turns after an ordinal, page by page. With JSON, each page is printed at once.
fn from_the_oldest(client: &Client, args: &Args) -> Result<Shown, CliError> {
    let first = args.after.unwrap_or(0);
    let (mut shown, mut open, mut after) = (Vec::new(), Vec::new(), first);
    let mut left = if args.all { usize::MAX } else { usize::try_from(args.limit).unwrap_or(usize::MAX) };
    // The ordinal of the last turn that is shown.
    let mut last = first;
    let mut is_more = false;
    while !is_more {
        let limit = left.saturating_add(1).min(PAGE_TURNS);
        let question = TurnQuestion { after, limit, open: !args.json, ..TurnQuestion::default() };
        let Page { mut turns, latest_ordinal, open: open_now } = client.turns(&args.conversation, question)?;
        if turns.is_empty() || latest_ordinal <= after {
            // The open turns at the moment of this answer follow the last sealed turn.
            open = open_now;
            break;
        }
        after = latest_ordinal;
        is_more = turns.len() > left;
        turns.truncate(left);
        left -= turns.len();
        last = turns.last().map_or(last, |turn| turn.turn.ordinal.get());
        if !args.json {
            shown.append(&mut turns);
        } else if print_json(&turns)?.is_break() {
            break;
        }
    }
    let more = format!("there are more turns: show them with --after {last}, or raise --limit");
    Ok(Shown { turns: shown, open, more: is_more.then_some(more) })
}

fn print_json(turns: &[ListedTurn]) -> Result<ControlFlow<()>, CliError> {
    let lines = turns.iter().map(|turn| plain_json(turn.json.get()) + "\n");
    print_part(&lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::testing::{Script, answer};
    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Result<Args, clap::Error> {
        Wrapper::try_parse_from(["show", "c"].iter().chain(flags)).map(|wrapper| wrapper.args)
    }

    /// Returns an answer with the turns from `first` to `last`, and an open turn.
    fn page(first: u64, last: u64) -> Option<String> {
        let turn = |n| {
            format!(
                r#"{{"ordinal":{n},"sealedAt":1,"reason":"stop","metrics":{{"turnId":"t{n}","usage":{{"inputTokens":1,"outputTokens":0}},"steps":[]}},"cost":{{"usd":null,"unpricedTokens":1,"unpricedModels":[]}}}}"#
            )
        };
        let turns: Vec<_> = (first..=last).map(turn).collect();
        let open = r#"[{"turnId":"o","usage":{"inputTokens":1,"outputTokens":0},"steps":[]}]"#;
        answer(200, &format!(r#"{{"open":{open},"turns":[{}],"latestOrdinal":{last}}}"#, turns.join(",")))
    }

    /// Returns the shown turns and the queries of the requests.
    fn shown(flags: &[&str], pages: Vec<Option<String>>) -> (Shown, Vec<String>) {
        let script = Script::play(pages);
        let (client, args) = (Client::new(script.url()), args(flags).unwrap());
        let is_latest = args.after.is_none() && !args.all;
        let shown = if is_latest { latest(&client, &args) } else { from_the_oldest(&client, &args) }.unwrap();
        let query = |request: String| request.lines().next().unwrap().split(['?', ' ']).nth(2).unwrap().to_owned();
        (shown, script.requests().into_iter().map(query).collect())
    }

    fn ordinals(shown: &Shown) -> Vec<u64> {
        shown.turns.iter().map(|listed| listed.turn.ordinal.get()).collect()
    }

    #[test]
    fn by_default_the_latest_twenty_turns_are_shown_from_pages_that_may_be_short() {
        let (shown, queries) = shown(&[], vec![page(31, 40), page(20, 30)]);
        assert_eq!(ordinals(&shown), (21..=40).collect::<Vec<_>>());
        assert!(shown.more.unwrap().starts_with("there are earlier turns"));
        assert_eq!((shown.open.len(), shown.turns[0].cost.is_some()), (1, true));
        assert_eq!(
            queries,
            ["after=0&limit=21&order=latest&cost=true&open=true", "after=0&before=31&limit=11&order=latest&cost=true"]
        );
    }

    #[test]
    fn the_first_page_without_a_turn_is_the_end() {
        let (shown, _) = shown(&["--limit", "5"], vec![page(1, 3), page(1, 0)]);
        assert_eq!((ordinals(&shown), shown.more), (vec![1, 2, 3], None));
        let (none, _) = self::shown(&[], vec![page(1, 0)]);
        assert_eq!((ordinals(&none), none.open.len()), (vec![], 1));
    }

    #[test]
    fn a_server_that_does_not_go_back_is_not_asked_for_ever() {
        let (shown, queries) = shown(&["--limit", "5"], vec![page(1, 3), page(1, 3)]);
        assert_eq!((ordinals(&shown), queries.len()), (vec![1, 2, 3], 2));
    }

    #[test]
    fn all_turns_or_those_after_an_ordinal_are_read_from_the_oldest() {
        let (shown, queries) = shown(&["--all"], vec![page(1, 3), page(4, 4), page(5, 4)]);
        assert_eq!((ordinals(&shown), shown.open.len(), shown.more), (vec![1, 2, 3, 4], 1, None));
        assert_eq!(queries[1], "after=3&limit=200&cost=true&open=true");
        let (shown, queries) = self::shown(&["--after", "7", "--limit", "2"], vec![page(8, 10)]);
        assert_eq!((ordinals(&shown), shown.open.len()), (vec![8, 9], 0));
        assert_eq!(shown.more.unwrap(), "there are more turns: show them with --after 9, or raise --limit");
        assert_eq!(queries, ["after=7&limit=3&cost=true&open=true"]);
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for flags in
            [&["--all", "--limit", "5"][..], &["--limit", "0"], &["--json", "--wide"], &["--tz", "Mars/Olympus"]]
        {
            assert!(args(flags).is_err(), "{flags:?}");
        }
    }
}

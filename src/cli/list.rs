use std::process::ExitCode;

use super::CliError;
use super::answers::{ConversationPage, ListedConversation};
use super::args::{Format, FormatArgs, Moment, ServerArgs};
use super::client::{Client, ClientError, Query};
use super::output::{self, plain, plain_json};
use super::sheet::{self, Sheet};
use super::table::{Cell, Column, Screen, Table};
use super::{figures, output::print_part};
use crate::report::Zone;

/// The maximum number of conversations in one request.
const PAGE_CONVERSATIONS: u64 = 500;

/// Lists the conversations of a running server that have a sealed turn.
///
/// All figures are of the whole life of a conversation. Input tokens are counted as the kernels reported
/// them, which should include cached ones. Cached is the share of the prompts that was read from a cache, over the
/// steps that reported a cache counter. Context is the number of tokens in the model's window after the latest turn.
/// Cost is in dollars, each step priced at the prices in force when its turn ended; a `+` means that tokens without a
/// price are not in it. Last is when the latest turn ended. A dash stands for a value that is not known.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics list
  turn-metrics list --order cost --since 2026-11-01 --limit 5
  turn-metrics list --all --csv > conversations.csv
  turn-metrics list --all --json | jq -r .conversationId

Tables fit the terminal, and 80 characters in a pipe. --json prints a line for each conversation, and --csv has times in
milliseconds since 1970.")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,

    /// By the end of the latest turn, or the most tokens, cost or turns first
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Order::Recent)]
    order: Order,

    /// Only conversations whose latest turn ended at this moment or later
    #[arg(long, value_name = "MOMENT")]
    since: Option<Moment>,

    /// Only conversations whose latest turn ended before this moment
    #[arg(long, value_name = "MOMENT")]
    until: Option<Moment>,

    /// Only conversations whose latest turn asked this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Only conversations whose id begins like this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Show at most this many conversations
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,

    /// Show all conversations
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// The zone of the times and dates [default for times: the zone of this system; for dates: the server's]
    #[arg(long, value_name = "ZONE", value_parser = Zone::named)]
    tz: Option<Zone>,

    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    Recent,
    Tokens,
    Cost,
    Turns,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::Turns => "turns",
        }
    }
}

const SHEET: [&str; 14] = [
    "conversationId",
    "turns",
    "openTurns",
    "inputTokens",
    "outputTokens",
    "cacheReadTokens",
    "cacheWriteTokens",
    "firstAt",
    "lastAt",
    "model",
    "project",
    "contextSize",
    "cacheRate",
    // The columns of a cost follow.
    sheet::COST[0],
];

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let client = Client::new(args.server.server.clone());
    let format = args.format.format();
    let mut sheet = match format {
        Format::Csv => Some(Sheet::new(SHEET.into_iter().chain(sheet::COST.into_iter().skip(1)))?),
        _ => None,
    };
    let mut listed = Vec::new();
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut after = None;
    loop {
        let ConversationPage { conversations, next } = page(&client, args, left, after)?;
        left = left.saturating_sub(conversations.len().try_into().unwrap_or(u64::MAX));
        let mut lines = String::new();
        for json in conversations {
            let read = |json: &str| serde_json::from_str::<ListedConversation>(json);
            let conversation = read(json.get()).map_err(|cause| client.not_understood(cause))?;
            match &mut sheet {
                Some(sheet) => sheet.row(sheet_row(&conversation))?,
                None if format == Format::Json => lines.extend([plain_json(json.get()).as_str(), "\n"]),
                None => listed.push(conversation),
            }
        }
        if let Some(sheet) = &mut sheet {
            lines = sheet.take()?;
        }
        if print_part(&lines)?.is_break() {
            return Ok(ExitCode::SUCCESS);
        }
        after = next;
        if after.is_none() || left == 0 {
            break;
        }
    }
    if let Format::Table(screen) = format {
        let zone = args.tz.clone().unwrap_or_else(crate::clock::system_time_zone);
        output::print(&render(&listed, &zone, screen))?;
    }
    if after.is_some() {
        output::note("there are more conversations: show them with --all, or raise --limit");
    }
    Ok(ExitCode::SUCCESS)
}

fn page(client: &Client, args: &Args, left: u64, after: Option<String>) -> Result<ConversationPage, CliError> {
    // For this question, the server reads dates only in its own zone.
    let moment = |moment: &Option<Moment>| {
        let text = moment.as_ref()?.as_str();
        let of_zone = args.tz.as_ref().and_then(|zone| zone.moment(text));
        Some(of_zone.map_or_else(|| text.to_owned(), |millis| millis.to_string()))
    };
    let query = Query::default()
        .with("order", Some(args.order.name()))
        .with("from", moment(&args.since))
        .with("to", moment(&args.until))
        .with("model", args.model.as_ref())
        .with("prefix", args.prefix.as_ref())
        .with("limit", Some(left.min(PAGE_CONVERSATIONS)))
        .with("after", after);
    let flags = [("from", "--since"), ("to", "--until"), ("model", "--model"), ("prefix", "--prefix")];
    let answer = client.ask("/conversations", &query);
    Ok(answer.map_err(|error: ClientError| error.about_flags(&flags))?.1)
}

fn sheet_row(listed: &ListedConversation) -> Vec<String> {
    let usage = listed.usage;
    let mut row = vec![
        listed.conversation_id.to_string(),
        listed.turns.to_string(),
        listed.open_turns.to_string(),
        usage.input_tokens.to_string(),
        usage.output_tokens.to_string(),
        sheet::optional(usage.cache_read_tokens),
        sheet::optional(usage.cache_write_tokens),
        listed.first_at.get().to_string(),
        listed.last_at.get().to_string(),
        sheet::optional(listed.model.as_ref().map(crate::turn::Label::as_str)),
        sheet::optional(listed.project.as_ref().map(crate::turn::Label::as_str)),
        sheet::optional(listed.context_size),
        sheet::number(listed.cache_rate),
    ];
    row.extend(sheet::cost(&listed.cost));
    row
}

const COLUMNS: [Column; 11] = [
    Column::id("conversation"),
    Column::number("last"),
    Column::number("turns"),
    Column::number("open").left_out(2),
    Column::number("input"),
    Column::number("output"),
    Column::number("cached").left_out(4),
    Column::number("context").left_out(3),
    Column::number("cost $"),
    Column::text("model").left_out(5),
    Column::text("project").left_out(1),
];

fn render(listed: &[ListedConversation], zone: &Zone, screen: Screen) -> String {
    if listed.is_empty() {
        return "no such conversation has a sealed turn\n".to_owned();
    }
    let mut table = Table::new(COLUMNS);
    for conversation in listed {
        let label = |label: &Option<crate::turn::Label>| {
            label.as_ref().map_or_else(Cell::unknown, |label| Cell::new(plain(label.as_str())))
        };
        let usage = conversation.usage;
        table.row([
            Cell::new(plain(conversation.conversation_id.as_str())),
            figures::moment(conversation.last_at.get().try_into().unwrap_or(i64::MAX), zone),
            figures::count(conversation.turns),
            figures::count(conversation.open_turns),
            figures::count(usage.input_tokens.get()),
            figures::count(usage.output_tokens.get()),
            figures::share(conversation.cache_rate),
            figures::optional_count(conversation.context_size.map(crate::turn::TokenCount::get)),
            figures::cost(&conversation.cost),
            label(&conversation.model),
            label(&conversation.project),
        ]);
    }
    let cost = figures::sum_of_costs(listed.iter().map(|listed| &listed.cost));
    table.render(screen) + &figures::unpriced_note(&cost)
}

#[cfg(test)]
mod tests {
    use super::super::table::Look;
    use super::*;

    const LISTED: &str = r#"{"conversationId":"c1","turns":2,"openTurns":1,"usage":{"inputTokens":12345678,"outputTokens":6,"cacheReadTokens":5},"cost":{"usd":"0.050400000000","unpricedTokens":15,"unpricedModels":["m"]},"firstAt":1780000000001,"lastAt":1780000000009,"model":"m","contextSize":15,"cacheRate":0.5}"#;

    #[test]
    fn a_conversation_is_a_row_with_its_figures() {
        let listed: ListedConversation = serde_json::from_str(LISTED).unwrap();
        let screen = Screen { look: Look::Plain, width: None };
        let expected = "
conversation              last  turns  open     input  output  cached  context   cost $  model  project
c1            2026-05-28 20:26      2     1  12345678       6   50.0%       15  0.0504+  m      -
In no cost, as their model has no price or is not known (+): 15 tokens of m.
See `turn-metrics prices check`.
";
        let listed = [listed];
        assert_eq!(render(&listed, &Zone::UTC, screen), expected[1..]);
        assert!(render(&[], &Zone::UTC, screen).starts_with("no such conversation"));
        let narrow = render(&listed, &Zone::UTC, Screen { width: Some(80), ..screen });
        assert!(narrow.contains("05-28 20:26") && narrow.contains("12.3M") && narrow.contains(" m\n"), "{narrow}");
        assert_eq!(
            sheet_row(&listed[0]).join("|"),
            r#"c1|2|1|12345678|6|5||1780000000001|1780000000009|m||15|0.5|0.050400000000|15|["m"]"#
        );
    }

    #[test]
    fn nothing_that_was_posted_reaches_the_terminal_raw() {
        let evil = LISTED.replace(r#""model":"m""#, r#""model":"\u001b[2J\u202e","project":"\r\n\u009b""#);
        let listed: ListedConversation = serde_json::from_str(&evil).unwrap();
        let text = render(&[listed], &Zone::UTC, Screen { look: Look::Plain, width: None });
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
}
